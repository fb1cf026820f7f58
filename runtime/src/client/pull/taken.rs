//! Removes large results that were taken, so that their bytes go.
//!
//! A message of results without references stays for the `max_age` of the results. One with references is removed once all who take
//! results have taken it: it lies below what the consumer of all pullers has acknowledged. What a puller leaves, because it died or
//! because another puller holds an earlier message, the sweep of the nodes removes.

use std::collections::BTreeMap;
use std::sync::Mutex;

use futures_util::future::join_all;

use crate::broker::large::taken::TakenUpTo;
use crate::broker::large::{Holder, LargeError, LargeStore};
use crate::broker::queue::Delivery;
use crate::client::large::references;
use crate::frame::header;
use crate::lock::lock;

/// How many messages are removed side by side.
const SIDE_BY_SIDE: usize = 8;

/// The names of the objects that a message refers to, by its place.
type Messages = BTreeMap<u64, Vec<String>>;

/// Messages with references that this puller has taken.
#[derive(Debug)]
pub(super) struct Removals {
    store: LargeStore,
    messages: Mutex<Messages>,
}

impl Removals {
    pub(super) fn new(store: LargeStore) -> Self {
        Self { store, messages: Mutex::default() }
    }

    /// Returns the store of large items.
    pub(super) fn store(&self) -> &LargeStore {
        &self.store
    }

    /// Notes a message whose results were taken, if it has references.
    pub(super) fn note(&self, delivery: &Delivery) {
        if delivery.header(header::LARGE).is_none() {
            return;
        }
        let references = references(&delivery.headers(), &delivery.payload);
        let names = references.into_iter().map(|(_, reference)| reference.name).collect();
        lock(&self.messages).insert(delivery.sequence, names);
    }

    /// Returns `true` if there is nothing to remove.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.messages).is_empty()
    }

    /// Removes the messages that all have taken, and their objects.
    pub(super) async fn remove(&self) {
        let messages: Vec<_> = std::mem::take(&mut *lock(&self.messages)).into_iter().collect();
        if messages.is_empty() {
            return;
        }
        let share = messages.len().div_ceil(SIDE_BY_SIDE);
        join_all(messages.chunks(share).map(|share| self.remove_share(share))).await;
    }

    /// Removes some of the messages. Those that must stay are noted again, all of the rest after an error.
    async fn remove_share(&self, share: &[(u64, Vec<String>)]) {
        let mut taken = self.store.taken().await.map_err(LargeError::from);
        for (place, names) in share {
            let removed = match &mut taken {
                Ok(taken) => self.remove_one(taken, *place, names).await,
                Err(error) => Err(error.clone()),
            };
            if matches!(removed, Ok(true)) {
                continue;
            }
            lock(&self.messages).insert(*place, names.clone());
            if let Err(error) = removed {
                tracing::debug!(%error, place, "a large result that was taken stays for now");
                taken = Err(error);
            }
        }
    }

    /// Returns `true` if the message is gone.
    async fn remove_one(&self, taken: &mut TakenUpTo, place: u64, names: &[String]) -> Result<bool, LargeError> {
        if !taken.remove(place).await? {
            return Ok(false);
        }
        for name in names {
            self.store.release(name, Holder::Result(place)).await?;
        }
        Ok(true)
    }
}
