//! Replicas of streams: raises their number, and waits until they are complete.

use std::time::Duration;

use async_nats::jetstream::stream::ClusterInfo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Broker, BrokerError};
use crate::name::ChainName;
use crate::subject::{self, CHAINS_STREAM, COUNT_STREAM, LOG_STREAM, PLUGINS_STREAM};

/// How long the servers may take to elect the leader of a stream.
const ELECT: Duration = Duration::from_secs(30);
/// How long to wait for new copies to be complete.
const COPY: Duration = Duration::from_secs(10);
/// How often to check.
const LOOK: Duration = Duration::from_millis(100);

/// A stream as the server tells it.
#[derive(Deserialize)]
pub(super) struct Info {
    /// Its configuration.
    pub(super) config: Value,
    /// The servers that hold a stream, and their leader.
    cluster: Option<ClusterInfo>,
}

impl Info {
    fn replicas(&self) -> u64 {
        self.config["num_replicas"].as_u64().unwrap_or(1)
    }

    fn has_leader(&self) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.leader.as_ref().is_some_and(|leader| !leader.is_empty()))
    }

    /// Returns `true` if every connected server with a replica has all of it.
    fn is_copied(&self) -> bool {
        let Some(cluster) = &self.cluster else { return true };
        let copies = cluster.replicas.len() as u64 + 1;
        copies >= self.replicas() && cluster.replicas.iter().all(|peer| peer.current || peer.offline)
    }
}

/// Raises the number of a stream's replicas to at least this. Changes nothing else.
pub(super) async fn raise(broker: &Broker, stream: &str, replicas: u32) -> Result<(), BrokerError> {
    let mut info = stream_info(broker, stream).await?;
    if info.replicas() < replicas.into() {
        info.config["num_replicas"] = json!(replicas);
        let what = || format!("keep {replicas} copies of the stream `{stream}`");
        let _: Value = broker.api(format!("STREAM.UPDATE.{stream}"), &info.config, what).await?;
    }
    Ok(())
}

/// Waits until the streams of a chain, and the shared ones, have leaders.
///
/// Then it waits for a while until all replicas are complete. Returns the streams that are still being copied.
pub async fn copied(broker: &Broker, chain: &ChainName) -> Result<Vec<String>, BrokerError> {
    let shared = [CHAINS_STREAM, PLUGINS_STREAM, COUNT_STREAM, LOG_STREAM].map(str::to_owned);
    let own = [subject::work_stream(chain), subject::results_stream(chain), subject::dead_stream(chain)];
    let started = Instant::now();
    let mut copying = Vec::new();
    for stream in shared.into_iter().chain(own) {
        loop {
            let info = stream_info(broker, &stream).await?;
            if info.has_leader() && info.is_copied() {
                break;
            }
            if info.has_leader() && started.elapsed() > COPY {
                copying.push(stream);
                break;
            }
            if started.elapsed() > ELECT {
                return Err(BrokerError::Timeout(format!("elect a leader of the stream `{stream}`")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(copying)
}

/// Returns the configuration of a stream, and where its copies are.
pub(super) async fn stream_info(broker: &Broker, stream: &str) -> Result<Info, BrokerError> {
    let what = || format!("tell the state of the stream `{stream}`");
    broker.api(format!("STREAM.INFO.{stream}"), &json!({}), what).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(json: Value) -> Info {
        serde_json::from_value(json).expect("the right shape")
    }

    #[test]
    fn a_stream_by_itself_needs_no_leader_and_no_copies() {
        let alone = info(json!({ "config": { "num_replicas": 1 } }));
        assert!(alone.has_leader() && alone.is_copied());
    }

    #[test]
    fn copies_count_when_they_are_complete_and_those_that_are_offline_are_not_waited_for() {
        let with = |replicas: Value| {
            info(json!({ "config": { "num_replicas": 3 }, "cluster": { "leader": "a", "replicas": replicas } }))
        };
        let peer =
            |current: bool, offline: bool| json!({ "name": "b", "active": 1, "current": current, "offline": offline });
        let (complete, behind, offline) = (peer(true, false), peer(false, false), peer(false, true));
        assert!(with(json!([complete, complete])).is_copied());
        assert!(with(json!([complete, offline])).is_copied());
        assert!(!with(json!([complete, behind])).is_copied());
        assert!(!with(json!([complete])).is_copied());
        assert!(!info(json!({ "config": {}, "cluster": {} })).has_leader());
    }
}
