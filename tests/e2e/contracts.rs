//! Schemas of what tasks take and give: `inspect` shows them and makes an item, and `deploy` holds neighbors against each other.

use serde_json::{Value, json};
use support::{Cluster, assert_refused};

/// Returns a plugin with a task of each of these names, which has a schema of what it takes and one of what it gives.
fn plugin(tasks: &[(&str, Value, Value)]) -> Vec<u8> {
    let line = |(name, input, output): &(&str, Value, Value)| {
        json!({ "abi": 1, "name": name, "kind": "map", "schema": { "input": input, "output": output } }).to_string()
    };
    let section: String = tasks.iter().map(|task| line(task) + "\n").collect();
    let export = |(name, ..): &(&str, Value, Value)| format!(r#"(export "pcluster_task:{name}" (func $task))"#);
    let exports: String = tasks.iter().map(export).collect();
    let text = format!(
        r#"(module
            (import "pcluster_v1" "emit" (func $emit (param i32 i32)))
            (memory (export "memory") 1)
            (func (export "pcluster_alloc") (param i32) (result i32) (i32.const 16))
            (func $task (param i32 i32) (result i32) (call $emit (local.get 0) (local.get 1)) (i32.const 0))
            {exports}
            (@custom "pcluster" {section:?}))"#
    );
    wat::parse_str(text).expect("a module")
}

/// Returns a chain of two stages.
fn chain(first: &str, second: &str) -> String {
    let stage = |name: &str| format!("[[stage]]\nname = \"{name}\"\nplugin = \"p.wasm\"\n");
    format!("name = \"fitted\"\nversion = \"1\"\n{}{}", stage(first), stage(second))
}

fn order(total: &str) -> Value {
    json!({ "type": "object", "properties": { "total": { "type": total } }, "required": ["total"] })
}

#[test]
fn stages_that_do_not_fit_are_refused_with_the_place_and_an_example() {
    let cluster = Cluster::start();
    let tasks = [
        ("parse", json!({ "type": "string" }), order("string")),
        ("count", order("string"), order("integer")),
        ("sum", order("number"), json!({ "type": "number", "wavelength": 7 })),
        ("check", json!({ "type": "number", "wavelength": 8 }), json!({})),
    ];
    cluster.file("p.wasm", plugin(&tasks));

    // What one of them takes and gives can be seen, and tried.
    let shown = cluster.ok(&["inspect", "p.wasm"]);
    assert!(shown.contains("    [gives: {\"type\":\"number\",\"wavelength\":7}]\n"), "{shown}");
    let shown: Value = serde_json::from_str(&cluster.ok(&["inspect", "p.wasm", "--json"])).unwrap();
    let names: Vec<&Value> = shown["tasks"].as_array().unwrap().iter().map(|task| &task["name"]).collect();
    assert_eq!(names, ["check", "count", "parse", "sum"]);
    assert_eq!(shown["tasks"][3]["schema"]["input"], order("number"));
    assert_eq!(cluster.ok(&["inspect", "p.wasm", "--example", "sum"]).trim(), r#"{"total":0}"#);
    assert_refused(&cluster.run(&["inspect", "p.wasm", "--example", "summ"]), 4, &["the plugin has no task `summ`"]);

    let told =
        "stages that do not fit: `parse` gives `/total: string`, `sum` takes `number`; for example {\"total\":\"aaa\"}";
    cluster.file("chain.toml", chain("parse", "sum"));
    assert_refused(&cluster.run(&["deploy"]), 1, &[told, "; `--no-contracts` deploys them all the same"]);
    assert_eq!(cluster.ok(&["status", "--json"]).trim(), "[]");
    cluster.ok(&["deploy", "--no-contracts"]);

    // An integer is a number. What nobody knows is a note.
    for (first, second, note) in [
        ("count", "sum", ""),
        ("sum", "check", "whether `check` takes all that `sum` gives is not known: the keyword `wavelength`"),
    ] {
        cluster.file("chain.toml", chain(first, second).replace("fitted", &format!("fitted-{first}")));
        let run = cluster.run(&["deploy"]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(run.stderr.contains(note), "{}", run.stderr);
        assert_eq!(run.stderr.contains("not known"), !note.is_empty(), "{}", run.stderr);
    }
}
