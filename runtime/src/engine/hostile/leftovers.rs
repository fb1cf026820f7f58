//! The state that one execution could leave to the next: memory, globals, tables and segments. Each instance must find only its
//! own.

use std::time::Duration;

use super::{GUEST, Guest, IMPORTS};
use crate::engine::Engine;
use crate::engine::limits::Limits;
use crate::engine::task::Task;
use crate::engine::testing::{BRIEF, LIMITS, engine_with, run, task_on};

/// More memory than a slot keeps between instances (2 MiB). So both ways to clear it are tested.
const ROOMY: Limits = Limits { memory: 5 << 20, ..LIMITS };

/// Changes all state: all memory that the guest can get, the global, the table and the segments.
const SOIL: &str = r"
    (func $soil
      (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
      (memory.fill (i32.const 0) (i32.const 0xa5) (i32.mul (memory.size) (i32.const 65536)))
      (global.set $global (i64.const -1))
      (drop (table.grow (ref.func $task) (i32.const 1000)))
      (table.fill (i32.const 0) (ref.func $task) (table.size))
      (data.drop $words) (elem.drop $functions))";

/// Traps unless all state is as in a fresh instance. It has `pages` pages with a few words at 4096.
fn check(pages: u32) -> String {
    format!(
        r"(func $check (local $at i32)
          (call $fine (i32.eq (memory.size) (i32.const {pages})))
          (call $fine (i64.eq (global.get $global) (i64.const 42)))
          (call $fine (i32.eq (table.size) (i32.const 3)))
          (call $fine (ref.is_null (table.get (i32.const 0))))
          (call $fine (i32.eqz (ref.is_null (table.get (i32.const 1)))))
          (call $fine (ref.is_null (table.get (i32.const 2))))
          (memory.init $words (i32.const 0) (i32.const 0) (i32.const 8))
          (table.init $functions (i32.const 2) (i32.const 0) (i32.const 1))
          (call $fine (i64.eq (i64.load (i32.const 0)) (i64.const 0x3837363534333231)))
          (i64.store (i32.const 0) (i64.const 0))
          (call $fine (i64.eq (i64.load (i32.const 4096)) (i64.const 0x6867666564636261)))
          (i64.store (i32.const 4096) (i64.const 0))
          ;; What it can grow to is as empty as the rest.
          (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
          (loop $next
            (call $fine (i64.eqz (i64.load (local.get $at))))
            (local.set $at (i32.add (local.get $at) (i32.const 8)))
            (br_if $next (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536))))))
        (func $fine (param i32) (if (i32.eqz (local.get 0)) (then unreachable)))"
    )
}

/// Returns a task that checks and then changes all state. It ends with `end`.
fn soiling(engine: &Engine, pages: u32, end: &str, limits: Limits) -> Task {
    let memory = format!(r#"(memory (export "memory") {pages})"#);
    let more = format!(
        r#"(global $global (mut i64) (i64.const 42))
           (table 3 funcref) (elem (i32.const 1) func $task) (elem $functions func $soil)
           (data (i32.const 4096) "abcdefgh") (data $words "12345678") {SOIL} {check}"#,
        check = check(pages)
    );
    let alloc = "(i32.const 0)";
    // The host has written the item at 0.
    let body = format!("(i64.store (i32.const 0) (i64.const 0)) (call $check) (call $soil) {end}");
    let guest = Guest { imports: IMPORTS, memory: &memory, more: &more, alloc, task: &body, ..GUEST };
    task_on(engine, &guest.wat(), limits)
}

#[tokio::test]
async fn an_instance_finds_nothing_of_those_before_it_however_they_ended() {
    // With a single slot, each instance follows the one before in the same memory.
    let engine = engine_with(1);
    let brief = Limits { timeout: BRIEF.timeout, ..ROOMY };
    let ends = [
        ("(i32.const 0)", ROOMY),
        ("(i32.const 1)", ROOMY),
        ("unreachable", ROOMY),
        ("(call $exit (i32.const 1)) (i32.const 0)", ROOMY),
        ("(call $emit (i32.const 0) (i32.const -1)) (i32.const 0)", ROOMY),
        ("(call $task (i32.const 0) (i32.const 0))", ROOMY),
        ("(loop $again (br $again)) (i32.const 0)", brief),
    ];
    // The guests have several sizes, with and without room to grow. State of one may lie where the next has no memory, has its
    // own data, or grows.
    let checking = [1, 16, 40].map(|pages| soiling(&engine, pages, "(i32.const 0)", ROOMY));
    for (end, limits) in ends {
        for pages in [1, 40, 80] {
            let before = soiling(&engine, pages, end, limits);
            for checking in &checking {
                // The outcome of this run does not matter.
                let _ = run(&before).await;
                assert_eq!(run(checking).await.map_err(|failure| failure.reason), Ok(vec![]), "after {end}");
            }
        }
    }
}

#[tokio::test]
async fn leftovers_of_a_guest_would_be_found() {
    let twice = soiling(&engine_with(1), 1, "(call $check) (i32.const 0)", ROOMY);
    assert!(run(&twice).await.is_err());
}

#[tokio::test]
async fn an_instance_finds_nothing_of_one_that_was_interrupted() {
    let engine = engine_with(1);
    let endless = soiling(&engine, 16, "(loop $again (br $again)) (i32.const 0)", ROOMY);
    let checking = soiling(&engine, 16, "(i32.const 0)", ROOMY);
    for _ in 0..5 {
        let interrupted = tokio::time::timeout(Duration::from_millis(50), run(&endless)).await;
        assert!(interrupted.is_err(), "it ended by itself");
        assert_eq!(run(&checking).await.map_err(|failure| failure.reason), Ok(vec![]));
    }
}
