//! Modules that trap, grow, recurse, or are not plugins.

use super::{GUEST, Guest, IMPORTS, assert_failed, assert_unharmed, neighbor, neighbor_wat};
use crate::engine::EngineError;
use crate::engine::limits::Limits;
use crate::engine::testing::{LIMITS, engine, load, run, splitting, task, task_on};
use crate::run::failure::FailureKind::{self, Memory, Output, Trap};

const WITH_IMPORTS: Guest<'_> = Guest { imports: IMPORTS, ..GUEST };

/// Returns failing guests with the kinds and reasons of their failures.
fn failing() -> Vec<(Guest<'static>, FailureKind, &'static str)> {
    let task = |task| Guest { task, ..WITH_IMPORTS };
    let alloc = |alloc| Guest { alloc, ..WITH_IMPORTS };
    let initialize = |initialize| Guest { initialize, ..WITH_IMPORTS };
    let more = |more| Guest { more, ..WITH_IMPORTS };
    let early = "an output was given before the task was called";
    let no_room = "the pointer that `pcluster_alloc` returned has no room for the item";
    let exhausted = "call stack exhausted";
    let statuses = "the task returned a status that ABI 1 does not have";
    vec![
        (task("unreachable"), Trap, "`unreachable` instruction executed"),
        (task("(i32.div_u (i32.const 1) (i32.const 0))"), Trap, "integer divide by zero"),
        (task("(i32.load (i32.const -4))"), Trap, "out of bounds memory access"),
        (task("(memory.copy (i32.const 0) (i32.const 0) (i32.const -1)) (i32.const 0)"), Trap, "out of bounds memory"),
        (task("(i32.const 3)"), Trap, statuses),
        (task("(i32.const -1)"), Trap, statuses),
        (task("(call $task (i32.const 0) (i32.const 0))"), Trap, exhausted),
        (task("(drop (call $alloc (i32.const 0))) (call $task (i32.const 0) (i32.const 0))"), Trap, exhausted),
        (
            // The host's functions need stack at the greatest depth that a guest reaches.
            task(
                "(call $log (i32.const 1) (i32.const 0) (i32.const 65536)) (drop (call $random (i32.const 0) (i32.const 9)))
                 (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1024) (i32.const 0)))
                 (call $task (i32.const 0) (i32.const 0))",
            ),
            Trap,
            exhausted,
        ),
        (alloc("(call $alloc (i32.const 0))"), Trap, exhausted),
        (initialize("(call $initialize)"), Trap, exhausted),
        (more("(func $s (call $s)) (start $s)"), Trap, exhausted),
        (more("(func $s unreachable) (start $s)"), Trap, "`unreachable` instruction executed"),
        (more(r#"(data (i32.const 65535) "ab")"#), Trap, "out of bounds memory access"),
        (more("(table 1 funcref) (elem (i32.const 1) func $task)"), Trap, "out of bounds table access"),
        (alloc("(i32.const -1)"), Trap, no_room),
        (alloc("(i32.const 65536)"), Trap, no_room),
        (alloc("(i32.const 0x7fffffff)"), Trap, no_room),
        (initialize("(call $emit (i32.const 0) (i32.const 1))"), Output, early),
        (alloc("(call $emit (i32.const 0) (i32.const 1)) (i32.const 1024)"), Output, early),
        (more("(func $s (call $emit (i32.const 0) (i32.const 1))) (start $s)"), Output, early),
        (initialize("(call $exit (i32.const 0))"), Trap, "the task ended the program with exit status 0"),
        (alloc("(call $exit (i32.const 1)) (i32.const 0)"), Trap, "the task ended the program with exit status 1"),
        (task("(call $exit (i32.const 0)) (i32.const 0)"), Trap, "the task ended the program with exit status 0"),
        (
            more(
                r#"(data (i32.const 0) "why") (func $s (call $fail (i32.const 0) (i32.const 3)) unreachable) (start $s)"#,
            ),
            Trap,
            "why (wasm trap: wasm `unreachable` instruction executed)",
        ),
        (
            task("(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable"),
            Memory,
            "the task wanted more than its memory of 1.0 MiB",
        ),
        (task("(call $emit (i32.const 0) (i32.const 0)) (i32.const 0)"), Output, "an output is not one CBOR item"),
        (task("(call $emit (i32.const 0) (i32.const 2)) (i32.const 0)"), Output, "an output is not one CBOR item"),
        (task("(call $emit (i32.const 0) (i32.const 0xffff)) (i32.const 0)"), Output, "an output is not one CBOR item"),
    ]
}

#[tokio::test]
async fn a_guest_that_fails_says_how_and_harms_no_other() {
    let neighbor = neighbor();
    for (guest, kind, says) in failing() {
        assert_failed(run(&task(&guest.wat(), LIMITS)).await, kind, says, &guest.wat());
        assert_unharmed(&neighbor, &guest.wat()).await;
    }
}

#[tokio::test]
async fn a_guest_whose_image_is_apart_from_its_code_fails_in_the_same_ways() {
    let init = r#"(func (export "pcluster_init:t") (result i32) (i32.const 0)) (func $initialize"#;
    let neighbor = task_on(splitting(), &neighbor_wat().replace("(func $initialize", init), LIMITS);
    for (guest, kind, says) in failing() {
        let wat = guest.wat().replace("(func $initialize", init);
        assert_failed(run(&task_on(splitting(), &wat, LIMITS)).await, kind, says, &wat);
        assert_unharmed(&neighbor, &wat).await;
    }
}

#[tokio::test]
async fn a_guest_may_find_out_its_limits_without_failing() {
    for (fields, body) in [
        ("", "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (i32.const 0)"),
        ("", "(drop (memory.grow (i32.const 0x10000))) (drop (memory.grow (i32.const -1))) (i32.const 0)"),
        // The table may have 20,000 entries.
        (
            "(table 1 funcref)",
            "(loop $more (br_if $more (i32.ne (table.grow (ref.null func) (i32.const 999)) (i32.const -1))))
             (if (i32.gt_u (table.size) (i32.const 20000)) (then unreachable))
             (drop (table.grow (ref.null func) (i32.const -1))) (i32.const 0)",
        ),
        // A guest may call its own exports while its task runs.
        ("", "(call $emit (call $alloc (i32.const 1)) (i32.const 1)) (i32.const 0)"),
    ] {
        let guest = Guest { more: fields, task: body, ..WITH_IMPORTS };
        assert!(run(&task(&guest.wat(), LIMITS)).await.is_ok(), "{}", guest.wat());
    }
}

#[tokio::test]
async fn outputs_may_have_more_bytes_together_than_the_guest_has_memory_but_not_each() {
    // Outputs a text of 60,000 bytes eighteen times, which is more than 1 MiB.
    let body = "(i32.store8 (i32.const 0) (i32.const 0x79)) (i32.store16 (i32.const 1) (i32.const 0x60ea))
        (loop $again (call $emit (i32.const 0) (i32.const 60003))
          (br_if $again (i32.lt_u (local.tee $length (i32.add (local.get $length) (i32.const 1))) (i32.const 19))))
        (i32.const 0)";
    let wat = Guest { task: body, ..WITH_IMPORTS }.wat();
    assert_eq!(run(&task(&wat, LIMITS)).await.expect("room on the server").len(), 18);
    let says = "an output of 60003 bytes; the server takes 50000 bytes in one message";
    assert_failed(run(&task(&wat, Limits { output_item_bytes: 50_000, ..LIMITS })).await, Output, says, &wat);
}

#[tokio::test]
async fn outputs_without_end_end() {
    let emit = |length: &str| {
        let body = format!(
            "(i32.store8 (i32.const 0) (i32.const 0x79)) (i32.store16 (i32.const 1) (i32.const 0x60ea))
             (loop $again (call $emit (i32.const 0) (i32.const {length})) (br $again)) (i32.const 0)"
        );
        Guest { task: &body, ..WITH_IMPORTS }.wat()
    };
    for (length, says) in [
        ("60003", "the outputs of one item have more than 1.0 GiB together"),
        // A single byte 0x79 is not an item, so this case outputs a number.
        ("1", "more than 1000000 outputs from one item"),
    ] {
        let wat = emit(length).replace("0x79", if length == "1" { "0x05" } else { "0x79" });
        assert_failed(run(&task(&wat, LIMITS)).await, Output, says, &wat);
    }
}

#[test]
fn modules_that_no_node_can_run_are_not_loaded() {
    let memory = |memory| Guest { memory, ..GUEST };
    let more = |more| Guest { more, ..GUEST };
    let imports = |imports| Guest { imports, ..GUEST };
    for (guest, says) in [
        (memory("(memory 1)"), "it exports no memory named `memory`"),
        (memory(r#"(memory 1) (func (export "memory"))"#), "it exports no memory named `memory`"),
        (memory(r#"(memory (export "memory") 1) (memory 1)"#), "multiple memories"),
        (memory(r#"(memory (export "memory") i64 1)"#), "memory64 must be enabled"),
        (memory(r#"(memory (export "memory") 1 2 shared)"#), "threads must be enabled"),
        (memory(r#"(memory (export "memory") 1 (pagesize 1))"#), "custom page sizes"),
        (memory(r#"(memory (export "memory") 65537)"#), "memory size must be at most"),
        (imports(r#"(import "env" "memory" (memory 1))"#), "multiple memories"),
        (imports(r#"(import "env" "table" (table 1 funcref))"#), "the plugin imports `env::table`"),
        (imports(r#"(import "env" "global" (global i32))"#), "the plugin imports `env::global`"),
        (imports(r#"(import "pcluster_v1" "emit" (global i32))"#), "the plugin imports `pcluster_v1::emit`"),
        (imports(r#"(import "pcluster_v1" "publish" (func))"#), "the plugin imports `pcluster_v1::publish`"),
        (more("(table 1 funcref) (table 1 funcref)"), "a plugin may have one table"),
        (more("(table 20001 funcref)"), "a plugin may have one table, of at most 20000 entries"),
        (more("(table i64 1 funcref)"), "memory64 must be enabled"),
        (more("(table 1 externref)"), "gc types are disallowed"),
        (more("(func (param externref))"), "gc types are disallowed"),
        (more("(type (struct (field i32)))"), "not supported without the gc feature"),
        (more("(func (result i31ref) (ref.i31 (i32.const 0)))"), "gc"),
        (more("(type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0)))"), "function references"),
        (more("(tag)"), "exceptions proposal not enabled"),
        (more("(func (drop (i32.atomic.load (i32.const 0))))"), "threads support is not enabled"),
        (more(r#"(func (export "pcluster_task:u") (param i32) (result i32) (i32.const 0))"#), "`pcluster_task:u` is"),
        (more(r#"(global (export "pcluster_task:u") i32 (i32.const 0))"#), "it exports no function `pcluster_task:u`"),
    ] {
        match load(engine(), &guest.wat()) {
            Err(EngineError::Inspect(error)) => assert!(error.to_string().contains(says), "{says}: {error}"),
            Err(error) => panic!("{says}: found too late: {error}"),
            Ok(_) => panic!("{says}: it was loaded"),
        }
    }
}
