//! Makes a stream forget the ids of its stored messages.
//!
//! A purge does not: the server remembers ids for the duplicate window, even those of removed messages.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Broker, BrokerError};
use crate::name::ChainName;
use crate::subject;

/// The shortest window that the server accepts.
const WINDOW: Duration = Duration::from_millis(100);
/// After this long, the server has forgotten all ids: it checks at the latest 50 ms after the window.
const FORGOTTEN: Duration = Duration::from_millis(300);
/// How often to begin again after another client has changed the window.
const TRIES: usize = 5;

/// Makes a chain's work stream forget all message ids, and closes its intake.
///
/// The window is then as short as it can be. The caller must make the stream agree with the chain's state again.
pub async fn forget_ids(broker: &Broker, chain: &ChainName) -> Result<(), BrokerError> {
    #[derive(Deserialize)]
    struct Info {
        config: Value,
    }
    let (stream, intake) = (subject::work_stream(chain), subject::intake(chain));
    let what = || format!("make the stream `{stream}` forget the ids of items");
    let window = json!(u64::try_from(WINDOW.as_nanos()).unwrap_or(u64::MAX));
    for tried in 0..TRIES {
        let info: Result<Info, _> = broker.api(format!("STREAM.INFO.{stream}"), &(), what).await;
        let mut config = match info {
            Ok(info) => info.config,
            // A new stream knows no ids.
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        if tried > 0 && config["duplicate_window"] == window {
            break;
        }
        if let Some(subjects) = config["subjects"].as_array_mut() {
            subjects.retain(|each| each != &json!(intake));
        }
        if let Some(config) = config.as_object_mut() {
            config.remove("subject_transform");
        }
        config["duplicate_window"].clone_from(&window);
        let _: Value = broker.api(format!("STREAM.UPDATE.{stream}"), &config, what).await?;
        // A node that arranges the stream meanwhile restores the window, and the ids stay.
        tokio::time::sleep(FORGOTTEN).await;
    }
    Ok(())
}
