//! Objects with records that may be dropped, once no message without a record names them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::super::super::BrokerError;
use super::super::super::stream::Stream;
use super::super::{Holder, LargeStore};
use super::removal::Removal;
use super::{SIDE_BY_SIDE, Swept};
use crate::frame::large::names_in;
use crate::subject as names;

/// How far the clocks of two servers may differ.
const SKEW: Duration = Duration::from_mins(1);

/// An object with stale records, or without any.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) name: String,
    /// The subjects of its stale records.
    pub(super) stale: Vec<String>,
    /// How long ago it was stored. Zero if nothing of it is.
    pub(super) age: Duration,
    /// `true` if it has no other records.
    pub(super) is_free: bool,
    /// `true` if a message without a record names it.
    pub(super) is_named: bool,
}

/// Writes the missing records of these objects, drops the stale ones, and removes what no message names.
pub(super) async fn settle(store: &LargeStore, candidates: Vec<Candidate>) -> Result<Swept, BrokerError> {
    let mut candidates: BTreeMap<String, Candidate> =
        candidates.into_iter().map(|candidate| (candidate.name.clone(), candidate)).collect();
    record_named(store, &mut candidates).await?;
    let settled = stream::iter(candidates.into_values().map(|candidate| candidate.settle(store)));
    let add = async |all: Swept, one: Swept| {
        Ok(Swept { objects: all.objects + one.objects, records: all.records + one.records, ..all })
    };
    settled.buffer_unordered(SIDE_BY_SIDE).try_fold(Swept::default(), add).await
}

impl Candidate {
    async fn settle(self, store: &LargeStore) -> Result<Swept, BrokerError> {
        let mut swept = Swept::default();
        if !self.is_free || self.is_named {
            for record in &self.stale {
                swept.records += store.stream().purge(Some(record)).await?;
            }
        } else if let Some(removal) = Removal::begin(store, &self.name, &self.stale).await? {
            swept.objects = u64::from(removal.finish().await?);
        }
        Ok(swept)
    }
}

/// Writes the records of messages that name these objects and have none.
///
/// Such messages are those of clients that write no records, and those of a node that died right after it had stored them, in
/// whatever queue, and among results and dead letters. No message is older than an object that a node made for it, and those of
/// other clients are in queues.
async fn record_named(store: &LargeStore, candidates: &mut BTreeMap<String, Candidate>) -> Result<(), BrokerError> {
    let chain = &store.0.chain;
    record_named_in(store, &names::work_stream(chain), None, Holder::Work, candidates).await?;
    let oldest = candidates.values().map(|candidate| candidate.age).max().unwrap_or_default();
    if oldest.is_zero() {
        return Ok(());
    }
    let since = Some(oldest + SKEW);
    record_named_in(store, &names::results_stream(chain), since, Holder::Result, candidates).await?;
    record_named_in(store, &names::dead_stream(chain), since, Holder::Dead, candidates).await
}

async fn record_named_in(
    store: &LargeStore,
    stream: &str,
    since: Option<Duration>,
    holder: fn(u64) -> Holder,
    candidates: &mut BTreeMap<String, Candidate>,
) -> Result<(), BrokerError> {
    if candidates.is_empty() {
        return Ok(());
    }
    let mut scan = match Stream::of(&store.0.broker, stream).scan(">".to_owned(), since).await {
        Err(error) if error.is_not_found() => return Ok(()),
        scan => scan?,
    };
    let mut missing = Vec::new();
    while let Some(message) = scan.next().await? {
        for name in names_in(&message.headers, &message.payload) {
            let Some(candidate) = candidates.get_mut(&name) else { continue };
            candidate.is_named = true;
            missing.push((name, holder(message.sequence)));
        }
    }
    let writes = missing.into_iter().map(|(name, holder)| async move { store.write_record(&name, holder).await });
    stream::iter(writes).buffer_unordered(SIDE_BY_SIDE).try_collect().await
}
