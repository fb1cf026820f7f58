//! How many requests a node has in flight: together, for each stage, and to each host.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use crate::lock::lock;

/// The most requests of a node in flight.
const NODE_MAX: usize = 1_024;
/// The most requests of a node in flight to one host: about what a stage alone may have, since most stages ask one API.
const HOST_MAX: usize = 500;

/// The requests of a node in flight, and those that wait.
///
/// A stage may begin another request while it has fewer in flight than are left to all. So a stage alone uses half of the places,
/// two a third each, and some are always left to the next. Requests of one stage to one host begin in their order.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    stages: HashMap<u64, usize>,
    hosts: HashMap<Arc<str>, usize>,
    waiting: VecDeque<Waiting>,
}

/// A request that waits.
#[derive(Debug)]
struct Waiting {
    stage: u64,
    host: Arc<str>,
    begin: oneshot::Sender<Place>,
}

/// Permit for a request in flight. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    limits: Arc<Limits>,
    stage: u64,
    host: Arc<str>,
}

impl Limits {
    /// Waits until a stage may have another request in flight to a host.
    pub(crate) async fn acquire(self: &Arc<Self>, stage: u64, host: &str) -> Option<Place> {
        let (begin, place) = oneshot::channel();
        let host: Arc<str> = host.into();
        lock(&self.state).waiting.push_back(Waiting { stage, host, begin });
        self.admit();
        place.await.ok()
    }

    /// Lets those begin that may. A place that nobody waits for any longer comes back, and lets others begin.
    fn admit(self: &Arc<Self>) {
        let admitted = lock(&self.state).admit(self);
        for (begin, place) in admitted {
            drop(begin.send(place));
        }
    }
}

impl State {
    /// Takes those out of the line that may begin.
    fn admit(&mut self, limits: &Arc<Limits>) -> Vec<(oneshot::Sender<Place>, Place)> {
        let mut admitted = Vec::new();
        let mut rest = VecDeque::with_capacity(self.waiting.len());
        while let Some(waiting) = self.waiting.pop_front() {
            if waiting.begin.is_closed() {
                continue;
            }
            if self.used == NODE_MAX {
                rest.push_back(waiting);
                break;
            }
            if !self.has_room(&waiting) {
                rest.push_back(waiting);
                continue;
            }
            let Waiting { stage, host, begin } = waiting;
            self.used += 1;
            *self.stages.entry(stage).or_default() += 1;
            *self.hosts.entry(host.clone()).or_default() += 1;
            admitted.push((begin, Place { limits: limits.clone(), stage, host }));
        }
        rest.append(&mut self.waiting);
        self.waiting = rest;
        admitted
    }

    fn has_room(&self, waiting: &Waiting) -> bool {
        let of_stage = self.stages.get(&waiting.stage).copied().unwrap_or_default();
        let of_host = self.hosts.get(&waiting.host).copied().unwrap_or_default();
        of_stage < NODE_MAX - self.used && of_host < HOST_MAX
    }

    fn release(&mut self, place: &Place) {
        self.used -= 1;
        subtract(&mut self.stages, &place.stage);
        subtract(&mut self.hosts, &place.host);
    }
}

/// Counts one less. What is at zero takes no memory.
fn subtract<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.limits.state).release(self);
        self.limits.clone().admit();
    }
}

#[cfg(test)]
mod tests;
