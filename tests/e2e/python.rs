//! Tasks in Python as their authors see them: from a folder to results, in the sandbox and as a native worker.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use support::{Cluster, Process, Run, build_python, json_lines, lines, python, python_package, repository};

/// Copies the example into a folder with spaces and umlauts.
fn example(cluster: &Cluster) -> PathBuf {
    let folder = cluster.path("für den Laden");
    fs::create_dir(&folder).unwrap();
    for name in ["chain.toml", "orders.py", "test_orders.py"] {
        fs::copy(repository().join("plugins/orders").join(name), folder.join(name)).unwrap();
    }
    folder
}

fn order(id: &str, article: &str, count: u32) -> Value {
    json!({ "id": id, "lines": [{ "article": article, "count": count }] })
}

/// The orders that are fed: good ones, an empty one, one without a price, and one that is none.
fn orders() -> [Value; 5] {
    [
        order("1", " Tea ", 2),
        order("2", "MILK", 1),
        order("3", "tea", 0),
        order("4", "cake", 1),
        json!({ "id": "5", "lines": [{ "count": 1 }] }),
    ]
}

/// Checks what came of the orders.
fn check(cluster: &Cluster) {
    cluster.run_with_input(&["feed", "shop"], lines(orders())).succeeded();
    cluster.ok(&["wait", "shop"]);
    let mut results = cluster.pull_all("shop");
    results.sort_by_key(Value::to_string);
    let line = |order: &str, article: &str, count: u32, price: &str| json!({ "order": order, "article": article, "count": count, "price": price });
    let mut expected = [line("1", "tea", 2, "2.20"), line("2", "milk", 1, "0.95")];
    expected.sort_by_key(Value::to_string);
    assert_eq!(results, expected);
    let letters = json_lines(&cluster.ok(&["dead", "ls", "shop", "--json"]));
    let mut told: Vec<_> =
        letters.iter().map(|letter| (letter["attempts"].clone(), letter["reason"].as_str().unwrap())).collect();
    told.sort_by_key(|(_, reason)| *reason);
    let wanted =
        ["the item is not of type `Order`: lines[0]: the field `article` is missing", "there is no price of cake"];
    assert_eq!(told, wanted.map(|reason| (json!(1), reason)));
}

#[test]
fn a_folder_of_tasks_becomes_a_plugin_that_runs() {
    let cluster = Cluster::start();
    let folder = example(&cluster);
    let mut tests = python(&["-m", "unittest", "--quiet"]);
    tests.current_dir(&folder);
    Run::of(tests, b"").succeeded();
    let plugin = folder.join("build/orders.wasm");
    assert_eq!(build_python(&folder, &plugin).succeeded(), "");
    let first = fs::read(&plugin).unwrap();
    build_python(&folder, &plugin).succeeded();
    assert!(first == fs::read(&plugin).unwrap(), "the same folder makes the same plugin");

    let inspected = cluster.ok(&["inspect", plugin.to_str().unwrap(), "--json"]);
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    let tasks = inspected["tasks"].as_array().unwrap();
    let shown = |key: &str| tasks.iter().map(|task| task[key].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(shown("name"), ["clean", "price", "split"]);
    assert_eq!(shown("kind"), ["filter", "map", "generator"]);
    assert_eq!(shown("input"), ["Order", "dict", "Order"]);
    assert_eq!(shown("state"), ["", "dict[str, Decimal]", ""]);
    assert_eq!(shown("doc")[1], "Gives a line its price.");

    cluster.ok(&["deploy", folder.join("chain.toml").to_str().unwrap()]);
    let _node = cluster.node("a");
    check(&cluster);
    let logs = cluster.ok(&["logs", "shop", "--no-follow"]);
    assert!(logs.lines().any(|line| line.contains("info") && line.ends_with("order 3 is empty")), "{logs}");
}

#[test]
fn the_same_file_runs_as_a_native_worker() {
    let cluster = Cluster::start();
    let folder = example(&cluster);
    let stage = |name: &str, more: &str| {
        format!(
            "[[stage]]\nname = \"{name}\"\nexec = [\"python3\", \"-m\", \"pcluster.worker\", \"orders.py\"]\n\
             files = [\"orders.py\"]\nisolation = \"worker\"\nenv = {{ PYTHONPATH = {:?} }}\n{more}\n",
            python_package()
        )
    };
    let config = "config = { prices = { tea = \"1.10\", milk = \"0.95\" } }";
    let stages = [stage("clean", ""), stage("split", ""), stage("price", config)].concat();
    let manifest = folder.join("workers.toml");
    fs::write(&manifest, format!("name = \"shop\"\nversion = \"1.0\"\n{stages}")).unwrap();
    cluster.ok(&["deploy", manifest.to_str().unwrap()]);
    let node = Process::start(cluster.command(&["node", "--name", "a", "--allow-exec", "python3"]));
    node.said("ready: serving");
    check(&cluster);
}
