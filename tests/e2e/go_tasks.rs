//! Tasks in Go: on this machine, and as plugins.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use support::{Cluster, Run, json_lines, lines, repository};

use crate::languages::{chain, check_cases, command_in, distinct, draw, each, make, provide, tool};

/// Runs no two items at once, and tries each once.
const ONE_BY_ONE: &str = "concurrency = 1\nretry = { attempts = 1 }";

/// Returns a command of Go in a folder of the repository.
fn go(folder: &str, arguments: &[&str]) -> Command {
    provide("go");
    command_in(folder, tool("go"), arguments)
}

/// Builds the probe in Go.
fn probe(cluster: &Cluster) -> PathBuf {
    let plugin = cluster.path("probe.wasm");
    let mut command = go("tests/e2e/plugins/probe-go", &["run", "pcluster/cmd/build", "-o"]);
    command.arg(&plugin);
    Run::of(command, b"").succeeded();
    plugin
}

#[test]
fn the_package_and_the_example_hold_on_this_machine() {
    for folder in ["sdk/go", "plugins/go"] {
        assert_eq!(Run::of(go(folder, &["vet", "./..."]), b"").succeeded(), "");
        let said = Run::of(go(folder, &["test", "./..."]), b"").succeeded();
        assert!(said.contains("ok  \t"), "{said}");
    }
}

#[test]
fn a_task_in_go_keeps_values_and_ends_as_the_page_says() {
    let cluster = Cluster::start();
    let plugin = probe(&cluster);
    check_cases(&cluster, "go", &plugin);

    cluster.deploy(&chain("end", &plugin, &["end"], &format!("{ONE_BY_ONE}\nisolation = \"worker\"")));
    let mut node = cluster.node("a");
    let ends = [
        ("sleep", "\"sleep\""),
        ("panic", "panic: runtime error: index out of range [5] with length 0\n    at main.end (probe/main.go:"),
        (
            "nil",
            "panic: runtime error: invalid memory address or nil pointer dereference\n    at main.end (probe/main.go:",
        ),
        ("goroutine", "the task returned while 1 of its goroutines still run; wait for them first"),
        ("waited", "\"waited\""),
        (
            "stuck",
            "; it wrote last: fatal error: all goroutines are asleep - deadlock!\n    goroutine 1 [chan receive]:",
        ),
        ("elsewhere", "; it wrote last: panic: boom\n    goroutine "),
        ("timer", "\"timer\""),
        ("sleep", "\"sleep\""),
        ("exit", "the task ended the program with exit status 3"),
        // The stack of the guest, or its memory, in which Go keeps stacks too.
        ("deep", "stack|memory"),
        ("never", "it is file does not exist"),
        ("lines", "\"lines\""),
        ("later", "not yet"),
    ];
    let said = each(&cluster, "end", &ends.map(|(how, _)| how));
    for ((how, wanted), said) in ends.iter().zip(&said) {
        assert!(wanted.split('|').any(|wanted| said.contains(wanted)), "{how}: {said}");
    }
    assert_eq!(node.stop(), Some(0));
    let logged = json_lines(&cluster.ok(&["logs", "end", "--no-follow", "--json"]));
    for (level, line) in
        [("error", "an error of=end"), ("debug", "a detail"), ("info", "a line"), ("info", "half a line")]
    {
        assert!(
            logged.iter().any(|each| each["level"] == level && each["message"] == line),
            "{level} {line}: {logged:?}"
        );
    }
}

#[test]
fn chance_and_time_differ_under_each_isolation_in_go() {
    let cluster = Cluster::start();
    let (drawn, fed) = draw(&cluster, &probe(&cluster), "dice");
    // Each chain has a snapshot of its own.
    assert!(distinct(&drawn, 0) <= 3, "{drawn:?}");
    assert_eq!([1, 2, 3].map(|position| distinct(&drawn, position)), [drawn.len(); 3], "{drawn:?}");
    // The clock of a task shows whole milliseconds.
    let since = fed * 1_000_000;
    assert!(drawn.iter().all(|all| u128::from(all[4].as_u64().unwrap()) >= since), "since {since}: {drawn:?}");
}

#[test]
fn an_instance_of_go_that_is_reused_does_not_grow() {
    let cluster = Cluster::start();
    let stage = format!("{ONE_BY_ONE}\nisolation = \"worker\"\nmemory = \"16 MiB\"");
    cluster.deploy(&chain("count", &probe(&cluster), &["count"], &stage));
    let _node = cluster.node("a");
    cluster.run_with_input(&["feed", "count"], lines(0..100_000)).succeeded();
    cluster.ok(&["wait", "count"]);
    let counted: Vec<Value> = (1..=100).map(|thousand| (thousand * 1000).into()).collect();
    assert_eq!(cluster.pull_all("count"), counted, "{}", cluster.ok(&["dead", "ls", "count"]));
}

#[test]
fn the_example_in_go_runs() {
    provide("go");
    make("plugins/go", &[]);
    let cluster = Cluster::start();
    let _node = cluster.node("a");
    let at = |path: &str| repository().join("plugins/go").join(path).display().to_string();
    let inspected: Value =
        serde_json::from_str(&cluster.ok(&["inspect", &at("build/harvest.wasm"), "--json"])).unwrap();
    let classify = &inspected["tasks"][0];
    assert_eq!((&classify["name"], &classify["output"]), (&"classify".into(), &"labeled".into()), "{inspected}");
    cluster.ok(&["deploy", &at("chain.toml")]);
    cluster.ok(&["feed", "harvest-go", "an apple and a pea", "on a pebble", "--format", "lines"]);
    cluster.ok(&["wait", "harvest-go"]);
    let mut results = cluster.pull_all("harvest-go");
    results.sort_by_key(ToString::to_string);
    assert_eq!(results, ["apple: fruit", "pea: seed"]);
    let letters = json_lines(&cluster.ok(&["dead", "show", "harvest-go", "--all", "--json"]));
    assert_eq!(letters[0]["reason"], "nobody harvests a pebble");
}
