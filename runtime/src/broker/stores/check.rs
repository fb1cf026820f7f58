//! Checks that granted buckets and object stores exist.

use serde::Deserialize;
use serde_json::json;

use super::super::{Broker, BrokerError};
use super::failure::Place;
use crate::calls::names::{BucketName, StoreName};

/// Returns what is wrong with granted buckets and stores, in words. `None` if all of them can be used.
pub(crate) async fn problem<'a>(
    broker: &Broker,
    buckets: impl IntoIterator<Item = &'a BucketName>,
    stores: impl IntoIterator<Item = &'a StoreName>,
) -> Result<Option<String>, BrokerError> {
    let places = buckets.into_iter().map(Place::Bucket).chain(stores.into_iter().map(Place::Store));
    for place in places {
        if let Some(problem) = problem_of(broker, place).await? {
            return Ok(Some(problem));
        }
    }
    Ok(None)
}

async fn problem_of(broker: &Broker, place: Place<'_>) -> Result<Option<String>, BrokerError> {
    #[derive(Deserialize)]
    struct Info {
        config: Config,
    }
    #[derive(Deserialize)]
    struct Config {
        mirror: Option<Mirror>,
    }
    #[derive(Deserialize)]
    struct Mirror {
        name: String,
    }
    let what = || format!("look up the {place}");
    let found: Result<Info, _> = broker.api(format!("STREAM.INFO.{}", place.stream()), &json!({}), what).await;
    match found {
        Err(error) if error.is_not_found() => Ok(Some(format!("there is no {place}; {}", place.remedy()))),
        Err(error) => Err(error),
        Ok(Info { config: Config { mirror: Some(mirror) } }) => {
            Ok(Some(format!("the {place} is a mirror of the stream `{}`; grant the one that it mirrors", mirror.name)))
        }
        Ok(_) => Ok(None),
    }
}
