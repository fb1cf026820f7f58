//! Reads and removes dead letters, and retries their items.
//!
//! A letter is known by its number in the chain's stream of dead letters. A number is never used again. [`letter`] parses a
//! letter, [`logs`] finds the log lines about its item, and [`retry`] gives the item new attempts.

mod letter;
mod logs;
mod retry;
mod room;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Client, ClientError, Items};
use crate::broker::letters::Letters;
use crate::broker::scan::Scan;
use crate::broker::stream::Stream;
use crate::broker::streams::ChainStreams;
use crate::dead::FailureKind;
use crate::name::{ChainName, StageName};
use crate::subject;

pub use letter::DeadLetter;
pub use retry::Retried;

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

impl Client {
    /// Reads the current dead letters of a chain, oldest first. They stay in the stream.
    ///
    /// # Errors
    ///
    /// If there is no such chain or stage, or the server does not answer.
    pub async fn dead_letters(&self, chain: &ChainName, filter: &DeadFilter) -> Result<Items<DeadLetter>, ClientError> {
        self.chain(chain).await?;
        if let Some(stage) = &filter.stage {
            self.check_stage(Some(chain), stage).await?;
        }
        let subjects = match &filter.stage {
            Some(stage) => subject::dead(chain, stage),
            None => subject::dead_all(chain),
        };
        let reader = Stream::of(&self.broker, &subject::dead_stream(chain)).scan(subjects, filter.since).await?;
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

    /// Returns one dead letter. `None` if no letter has this number.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn dead_letter(&self, chain: &ChainName, number: u64) -> Result<Option<DeadLetter>, ClientError> {
        let stream = subject::dead_stream(chain);
        let Some(kept) = Stream::of(&self.broker, &stream).message(number).await?.filter(|kept| !kept.is_item_part())
        else {
            return Ok(None);
        };
        Ok(Some(DeadLetter::read(Letters::of(&self.broker, &stream).with_item(kept).await?)))
    }

    /// Returns the numbers of the selected letters, in ascending order.
    ///
    /// # Errors
    ///
    /// If there is no such chain, or no letter with one of the numbers.
    pub async fn dead_numbers(&self, chain: &ChainName, selection: &Selection) -> Result<Vec<u64>, ClientError> {
        let (filter, newest) = match selection {
            Selection::Numbers(numbers) => return self.known(chain, numbers).await,
            Selection::Matching { filter, newest } => (filter, newest.unwrap_or(usize::MAX)),
        };
        let mut letters = self.dead_letters(chain, filter).await?;
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
    async fn known(&self, chain: &ChainName, numbers: &[u64]) -> Result<Vec<u64>, ClientError> {
        self.chain(chain).await?;
        let looks = numbers.iter().map(|&number| async move {
            let letter = self.dead_letter(chain, number).await?;
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

    /// Removes dead letters. Returns how many.
    ///
    /// # Errors
    ///
    /// If there is no such chain, no letter with one of the numbers (nothing is removed then), or the server refuses it.
    pub async fn drop_dead(&self, chain: &ChainName, selection: &Selection) -> Result<u64, ClientError> {
        if let Selection::Matching { filter: DeadFilter { stage, failure: None, id: None, since: None }, newest: None } =
            selection
            && (stage.is_none() || !ChainStreams::of(&self.broker, chain).has_item_parts().await?)
        {
            self.chain(chain).await?;
            if let Some(stage) = stage {
                self.check_stage(Some(chain), stage).await?;
            }
            return Ok(ChainStreams::of(&self.broker, chain).purge_dead(stage.as_ref()).await?);
        }
        let numbers = self.dead_numbers(chain, selection).await?;
        self.remove_dead(chain, &numbers).await
    }

    /// Removes letters. Does not count those that another client has removed.
    async fn remove_dead(&self, chain: &ChainName, numbers: &[u64]) -> Result<u64, ClientError> {
        let stream = &subject::dead_stream(chain);
        let has_parts = ChainStreams::of(&self.broker, chain).has_item_parts().await?;
        let removals = numbers.iter().map(|&number| async move {
            if has_parts {
                Letters::of(&self.broker, stream).remove(number).await
            } else {
                Stream::of(&self.broker, stream).remove_message(number).await
            }
        });
        let mut removed = stream::iter(removals).buffer_unordered(SIDE_BY_SIDE);
        let mut count = 0;
        while let Some(removed) = removed.try_next().await? {
            count += u64::from(removed);
        }
        Ok(count)
    }

    /// Returns the number of dead letters of each stage that has any.
    ///
    /// # Errors
    ///
    /// If there is no such chain, or the server does not answer.
    pub async fn dead_by_stage(&self, chain: &ChainName) -> Result<BTreeMap<StageName, u64>, ClientError> {
        self.chain(chain).await?;
        Ok(ChainStreams::of(&self.broker, chain).dead_by_stage().await?)
    }
}
