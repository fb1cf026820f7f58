//! The slots of one item.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Free, Granted, Line, Slots};
use crate::chain::needs::{Needs, Slot};
use crate::lock::lock;

/// An item that waits for longer than this lends its slots.
const LEND_AFTER: Duration = Duration::from_millis(200);

/// The slots of one item. They are free again when the last copy is dropped.
#[derive(Debug)]
pub(crate) struct SlotSet {
    slots: Arc<Slots>,
    /// Empty if they were given back.
    pub(super) taken: Mutex<Granted>,
    /// `true` if the item has come.
    is_used: bool,
}

impl SlotSet {
    /// Takes slots out of the line for an item that may come.
    pub(super) fn reserve(slots: &Arc<Slots>, line: &mut Line, taken: Granted) -> Self {
        for (slot, taken) in &taken {
            *line.reserved.entry(slot.clone()).or_default() += taken.count();
        }
        Self { slots: Arc::clone(slots), taken: Mutex::new(taken), is_used: false }
    }

    /// Returns the slots as those of an item that has come.
    pub(crate) fn used(mut self) -> Self {
        self.is_used = true;
        lock(&self.slots.line).release(&lock(&self.taken));
        self
    }

    /// Gives the slots back before the item has ended. Nothing of it may run from now on.
    pub(crate) fn give_back(&self) {
        let taken = std::mem::take(&mut *lock(&self.taken));
        let mut line = lock(&self.slots.line);
        if !self.is_used {
            line.release(&taken);
        }
        line.give_back(taken);
        line.serve();
    }

    /// Waits. Nothing of the item may run meanwhile: if the wait is long, others have the slots until it ends.
    ///
    /// The slots may have other numbers after that.
    pub(crate) async fn lend_while<T>(&self, wait: impl Future<Output = T>) -> T {
        let mut wait = pin!(wait);
        if let Ok(ended) = tokio::time::timeout(LEND_AFTER, &mut wait).await {
            return ended;
        }
        let needs: Needs = lock(&self.taken).iter().map(|(slot, taken)| (slot.clone(), taken.count())).collect();
        self.give_back();
        let ended = wait.await;
        let again = self.slots.take(&Arc::new(needs)).await;
        *lock(&self.taken) = std::mem::take(&mut *lock(&again.taken));
        ended
    }

    /// Returns the variables that tell a program with these needs which slots it has.
    pub(crate) fn variables(&self, needs: &Needs) -> impl Iterator<Item = (String, String)> {
        needs.iter().flat_map(|(slot, number)| {
            let value = match self.numbers(slot, number) {
                Some(numbers) => numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
                None => number.to_string(),
            };
            let is_gpu = matches!(slot, Slot::Named(name) if name == "gpu");
            let cuda = is_gpu.then(|| ("CUDA_VISIBLE_DEVICES".to_owned(), value.clone()));
            [(slot.variable(), value)].into_iter().chain(cuda)
        })
    }

    /// Returns the processors that a program with these needs is bound to. Empty if it may use all.
    pub(crate) fn processors(&self, needs: &Needs) -> Vec<usize> {
        let cores =
            needs.iter().find(|(slot, _)| **slot == Slot::Cores).filter(|_| self.slots.capacity.has_processors());
        let numbers = cores.and_then(|(slot, count)| self.numbers(slot, count)).unwrap_or_default();
        numbers.into_iter().map(|number| number as usize).collect()
    }

    /// Returns the first so many numbers of a kind. `None` if it has no numbers.
    fn numbers(&self, slot: &Slot, count: u64) -> Option<Vec<u32>> {
        match lock(&self.taken).get(slot) {
            Some(Free::Numbers(numbers)) => {
                Some(numbers.iter().copied().take(usize::try_from(count).unwrap_or(usize::MAX)).collect())
            }
            _ => None,
        }
    }
}

impl Drop for SlotSet {
    fn drop(&mut self) {
        self.give_back();
    }
}
