//! Tasks in TypeScript and JavaScript as their authors see them: from a folder to results, in the sandbox and as a native worker.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::{
    Cluster, Process, Run, build_javascript, javascript, javascript_package, javascript_program, json_lines, lines,
    repository,
};

/// Copies the example into a folder with spaces and umlauts.
fn example(cluster: &Cluster) -> PathBuf {
    let folder = cluster.path("für den Laden");
    fs::create_dir(&folder).unwrap();
    for name in ["chain.toml", "orders.ts", "orders.test.ts", "package.json"] {
        fs::copy(repository().join("plugins/typescript").join(name), folder.join(name)).unwrap();
    }
    folder
}

fn order(id: &str, article: &str, count: u32) -> Value {
    json!({ "id": id, "lines": [{ "article": article, "count": count }] })
}

/// Feeds good orders, an empty one and one without a price, and checks what comes of them.
fn check(cluster: &Cluster) {
    let orders = [order("1", " Tea ", 2), order("2", "MILK", 1), order("3", "tea", 0), order("4", "cake", 1)];
    cluster.run_with_input(&["feed", "shop-ts"], lines(orders)).succeeded();
    cluster.ok(&["wait", "shop-ts"]);
    let mut results = cluster.pull_all("shop-ts");
    results.sort_by_key(Value::to_string);
    let line = |order: &str, article: &str, count: u32, price: u32| json!({ "order": order, "article": article, "count": count, "price": price });
    let mut expected = [line("1", "tea", 2, 220), line("2", "milk", 1, 95)];
    expected.sort_by_key(Value::to_string);
    assert_eq!(results, expected);
    let letters = json_lines(&cluster.ok(&["dead", "ls", "shop-ts", "--json"]));
    let told: Vec<_> = letters.iter().map(|letter| (&letter["attempts"], &letter["reason"])).collect();
    assert_eq!(told, [(&json!(1), &json!("there is no price of cake in price"))]);
}

#[test]
fn a_folder_of_typescript_becomes_a_plugin_that_runs() {
    let cluster = Cluster::start();
    let folder = example(&cluster);
    let register = format!("--import={}", javascript_package().join("src/register.js").display());
    let mut tests = javascript(&[&register, "--test", "orders.test.ts"]);
    tests.current_dir(&folder);
    Run::of(tests, b"").succeeded();
    let plugin = folder.join("build/orders.wasm");
    assert_eq!(build_javascript(&folder, &plugin).succeeded(), "");
    let first = fs::read(&plugin).unwrap();
    build_javascript(&folder, &plugin).succeeded();
    assert!(first == fs::read(&plugin).unwrap(), "the same folder makes the same plugin");

    let inspected = cluster.ok(&["inspect", plugin.to_str().unwrap(), "--json"]);
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    let tasks = inspected["tasks"].as_array().unwrap();
    let shown = |key: &str| tasks.iter().map(|task| task[key].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(shown("name"), ["clean", "price", "split"]);
    assert_eq!(shown("kind"), ["map", "map", "generator"]);
    assert_eq!(shown("state"), ["", "load", ""]);
    assert_eq!(shown("doc")[1], "Gives a line its price.");

    cluster.ok(&["deploy", folder.join("chain.toml").to_str().unwrap()]);
    let _node = cluster.node("a");
    check(&cluster);
    let logs = cluster.ok(&["logs", "shop-ts", "--no-follow"]);
    assert!(logs.lines().any(|line| line.contains("info") && line.ends_with("order 3 is empty")), "{logs}");
}

#[test]
fn the_same_file_runs_as_a_native_worker() {
    let cluster = Cluster::start();
    let folder = example(&cluster);
    let node_program = javascript_program();
    let worker = javascript_package().join("src/worker.mjs");
    let packages = repository().join(".tools/npm/node_modules");
    let stage = |name: &str, more: &str| {
        format!(
            "[[stage]]\nname = \"{name}\"\nexec = [{node_program:?}, {worker:?}, \"orders.ts\"]\n\
             files = [\"orders.ts\", \"package.json\"]\nisolation = \"worker\"\nenv = {{ NODE_PATH = {packages:?} }}\n{more}\n",
        )
    };
    let config = "config = { prices = { tea = 110, milk = 95 } }";
    let stages = [stage("clean", ""), stage("split", ""), stage("price", config)].concat();
    let manifest = folder.join("workers.toml");
    fs::write(&manifest, format!("name = \"shop-ts\"\nversion = \"1.0\"\n{stages}")).unwrap();
    // It provides what the worker needs.
    Run::of(javascript(&["--version"]), b"").succeeded();
    cluster.ok(&["deploy", manifest.to_str().unwrap()]);
    let mut command = cluster.command(&["node", "--name", "a", "--allow-exec"]);
    command.arg(&node_program);
    let node = Process::start(command);
    node.said("ready: serving");
    check(&cluster);
}

/// What an author may get wrong: the file that is built, the names and texts of all files, and what is said.
type Mistake = (&'static str, &'static [(&'static str, &'static str)], &'static str);

const MISTAKES: [Mistake; 9] = [
    ("index.js", &[("index.js", "export const a = 1;")], "index.js exports no task; write `export const NAME = task("),
    (
        "index.js",
        &[("index.js", "export const a = (;")],
        "SyntaxError: unexpected token in expression: ';'\n    at index.js:1:19",
    ),
    ("index.ts", &[("index.ts", "const a: number = ;")], "index.ts:1:19: Unexpected \";\"\n    const a: number = ;"),
    ("index.ts", &[("index.ts", "import fs from 'node:fs'; fs;")], "Could not resolve \"node:fs\""),
    ("index.ts", &[("index.ts", "import 'missing-package';")], "Could not resolve \"missing-package\""),
    (
        "index.js",
        &[("index.js", "import { task } from 'pcluster'; export default task((item) => item);")],
        "TypeError: the task `default` needs a name of its own",
    ),
    (
        "index.js",
        &[("index.js", "import { task } from 'pcluster'; export const a = task((item) => item, { inits: 1 });")],
        "TypeError: task() has no option `inits`; it has init, examples, calls, doc and schema",
    ),
    ("index.js", &[("index.js", "import './below/a.js'; a;"), ("below/a.js", "null.x;")], "at below/a.js:1:1"),
    (".", &[("a.js", ""), ("b.js", "")], "has a.js, b.js; `--entry FILE` or `main` in package.json names the file"),
];

#[test]
fn mistakes_are_told_when_a_plugin_is_built() {
    let folder = tempfile::tempdir().unwrap();
    for (index, (source, files, says)) in MISTAKES.iter().enumerate() {
        let at = folder.path().join(index.to_string());
        write(&at, files);
        let plugin = at.join("out.wasm");
        build_javascript(&at.join(source), &plugin).failed(1, says);
        assert!(!plugin.exists(), "{files:?}");
    }
    let missing = folder.path().join("nowhere");
    build_javascript(&missing, &folder.path().join("out.wasm")).failed(1, "no such file or directory");
    // Without esbuild.
    let script = javascript_package().join("src/build.mjs");
    let mut command = Command::new(javascript_program());
    command.arg(script).arg(folder.path().join("2")).args(["-o", "out.wasm"]).current_dir(folder.path());
    Run::of(command, b"").failed(3, "run: npm install --save-dev esbuild");
}

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}
