//! Guests that mean harm. Whatever they do, the engine gives a failure with a reason, and whoever comes next runs unharmed and
//! finds nothing of them.
//!
//! [`calls`] has what a guest can call, [`each`] those that take their items themselves, [`modules`] what it can be, [`time`] how it can hold a thread, [`leftovers`] what could
//! be left of it.

mod calls;
mod each;
mod leftovers;
mod modules;
mod time;

use super::failure::{Failure, FailureKind};
use super::task::Task;
use super::testing::{ITEM, LIMITS, run, task};

/// A module with these imports and parts; what is not given is as in a plugin that does nothing.
#[derive(Clone, Copy)]
struct Guest<'a> {
    /// Fields that stand before all others.
    imports: &'a str,
    /// The memory.
    memory: &'a str,
    /// The bodies of `_initialize`, `pcluster_alloc` and the task.
    initialize: &'a str,
    alloc: &'a str,
    task: &'a str,
    /// More fields.
    more: &'a str,
}

const GUEST: Guest<'_> = Guest {
    imports: "",
    memory: r#"(memory (export "memory") 1)"#,
    initialize: "nop",
    alloc: "(i32.const 1024)",
    task: "(i32.const 0)",
    more: "",
};

impl Guest<'_> {
    fn wat(&self) -> String {
        let Self { imports, memory, initialize, alloc, task, more } = self;
        format!(
            r#"(module {imports} {memory} {more}
              (func $initialize (export "_initialize") {initialize})
              (func $alloc (export "pcluster_alloc") (param $length i32) (result i32) {alloc})
              (func $task (export "pcluster_task:t") (param $pointer i32) (param $length i32) (result i32) {task}))"#
        )
    }
}

/// Imports by which a guest can do something; named by what they are.
const IMPORTS: &str = r#"
    (import "pcluster_v1" "emit" (func $emit (param i32 i32)))
    (import "pcluster_v1" "fail" (func $fail (param i32 i32)))
    (import "pcluster_v1" "log" (func $log (param i32 i32 i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))"#;

/// A guest like the others, that does what it should.
fn neighbor() -> Task {
    task(
        &Guest { imports: IMPORTS, task: "(call $emit (i32.const 1024) (i32.const 1)) (i32.const 0)", ..GUEST }.wat(),
        LIMITS,
    )
}

/// Makes sure that the next item is handled as if nothing had been.
async fn assert_unharmed(neighbor: &Task, after: &str) {
    assert_eq!(run(neighbor).await.expect(after), [ITEM], "after {after}");
}

/// Makes sure that a failure is of this kind and says this.
#[track_caller]
fn assert_failed<T>(ended: Result<T, Failure>, kind: FailureKind, says: &str, what: &str) {
    match ended {
        Ok(_) => panic!("{what} did not fail"),
        Err(failure) => {
            assert_eq!(failure.kind, kind, "{what}: {}", failure.reason);
            assert!(failure.reason.contains(says), "{what}: expected: {says}\nreason: {}", failure.reason);
        }
    }
}
