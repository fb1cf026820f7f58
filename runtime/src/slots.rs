//! The slots of a node: what its items may use at once, by name and number, such as `cores` and `gpu`.
//!
//! Whoever wants slots waits in one line, first come, first served. All slots of an item are taken in one step, so none waits for
//! another with slots in its hand. Who wants more than is free may be overtaken by those behind for whom there is enough. That ends
//! once it is [certain](Ticket::hold_back) that it has an item: from then on the free slots that it still lacks are kept for it,
//! one kind after the other in the order of [`Slot`]. So it waits no longer than what runs by then, and what waits for a rare kind
//! keeps no core from others.

pub(crate) mod capacity;
mod free;
mod set;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, oneshot, watch};

use crate::chain::needs::{Needs, Slot};
use crate::lock::lock;
use crate::report::SlotReport;
use capacity::Capacity;
use free::Free;
pub(crate) use set::SlotSet;

/// The slots of a node.
#[derive(Debug)]
pub(crate) struct Slots {
    capacity: Capacity,
    line: Mutex<Line>,
    /// Changes whenever one joins the line that likely has an item, and must wait.
    wanted: watch::Sender<()>,
}

/// What the items of a hop need in slots, and where they come from.
#[derive(Debug, Clone)]
pub(crate) struct SlotNeeds {
    pub(crate) slots: Arc<Slots>,
    pub(crate) needs: Arc<Needs>,
}

/// The free slots, and who waits for some.
#[derive(Debug, Default)]
struct Line {
    free: BTreeMap<Slot, Free>,
    waiting: Vec<Waiting>,
    next: u64,
    /// What is taken for items that may come.
    reserved: BTreeMap<Slot, u64>,
}

/// One place in the line.
#[derive(Debug)]
struct Waiting {
    number: u64,
    needs: Arc<Needs>,
    /// `true` if free slots are kept for it.
    is_certain: bool,
    /// `true` if it likely has an item.
    is_likely: bool,
    grant: oneshot::Sender<Granted>,
    overtaken: Arc<Notify>,
}

/// Slots that are taken. The line takes them back if nobody receives them.
type Granted = BTreeMap<Slot, Free>;

/// A place in the line. Dropping it leaves the line.
#[derive(Debug)]
pub(crate) struct Ticket {
    slots: Arc<Slots>,
    number: u64,
    granted: oneshot::Receiver<Granted>,
    overtaken: Arc<Notify>,
}

/// What a lane knows of its next item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Chance {
    /// It may have none.
    Unknown,
    /// It has had one just now.
    Likely,
    /// It is in hand.
    Certain,
}

impl Line {
    /// Returns how much of each kind is free.
    fn counts(&self) -> BTreeMap<Slot, u64> {
        self.free.iter().map(|(slot, free)| (slot.clone(), free.count())).collect()
    }

    /// Gives what is free to those who wait, in turn. Returns what is left for others, and keeps it from those it is kept from.
    fn serve(&mut self) -> BTreeMap<Slot, u64> {
        let mut left = self.counts();
        let (mut served, mut passed) = (BTreeSet::new(), Vec::<Arc<Notify>>::new());
        for place in 0..self.waiting.len() {
            let waiting = &self.waiting[place];
            if has(&left, &waiting.needs) {
                take_counts(&mut left, &waiting.needs);
                served.insert(waiting.number);
                for earlier in passed.drain(..) {
                    Notify::notify_one(&earlier);
                }
                continue;
            }
            if waiting.is_certain {
                keep(&mut left, &waiting.needs);
            } else {
                passed.push(Arc::clone(&waiting.overtaken));
            }
        }
        if served.is_empty() {
            return left;
        }
        let all = std::mem::take(&mut self.waiting).into_iter();
        let (grants, rest): (Vec<_>, Vec<_>) = all.partition(|waiting| served.contains(&waiting.number));
        self.waiting = rest;
        let mut was_left = false;
        for Waiting { needs, grant, .. } in grants {
            let granted = self.take(&needs);
            if let Err(granted) = grant.send(granted) {
                self.give_back(granted);
                was_left = true;
            }
        }
        if was_left { self.serve() } else { left }
    }

    fn take(&mut self, needs: &Needs) -> Granted {
        let take = |(slot, number): (&Slot, u64)| Some((slot.clone(), self.free.get_mut(slot)?.take(number)));
        needs.iter().filter_map(take).collect()
    }

    /// Notes that slots are no longer for an item that may come.
    fn release(&mut self, taken: &Granted) {
        for (slot, taken) in taken {
            if let Some(reserved) = self.reserved.get_mut(slot) {
                *reserved = reserved.saturating_sub(taken.count());
            }
        }
    }

    fn give_back(&mut self, taken: Granted) {
        for (slot, more) in taken {
            if let Some(free) = self.free.get_mut(&slot) {
                free.give_back(more);
            }
        }
    }
}

fn has(left: &BTreeMap<Slot, u64>, needs: &Needs) -> bool {
    needs.iter().all(|(slot, number)| left.get(slot).is_some_and(|left| *left >= number))
}

fn take_counts(left: &mut BTreeMap<Slot, u64>, needs: &Needs) {
    for (slot, number) in needs.iter() {
        if let Some(left) = left.get_mut(slot) {
            *left = left.saturating_sub(number);
        }
    }
}

/// Keeps what is free of these needs: each kind of which there is enough, and of the first that lacks all there is.
fn keep(left: &mut BTreeMap<Slot, u64>, needs: &Needs) {
    for (slot, number) in needs.iter() {
        let Some(left) = left.get_mut(slot) else { return };
        if *left < number {
            *left = 0;
            return;
        }
        *left -= number;
    }
}

impl Slots {
    /// Creates the slots of a node. All are free.
    pub(crate) fn new(capacity: Capacity) -> Arc<Self> {
        let line = Line { free: capacity.all(), ..Line::default() };
        Arc::new(Self { capacity, line: Mutex::new(line), wanted: watch::Sender::new(()) })
    }

    /// Returns what the node has.
    pub(crate) fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// Returns how much of each kind no item uses.
    fn unused(&self) -> BTreeMap<Slot, u64> {
        let line = lock(&self.line);
        let mut unused = line.counts();
        for (slot, reserved) in &line.reserved {
            *unused.entry(slot.clone()).or_default() += reserved;
        }
        unused
    }

    /// Returns the report about all kinds.
    pub(crate) fn report(&self) -> Vec<SlotReport> {
        let free = self.unused();
        let report = |(slot, all): (&Slot, u64)| SlotReport {
            slot: slot.to_string(),
            all,
            free: free.get(slot).copied().unwrap_or_default(),
        };
        self.capacity.counts().map(report).collect()
    }

    /// Takes slots for an item that may come, if they are free and not kept for others.
    pub(crate) fn try_take(self: &Arc<Self>, needs: &Needs) -> Option<SlotSet> {
        let mut line = lock(&self.line);
        if !has(&line.counts(), needs) || !has(&line.serve(), needs) {
            return None;
        }
        let taken = line.take(needs);
        for earlier in &line.waiting {
            earlier.overtaken.notify_one();
        }
        Some(SlotSet::reserve(self, &mut line, taken))
    }

    /// Joins the end of the line.
    pub(crate) fn join(self: &Arc<Self>, needs: &Arc<Needs>, chance: Chance) -> Ticket {
        let (grant, granted) = oneshot::channel();
        let overtaken = Arc::new(Notify::new());
        let mut line = lock(&self.line);
        let number = line.next;
        line.next += 1;
        line.waiting.push(Waiting {
            number,
            needs: Arc::clone(needs),
            is_certain: chance == Chance::Certain,
            is_likely: chance >= Chance::Likely,
            grant,
            overtaken: Arc::clone(&overtaken),
        });
        line.serve();
        let waits = line.waiting.iter().any(|waiting| waiting.number == number);
        drop(line);
        if waits && chance >= Chance::Likely {
            self.wanted.send_replace(());
        }
        Ticket { slots: Arc::clone(self), number, granted, overtaken }
    }

    /// Waits in line for the slots of an item in hand.
    pub(crate) async fn take(self: &Arc<Self>, needs: &Arc<Needs>) -> SlotSet {
        let mut ticket = self.join(needs, Chance::Certain);
        ticket.granted().await.used()
    }

    /// Returns what changes whenever others want slots that may be held for nothing.
    pub(crate) fn wanted(&self) -> watch::Receiver<()> {
        self.wanted.subscribe()
    }

    /// Returns how many wait in line, and `true` if one of them likely has an item.
    pub(crate) fn waiting(&self) -> (usize, bool) {
        let line = lock(&self.line);
        (line.waiting.len(), line.waiting.iter().any(|waiting| waiting.is_likely))
    }
}

impl Ticket {
    /// Waits for the slots. May be dropped and called again until it returns.
    pub(crate) async fn granted(&mut self) -> SlotSet {
        match (&mut self.granted).await {
            Ok(taken) => SlotSet::reserve(&self.slots, &mut lock(&self.slots.line), taken),
            // The line lives as long as this ticket, and drops no place unserved.
            Err(_) => std::future::pending().await,
        }
    }

    /// Returns what is notified when others go before this one, because it needs more than is free.
    pub(crate) fn overtaken(&self) -> Arc<Notify> {
        Arc::clone(&self.overtaken)
    }

    /// Makes it certain that an item waits for these slots. From now on nobody goes before this one with a slot that it lacks.
    pub(crate) fn hold_back(&self) {
        let mut line = lock(&self.slots.line);
        if let Some(waiting) = line.waiting.iter_mut().find(|waiting| waiting.number == self.number) {
            (waiting.is_certain, waiting.is_likely) = (true, true);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut line = lock(&self.slots.line);
        line.waiting.retain(|waiting| waiting.number != self.number);
        self.granted.close();
        if let Ok(granted) = self.granted.try_recv() {
            line.give_back(granted);
        }
        // What was kept for it is free for others now.
        line.serve();
    }
}

#[cfg(test)]
mod tests;
