//! The slots for instances of a node, and its idle instances.
//!
//! An idle instance waits for its next item. It gives up its slot as soon as another instance needs one and none is free, so a
//! stage without items keeps no other stage from running.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::instance::Instance;
use super::streaming::StreamingPermits;
use crate::counted::Counted;
use crate::lock::lock;
use crate::run::budget::Budget;

/// The slots for instances of a node.
pub struct Slots {
    free: Arc<Semaphore>,
    budget: Arc<Budget>,
    /// Permits to keep a slot while waiting for later stages.
    pub(super) streaming: Arc<StreamingPermits>,
    /// The number of waiters for a slot. While there are any, no instance becomes idle.
    wanted: AtomicU64,
    waiting: Mutex<HashMap<u64, Weak<Waiting>>>,
    next: AtomicU64,
}

/// Idle instances of one task. They are dropped with this.
pub(super) struct Waiting {
    slots: Arc<Slots>,
    key: u64,
    instances: Mutex<Vec<Instance>>,
}

/// Where the instances of some items become idle. Empty if each item has an instance of its own, unless that can be put back to its
/// start.
#[derive(Clone)]
pub struct Instances(pub(super) Option<Arc<Waiting>>);

impl Slots {
    /// Creates this many slots, which share this memory budget.
    pub(super) fn new(instances: u32, budget: Arc<Budget>) -> Arc<Self> {
        let slots = Arc::new(Self {
            free: Arc::new(Semaphore::new(instances as usize)),
            budget,
            streaming: Arc::new(StreamingPermits::new(instances as usize)),
            wanted: AtomicU64::new(0),
            waiting: Mutex::default(),
            next: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&slots);
        slots.budget.on_need(move || weak.upgrade().is_some_and(|slots| slots.evict()));
        slots
    }

    /// Waits for a slot for a stage. It has this many stages `after` it. `None` only if the slots are closed.
    pub(super) async fn take(&self, after: usize) -> Option<OwnedSemaphorePermit> {
        loop {
            self.streaming.admitted(after).await;
            let slot = self.take_any().await?;
            if self.streaming.admits(after) {
                return Some(slot);
            }
        }
    }

    async fn take_any(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(slot);
        }
        let _wanting = Counted::new(&self.wanted);
        // Joins the line first and evicts then, so that no other waiter gets the freed slot.
        let mut slot = std::pin::pin!(Arc::clone(&self.free).acquire_owned());
        if let Poll::Ready(slot) = futures_util::poll!(slot.as_mut()) {
            return slot.ok();
        }
        // An instance that becomes idle after this eviction sees that its slot is wanted.
        self.evict();
        slot.await.ok()
    }

    /// Returns a slot if one is free.
    pub(super) fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Drops one idle instance. Returns `true` if there was one.
    fn evict(&self) -> bool {
        let all: Vec<Arc<Waiting>> = lock(&self.waiting).values().filter_map(Weak::upgrade).collect();
        let evicted = all.iter().find_map(|waiting| lock(&waiting.instances).pop());
        evicted.is_some()
    }

    /// Returns `true` if nobody waits for a slot or for memory.
    fn is_unwanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst) == 0 && !self.budget.is_wanted()
    }

    /// Creates the list of idle instances of one task.
    pub(super) fn wait(self: &Arc<Self>) -> Arc<Waiting> {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let waiting = Arc::new(Waiting { slots: Arc::clone(self), key, instances: Mutex::default() });
        lock(&self.waiting).insert(key, Arc::downgrade(&waiting));
        waiting
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        lock(&self.slots.waiting).remove(&self.key);
    }
}

impl Instances {
    /// Returns where no instance becomes idle.
    pub fn none() -> Self {
        Self(None)
    }

    /// Returns the instance that handled an item last. The processor's caches still hold more of it.
    pub(super) fn take(&self) -> Option<Instance> {
        lock(&self.0.as_ref()?.instances).pop()
    }

    /// Keeps an instance for its next item. Drops it if its slot or its memory is wanted.
    pub(super) fn put(&self, instance: Instance) {
        let Some(waiting) = &self.0 else { return };
        let mut instances = lock(&waiting.instances);
        // Looked at under the lock, so that who waits for a slot sees the instance or is seen here.
        if waiting.slots.is_unwanted() {
            instances.push(instance);
        }
    }

    /// Returns `true` if [`put`](Self::put) would keep an instance now.
    pub(super) fn keeps(&self) -> bool {
        self.0.as_ref().is_some_and(|waiting| waiting.slots.is_unwanted())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::chain::isolation::{Isolation, Reuse};
    use crate::engine::static_context::StaticContext;
    use crate::engine::task::Task;
    use crate::engine::testing::{BRIEF, Lines, engine_with, load};
    use crate::run::call::Call;

    /// Returns how many items the instance has handled. Traps at item 6, fails at item 7, and never ends at item 8.
    const COUNT: &str = r#"
        (module
          (import "pcluster_v1" "emit" (func $emit (param i32 i32)))
          (memory (export "memory") 1)
          (global $items (mut i32) (i32.const 0))
          (func (export "pcluster_alloc") (param i32) (result i32) (i32.const 1024))
          (func (export "pcluster_task:t") (param i32 i32) (result i32)
            (global.set $items (i32.add (global.get $items) (i32.const 1)))
            (i32.store8 (i32.const 0) (global.get $items))
            (call $emit (i32.const 0) (i32.const 1))
            (if (i32.eq (i32.load8_u (local.get 0)) (i32.const 6)) (then unreachable))
            (loop $spin (br_if $spin (i32.eq (i32.load8_u (local.get 0)) (i32.const 8))))
            (i32.eq (i32.load8_u (local.get 0)) (i32.const 7))))"#;

    fn counting(slots: u32, isolation: Isolation, items: Option<u32>) -> Task {
        let plugin = load(&engine_with(slots), COUNT).expect("a plugin");
        plugin.task("t", BRIEF, StaticContext::default(), Reuse { isolation, items }).expect("a task")
    }

    /// Returns how many items the instance of this item has handled. Returns 0 if the item fails.
    async fn count(task: &Task, instances: &Instances, item: u8) -> u8 {
        task.run(vec![item].into(), Call::idle(), instances).await.map_or(0, |outputs| outputs.into_payload()[0])
    }

    async fn counts(task: &Task, instances: &Instances, items: &[u8]) -> Vec<u8> {
        let mut counts = Vec::new();
        for item in items {
            counts.push(count(task, instances, *item).await);
        }
        counts
    }

    #[tokio::test]
    async fn each_item_has_an_instance_of_its_own_unless_the_stage_says_otherwise() {
        let task = counting(1, Isolation::Item, None);
        assert_eq!(counts(&task, &task.instances(), &[1, 1, 1]).await, [1, 1, 1]);
        let task = counting(1, Isolation::Frame, None);
        assert_eq!(counts(&task, &task.instances(), &[1, 1, 1]).await, [1, 2, 3]);
        assert_eq!(counts(&task, &task.instances(), &[1, 1]).await, [1, 2], "another frame");
        let task = counting(1, Isolation::Worker, None);
        assert_eq!(counts(&task, &task.instances(), &[1, 1]).await, [1, 2]);
        assert_eq!(counts(&task, &task.instances(), &[1, 1]).await, [3, 4], "another frame");
    }

    #[tokio::test]
    async fn an_instance_that_failed_handles_no_other_item() {
        let task = counting(1, Isolation::Worker, None);
        assert_eq!(counts(&task, &task.instances(), &[1, 6, 1, 1, 7, 1, 1, 8, 1]).await, [1, 0, 1, 2, 0, 1, 2, 0, 1]);
    }

    #[tokio::test]
    async fn an_instance_handles_no_more_items_than_it_may() {
        let task = counting(1, Isolation::Worker, Some(2));
        assert_eq!(counts(&task, &task.instances(), &[1, 1, 1, 1, 1]).await, [1, 2, 1, 2, 1]);
    }

    #[tokio::test]
    async fn outputs_of_earlier_items_are_not_given_again() {
        let task = counting(1, Isolation::Worker, None);
        let instances = task.instances();
        for _ in 0..3 {
            assert_eq!(task.run(vec![1].into(), Call::idle(), &instances).await.expect("outputs").len(), 1);
        }
    }

    #[tokio::test]
    async fn an_instance_that_waits_holds_on_to_nothing_of_its_last_item() {
        let task = counting(1, Isolation::Worker, None);
        let lines = Arc::<Lines>::default();
        let call = Call { source: lines.clone(), position: 0 };
        task.run(vec![1].into(), call, &task.instances()).await.expect("outputs");
        assert_eq!(Arc::strong_count(&lines), 1);
    }

    #[tokio::test]
    async fn an_instance_that_waits_makes_room_for_another_task() {
        let plugin = load(&engine_with(1), COUNT).expect("a plugin");
        let reuse = Reuse { isolation: Isolation::Worker, items: None };
        let task = || plugin.task("t", BRIEF, StaticContext::default(), reuse).expect("a task");
        let (one, other) = (task(), task());
        for _ in 0..2 {
            assert_eq!(count(&one, &one.instances(), 1).await, 1);
            assert_eq!(count(&other, &other.instances(), 1).await, 1);
        }
    }

    #[tokio::test]
    async fn items_that_wait_for_a_slot_get_one() {
        let task = counting(2, Isolation::Worker, None);
        // The first two items take all slots until their time is up.
        let items = [8, 8].into_iter().chain([1; 20]);
        let runs = items.map(|item| {
            let task = &task;
            async move { count(task, &task.instances(), item).await }
        });
        let all = tokio::time::timeout(Duration::from_secs(30), futures_util::future::join_all(runs));
        let counts = all.await.expect("no item waits forever");
        assert_eq!(counts.iter().filter(|count| **count > 0).count(), 20, "{counts:?}");
    }
}
