//! The log lines about the items of dead letters.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use futures_util::TryStreamExt;

use super::DeadLetter;
use crate::broker::follow::StartAt;
use crate::client::{Client, ClientError, LogFilter};
use crate::log::LogRecord;
use crate::name::{ChainName, StageName};

/// The most time to wait for a line that may be gone.
const PATIENCE: Duration = Duration::from_secs(2);

pub(in crate::client) async fn dead_logs(
    client: &Client,
    chain: &ChainName,
    letters: &[DeadLetter],
) -> Result<BTreeMap<u64, Vec<LogRecord>>, ClientError> {
    let mut numbers: HashMap<(String, u64, String), Vec<u64>> = HashMap::new();
    for letter in letters {
        let key = (letter.stage.clone(), letter.revision, letter.item_id());
        numbers.entry(key).or_default().push(letter.number);
    }
    let stages: BTreeSet<StageName> = letters.iter().filter_map(|letter| letter.stage.parse().ok()).collect();
    let mut found: BTreeMap<u64, Vec<LogRecord>> = BTreeMap::new();
    for stage in stages {
        let (chain, stage, from) = (Some(chain.clone()), Some(stage), StartAt::First);
        let filter = LogFilter { chain, stage, from, follow: false, ..LogFilter::default() };
        let mut lines = client.logs(&filter).await?;
        while let Ok(next) = tokio::time::timeout(PATIENCE, lines.try_next()).await {
            let Some(record) = next? else { break };
            let key = (record.stage.clone(), record.revision, record.item.clone());
            for number in numbers.get(&key).into_iter().flatten() {
                found.entry(*number).or_default().push(record.clone());
            }
        }
    }
    Ok(found)
}
