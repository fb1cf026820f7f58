use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::chain::isolation::{Isolation, Reuse};
use crate::engine::instance::Instance;
use crate::engine::limits::Limits;
use crate::engine::snapshot::Surroundings;
use crate::engine::static_context::StaticContext;
use crate::engine::task::Task;
use crate::engine::testing::{load, splitting};
use crate::run::call::Call;

/// Looks at every page of its memory and at a global, and returns how many of them an item has changed before. Then it changes the
/// global and, in as many places as the item says, every second page. Item 200 grows the memory, item 201 traps, item 202 fails.
const CHANGES: &str = r#"
    (module
      (import "pcluster_v1" "emit" (func $emit (param i32 i32)))
      (memory (export "memory") 100)
      (data (i32.const 69632) "\07")
      (global $items (mut i32) (i32.const 0))
      (func (export "pcluster_init:t") (result i32)
        (i32.store8 (i32.const 69633) (i32.const 8))
        (i32.const 0))
      (func (export "pcluster_alloc") (param i32) (result i32) (i32.const 1024))
      (func (export "pcluster_task:t") (param $item i32) (param i32) (result i32)
        (local $place i32)
        (local $found i32)
        (local.set $found (global.get $items))
        (local.set $place (i32.const 4100))
        (loop $look
          (local.set $found (i32.add (local.get $found) (i32.load8_u (local.get $place))))
          (local.set $place (i32.add (local.get $place) (i32.const 4096)))
          (br_if $look (i32.lt_u (local.get $place) (i32.const 6553600))))
        (i32.store8 (i32.const 4096) (local.get $found))
        (call $emit (i32.const 4096) (i32.const 1))
        (global.set $items (i32.const 1))
        (local.set $place (i32.const 4100))
        (local.set $found (i32.mul (i32.load8_u (local.get $item)) (i32.const 4)))
        (loop $change
          (i32.store8 (local.get $place) (i32.const 1))
          (local.set $place (i32.add (local.get $place) (i32.const 8192)))
          (local.set $found (i32.sub (local.get $found) (i32.const 1)))
          (br_if $change (i32.gt_s (local.get $found) (i32.const 0))))
        (if (i32.eq (i32.load8_u (local.get $item)) (i32.const 200)) (then (drop (memory.grow (i32.const 1)))))
        (if (i32.eq (i32.load8_u (local.get $item)) (i32.const 201)) (then unreachable))
        (i32.eq (i32.load8_u (local.get $item)) (i32.const 202))))"#;

/// Returns the task of [`CHANGES`] with its state.
async fn changing(reuse: Reuse) -> Task {
    let plugin = load(splitting(), CHANGES).expect("a plugin");
    let limits = Limits { timeout: Duration::from_secs(30), memory: 8 << 20, output_item_bytes: 64 << 10 };
    let task = plugin.task("t", limits, StaticContext::default(), reuse).expect("a task");
    plugin.with_state("t", "", &task, Surroundings::silent()).await.expect("a snapshot").expect("a task with state")
}

/// Returns how much of what earlier items have changed an item finds. `None` if it fails.
async fn found(task: &Task, item: u8) -> Option<u8> {
    let outputs = task.run(vec![item].into(), Call::idle(), &task.instances()).await;
    outputs.ok().map(|outputs| outputs.into_payload()[0])
}

/// Takes the instance that waits for the next item.
fn kept(task: &Task) -> Option<Instance> {
    task.instances().take()
}

#[tokio::test]
async fn no_item_finds_what_another_has_changed_in_the_same_instance() {
    let task = changing(Reuse::default()).await;
    let mut places = Vec::new();
    for item in [1, 20, 0, 3, 60, 1, 1] {
        assert_eq!(found(&task, item).await, Some(0));
        let Some(instance) = kept(&task) else {
            assert!(!is_supported(), "the instance is kept");
            continue;
        };
        let memory = instance.memory();
        let changed = memory.iter().enumerate().filter(|(_, byte)| **byte != 0);
        assert_eq!(changed.collect::<Vec<_>>(), [(69632, &7), (69633, &8)]);
        places.push(memory.as_ptr().addr());
        task.instances().put(instance);
    }
    places.dedup();
    assert!(places.len() <= 1, "one instance handles all items");
}

#[tokio::test]
async fn an_instance_that_cannot_be_put_back_is_dropped() {
    let task = changing(Reuse::default()).await;
    for (item, reason) in [(180, "720 pages"), (200, "more memory"), (201, "a trap"), (202, "a failure")] {
        found(&task, item).await;
        assert!(kept(&task).is_none(), "{reason}");
        assert_eq!(found(&task, 1).await, Some(0), "after {reason}");
        assert_eq!(kept(&task).is_some(), is_supported(), "after {reason}");
    }
}

#[tokio::test]
async fn an_instance_for_several_items_is_put_back_after_the_last() {
    let reuse = Reuse { isolation: Isolation::Worker, items: Some(2) };
    let task = changing(reuse).await;
    for _ in 0..3 {
        assert_eq!(found(&task, 3).await, Some(0));
        assert_eq!(found(&task, 3).await, Some(13), "12 pages and the global");
    }
}

#[tokio::test]
async fn items_at_once_have_instances_of_their_own() {
    let task = changing(Reuse::default()).await;
    let runs = (0..40).map(|item| {
        let task = task.clone();
        tokio::spawn(async move { found(&task, item).await })
    });
    for run in futures_util::future::join_all(runs).await {
        assert_eq!(run.expect("no panic"), Some(0));
    }
}

#[tokio::test]
async fn a_first_write_to_a_page_is_noticed() {
    let write = async || {
        let room = Bytes::from(vec![1; 4 << 20]);
        room.iter().step_by(4096).map(|byte| usize::from(*byte)).sum::<usize>()
    };
    assert_eq!(watched(true, pin!(write())).await, (1024, true));
    assert!(watched(false, pin!(async {})).await.1, "nothing was counted");
    if !is_supported() {
        return;
    }
    // The machine may take a page of the program's code away at any time.
    for _ in 0..1000 {
        if !watched(true, pin!(async {})).await.1 {
            return;
        }
    }
    panic!("1000 runs that do nothing have all written to a page for the first time");
}
