//! Removes dead letters, and the bytes of their large items.

use futures_util::{StreamExt, stream};

use super::{DeadFilter, SIDE_BY_SIDE, Selection};
use crate::broker::large::{Holder, LargeStore};
use crate::broker::letters::Letters;
use crate::broker::stream::Stream;
use crate::broker::streams::ChainStreams;
use crate::client::large::{LargeItems, references};
use crate::client::{Client, ClientError, stages};
use crate::name::ChainName;
use crate::subject;

pub(in crate::client) async fn drop_dead(
    client: &Client,
    chain: &ChainName,
    selection: &Selection,
) -> Result<u64, ClientError> {
    let letters = Removal::of(client, chain).await?;
    if let Selection::Matching { filter: DeadFilter { stage, failure: None, id: None, since: None }, newest: None } =
        selection
        && letters.large.is_none()
        && (stage.is_none() || !letters.has_parts)
    {
        if let Some(stage) = stage {
            stages::check_stage(client, Some(chain), stage).await?;
        }
        return Ok(ChainStreams::of(&client.broker, chain).purge_dead(stage.as_ref()).await?);
    }
    let numbers = client.dead_numbers(chain, selection).await?;
    letters.remove(&numbers).await
}

/// Removes letters of one chain.
pub(super) struct Removal<'a> {
    client: &'a Client,
    stream: String,
    /// `true` if the item of any letter is in messages of its own.
    has_parts: bool,
    /// The store of large items, if there are any.
    large: Option<LargeStore>,
}

impl<'a> Removal<'a> {
    pub(super) async fn of(client: &'a Client, chain: &ChainName) -> Result<Self, ClientError> {
        let LargeItems { store, .. } = LargeItems::of(client, chain).await?;
        let has_large = store.usage().await?.objects > 0;
        let has_parts = ChainStreams::of(&client.broker, chain).has_item_parts().await?;
        Ok(Self { client, stream: subject::dead_stream(chain), has_parts, large: has_large.then_some(store) })
    }

    /// Removes letters. Does not count those that another client has removed.
    pub(super) async fn remove(&self, numbers: &[u64]) -> Result<u64, ClientError> {
        let removals: Vec<_> = numbers.iter().map(|&number| self.remove_one(number)).collect();
        let mut removed = stream::iter(removals).buffer_unordered(SIDE_BY_SIDE);
        let mut count = 0;
        while let Some(removed) = removed.next().await {
            count += u64::from(removed?);
        }
        Ok(count)
    }

    async fn remove_one(&self, number: u64) -> Result<bool, ClientError> {
        let (broker, stream) = (&self.client.broker, &self.stream);
        let letter = match &self.large {
            Some(_) => Stream::of(broker, stream).message(number).await?,
            None => None,
        };
        let was_there = if self.has_parts {
            Letters::of(broker, stream).remove(number).await?
        } else {
            Stream::of(broker, stream).remove_message(number).await?
        };
        if let (Some(store), Some(letter)) = (&self.large, letter) {
            for (_, reference) in references(&letter.headers, &letter.payload) {
                store.release(&reference.name, Holder::Dead(number)).await?;
            }
        }
        Ok(was_there)
    }
}
