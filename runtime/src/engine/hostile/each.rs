//! Guests that take their items themselves, and their ways to misuse that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use pcluster_abi::Level;

use super::assert_failed;
use crate::chain::isolation::{Isolation, Reuse};
use crate::engine::limits::Limits;
use crate::engine::static_context::StaticContext;
use crate::engine::testing::{BRIEF, LIMITS, engine, load};
use crate::run::call::{Call, ItemSource};
use crate::run::failure::{Failure, FailureKind};
use crate::run::output::{FrameOutputs, Outputs};

/// A source of items of one byte, with the numbers from 0.
struct Items {
    next: AtomicUsize,
    len: usize,
}

impl ItemSource for Items {
    fn id(&self, position: usize) -> String {
        position.to_string()
    }

    fn attempt(&self) -> u64 {
        1
    }

    fn log(&self, _: usize, _: Level, _: String) {}

    fn next(&self, _: Instant) -> Option<(usize, Bytes)> {
        let position = self.next.fetch_add(1, SeqCst);
        (position < self.len).then(|| (position, item(position)))
    }

    fn stream(self: Arc<Self>, _: usize, _: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn item(position: usize) -> Bytes {
    vec![u8::try_from(position).expect("few items")].into()
}

/// The outcome of a run: positions and bytes of the outputs, and the failure, if any.
type TenItems = (Vec<(usize, Vec<u8>)>, Result<(), (usize, Failure)>);

/// Runs ten items in a guest that takes them itself. Its body is `each`. The function `$give` copies the item to address 0 and
/// outputs it.
async fn ten(each: &str, reuse: Reuse, limits: Limits) -> TenItems {
    let wat = format!(
        r#"(module
          (import "pcluster_v1" "emit" (func $emit (param i32 i32)))
          (import "pcluster_v1" "next" (func $next (param i32) (result i32)))
          (import "pcluster_v1" "item_read" (func $read (param i32)))
          (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (func $give (call $read (i32.const 0)) (call $emit (i32.const 0) (i32.const 1)))
          (func $is (param i32) (result i32) (i32.eq (i32.load8_u (i32.const 0)) (local.get 0)))
          (func (export "pcluster_alloc") (param i32) (result i32) (i32.const 1024))
          (func (export "pcluster_task:t") (param i32 i32) (result i32) unreachable)
          (func (export "pcluster_each:t") (result i32) (local $status i32) {each}))"#
    );
    let plugin = load(engine(), &wat).expect("a plugin");
    let task = plugin.task("t", limits, StaticContext::default(), reuse).expect("a task");
    let source = Arc::new(Items { next: AtomicUsize::new(1), len: 10 });
    let mut given = FrameOutputs::default();
    let ended = task.run_all(item(0), Call { source, position: 0 }, &task.instances(), &mut given).await;
    (given.items().map(|(position, outputs)| (position, outputs.payload().to_vec())).collect(), ended)
}

const WORKER: Reuse = Reuse { isolation: Isolation::Worker, items: None };

/// Returns a loop over all items that runs this body for each.
fn all(body: &str) -> String {
    format!(
        "(loop $more (if (i32.ge_s (call $next (local.get $status)) (i32.const 0)) (then {body} (br $more)))) (i32.const 0)"
    )
}

fn first(count: u8) -> Vec<(usize, Vec<u8>)> {
    (0..count).map(|number| (usize::from(number), vec![number])).collect()
}

#[tokio::test]
async fn a_guest_takes_as_many_items_as_its_instance_may_have() {
    for (reuse, count) in [
        (WORKER, 10),
        (Reuse { items: Some(4), ..WORKER }, 4),
        (Reuse { isolation: Isolation::Frame, items: None }, 10),
        (Reuse::default(), 1),
    ] {
        let (given, ended) = ten(&all("(call $give)"), reuse, LIMITS).await;
        assert_eq!((given, ended), (first(count), Ok(())), "{reuse:?}");
    }
}

#[tokio::test]
async fn a_failed_item_ends_the_run_and_leaves_earlier_outputs() {
    for (fail, kind, says) in [
        ("(local.set $status (i32.const 1))", FailureKind::Error, "without saying why"),
        ("(local.set $status (i32.const 7))", FailureKind::Trap, "a status that ABI 1 does not have"),
        ("unreachable", FailureKind::Trap, "unreachable"),
        ("(return (i32.const 0))", FailureKind::Trap, "returned without having ended its item"),
        ("(loop $spin (br $spin))", FailureKind::Timeout, "took longer than its timeout"),
        ("(call $emit (i32.const -1) (i32.const 1))", FailureKind::Trap, "outside of the guest's memory"),
    ] {
        let body = format!("(call $give) (if (call $is (i32.const 3)) (then {fail}))");
        let (given, ended) = ten(&all(&body), WORKER, BRIEF).await;
        assert_eq!(given, first(3), "{fail}");
        assert_eq!(ended.as_ref().expect_err(fail).0, 3, "{fail}");
        assert_failed(ended.map_err(|(_, failure)| failure), kind, says, fail);
    }
}

#[tokio::test]
async fn every_item_has_all_of_its_time() {
    // Ten items of 0.3 s take more than the two seconds that each of them may take. The subscription to the clock is at 100.
    let sleep = "(call $give)
        (i32.store (i32.const 116) (i32.const 1))
        (i64.store (i32.const 124) (i64.const 300000000))
        (drop (call $poll (i32.const 100) (i32.const 200) (i32.const 1) (i32.const 300)))";
    let limits = Limits { timeout: Duration::from_secs(2), ..LIMITS };
    let (given, ended) = ten(&all(sleep), WORKER, limits).await;
    assert_eq!((given, ended), (first(10), Ok(())));
}

#[tokio::test]
async fn a_guest_that_takes_nothing_or_gives_too_early_fails() {
    for (each, says) in [
        ("(i32.const 0)", "returned without having ended its item"),
        ("(call $emit (i32.const 0) (i32.const 1)) (i32.const 0)", "before the task was called"),
    ] {
        let (given, ended) = ten(each, WORKER, LIMITS).await;
        assert_eq!(given, [], "{each}");
        let (failed, failure) = ended.expect_err(each);
        assert_eq!(failed, 0, "{each}");
        assert!(failure.reason.contains(says), "{}", failure.reason);
    }
}

#[tokio::test]
async fn a_guest_takes_nothing_back_after_its_last_item() {
    for after in ["(call $emit (i32.const 0) (i32.const 1))", "unreachable", "(loop $spin (br $spin))"] {
        let each = format!("{} drop {after} (i32.const 0)", all("(call $give)"));
        assert_eq!(ten(&each, WORKER, BRIEF).await, (first(10), Ok(())), "{after}");
    }
}
