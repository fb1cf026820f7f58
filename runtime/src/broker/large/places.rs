//! Whether the messages that records name are still there.

use std::collections::HashMap;

use super::super::BrokerError;
use super::super::stream::Stream;
use super::taken::TakenUpTo;
use super::{Holder, LargeStore};
use crate::subject as names;

/// A stream of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Of {
    Work,
    Results,
    Dead,
}

/// Tells whether messages are still there, and remembers it.
#[derive(Debug)]
pub(super) struct Places<'a> {
    store: &'a LargeStore,
    taken: TakenUpTo,
    /// Before these places, no message is left.
    first: HashMap<Of, u64>,
    known: HashMap<(Of, u64), bool>,
    /// How many messages were looked up.
    pub(super) looked: usize,
    /// How many results were removed because all who wait for them have taken them.
    pub(super) removed: u64,
}

impl<'a> Places<'a> {
    pub(super) async fn of(store: &'a LargeStore) -> Result<Self, BrokerError> {
        let taken = store.taken().await?;
        Ok(Self { store, taken, first: HashMap::new(), known: HashMap::new(), looked: 0, removed: 0 })
    }

    /// Returns `true` if a holder may still be there.
    pub(super) async fn has(&mut self, holder: Holder) -> Result<bool, BrokerError> {
        let (of, place) = match holder {
            Holder::Lease(_) => return Ok(true),
            Holder::Making(place) | Holder::Work(place) => (Of::Work, place),
            Holder::Result(place) => (Of::Results, place),
            Holder::Dead(place) => (Of::Dead, place),
        };
        if let Some(known) = self.known.get(&(of, place)) {
            return Ok(*known);
        }
        let has = place >= self.first(of).await? && self.look(of, place).await?;
        self.known.insert((of, place), has);
        Ok(has)
    }

    async fn look(&mut self, of: Of, place: u64) -> Result<bool, BrokerError> {
        self.looked += 1;
        if of == Of::Results && self.taken.remove(place).await? {
            self.removed += 1;
            return Ok(false);
        }
        Stream::of(&self.store.0.broker, &self.name(of)).has_message(place).await
    }

    async fn first(&mut self, of: Of) -> Result<u64, BrokerError> {
        if let Some(first) = self.first.get(&of) {
            return Ok(*first);
        }
        let first = match Stream::of(&self.store.0.broker, &self.name(of)).state(None).await {
            Ok(state) => state.state.first_seq,
            // Nothing of a stream that is gone comes back: another one begins beyond its places.
            Err(error) if error.is_not_found() => u64::MAX,
            Err(error) => return Err(error),
        };
        self.first.insert(of, first);
        Ok(first)
    }

    fn name(&self, of: Of) -> String {
        let chain = &self.store.0.chain;
        match of {
            Of::Work => names::work_stream(chain),
            Of::Results => names::results_stream(chain),
            Of::Dead => names::dead_stream(chain),
        }
    }
}
