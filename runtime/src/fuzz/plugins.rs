//! Tests that any file is refused as a plugin or usable. Every node can load a usable plugin and run its tasks.

use std::time::Duration;

use super::{Random, damage, rounds, try_door};
use crate::chain::isolation::Reuse;
use crate::engine::inspect::inspect;
use crate::engine::limits::Limits;
use crate::engine::snapshot::Surroundings;
use crate::engine::static_context::StaticContext;
use crate::engine::{Engine, EngineSettings};
use crate::name::Digest;
use crate::run::call::Call;

/// One in this many plugins is loaded. Compiling takes that much longer than reading.
const LOAD_EVERY: u64 = 100;

/// The number of modules made of the parts.
const MODULES: usize = 500;

/// Parts of a plugin. The first of each list is valid; others make the module invalid or different.
const IMPORTS: [&str; 9] = [
    "",
    r#"(import "pcluster_v1" "emit" (func $emit (param i32 i32)))"#,
    r#"(import "pcluster_v1" "emit" (func $emit (param i32 i32))) (import "pcluster_v1" "context_len" (func (result i32)))"#,
    r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))"#,
    r#"(import "wasi_snapshot_preview1" "poll_oneoff" (func (param i32 i32 i32 i32) (result i32)))"#,
    r#"(import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))"#,
    r#"(import "pcluster_v1" "emit" (func (param i64)))"#,
    r#"(import "pcluster_v2" "emit" (func))"#,
    r#"(import "env" "table" (table 1 funcref))"#,
];
const MEMORIES: [&str; 8] = [
    r#"(memory (export "memory") 1)"#,
    r#"(memory (export "memory") 0)"#,
    r#"(memory (export "memory") 1 1)"#,
    r#"(memory (export "memory") 65536)"#,
    r#"(memory (export "memory") (data "abc"))"#,
    r#"(memory (export "memory") 1 2 shared)"#,
    r#"(memory (export "memory") i64 1)"#,
    "(memory 1)",
];
const ALLOCS: [&str; 5] = [
    r#"(func (export "pcluster_alloc") (param i32) (result i32) (i32.const 16))"#,
    r#"(func (export "pcluster_alloc") (param i32) (result i32) (memory.grow (local.get 0)))"#,
    r#"(func (export "pcluster_alloc") (param i32) (result i32) unreachable)"#,
    r#"(func (export "pcluster_alloc") (param i64) (result i32) (i32.const 16))"#,
    "",
];
const TASKS: [&str; 8] = [
    r#"(func (export "pcluster_task:t") (param i32 i32) (result i32) (i32.const 0))"#,
    r#"(func (export "pcluster_task:t") (param i32 i32) (result i32) (local.get 1))"#,
    r#"(func $t (export "pcluster_task:t") (param i32 i32) (result i32) (call $t (i32.const 0) (i32.const 0)))"#,
    r#"(func (export "pcluster_task:t") (param i32 i32) (result i32) (loop $l (br $l)) (i32.const 0))"#,
    r#"(func (export "pcluster_task:t") (param i32 i32) (result i32)
        (i32.load (i32.mul (local.get 0) (i32.const 70000))))"#,
    r#"(func (export "pcluster_task:t") (param i32 i32) (result i32)
        (drop (f64.div (f64.const 1) (f64.const 0))) (i32.trunc_f64_s (f64.const nan)))"#,
    r#"(func (export "pcluster_task:t") (param i32) (result i32) (i32.const 0))"#,
    r#"(global (export "pcluster_task:t") i32 (i32.const 0))"#,
];
const MORE: [&str; 29] = [
    "",
    r#"(func (export "pcluster_init:t") (result i32) (i32.const 0))"#,
    r#"(func (export "pcluster_init:t") (result i32) (i32.store (i32.const 8) (i32.const -1)) (memory.grow (i32.const 1)))"#,
    r#"(func (export "pcluster_init:t") (result i32) (loop $l (br $l)) (i32.const 0))"#,
    r#"(func (export "pcluster_init:t") (param i32) (result i32) (i32.const 0))"#,
    r#"(func (export "_initialize"))"#,
    r#"(func (export "_initialize") (result i32) (i32.const 0))"#,
    r#"(global (export "_initialize") i32 (i32.const 0))"#,
    "(func $s) (start $s)",
    "(func $s (call $s)) (start $s)",
    "(table 3 funcref)",
    "(table 20000 funcref)",
    "(table 20001 funcref)",
    "(table 1 externref)",
    "(table 1 1 funcref) (elem (i32.const 0) func 0) (func (call_indirect (i32.const 0)))",
    "(table 1 funcref) (table 1 funcref)",
    "(global $g (mut i32) (i32.const 1)) (func (global.set $g (i32.add (global.get $g) (i32.const 1))))",
    "(global v128 (v128.const i64x2 1 2))",
    "(global funcref (ref.null func))",
    "(global externref (ref.null extern))",
    r#"(data (i32.const 65530) "abcdefgh")"#,
    r#"(data $d "abcdefgh") (func (memory.init $d (i32.const 0) (i32.const 0) (i32.const 8)) (data.drop $d))"#,
    "(func (result i32 i64 f32) (i32.const 1) (i64.const 2) (f32.const 3))",
    "(func (param v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))",
    "(func $tail (param i32) (result i32) (return_call $tail (local.get 0)))",
    "(type (struct (field i32)))",
    "(tag)",
    r#"(@custom "pcluster" "{\"abi\":1,\"name\":\"t\",\"doc\":\"\u{1b}[31m\"}\n{]\n{\"name\":\"u\"}")"#,
    r#"(@custom "pcluster" "{\"abi\":7,\"name\":\"t\"}")"#,
];

/// Returns mostly the first of the list.
fn pick<'a>(random: &mut Random, from: &[&'a str]) -> &'a str {
    if random.once_in(4) { random.pick::<&str>(from) } else { from[0] }
}

/// Returns a module of random parts. Most of them are valid.
fn module(random: &mut Random) -> Vec<u8> {
    loop {
        let [import, memory] = [&IMPORTS[..], &MEMORIES].map(|parts| pick(random, parts));
        let [alloc, task] = [&ALLOCS[..], &TASKS].map(|parts| pick(random, parts));
        let more: Vec<&str> = (0..random.below(3)).map(|_| *random.pick(&MORE)).collect();
        let wat = format!("(module {import} {memory} {alloc} {task} {})", more.join(" "));
        // Two parts may contradict each other, and then there is no such module.
        if let Ok(bytes) = wat::parse_str(wat) {
            return bytes;
        }
    }
}

/// Damages a module: any bytes of it, or the contents of its sections with correct lengths.
fn damaged(random: &mut Random, mut bytes: Vec<u8>, others: &[Vec<u8>]) -> Vec<u8> {
    if random.once_in(3) {
        damage(random, &mut bytes, others);
        return bytes;
    }
    let mut sections = sections(&bytes);
    for _ in 0..=random.below(2) {
        let at = random.below(sections.len());
        match random.below(6) {
            0 => drop(sections.remove(at)),
            1 => sections.push(sections[at].clone()),
            2 => sections.swap(at, 0),
            _ => {
                let content = &mut sections[at].1;
                let others = [content.clone()];
                damage(random, content, &others);
            }
        }
        if sections.is_empty() {
            break;
        }
    }
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    for (id, content) in sections {
        bytes.push(id);
        let mut length = content.len();
        while length > 0x7f {
            bytes.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
            length >>= 7;
        }
        bytes.push(u8::try_from(length).expect("seven bits"));
        bytes.extend(content);
    }
    bytes
}

/// Returns the sections of a valid module: their kinds and contents.
fn sections(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut sections = Vec::new();
    for payload in wasmparser::Parser::new(0).parse_all(bytes) {
        if let Some((id, range)) = payload.expect("a module that is right").as_section() {
            sections.push((id, bytes[range].to_vec()));
        }
    }
    sections
}

/// Returns modules to start from. They are made once, because making one takes longer than reading it.
fn modules() -> Vec<Vec<u8>> {
    let mut random = Random::new(MODULES as u64);
    (0..MODULES).map(|_| module(&mut random)).collect()
}

fn plugin(random: &mut Random, modules: &[Vec<u8>]) -> Vec<u8> {
    let bytes = random.pick(modules).clone();
    if random.once_in(5) { bytes } else { damaged(random, bytes, modules) }
}

#[test]
fn a_file_is_no_plugin_for_a_reason_or_is_one() {
    let (modules, mut taken) = (modules(), 0_u64);
    try_door(
        rounds(),
        |random| plugin(random, &modules),
        |bytes: &Vec<u8>| match inspect(bytes) {
            Ok(inspection) => {
                taken += 1;
                assert!(!inspection.tasks.is_empty());
                assert!(inspection.tasks.iter().all(|task| inspection.task(&task.name).is_ok()));
                assert!(inspection.memory <= 4 << 30);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        },
    );
    assert!(taken > rounds() / 20, "{taken} taken: too few to tell");
}

#[test]
fn what_is_a_plugin_can_be_loaded_and_run() {
    let engine = || Engine::new(&EngineSettings { instances: 2, ..EngineSettings::default() }).expect("an engine");
    let engines = [engine(), engine().splitting()];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let limits = Limits { timeout: Duration::from_millis(10), memory: 1 << 20, output_item_bytes: 1 << 10 };
    let modules = modules();
    let make = |random: &mut Random| {
        loop {
            let bytes = plugin(random, &modules);
            if inspect(&bytes).is_ok() {
                return bytes;
            }
        }
    };
    try_door(rounds() / LOAD_EVERY, make, |bytes: &Vec<u8>| {
        let engine = &engines[bytes.len() % engines.len()];
        let plugin = engine.load(&Digest::of(bytes), bytes.clone()).expect("what inspection lets through is loaded");
        for described in &plugin.inspection.tasks {
            match plugin.task(&described.name, limits, StaticContext::default(), Reuse::default()) {
                Ok(task) => {
                    drop(runtime.block_on(task.run(
                        bytes::Bytes::from_static(b"\x05"),
                        Call::idle(),
                        &task.instances(),
                    )));
                    drop(runtime.block_on(plugin.with_state(&described.name, "", &task, Surroundings::silent())));
                }
                Err(_) => assert!(plugin.inspection.check_memory(limits.memory).is_err()),
            }
        }
    });
}

#[test]
fn a_plugin_of_very_many_parts_is_read_in_one_go() {
    let parts: String = (0..20_000)
        .map(|n| format!(r#"(export "pcluster_task:{n}" (func $t)) (@custom "pcluster" "{{\"name\":\"{n}\"}}")"#))
        .collect();
    let wat = format!(
        r#"(module (memory (export "memory") 1) (func (export "pcluster_alloc") (param i32) (result i32) (i32.const 0))
           (func $t (param i32 i32) (result i32) (i32.const 0)) {parts})"#
    );
    let bytes = wat::parse_str(wat).expect("a module");
    // With quadratic time, this would take a minute.
    assert_eq!(inspect(&bytes).expect("a plugin").tasks.len(), 20_000);
}
