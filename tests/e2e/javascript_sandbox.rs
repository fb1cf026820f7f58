//! Tasks in JavaScript in their sandbox: what values mean, what a snapshot must not freeze, how failures are told, packages of npm.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Value, json};
use support::{Cluster, build_javascript, json_lines, lines, repository};
use tempfile::TempDir;

use crate::languages::{chain, check_cases, distinct, draw, each};

/// Runs no two items at once, and tries each once.
const ONE_BY_ONE: &str = "concurrency = 1\nretry = { attempts = 1 }\ntimeout = \"5s\"";

/// Returns the plugin of the tasks that are tried. It is built once.
pub fn tried() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    static PLUGIN: OnceLock<PathBuf> = OnceLock::new();
    PLUGIN.get_or_init(|| {
        let plugin = FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path().join("tried.wasm");
        build_javascript(&repository().join("tests/e2e/plugins/javascript/tried.ts"), &plugin).succeeded();
        plugin
    })
}

#[test]
fn values_mean_in_javascript_what_they_mean_everywhere() {
    let cluster = Cluster::start();
    check_cases(&cluster, "javascript", tried());
}

/// Ways to end, and what becomes of the item.
const ENDS: [(&str, &str); 17] = [
    ("wait", "\"waited\""),
    (
        "cause",
        "RangeError: no price; caused by TypeError: cannot read property 'valueOf' of undefined\n    \
         at price (shop/price.ts:10:",
    ),
    ("permanent", "never"),
    ("transient", "attempt 1"),
    ("text", "thrown: \"only a text\""),
    ("deep", "RangeError: Maximum call stack size exceeded (the task calls itself"),
    ("json", "RangeError: Maximum call stack size exceeded"),
    ("memory", "out of memory (the stage's `memory` sets how much an item may have)"),
    ("reject", "RangeError: rejected\n    at reject (tried.ts:"),
    ("dropped", "RangeError: dropped"),
    ("never", "the task waits for what cannot come: no timer is set"),
    ("late", "Error: too late\n    at late (tried.ts:"),
    ("left", "\"left\""),
    ("wait", "\"waited\""),
    ("set", "the output cannot be written: a value of type Set cannot be an output; write [...set]"),
    ("network", "not a function"),
    ("loop", "the task took longer than its timeout of 5s"),
];

#[test]
fn a_task_in_javascript_ends_as_the_page_says() {
    let cluster = Cluster::start();
    let plugin = tried();
    cluster.deploy(&chain("end", plugin, &["end"], &format!("{ONE_BY_ONE}\nisolation = \"worker\"")));
    let mut node = cluster.node("a");
    let said = each(&cluster, "end", &ENDS.map(|(how, _)| how));
    for ((how, wanted), said) in ENDS.iter().zip(&said) {
        assert!(said.contains(wanted), "{how}: {said}");
    }
    assert_eq!(node.stop(), Some(0));
    let logged = json_lines(&cluster.ok(&["logs", "end", "--no-follow", "--json"]));
    assert!(logged.iter().any(|line| line["level"] == "info" && line["message"] == "loop begins"), "{logged:?}");
}

#[test]
fn chance_and_time_differ_under_each_isolation_in_javascript() {
    let cluster = Cluster::start();
    let (drawn, fed) = draw(&cluster, tried(), "dice");
    assert_eq!(["random", "uuid", "bytes"].map(|key| distinct(&drawn, key)), [drawn.len(); 3], "{drawn:?}");
    // Each chain has a snapshot of its own.
    assert!(["made", "madeAt"].iter().all(|key| distinct(&drawn, *key) <= 3), "{drawn:?}");
    // The clock of a task shows whole milliseconds.
    assert!(drawn.iter().all(|all| u128::from(all["now"].as_u64().unwrap()) >= fed), "since {fed}: {drawn:?}");
}

#[test]
fn packages_of_npm_run_and_lines_of_the_log_have_their_levels() {
    let cluster = Cluster::start();
    let plugin = tried();
    cluster.deploy(&chain("check", plugin, &["check"], ONE_BY_ONE));
    cluster.deploy(&chain("say", plugin, &["say"], "config = { word = \"Hi\" }"));
    let mut node = cluster.node("a");
    let order = |id: &str, email: &str| json!({ "id": id, "email": email, "placed": "2026-01-02T03:04:05Z", "lines": [{ "article": "tea", "count": 1 }] });
    cluster
        .run_with_input(&["feed", "check"], lines([order("1", "ada@example.com"), order("2", "nobody")]))
        .succeeded();
    cluster.ok(&["wait", "check"]);
    assert_eq!(cluster.pull_all("check"), [json!({ "id": "1", "due": "2026-01-07", "days": 5 })]);
    let letters = json_lines(&cluster.ok(&["dead", "show", "check", "--all", "--json"]));
    assert_eq!(letters[0]["reason"], "✖ Invalid email address\n  → at email");

    cluster.ok(&["feed", "say", "\"a\""]);
    cluster.ok(&["wait", "say"]);
    let results = json_lines(&cluster.ok(&["pull", "say", "--topic", "ada", "--all"]));
    assert_eq!(results, [json!(["say", 1, { "word": "Hi" }])]);
    assert_eq!(node.stop(), Some(0));
    let logged = json_lines(&cluster.ok(&["logs", "say", "--no-follow", "--json"]));
    let lines: Vec<(&Value, &Value)> = logged.iter().map(|line| (&line["level"], &line["message"])).collect();
    for (level, line) in [("debug", "by log 1"), ("warn", "by console { item: \"a\" }"), ("info", "by print")] {
        assert!(lines.contains(&(&level.into(), &line.into())), "{lines:?}");
    }
}
