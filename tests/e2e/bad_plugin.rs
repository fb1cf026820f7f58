//! Files that are no plugins of this pcluster: `inspect` and `deploy` refuse them alike, and nothing changes.

use support::{Cluster, Server, assert_refused, plugin, probe_chain};

/// A plugin that can be run, but for what is put in place of one of its parts.
fn module(import: &str, memory: &str, alloc: &str, task: &str, more: &str) -> Vec<u8> {
    wat::parse_str(format!("(module {import} {memory} {alloc} {task} {more})")).unwrap()
}

const EMIT: &str = r#"(import "pcluster_v1" "emit" (func (param i32 i32)))"#;
const MEMORY: &str = r#"(memory (export "memory") 1)"#;
const ALLOC: &str = r#"(func (export "pcluster_alloc") (param i32) (result i32) (i32.const 16))"#;
const TASK: &str = r#"(func (export "pcluster_task:t") (param i32 i32) (result i32) (i32.const 0))"#;

/// Each bad plugin, and what is said of it.
fn bad_plugins() -> Vec<(Vec<u8>, &'static str)> {
    let import = |text: &str| module(text, MEMORY, ALLOC, TASK, "");
    let more = |text: &str| module(EMIT, MEMORY, ALLOC, TASK, text);
    let other_abi = r#"(@custom "pcluster" "{\"abi\":2,\"name\":\"t\"}")"#;
    let mut cut_off = module(EMIT, MEMORY, ALLOC, TASK, "");
    cut_off.truncate(cut_off.len() - 3);
    vec![
        (b"#!/bin/sh\n".to_vec(), "not a WebAssembly module; build the plugin with `cargo build --release"),
        (Vec::new(), "not a WebAssembly module"),
        (
            b"\0asm\x0d\0\x01\0".to_vec(),
            "a WebAssembly component, not a module; build the plugin for the target wasm32-wasip1",
        ),
        (cut_off, "not a valid WebAssembly module"),
        (
            import(r#"(import "pcluster_v2" "emit" (func (param i32 i32)))"#),
            "built for plugin ABI 2, but this pcluster runs ABI 1; build it with a matching version of pcluster-sdk",
        ),
        (module(EMIT, MEMORY, ALLOC, TASK, other_abi), "built for plugin ABI 2, but this pcluster runs ABI 1"),
        (
            import(r#"(import "env" "system" (func (param i32)))"#),
            "the plugin imports `env::system`, which pcluster does not offer",
        ),
        (
            import(r#"(import "wasi_snapshot_preview1" "sock_open" (func))"#),
            "imports `wasi_snapshot_preview1::sock_open`",
        ),
        (
            import(r#"(import "pcluster_v1" "emit" (func (param i64)))"#),
            "imports `pcluster_v1::emit` as `(i64) -> ()` instead of `(i32, i32) -> ()`",
        ),
        (module(EMIT, "(memory 1)", ALLOC, TASK, ""), "not a pcluster plugin: it exports no memory named `memory`"),
        (module(EMIT, MEMORY, "", TASK, ""), "not a pcluster plugin: it exports no function `pcluster_alloc`"),
        (
            module(EMIT, MEMORY, ALLOC, r#"(func (export "pcluster_task:t") (param i32))"#, ""),
            "its export `pcluster_task:t` is `(i32) -> ()`, not `(i32, i32) -> (i32)`",
        ),
        (module(EMIT, MEMORY, ALLOC, "", ""), "the plugin has no task; mark a function with `#[task]`"),
        (
            module(EMIT, MEMORY, ALLOC, r#"(global (export "pcluster_task:t") i32 (i32.const 0))"#, ""),
            "not a pcluster plugin: it exports no function `pcluster_task:t`",
        ),
        (
            module(EMIT, r#"(global (export "memory") i32 (i32.const 0)) (memory 1)"#, ALLOC, TASK, ""),
            "not a pcluster plugin: it exports no memory named `memory`",
        ),
        (
            more(r#"(func (export "_initialize") (result i32) (i32.const 0))"#),
            "its export `_initialize` is `() -> (i32)`, not `() -> ()`",
        ),
        (more("(memory 1)"), "not a valid WebAssembly module: multiple memories"),
        (module(EMIT, r#"(memory (export "memory") i64 1)"#, ALLOC, TASK, ""), "memory64 must be enabled"),
        (module(EMIT, r#"(memory (export "memory") 1 1 shared)"#, ALLOC, TASK, ""), "threads must be enabled"),
        (more("(tag (param i32))"), "exceptions proposal not enabled"),
        (more("(type (struct (field i32)))"), "gc"),
        (more("(table 1 externref)"), "gc types are disallowed"),
        (more("(table 20001 funcref)"), "a plugin may have one table, of at most 20000 entries"),
        (more("(table 1 funcref) (table 1 funcref)"), "a plugin may have one table"),
    ]
}

#[test]
fn a_bad_plugin_is_refused_with_the_reason_and_nothing_changes() {
    let cluster = Cluster::start();
    let mut node = cluster.node("a");
    cluster.file(
        "chain.toml",
        "name = \"bad\"\nversion = \"1\"\n[[stage]]\nname = \"s\"\nplugin = \"p.wasm\"\ntask = \"t\"",
    );
    for (bytes, said) in bad_plugins() {
        cluster.file("p.wasm", bytes);
        assert_refused(&cluster.run(&["deploy"]), 1, &["stage `s`: plugin `p.wasm`: ", said]);
        assert_refused(&cluster.run(&["inspect", "p.wasm"]), 1, &["`p.wasm`: ", said]);
    }
    assert_eq!(cluster.ok(&["status", "--json"]).trim(), "[]");

    // The parts are right: only what was put in their place was wrong.
    cluster.file("p.wasm", module(EMIT, MEMORY, ALLOC, TASK, ""));
    cluster.ok(&["deploy"]);
    cluster.ok(&["feed", "bad", "1"]);
    assert_eq!(cluster.pull_all("bad"), Vec::<serde_json::Value>::new());
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn a_plugin_that_starts_with_more_memory_than_its_stage_allows_is_refused() {
    let cluster = Cluster::start();
    cluster.file("p.wasm", module(EMIT, r#"(memory (export "memory") 33)"#, ALLOC, TASK, ""));
    let manifest = |memory: &str| {
        format!(
            "name = \"big\"\nversion = \"1\"\n[[stage]]\nname = \"s\"\nplugin = \"p.wasm\"\ntask = \"t\"\nmemory = \"{memory}\""
        )
    };
    cluster.file("chain.toml", manifest("2MiB"));
    assert_refused(
        &cluster.run(&["deploy"]),
        1,
        &[
            "stage `s`: plugin `p.wasm`: the plugin starts with 2.1 MiB of memory, but its stage allows 2.0 MiB; ",
            "write `memory = \"2112KiB\"` or more",
        ],
    );
    assert_eq!(cluster.ok(&["status", "--json"]).trim(), "[]");
    let shown = cluster.ok(&["inspect", "p.wasm"]);
    assert!(shown.lines().next().unwrap().ends_with(" bytes, starts with 2.1 MiB of memory"), "{shown}");
    let json: serde_json::Value = serde_json::from_str(&cluster.ok(&["inspect", "p.wasm", "--json"])).unwrap();
    assert_eq!(json["memory"], 2112 << 10);

    cluster.deploy(&manifest("2112KiB"));
    let _node = cluster.node("a");
    cluster.ok(&["feed", "big", "1"]);
    assert_eq!(cluster.pull_all("big"), Vec::<serde_json::Value>::new());
    assert_eq!(cluster.status("big")["dead"], 0);
}

#[test]
fn a_task_that_the_plugin_lacks_is_named_with_those_it_has() {
    let cluster = Cluster::start();
    cluster.file("chain.toml", probe_chain("lacking", &["echo", "ecko"], ""));
    let run = cluster.run(&["deploy"]);
    assert_refused(&run, 1, &["stage `ecko`: plugin `", "the plugin has no task `ecko`; it has `", "`echo`"]);
    assert_refused(&cluster.run(&["inspect", "none.wasm"]), 4, &["there is no file `none.wasm`"]);
    assert_refused(&cluster.run(&["inspect", "."]), 1, &["cannot read `.`: Is a directory"]);
    assert_eq!(cluster.ok(&["status", "--json"]).trim(), "[]");
}

#[test]
fn a_file_without_an_end_is_refused_before_it_fills_the_memory() {
    let cluster = Cluster::start();
    cluster.file("chain.toml", "name = \"endless\"\nversion = \"1\"\n[[stage]]\nname = \"s\"\nplugin = \"/dev/zero\"");
    for (arguments, status, says) in [
        (&["deploy"][..], 1, "cannot read `/dev/zero`: it has more than 256.0 MiB"),
        (&["inspect", "/dev/zero"], 1, "cannot read `/dev/zero`: it has more than 256.0 MiB"),
        (&["deploy", "/dev/zero"], 1, "cannot read `/dev/zero`: it has more than 64.0 MiB"),
        (&["status", "--config", "/dev/zero"], 2, "the settings file `/dev/zero`: it has more than 64.0 MiB"),
        (&["status", "--creds", "/dev/zero"], 5, "`/dev/zero`: it has more than 64.0 MiB"),
    ] {
        assert_refused(&cluster.run(arguments), status, &[says]);
    }
}

#[test]
fn a_chain_for_which_the_server_has_no_room_is_refused_and_leaves_no_chain() {
    let room = |bytes: &str| {
        Cluster::with_server(Server::with_configuration(&format!(
            "jetstream {{ store_dir: data, max_file_store: {bytes} }}"
        )))
    };
    let asking = |bytes: &str| {
        let manifest = probe_chain("a", &["echo"], "");
        manifest.replacen("[[stage]]", &format!("[results]\nmax_bytes = \"{bytes}\"\n[[stage]]"), 1)
    };
    // Too small for the log lines of all chains; for what the chain asks for its results.
    for (bytes, asks, says) in [
        ("100MB", "1MB", &["cannot make the stream `PCLUSTER_LOG`", "give it more room with `max_file_store`"][..]),
        ("1GB", "1GiB", &["cannot make the stream `PCLUSTER_a_", "ask for less with `max_bytes` below `[results]`"]),
    ] {
        let cluster = room(bytes);
        cluster.file("chain.toml", asking(asks));
        assert_refused(&cluster.run(&["deploy"]), 1, says);
        assert_eq!(cluster.ok(&["status", "--json"]).trim(), "[]");
        if asks == "1GiB" {
            // Nothing is left that keeps the room from others.
            cluster.deploy(&asking("300MB").replace("\"a\"", "\"b\""));
        }
    }
    let cluster = room("1GB");
    cluster.deploy(&asking("1MB"));
    assert_eq!(cluster.status("a")["revision"], 1);
}

#[test]
fn a_plugin_larger_than_a_message_is_stored_in_parts() {
    let server = Server::start("max_payload: 64KB");
    let cluster = Cluster::with_server(server);
    assert!(std::fs::metadata(plugin("probe")).unwrap().len() > 64 << 10);
    cluster.deploy(&probe_chain("parts", &["echo"], ""));
    let _node = cluster.node("a");
    cluster.ok(&["feed", "parts", "1"]);
    assert_eq!(cluster.pull_all("parts"), [1]);
}

#[test]
fn a_task_that_says_megabytes_harms_no_item_and_no_node() {
    let cluster = Cluster::start();
    let import = r#"
        (import "pcluster_v1" "fail" (func $fail (param i32 i32)))
        (import "pcluster_v1" "log" (func $log (param i32 i32 i32)))"#;
    let task = r#"(func (export "pcluster_task:t") (param i32 i32) (result i32)
        (memory.fill (i32.const 0) (i32.const 120) (i32.const 3000000))
        (call $log (i32.const 3) (i32.const 0) (i32.const 3000000))
        (call $log (i32.const 3) (i32.const 0) (i32.const 5))
        (call $fail (i32.const 0) (i32.const 3000000))
        (i32.const 2))"#;
    cluster.file("p.wasm", module(import, r#"(memory (export "memory") 64)"#, ALLOC, task, ""));
    cluster.file(
        "chain.toml",
        "name = \"talker\"\nversion = \"1\"\n[[stage]]\nname = \"s\"\nplugin = \"p.wasm\"\ntask = \"t\"",
    );
    cluster.ok(&["deploy"]);
    let mut node = cluster.node("a");
    cluster.ok(&["feed", "talker", "1", "2"]);
    cluster.ok(&["wait", "talker"]);
    assert_eq!(cluster.status("talker")["dead"], 2);
    assert_eq!(node.stop(), Some(0));
    let lines = cluster.ok(&["logs", "talker", "--no-follow"]);
    assert_eq!(lines.lines().filter(|line| line.ends_with(": xxxxx")).count(), 2, "{lines}");
    assert_eq!(lines.lines().filter(|line| line.ends_with("xxx…")).count(), 2, "{}", lines.len());
}
