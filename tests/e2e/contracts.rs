//! Schemas of what tasks take and give: `inspect` shows them and makes an item, and `deploy` holds neighbors against each other.

use serde_json::{Value, json};
use support::{Cluster, NatsClient, assert_refused, build_javascript, build_python, json_lines};

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
    assert_refused(&cluster.run(&["deploy"]), 1, &[told, "; `--no-contracts` takes them all the same"]);
    assert_refused(
        &cluster.run_with_input(&["run"], "\"a\""),
        1,
        &[told, "; `--no-contracts` takes them all the same"],
    );
    assert_eq!(cluster.run_with_input(&["run", "--no-contracts", "-q"], "\"a\"").stdout.trim(), "\"a\"");
    assert_eq!(cluster.ok(&["status", "--json"]).trim(), "[]");
    cluster.ok(&["deploy", "--no-contracts"]);
    // A version whose first stage takes less is noted.
    cluster.file("chain.toml", chain("sum", "check").replace("\"1\"", "\"2\""));
    let narrowed = cluster.run(&["deploy"]);
    assert_eq!(narrowed.code, Some(0), "{}", narrowed.stderr);
    let told = "2 accepts less than 1 did; for example it refuses \"aaa\": it is string, not object";
    assert!(narrowed.stderr.contains(told), "{}", narrowed.stderr);

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

#[test]
fn fed_items_are_held_against_the_schema_of_the_chain() {
    let cluster = Cluster::start();
    cluster.file("p.wasm", plugin(&[("sum", order("number"), order("number"))]));
    cluster.file("order.json", order("string").to_string());
    cluster.file("wide.json", "true");
    let chain = |more: &str| {
        let input = "[input]\nformat = \"json\"\nschema = \"order.json\"";
        let stage = "[[stage]]\nname = \"sum\"\nplugin = \"p.wasm\"";
        cluster.file("chain.toml", format!("name = \"fed\"\nversion = \"1\"\n{input}\n{stage}\n{more}\n"));
    };
    chain("");
    let told = "stages that do not fit: `[input]` gives `/total: string`, `sum` takes `number`; for example";
    assert_refused(&cluster.run(&["deploy"]), 1, &[told]);
    chain("schema = { input = \"none.json\" }");
    assert_refused(&cluster.run(&["deploy"]), 1, &["no schema at ", "none.json; `schema` names a file of JSON Schema"]);
    chain("schema = { inputs = \"wide.json\" }");
    assert_refused(&cluster.run(&["deploy"]), 1, &["unknown key `inputs`; did you mean `input`?"]);

    // What the manifest says of a stage wins.
    chain("schema = { input = \"wide.json\" }");
    let told = "`schema` of `sum` has another input than its plugin says; that of the manifest counts";
    let deployed = cluster.run(&["deploy"]);
    assert_eq!(deployed.code, Some(0), "{}", deployed.stderr);
    assert!(deployed.stderr.contains(told), "{}", deployed.stderr);
    // It is kept with the version: another is another version.
    cluster.file("wide.json", order("string").to_string());
    assert_refused(&cluster.run(&["deploy"]), 1, &["version 1"]);

    let client = NatsClient::connect(&cluster);
    let items = "{\"total\":1}\n{\"total\":\"a\"}\n{}\n{\"total\":\"b\"}";
    client.publish("pcluster.fed.in", &[("Content-Type", "application/x-ndjson")], items).unwrap();
    let node = cluster.node("a");
    client.messages("PCLUSTER_fed_DEAD", 2);
    cluster.ok(&["wait", "fed"]);
    let results: Vec<Value> = cluster.pull_all("fed");
    assert_eq!(results, [json!({ "total": "a" }), json!({ "total": "b" })]);
    let letters = json_lines(&cluster.ok(&["dead", "ls", "fed", "--json"]));
    let mut reasons: Vec<&str> = letters.iter().map(|letter| letter["reason"].as_str().unwrap()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, REASONS);
    assert_eq!(letters[0]["attempts"].as_array().map_or(1, Vec::len), 1);
    drop(node);

    // A run in one process does the same.
    let ran = cluster.run_with_input(&["run", "--format", "ndjson", "--quiet"], items);
    assert_eq!(json_lines(&ran.stdout).len(), 2, "{}", ran.stderr);
    for reason in REASONS {
        assert!(ran.stderr.contains(reason), "{}", ran.stderr);
    }
}

const REASONS: [&str; 2] = [
    "it does not fit `[input] schema` of the chain: `/total` is integer, not string",
    "it does not fit `[input] schema` of the chain: the item lacks `total`",
];

#[test]
fn tasks_of_two_languages_are_compared_by_their_types() {
    let cluster = Cluster::start();
    for (folder, file, text) in [("py", "parse.py", PYTHON), ("js", "sum.js", JAVASCRIPT)] {
        std::fs::create_dir(cluster.path(folder)).unwrap();
        cluster.file(&format!("{folder}/{file}"), text);
    }
    build_python(&cluster.path("py"), &cluster.path("py.wasm")).succeeded();
    build_javascript(&cluster.path("js"), &cluster.path("js.wasm")).succeeded();
    let deploy = |first: &str, second: &str| {
        let stages = [("py.wasm", first), ("js.wasm", second)];
        let stage = |(plugin, task)| format!("[[stage]]\nname = \"{task}\"\nplugin = \"{plugin}\"\n");
        cluster.file(
            "chain.toml",
            format!("name = \"two\"\nversion = \"{first}-{second}\"\n{}", stages.map(stage).concat()),
        );
        cluster.run(&["deploy"])
    };
    let told = "`parse` gives `/total: integer`, `label` takes `string`; for example {\"total\":0}";
    assert_refused(&deploy("parse", "label"), 1, &[told]);
    let open = deploy("open", "label");
    assert_eq!(open.code, Some(0), "{}", open.stderr);
    assert!(open.stderr.contains("its type says no more (dict)"), "{}", open.stderr);
    let fit = deploy("parse", "sum");
    assert_eq!(fit.code, Some(0), "{}", fit.stderr);
    assert!(!fit.stderr.contains("not known"), "{}", fit.stderr);
}

#[test]
fn the_types_of_a_plugin_in_rust_tell_their_schemas() {
    let cluster = Cluster::start();
    cluster.ok(&["new", "orders", "--lang", "rust", "--name", "orders"]);
    let manifest = cluster.path("orders/Cargo.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let line = text.lines().find(|line| line.starts_with("pcluster-sdk")).unwrap();
    let more = "pcluster-sdk = { version = \"0.1.0\", features = [\"schema\"] }\nschemars = \"1\"";
    std::fs::write(&manifest, text.replace(line, more)).unwrap();
    cluster.file("orders/src/lib.rs", RUST);
    cluster.ok(&["build", "orders", "--offline", "-o", "orders.wasm"]);

    let shown: Value = serde_json::from_str(&cluster.ok(&["inspect", "orders.wasm", "--json"])).unwrap();
    let tasks = shown["tasks"].as_array().unwrap();
    let schema = |name: &str| tasks.iter().find(|task| task["name"] == name).unwrap().get("schema");
    // One output of a filter or a generator is the type inside. What may be left out of an item is always given.
    assert_eq!(schema("parse").unwrap()["output"]["required"], json!(["total", "parts"]));
    assert_eq!(schema("sum").unwrap()["input"]["required"], json!(["total"]));
    assert_eq!(schema("several").unwrap()["output"]["type"], "integer");
    assert_eq!(schema("open").map(|schema| schema.get("output")), Some(None));
    assert_eq!(schema("quiet"), None);
    let example: Value = serde_json::from_str(&cluster.ok(&["inspect", "orders.wasm", "--example", "sum"])).unwrap();
    assert!(example["total"].is_number(), "{example}");

    let deploy = |first: &str, second: &str| {
        let chain = chain(first, second).replace("p.wasm", "orders.wasm");
        cluster.file("chain.toml", chain.replace("fitted", &format!("{first}-{second}")));
        cluster.run(&["deploy"])
    };
    let told = "`parse` gives `/total: integer ≥ 0`, `label` takes `string`; for example ";
    assert_refused(&deploy("parse", "label"), 1, &[told]);
    for second in ["sum", "open", "quiet"] {
        let fit = deploy("parse", second);
        assert_eq!(fit.code, Some(0), "{}", fit.stderr);
        assert!(!fit.stderr.contains("not known"), "{}", fit.stderr);
    }
}

const RUST: &str = r"
use pcluster_sdk::{Context, Error, Value, task};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, JsonSchema)]
struct Order {
    total: u32,
    #[serde(default)]
    parts: Vec<u8>,
}

#[derive(Deserialize, JsonSchema)]
struct Labeled {
    total: String,
}

#[derive(Deserialize)]
struct Untold {
    total: u32,
}

#[task]
fn parse(text: String) -> Result<Option<Order>, Error> {
    Ok(text.parse().ok().map(|total| Order { total, parts: Vec::new() }))
}

#[task]
fn sum(order: Order) -> u32 {
    order.total + order.parts.len() as u32
}

#[task(generator)]
fn several(number: u8) -> impl Iterator<Item = u8> {
    0..number
}

#[task]
fn label<'a>(order: Labeled, cx: &'a Context) -> &'a str {
    if order.total.is_empty() { cx.id() } else { cx.stage() }
}

#[task]
fn open(order: Order) -> Value {
    order.total.into()
}

#[task(schema = false)]
fn quiet(order: Untold) -> u32 {
    order.total
}
";

const PYTHON: &str = r#"
from dataclasses import dataclass
from pcluster import task

@dataclass
class Order:
    total: int

@task
def parse(text: str) -> Order | None:
    return Order(int(text))

@task
def open(text: str) -> dict:
    return {"total": text}
"#;

const JAVASCRIPT: &str = r#"
import { task } from "pcluster";

const order = (type) => ({ type: "object", properties: { total: { type } }, required: ["total"] });

export const sum = task((item) => item.total, { schema: { input: order("number"), output: { type: "number" } } });
export const label = task((item) => item.total, { schema: { input: order("string") } });
"#;
