//! Reads and removes dead letters, and retries their items.
//!
//! A letter is known by its number in the chain's stream of dead letters. A number is never used again. [`letter`] parses a
//! letter, [`logs`] finds the log lines about its item, [`ran`] reads all that the item ran with, [`retry`] gives the item new
//! attempts, and [`remove`] removes letters.

mod letter;
mod logs;
mod ran;
mod remove;
mod retry;
mod room;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Client, ClientError, Items, stages};
use crate::broker::letters::Letters;
use crate::broker::scan::Scan;
use crate::broker::stream::Stream;
use crate::broker::streams::ChainStreams;
use crate::dead::FailureKind;
use crate::name::{ChainName, StageName};
use crate::subject;

pub use letter::DeadLetter;
pub(super) use logs::dead_logs;
pub(crate) use ran::RanWith;
pub(super) use remove::drop_dead;
pub(super) use retry::retry_dead;
pub use retry::{Retried, RetryOptions};

/// Requests about single letters that are sent side by side.
const SIDE_BY_SIDE: usize = 64;

/// A filter for dead letters. The default is all.
///
/// ```
/// use pcluster::client::{DeadFilter, FailureKind};
///
/// let mut filter = DeadFilter::default();
/// filter.failure = Some(FailureKind::Timeout);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadFilter {
    /// Letters of this stage.
    pub stage: Option<StageName>,
    /// Letters with this kind of failure.
    pub failure: Option<FailureKind>,
    /// Letters of items that were fed under this id.
    pub id: Option<String>,
    /// Letters that are no older than this.
    pub since: Option<Duration>,
}

/// A selection of dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selection {
    /// The letters with these numbers.
    Numbers(Vec<u64>),
    /// The letters that pass a filter.
    Matching {
        /// The filter.
        filter: DeadFilter,
        /// Limits the selection to this many of the newest letters.
        newest: Option<usize>,
    },
}

impl Selection {
    /// Selects all letters.
    pub fn all() -> Self {
        Self::Matching { filter: DeadFilter::default(), newest: None }
    }
}

impl DeadFilter {
    fn passes(&self, letter: &DeadLetter) -> bool {
        self.failure.is_none_or(|failure| letter.failure == failure.name())
            && self.id.as_ref().is_none_or(|id| letter.was_fed_as(id))
    }
}

pub(super) async fn dead_letters(
    client: &Client,
    chain: &ChainName,
    filter: &DeadFilter,
) -> Result<Items<DeadLetter>, ClientError> {
    client.chain(chain).await?;
    if let Some(stage) = &filter.stage {
        stages::check_stage(client, Some(chain), stage).await?;
    }
    let subjects = match &filter.stage {
        Some(stage) => subject::dead(chain, stage),
        None => subject::dead_all(chain),
    };
    let reader = Stream::of(&client.broker, &subject::dead_stream(chain)).scan(subjects, filter.since).await?;
    Ok(Items::of((reader, filter.clone()), |(mut reader, filter): (Scan, DeadFilter)| async move {
        while let Some(kept) = reader.next_letter().await? {
            let letter = DeadLetter::read(kept);
            if filter.passes(&letter) {
                return Ok(Some((letter, (reader, filter))));
            }
        }
        Ok(None)
    }))
}

pub(super) async fn dead_letter(
    client: &Client,
    chain: &ChainName,
    number: u64,
) -> Result<Option<DeadLetter>, ClientError> {
    let stream = subject::dead_stream(chain);
    let Some(kept) = Stream::of(&client.broker, &stream).message(number).await?.filter(|kept| !kept.is_item_part())
    else {
        return Ok(None);
    };
    Ok(Some(DeadLetter::read(Letters::of(&client.broker, &stream).with_item(kept).await?)))
}

pub(super) async fn dead_numbers(
    client: &Client,
    chain: &ChainName,
    selection: &Selection,
) -> Result<Vec<u64>, ClientError> {
    let (filter, newest) = match selection {
        Selection::Numbers(numbers) => return known(client, chain, numbers).await,
        Selection::Matching { filter, newest } => (filter, newest.unwrap_or(usize::MAX)),
    };
    let mut letters = client.dead_letters(chain, filter).await?;
    let mut numbers = VecDeque::new();
    while let Some(letter) = letters.try_next().await? {
        numbers.push_back(letter.number);
        if numbers.len() > newest {
            numbers.pop_front();
        }
    }
    Ok(numbers.into())
}

/// Checks that letters with these numbers exist.
async fn known(client: &Client, chain: &ChainName, numbers: &[u64]) -> Result<Vec<u64>, ClientError> {
    client.chain(chain).await?;
    let looks = numbers.iter().map(|&number| async move {
        let letter = client.dead_letter(chain, number).await?;
        Ok::<_, ClientError>((number, letter.is_some()))
    });
    let looked: BTreeMap<u64, bool> = stream::iter(looks).buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
    let unknown: Vec<u64> = looked.iter().filter(|(_, known)| !**known).map(|(number, _)| *number).collect();
    if unknown.is_empty() {
        Ok(looked.into_keys().collect())
    } else {
        Err(ClientError::NoLetter { chain: chain.clone(), numbers: unknown })
    }
}

pub(super) async fn dead_by_stage(client: &Client, chain: &ChainName) -> Result<BTreeMap<StageName, u64>, ClientError> {
    client.chain(chain).await?;
    Ok(ChainStreams::of(&client.broker, chain).dead_by_stage().await?)
}
