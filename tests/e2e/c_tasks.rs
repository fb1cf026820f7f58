//! Tasks in C and Zig: on this machine, and as plugins.

use std::path::{Path, PathBuf};
use std::process::Command;

use ciborium::Value;
use pcluster::internal::Isolation;
use support::{Cluster, Run, json_lines, lines, repository};

use crate::languages::{cases, chain, check_cases, command_in, distinct, draw, each, make, meaning, provide, tool};
use crate::tried::{Tried, load};

/// Runs no two items at once, and tries each once.
const ONE_BY_ONE: &str = "concurrency = 1\nretry = { attempts = 1 }";

/// What the examples are built with too: another setting would build the C library anew.
const STRIP: &str = "-Wl,--strip-debug,-z,stack-size=1048576";

/// Builds the probe in C.
fn probe(cluster: &Cluster) -> PathBuf {
    provide("ziglang");
    let plugin = cluster.path("probe.wasm");
    let arguments = ["cc", "-target", "wasm32-wasi", "-mexec-model=reactor", "-std=c11", "-O2", STRIP, "-Isdk/c"];
    let mut command = command_in("", tool("zig"), &arguments);
    command.env("ZIG_GLOBAL_CACHE_DIR", repository().join(".tools/zig-cache"));
    command.env("ZIG_LOCAL_CACHE_DIR", cluster.path("zig-cache"));
    command.arg("-o").arg(&plugin).arg("tests/e2e/plugins/probe.c");
    Run::of(command, b"").succeeded();
    plugin
}

#[test]
fn the_header_and_the_example_hold_on_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let build = format!("BUILD={}", folder.path().display());
    assert_eq!(make("sdk/c", &["test", &build]), "the SDK holds\n");
    assert_eq!(make("plugins/c", &["test"]).lines().last(), Some("the tasks hold"));

    // The header is one of C++ too.
    let source = folder.path().join("task.cpp");
    let task = "#include <pcluster.h>\nstatic pcluster_status end(pcluster_reader *) { return PCLUSTER_DONE; }\n\
                PCLUSTER_TASK(end, end)\n";
    std::fs::write(&source, task).unwrap();
    let mut command = command_in("", "c++", &["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Isdk/c", "-fsyntax-only"]);
    command.arg(&source);
    Run::of(command, b"").succeeded();
}

#[test]
fn values_mean_the_same_in_c_on_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let build = folder.path().display().to_string();
    make("sdk/c", &[&format!("BUILD={build}"), &format!("{build}/cases")]);
    let cases = cases("c");
    let items = cases.iter().map(|case| case.item.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let run = Run::of(Command::new(folder.path().join("cases")), lines(items).as_bytes()).succeeded();
    let results: Vec<&str> = run.lines().collect();
    assert_eq!(results.len(), cases.len());
    for (case, result) in cases.iter().zip(results) {
        let is_as_wanted = match &case.returned {
            None => result.starts_with("refused: "),
            Some(item) => {
                !result.starts_with("refused: ") && meaning(&crate::languages::bytes(result)) == meaning(item)
            }
        };
        assert!(is_as_wanted, "{}: {result}", case.name);
    }
}

#[test]
fn a_task_in_c_keeps_values_and_ends_as_the_page_says() {
    let cluster = Cluster::start();
    let plugin = probe(&cluster);
    check_cases(&cluster, "c", &plugin);

    cluster.deploy(&chain("end", &plugin, &["end"], &format!("{ONE_BY_ONE}\nisolation = \"worker\"")));
    let mut node = cluster.node("a");
    let ends = each(&cluster, "end", &["half", "deep", "exit", "broken", "other", "half"]);
    for (end, said) in
        ends.iter().zip(["", "out of bounds", "exit", "an output is not one CBOR item", "no way is named other", ""])
    {
        assert!(end.contains(said) && said.is_empty() == end.is_empty(), "{said}: {end}");
    }
    assert_eq!(node.stop(), Some(0));
    let logged = cluster.ok(&["logs", "end", "--no-follow"]);
    assert_eq!(logged.matches(": half a line of ").count(), 2, "{logged}");
    check_room(&plugin);
}

/// Checks that a fresh instance needs no more memory for an item than it begins with.
fn check_room(plugin: &Path) {
    let plugin = load(plugin);
    let task = Tried::within(plugin.inspection.memory, &plugin, "echo", Value::Null, &[], Isolation::Item);
    assert_eq!(task.value(&Value::from("small")), Value::from("small"));
}

#[test]
fn chance_and_time_differ_under_each_isolation_in_c() {
    let cluster = Cluster::start();
    let (drawn, fed) = draw(&cluster, &probe(&cluster), "dice");
    // Each chain has a snapshot of its own.
    assert!(distinct(&drawn, 0) <= 3, "{drawn:?}");
    assert_eq!(distinct(&drawn, 1), drawn.len(), "{drawn:?}");
    assert!(drawn.iter().all(|all| u128::from(all[2].as_u64().unwrap()) >= fed), "since {fed}: {drawn:?}");
}

#[test]
fn the_examples_in_c_and_zig_run() {
    provide("ziglang");
    make("plugins/c", &[]);
    make("plugins/zig", &[]);
    let cluster = Cluster::start();
    let _node = cluster.node("a");
    let manifest = |language: &str| repository().join(format!("plugins/{language}/chain.toml")).display().to_string();
    let inspected: serde_json::Value = serde_json::from_str(&cluster.ok(&[
        "inspect",
        &repository().join("plugins/c/build/harvest.wasm").display().to_string(),
        "--json",
    ]))
    .unwrap();
    assert_eq!(inspected["tasks"].as_array().unwrap().len(), 3, "{inspected}");
    assert_eq!(inspected["tasks"][0]["state"], "load", "{inspected}");
    cluster.ok(&["deploy", &manifest("c")]);
    cluster.ok(&["feed", "harvest-c", "an apple and a pea", "on a pebble", "--format", "lines"]);
    cluster.ok(&["wait", "harvest-c"]);
    let mut results = cluster.pull_all("harvest-c");
    results.sort_by_key(ToString::to_string);
    assert_eq!(results, ["apple: fruit", "pea: seed"]);
    let letters = json_lines(&cluster.ok(&["dead", "show", "harvest-c", "--all", "--json"]));
    assert_eq!(letters[0]["reason"], "nobody harvests a pebble");

    cluster.ok(&["deploy", &manifest("zig")]);
    cluster.ok(&["feed", "letters", "größe", "--format", "lines"]);
    assert_eq!(cluster.pull_all("letters"), [serde_json::json!({"text": "größe", "letters": 5})]);
}
