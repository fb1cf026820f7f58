//! Plugins in any language, without an SDK: one in the text form of WebAssembly, and the example in `AssemblyScript`.

use serde_json::{Value, json};
use support::{Cluster, json_lines, lines, repository};

use crate::languages::{make, provide};

#[test]
fn a_plugin_without_the_sdk_is_inspected_deployed_and_run() {
    let cluster = Cluster::start();
    cluster.file("plain.wasm", wat::parse_file(repository().join("tests/e2e/plugins/plain.wat")).unwrap());
    let manifest =
        "name = \"any\"\nversion = \"1.0\"\n[[stage]]\nname = \"twice\"\nplugin = \"plain.wasm\"\ntask = \"plain\"\n";
    let inspected: Value = serde_json::from_str(&cluster.ok(&["inspect", "plain.wasm", "--json"])).unwrap();
    assert_eq!(inspected["tasks"][0]["name"], "plain", "{inspected}");
    cluster.deploy(manifest);
    let _node = cluster.node("a");
    // An item that needs more memory than the plugin starts with makes it grow.
    let long = json!("x".repeat(100_000));
    let items = [json!({"a": [1, 2.5, null]}), json!("text"), long];
    let input = lines(&items);
    cluster.run_with_input(&["feed", "any", "--format", "ndjson"], input).succeeded();
    let mut results = json_lines(&cluster.ok(&["pull", "any", "--all"]));
    let mut expected = items.iter().flat_map(|item| [item.clone(), item.clone()]).collect::<Vec<_>>();
    results.sort_by_key(Value::to_string);
    expected.sort_by_key(Value::to_string);
    assert_eq!(results, expected);
}

#[test]
fn the_example_in_assemblyscript_runs() {
    provide("assemblyscript");
    make("plugins/assemblyscript", &[]);
    let cluster = Cluster::start();
    cluster.ok(&["deploy", &repository().join("plugins/assemblyscript/chain.toml").display().to_string()]);
    let _node = cluster.node("a");
    cluster.ok(&["feed", "upper", "--format", "lines", "größe", &"x".repeat(70_000)]);
    cluster.ok(&["feed", "upper", "17"]);
    cluster.ok(&["wait", "upper"]);
    let mut results = cluster.pull_all("upper");
    results.sort_by_key(ToString::to_string);
    assert_eq!(results, [json!("GRÖSSE"), json!("X".repeat(70_000))]);
    let letters = json_lines(&cluster.ok(&["dead", "show", "upper", "--all", "--json"]));
    assert_eq!(letters[0]["reason"], "the item is not a text");
}
