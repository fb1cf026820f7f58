//! Leases: what a living client refers to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use futures_util::{StreamExt as _, stream};
use tokio::task::JoinHandle;
use ulid::Ulid;

use super::records::LEASE;
use super::{Holder, LargeError, LargeStore};
use crate::broker::BrokerError;
use crate::lock::lock;

/// How often a lease is renewed. The server removes its records a minute after the last renewal.
const RENEW: Duration = Duration::from_secs(20);
/// How long after the last renewal nothing can have removed what is held.
const FRESH: Duration = Duration::from_secs(45);
/// How many records are renewed side by side.
const SIDE_BY_SIDE: usize = 16;

/// What a living client refers to.
///
/// It renews its records until it is dropped; then the server removes them within a minute, and the sweep the objects.
#[derive(Debug)]
pub(crate) struct Lease {
    store: LargeStore,
    id: Ulid,
    names: Arc<Names>,
    renewing: JoinHandle<()>,
}

/// The names that a lease holds.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<BTreeMap<String, Held>>);

/// A name that a lease holds.
#[derive(Debug, Default)]
struct Held {
    /// Locked while its record is written. What removes the record waits for it, so that no renewal comes behind.
    gate: Gate,
    /// When the last record that was answered for was sent. `None` before the first.
    sent: Option<Moment>,
    /// `true` once the record may have run out between two renewals. Then the object may have been removed, and only its owner knows
    /// what to do.
    is_lapsed: bool,
}

/// Permits one request about a name at a time.
type Gate = Arc<tokio::sync::Mutex<()>>;

/// A time by two clocks. One stands still while the machine sleeps, the other may be set.
#[derive(Debug, Clone, Copy)]
struct Moment {
    running: Instant,
    wall: SystemTime,
}

impl LargeStore {
    /// Returns a lease that holds nothing yet.
    pub(crate) fn lease(&self) -> Lease {
        let (store, id, names) = (self.clone(), Ulid::generate(), Arc::<Names>::default());
        let renewing = tokio::spawn(renew(store.clone(), Holder::Lease(id), Arc::clone(&names)));
        Lease { store, id, names, renewing }
    }
}

impl Lease {
    /// Returns the holder of its records.
    pub(crate) fn holder(&self) -> Holder {
        Holder::Lease(self.id)
    }

    /// Holds an object, or holds it anew.
    ///
    /// If it was not fresh before, the object may be gone: [`LargeStore::has`] tells.
    pub(crate) async fn hold(&self, name: &str) -> Result<(), LargeError> {
        lock(&self.names.0).entry(name.to_owned()).or_default();
        let write = || self.names.write(&self.store, self.holder(), name, false);
        insist!(&self.store, "record what refers to a large item", write())?;
        Ok(())
    }

    /// Returns `true` if the object was held without a break until now, and a while longer.
    ///
    /// `false` if the lease may have run out since [`Lease::hold`], for example because the machine slept or was cut off.
    pub(crate) fn is_fresh(&self, name: &str) -> bool {
        lock(&self.names.0).get(name).is_some_and(|held| held.is_fresh(Moment::now()))
    }

    /// Lets an object go. If nothing else holds it, it is removed.
    pub(crate) async fn release(&self, name: &str) -> Result<(), LargeError> {
        self.names.take_out(name).await;
        self.store.release(name, self.holder()).await
    }

    /// Renews the record of an object no more. If nothing else holds it, the sweep removes it later.
    pub(crate) fn forget(&self, name: &str) {
        lock(&self.names.0).remove(name);
    }

    /// Lets all objects go.
    pub(crate) async fn end(self) -> Result<(), LargeError> {
        let names: Vec<String> = lock(&self.names.0).keys().cloned().collect();
        for name in names {
            self.release(&name).await?;
        }
        Ok(())
    }

    /// Returns the names, for what outlives the lease.
    pub(super) fn names(&self) -> Arc<Names> {
        Arc::clone(&self.names)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

impl Names {
    /// Takes a name out. Afterwards no renewal writes its record.
    pub(super) async fn take_out(&self, name: &str) {
        let held = lock(&self.0).remove(name);
        if let Some(held) = held {
            drop(held.gate.lock().await);
        }
    }

    /// Writes the record of a name, unless it was taken out.
    async fn write(&self, store: &LargeStore, holder: Holder, name: &str, is_renewal: bool) -> Result<(), BrokerError> {
        let gate = lock(&self.0).get(name).map(|held| Arc::clone(&held.gate));
        let Some(gate) = gate else { return Ok(()) };
        let _alone = gate.lock().await;
        if !lock(&self.0).contains_key(name) {
            return Ok(());
        }
        let sent = Moment::now();
        store.write_record(name, holder).await?;
        if let Some(held) = lock(&self.0).get_mut(name) {
            held.note(sent, Moment::now(), is_renewal);
        }
        Ok(())
    }

    /// Returns the names with a record.
    fn recorded(&self) -> Vec<String> {
        lock(&self.0).iter().filter(|(_, held)| held.sent.is_some()).map(|(name, _)| name.clone()).collect()
    }
}

impl Held {
    /// Notes that a record is stored. It was stored between two moments.
    fn note(&mut self, sent: Moment, answered: Moment, is_renewal: bool) {
        self.is_lapsed = is_renewal && (self.is_lapsed || !self.is_within(answered, LEASE));
        self.sent = Some(sent);
    }

    fn is_fresh(&self, now: Moment) -> bool {
        !self.is_lapsed && self.is_within(now, FRESH)
    }

    /// Returns `true` if the last record was sent no longer ago than this.
    fn is_within(&self, now: Moment, time: Duration) -> bool {
        self.sent.is_some_and(|sent| {
            let by_wall = now.wall.duration_since(sent.wall);
            now.running.duration_since(sent.running) < time && by_wall.is_ok_and(|by_wall| by_wall < time)
        })
    }
}

impl Moment {
    fn now() -> Self {
        Self { running: Instant::now(), wall: SystemTime::now() }
    }
}

/// Renews the records of a lease for ever.
async fn renew(store: LargeStore, holder: Holder, names: Arc<Names>) {
    loop {
        tokio::time::sleep(RENEW).await;
        let renewed = stream::iter(names.recorded()).for_each_concurrent(SIDE_BY_SIDE, async |name| {
            if let Err(error) = names.write(&store, holder, &name, true).await {
                tracing::debug!(%error, name, "a lease was not renewed");
            }
        });
        renewed.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Moment, running: u64, wall: u64) -> Moment {
        let after = |seconds| Duration::from_secs(seconds);
        Moment { running: start.running + after(running), wall: start.wall + after(wall) }
    }

    #[test]
    fn what_is_renewed_in_time_is_fresh() {
        let start = Moment::now();
        let mut held = Held::default();
        assert!(!held.is_fresh(start), "nothing is recorded");
        held.note(start, at(start, 1, 1), false);
        assert!(held.is_fresh(at(start, 44, 44)));
        assert!(!held.is_fresh(at(start, 45, 45)));
        held.note(at(start, 40, 40), at(start, 50, 50), true);
        assert!(held.is_fresh(at(start, 84, 84)), "the server had the record all the time");
    }

    #[test]
    fn what_has_run_out_is_fresh_only_once_its_owner_holds_it_anew() {
        let start = Moment::now();
        // Asleep, stopped, or with an answer that came too late.
        for (sent, answered) in [((1, 90), (1, 90)), ((90, 90), (90, 90)), ((20, 20), (70, 70))] {
            let (sent, answered) = (at(start, sent.0, sent.1), at(start, answered.0, answered.1));
            let mut held = Held::default();
            held.note(start, start, false);
            held.note(sent, answered, true);
            assert!(!held.is_fresh(answered));
            held.note(answered, answered, true);
            assert!(!held.is_fresh(answered), "another renewal brings nothing back");
            held.note(answered, answered, false);
            assert!(held.is_fresh(answered));
        }
    }

    #[test]
    fn a_clock_that_was_set_back_proves_nothing() {
        let start = at(Moment::now(), 0, 100);
        let mut held = Held::default();
        held.note(start, start, false);
        let later = Moment { running: start.running, wall: start.wall - Duration::from_secs(50) };
        assert!(!held.is_fresh(later));
    }
}
