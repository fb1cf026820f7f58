//! Tests of snapshots. Each plugin is tried as one module, and as an image apart from its code.

mod kept;

use std::sync::Mutex;

use bytes::Bytes;

use super::*;
use crate::chain::isolation::Reuse;
use crate::engine::Engine;
use crate::engine::limits::Limits;
use crate::engine::static_context::StaticContext;
use crate::engine::testing::{BRIEF, LIMITS, engine, load, splitting};

/// Returns a plugin whose initializer counts its calls. It counts at address 0 of its memory and in a global, and then runs
/// `init`. Its task returns the sum of both.
fn plugin(more: &str, init: &str) -> String {
    format!(
        r#"(module
          (import "pcluster_v1" "emit" (func $emit (param i32 i32)))
          (import "pcluster_v1" "log" (func $log (param i32 i32 i32)))
          (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
          (memory (export "memory") 2) (data (i32.const 512) "made")
          (global $made (mut i32) (i32.const 0))
          {more}
          (func (export "pcluster_init:t") (result i32)
            (i32.store8 (i32.const 0) (i32.add (i32.load8_u (i32.const 0)) (i32.const 1)))
            (global.set $made (i32.add (global.get $made) (i32.const 1)))
            (call $log (i32.const 3) (i32.const 512) (i32.const 4))
            {init}
            (i32.const 0))
          (func (export "pcluster_alloc") (param i32) (result i32) (i32.const 1024))
          (func (export "pcluster_task:t") (param i32 i32) (result i32)
            (i32.store8 (i32.const 1) (i32.add (global.get $made) (i32.load8_u (i32.const 0))))
            (i32.store8 (i32.const 0) (i32.const 9))
            (global.set $made (i32.const 9))
            (call $emit (i32.const 1) (i32.const 1))
            (i32.const 0)))"#
    )
}

/// Returns the task's outputs for three items, and the initializer's log lines. They are the same whether its image is apart
/// from its code or not.
async fn given(wat: &str, limits: Limits) -> Result<(Vec<u8>, Vec<String>), SnapshotError> {
    let whole = given_on(engine(), wat, limits).await;
    let split = given_on(splitting(), wat, limits).await;
    assert_eq!(format!("{whole:?}"), format!("{split:?}"), "{wat}");
    split
}

async fn given_on(engine: &Engine, wat: &str, limits: Limits) -> Result<(Vec<u8>, Vec<String>), SnapshotError> {
    let plugin = load(engine, wat).expect("a plugin");
    let task = plugin.task("t", limits, StaticContext::default(), Reuse::default()).expect("a task");
    let lines = Arc::new(Mutex::new(Vec::new()));
    let said = Arc::clone(&lines);
    let log = Box::new(move |_, line| said.lock().expect("no panic").push(line));
    let task = plugin.with_state("t", "", &task, Surroundings { log, calls: None }).await?.expect("a task with state");
    let mut given = Vec::new();
    for _ in 0..3 {
        let outputs = task.run(Bytes::from_static(b"\x05"), Call::idle(), &task.instances()).await.expect("outputs");
        given.extend_from_slice(&outputs.into_payload());
    }
    let lines = lines.lock().expect("no panic").clone();
    Ok((given, lines))
}

#[tokio::test]
async fn every_instance_starts_from_the_state_of_the_initializer() {
    let (given, lines) = given(&plugin("", ""), LIMITS).await.expect("a snapshot");
    assert_eq!(given, [2, 2, 2], "the state is there, and no item finds what another has made of it");
    assert_eq!(lines, ["made"], "the initializer runs once");
}

#[tokio::test]
async fn the_start_before_the_initializer_runs_once() {
    let before = "(func $before (global.set $made (i32.add (global.get $made) (i32.const 5))))";
    let start = plugin(&format!("{before} (start $before)"), "");
    assert_eq!(given(&start, LIMITS).await.expect("a snapshot").0, [7, 7, 7]);
    let initialize = plugin(&format!(r#"{before} (export "_initialize" (func $before))"#), "");
    assert_eq!(given(&initialize, LIMITS).await.expect("a snapshot").0, [7, 7, 7]);
}

#[tokio::test]
async fn memory_that_the_initializer_has_grown_is_there() {
    let grow = "(drop (memory.grow (i32.const 3))) (i32.store8 (i32.const 300000) (i32.const 1))";
    assert_eq!(given(&plugin("", grow), LIMITS).await.expect("a snapshot").0, [2, 2, 2]);
}

#[tokio::test]
async fn an_initializer_that_fails_says_why() {
    for (init, reason) in [
        ("unreachable", "the initializer failed: wasm trap: wasm `unreachable` instruction executed"),
        ("(return (i32.const 1))", "the initializer failed: the task failed without saying why"),
        ("(loop $spin (br $spin))", "the initializer failed: the task took longer than its timeout of 50ms"),
        (
            "(call $emit (i32.const 0) (i32.const 1))",
            "the initializer failed: an output was given before the task was called",
        ),
    ] {
        let error = given(&plugin("", init), BRIEF).await.expect_err(init);
        assert_eq!(error.to_string(), reason);
    }
}

#[tokio::test]
async fn a_plugin_whose_tables_may_change_is_left_as_it_is() {
    let more = "(table 2 funcref) (func (table.set (i32.const 0) (ref.null func)))";
    let error = given(&plugin(more, ""), LIMITS).await.expect_err("unfit");
    assert!(matches!(&error, SnapshotError::Unfit(reason) if reason.contains("table.set")), "{error}");
}

#[tokio::test]
async fn state_that_takes_very_much_memory_is_made_by_each_instance() {
    let limits = Limits { memory: 1 << 30, ..LIMITS };
    let error = given(&plugin("", "(drop (memory.grow (i32.const 4096)))"), limits).await.expect_err("too much");
    let says = "its state takes 256.1 MiB of memory; the most is 256.0 MiB";
    assert!(error.to_string().ends_with(says), "{error}");
}

#[tokio::test]
async fn state_in_very_many_pieces_is_there() {
    let scatter = "(drop (memory.grow (i32.const 64)))
        (loop $more
          (global.set $made (i32.add (global.get $made) (i32.const 1)))
          (i32.store8 (i32.mul (global.get $made) (i32.const 2)) (i32.const 1))
          (br_if $more (i32.lt_u (global.get $made) (i32.const 2000000))))
        (global.set $made (i32.load8_u (i32.const 4000000)))";
    let limits = Limits { memory: 1 << 30, ..LIMITS };
    assert_eq!(given(&plugin("", scatter), limits).await.expect("a snapshot").0, [2, 2, 2]);
}

#[tokio::test]
async fn state_far_apart_in_the_memory_is_there() {
    let far = "(drop (memory.grow (i32.const 1000))) (i32.store8 (i32.const 60000000) (i32.const 1))
        (global.set $made (i32.load8_u (i32.const 60000000)))";
    let limits = Limits { memory: 1 << 30, ..LIMITS };
    assert_eq!(given(&plugin("", far), limits).await.expect("a snapshot").0, [2, 2, 2]);
}

#[tokio::test]
async fn globals_of_all_kinds_keep_their_values() {
    let globals = r#"(global $one i32 (i32.const 1)) (global $wide (mut i64) (i64.const 1))
        (global $single (mut f32) (f32.const 1)) (global $double (mut f64) (f64.const 1))
        (global $vector (mut v128) (v128.const i64x2 1 1)) (global $function funcref (ref.null func))
        (global $last i32 (i32.const 1))
        (func (export "check") (result i32)
          (i32.and (i64.eq (global.get $wide) (i64.const -5))
          (i32.and (i32.eq (i32.reinterpret_f32 (global.get $single)) (i32.const 0x7fc00001))
          (i32.and (f64.eq (global.get $double) (f64.const -0.5))
          (i64.eq (i64x2.extract_lane 1 (global.get $vector)) (i64.const 7))))))"#;
    let init = "(global.set $wide (i64.const -5)) (global.set $single (f32.reinterpret_i32 (i32.const 0x7fc00001)))
        (global.set $double (f64.const -0.5)) (global.set $vector (v128.const i64x2 6 7))";
    let wat = plugin(globals, init);
    let task = "(i32.add (global.get $made) (i32.load8_u (i32.const 0)))";
    let checked = wat.replace(task, &format!("(i32.add (call $check) (i32.add (global.get $one) {task}))"));
    let checked = checked.replace(r#"(func (export "check")"#, r#"(func $check (export "check")"#);
    assert_eq!(given(&checked, LIMITS).await.expect("a snapshot").0, [4, 4, 4]);
}

#[tokio::test]
async fn segments_that_the_code_copies_are_there() {
    let more = r#"(data $passive "\01\02\03")"#;
    let wat = plugin(more, "(memory.init $passive (i32.const 100) (i32.const 0) (i32.const 1))");
    let task = "(i32.load8_u (i32.const 0)))";
    let copied = "(memory.init $passive (i32.const 101) (i32.const 2) (i32.const 1))
        (i32.store8 (i32.const 0) (i32.add (i32.load8_u (i32.const 100)) (i32.load8_u (i32.const 101))))";
    let wat = wat.replace(
        "(i32.store8 (i32.const 1) (i32.add (global.get $made)",
        &format!("{copied}\n(i32.store8 (i32.const 1) (i32.add (global.get $made)"),
    );
    assert!(wat.contains(task), "{wat}");
    assert_eq!(given(&wat, LIMITS).await.expect("a snapshot").0, [5, 5, 5]);
}

#[tokio::test]
async fn a_task_may_have_a_name_without_a_colon() {
    let wat =
        plugin("", "").replace("pcluster_init:t", "pcluster_init_t").replace("pcluster_task:t", "pcluster_task_t");
    let (given, lines) = given(&wat, LIMITS).await.expect("a snapshot");
    assert_eq!((given, lines), (vec![2, 2, 2], vec!["made".to_owned()]));
}

#[tokio::test]
async fn a_task_without_state_has_no_snapshot() {
    let plain = load(
        engine(),
        r#"(module (memory (export "memory") 1)
        (func (export "pcluster_alloc") (param i32) (result i32) (i32.const 16))
        (func (export "pcluster_task:t") (param i32 i32) (result i32) (i32.const 0)))"#,
    )
    .expect("a plugin");
    let task = plain.task("t", LIMITS, StaticContext::default(), Reuse::default()).expect("a task");
    assert!(plain.with_state("t", "", &task, Surroundings::silent()).await.expect("no error").is_none());
}

#[tokio::test]
async fn the_clock_goes_on_from_where_the_initializer_saw_it() {
    // The task returns 24 if its clock is behind the time that the initializer has read.
    let read = |at: u32| format!("(drop (call $clock (i32.const 1) (i64.const 0) (i32.const {at})))");
    let wat = format!(
        r#"(module
          (import "pcluster_v1" "emit" (func $emit (param i32 i32)))
          (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
          (memory (export "memory") 1)
          (func (export "pcluster_init:t") (result i32) {}
            (loop $wait {} (br_if $wait (i64.eq (i64.load (i32.const 8)) (i64.load (i32.const 16)))))
            (i32.const 0))
          (func (export "pcluster_alloc") (param i32) (result i32) (i32.const 1024))
          (func (export "pcluster_task:t") (param i32 i32) (result i32) {}
            (i32.store8 (i32.const 0) (i64.lt_u (i64.load (i32.const 24)) (i64.load (i32.const 16))))
            (call $emit (i32.const 0) (i32.const 1))
            (i32.const 0)))"#,
        read(8),
        read(16),
        read(24)
    );
    assert_eq!(given(&wat, LIMITS).await.expect("a snapshot").0, [0, 0, 0]);
}
