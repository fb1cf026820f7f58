//! Makes granted buckets and object stores, as the `nats` command does.

use serde_json::{Value, json};

use super::super::{Broker, BrokerError};
use super::failure::Place;
use crate::calls::names::{BucketName, StoreName};

/// Makes the buckets and stores that are not there. Returns what was made, in words.
pub(crate) async fn missing<'a>(
    broker: &Broker,
    buckets: impl IntoIterator<Item = &'a BucketName>,
    stores: impl IntoIterator<Item = &'a StoreName>,
) -> Result<Vec<String>, BrokerError> {
    let mut made = Vec::new();
    let places = buckets.into_iter().map(Place::Bucket).chain(stores.into_iter().map(Place::Store));
    for place in places {
        let what = || format!("look up the {place}");
        match broker.api::<Value>(format!("STREAM.INFO.{}", place.stream()), &json!({}), what).await {
            Err(error) if error.is_not_found() => {}
            found => {
                found?;
                continue;
            }
        }
        let config = config(place);
        let what = || format!("make the {place}");
        let _: Value = broker.api(format!("STREAM.CREATE.{}", place.stream()), &config, what).await?;
        made.push(place.to_string());
    }
    Ok(made)
}

/// Returns the stream of a bucket or store, with the settings that `nats kv add --ttl-markers` and `nats object add` give it.
fn config(place: Place<'_>) -> Value {
    let name = place.stream();
    match place {
        Place::Bucket(bucket) => json!({
            "name": name, "subjects": [format!("$KV.{bucket}.>")], "max_msgs_per_subject": 1, "discard": "new",
            "allow_rollup_hdrs": true, "deny_delete": true, "allow_direct": true, "storage": "file", "num_replicas": 1,
            "allow_msg_ttl": true, "subject_delete_marker_ttl": 60_000_000_000_u64,
        }),
        Place::Store(store) => json!({
            "name": name, "subjects": [format!("$O.{store}.C.>"), format!("$O.{store}.M.>")], "discard": "new",
            "allow_rollup_hdrs": true, "allow_direct": true, "storage": "file", "num_replicas": 1,
        }),
    }
}
