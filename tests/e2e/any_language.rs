//! Plugins in any language: one in the text form of WebAssembly, without the SDK.

use serde_json::{Value, json};
use support::{Cluster, json_lines, lines, repository};

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
