//! Tests of hostile guests. Whatever a guest does, the engine returns a failure with a reason, and the next item runs unharmed
//! and finds no trace of it.
//!
//! [`calls`] tests the functions that a guest can call, [`each`] guests that take their items themselves, [`modules`] invalid and
//! failing modules, [`time`] guests that hold a thread, [`leftovers`] the state that a guest could leave to the next.

mod calls;
mod each;
mod leftovers;
mod modules;
mod time;

use super::task::Task;
use super::testing::{ITEM, LIMITS, run, task};
use crate::run::failure::{Failure, FailureKind};

/// A module with these imports and parts. The defaults are those of a plugin that does nothing.
#[derive(Clone, Copy)]
struct Guest<'a> {
    /// Fields before all others.
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

/// Imports for guests that need them, with short names.
const IMPORTS: &str = r#"
    (import "pcluster_v1" "emit" (func $emit (param i32 i32)))
    (import "pcluster_v1" "fail" (func $fail (param i32 i32)))
    (import "pcluster_v1" "log" (func $log (param i32 i32 i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))"#;

/// Returns a correct task that runs beside the hostile ones.
fn neighbor() -> Task {
    task(&neighbor_wat(), LIMITS)
}

fn neighbor_wat() -> String {
    Guest { imports: IMPORTS, task: "(call $emit (i32.const 1024) (i32.const 1)) (i32.const 0)", ..GUEST }.wat()
}

/// Checks that the next item is handled as usual.
async fn assert_unharmed(neighbor: &Task, after: &str) {
    assert_eq!(run(neighbor).await.expect(after), [ITEM], "after {after}");
}

/// Checks the kind of a failure, and that its reason contains `says`.
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
