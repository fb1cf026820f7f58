//! Whether the messages that records name are still there.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::json;

use super::super::BrokerError;
use super::super::stream::Stream;
use super::taken::TakenUpTo;
use super::{Holder, LargeStore};
use crate::subject as names;

/// The most messages that may be missing between the first and the last of a stream for the server to name them.
const MOST_MISSING: u64 = 20_000;

/// A stream of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Of {
    Work,
    Results,
    Dead,
}

/// What a stream holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Extent {
    /// Before this place, no message is left.
    first: u64,
    /// The last place that is known.
    last: u64,
    /// The places between them that have no message. `None` if they are too many.
    missing: Option<HashSet<u64>>,
}

/// Tells whether messages are still there, and remembers it.
#[derive(Debug)]
pub(super) struct Places<'a> {
    store: &'a LargeStore,
    taken: TakenUpTo,
    extents: HashMap<Of, Extent>,
    known: HashMap<(Of, u64), bool>,
    /// How many messages were looked up.
    pub(super) looked: usize,
    /// How many results were removed because all who wait for them have taken them.
    pub(super) removed: u64,
}

impl<'a> Places<'a> {
    pub(super) async fn of(store: &'a LargeStore) -> Result<Self, BrokerError> {
        let taken = store.taken().await?;
        Ok(Self { store, taken, extents: HashMap::new(), known: HashMap::new(), looked: 0, removed: 0 })
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
        let has = match self.extent(of).await?.has(place) {
            Some(false) => false,
            has if of == Of::Results => self.has_result(place, has).await?,
            Some(true) => true,
            None => self.look(of, place).await?,
        };
        self.known.insert((of, place), has);
        Ok(has)
    }

    async fn look(&mut self, of: Of, place: u64) -> Result<bool, BrokerError> {
        self.looked += 1;
        Stream::of(&self.store.0.broker, &self.name(of)).has_message(place).await
    }

    /// Returns `true` if there is a result that somebody waits for. One that all have taken is removed.
    async fn has_result(&mut self, place: u64, is_there: Option<bool>) -> Result<bool, BrokerError> {
        if is_there == Some(true) && !self.taken.may_have(place).await? {
            return Ok(true);
        }
        self.looked += 1;
        let is_gone = self.taken.remove(place).await?;
        self.removed += u64::from(is_gone);
        Ok(!is_gone)
    }

    async fn extent(&mut self, of: Of) -> Result<&Extent, BrokerError> {
        let extent = match self.extents.remove(&of) {
            Some(extent) => extent,
            None => Extent::of(self.store, &self.name(of)).await?,
        };
        Ok(self.extents.entry(of).or_insert(extent))
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

impl Extent {
    async fn of(store: &LargeStore, stream: &str) -> Result<Self, BrokerError> {
        #[derive(Deserialize)]
        struct Info {
            state: State,
        }
        #[derive(Deserialize)]
        struct State {
            first_seq: u64,
            last_seq: u64,
            #[serde(default)]
            num_deleted: u64,
            #[serde(default)]
            deleted: Option<Vec<u64>>,
        }
        let info = async |request| {
            let what = || format!("tell what the stream `{stream}` holds");
            let info: Result<Info, _> = store.0.broker.api(format!("STREAM.INFO.{stream}"), &request, what).await;
            info.map(|info| info.state)
        };
        let mut state = match info(json!({})).await {
            // Nothing of a stream that is gone comes back: another one begins beyond its places.
            Err(error) if error.is_not_found() => return Ok(Self { first: u64::MAX, ..Self::default() }),
            state => state?,
        };
        if (1..=MOST_MISSING).contains(&state.num_deleted) {
            state = info(json!({ "deleted_details": true })).await?;
        }
        let missing = state.deleted.unwrap_or_default();
        let is_complete = missing.len() as u64 == state.num_deleted;
        let missing = is_complete.then(|| missing.into_iter().collect());
        Ok(Self { first: state.first_seq, last: state.last_seq, missing })
    }

    /// Returns `true` if there is a message at a place. `None` if that is not known.
    fn has(&self, place: u64) -> Option<bool> {
        if place < self.first {
            return Some(false);
        }
        self.missing.as_ref().filter(|_| place <= self.last).map(|missing| !missing.contains(&place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_there_unless_it_is_missing_or_before_the_first() {
        let some = Extent { first: 3, last: 9, missing: Some(HashSet::from([5])) };
        let told = [2, 3, 5, 9, 10].map(|place| some.has(place));
        assert_eq!(told, [Some(false), Some(true), Some(false), Some(true), None]);
        let many = Extent { missing: None, ..some };
        assert_eq!([2, 3, 10].map(|place| many.has(place)), [Some(false), None, None]);
        let nothing = Extent { first: u64::MAX, ..Extent::default() };
        assert_eq!(nothing.has(7), Some(false));
    }
}
