//! Tasks in Python that go on for long: packages that others wrote, calls of the node, time zones and isolations, recursion in C,
//! and the memory of an instance that is reused.

use std::sync::OnceLock;

use ciborium::{Value, cbor};
use pcluster::internal::{Isolation, Plugin, to_cbor};
use serde_json::json;
use support::{Cluster, Reply, Run, SECRET, World, installed_packages, lines, python, repository};

use crate::tried::{Tried, load};

/// Builds the plugin with its packages.
fn build(file: &std::path::Path) {
    let folder = repository().join("tests/e2e/plugins/python-more");
    let [tasks, pages] = ["python-tasks", "python-pages"].map(installed_packages);
    let mut command = python(&["-m", "pcluster.build"]);
    command.arg(folder).arg("-o").arg(file).arg("--packages").arg(tasks).arg("--packages").arg(pages);
    Run::of(command, b"").succeeded();
}

/// Returns the plugin of all tasks that are tried. It is compiled once.
fn plugin() -> &'static Plugin {
    static PLUGIN: OnceLock<Plugin> = OnceLock::new();
    PLUGIN.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("more.wasm");
        build(&file);
        load(&file)
    })
}

fn tried(name: &str, isolation: Isolation) -> Tried {
    Tried::new(plugin(), name, Value::Null, &[], isolation).with_state(name)
}

#[test]
fn packages_in_pure_python_do_what_their_pages_show() {
    for zone in ["UTC", "America/St_Johns", "Pacific/Chatham"] {
        let variable = format!("TZ={zone}");
        let shown = Tried::new(plugin(), "shown", Value::Null, &[&variable], Isolation::Item).with_state("shown");
        let user = r#"{"id": 123, "signup_ts": "2019-06-01T12:22:00", "friends": [1, 2, 3], "name": "John Doe"}"#;
        for (name, expected) in [
            ("pydantic", Value::from(user)),
            ("pydantic, wrong", cbor!([["id"], ["signup_ts"], ["friends", 2]]).unwrap()),
            ("dateutil.parser", "2003-09-25 10:36:28".into()),
            ("dateutil.relativedelta", "2003-10-24 10:54:47.282310".into()),
            ("dateutil.rrule", cbor!([2, 3, 4]).unwrap()),
            ("zoneinfo", cbor!(["2020-10-31 12:00:00-07:00", "2020-11-01 12:00:00-08:00", "PDT", "PST"]).unwrap()),
        ] {
            assert_eq!(shown.value(&name.into()), expected, "{name} in {zone}");
        }
    }
    let page = tried("page", Isolation::Worker);
    for (name, expected) in [
        ("beautifulsoup4", "<p>\n Some\n <b>\n  bad\n  <i>\n   HTML\n  </i>\n </b>\n</p>\n".into()),
        ("beautifulsoup4, find", cbor!(["bad", "<i>HTML</i>"]).unwrap()),
        ("lark", cbor!(["Hello", "World"]).unwrap()),
        ("markdown-it-py", "<h1>Example</h1>\n<blockquote>\n<p>markdown <em>input</em></p>\n</blockquote>\n".into()),
        ("sqlparse.split", cbor!(["select * from foo;", "select * from bar;"]).unwrap()),
        ("sqlparse.format", "SELECT id,\n       name\nFROM users\nWHERE active=1".into()),
    ] {
        assert_eq!(page.value(&name.into()), expected, "{name}");
    }
    let checked = tried("checked", Isolation::Worker);
    assert_eq!(checked.value(&cbor!({"id" => "a"}).unwrap()), cbor!({"id" => "A", "count" => 2}).unwrap());
    let wrong = checked.run(to_cbor(&json!({ "id": "a", "count": "many" }))).unwrap_err();
    assert!(wrong.fatal && wrong.reason.contains("count"), "{}", wrong.reason);
}

#[test]
fn a_fresh_interpreter_writes_to_few_pages() {
    /// Without what the SDK does for it, they are 54.
    const MOST: usize = 44;
    let checked = tried("checked", Isolation::Item);
    for _ in 0..4 {
        let order = checked.value(&cbor!({"id" => "a"}).unwrap());
        assert_eq!(order, cbor!({"id" => "A", "count" => 2}).unwrap());
    }
    // A machine that cannot tell which pages an item has written to has a new instance for each.
    if let Some(pages) = checked.pages_put_back() {
        assert!(pages <= MOST, "{pages} pages");
    }
}

#[test]
fn recursion_in_c_ends_as_an_exception_and_the_next_item_is_untouched() {
    let drop = tried("drop", Isolation::Worker);
    assert_eq!(drop.value(&100_000.into()), "dropped".into());
    let recurse = tried("recurse", Isolation::Worker);
    let names = Run::of(python(&["-c", NAMES]), b"").succeeded();
    let mut wrong = Vec::new();
    for name in names.lines() {
        let failure = recurse.run(to_cbor(&name)).unwrap_err();
        let says = match name {
            // CPython itself has no bound there.
            "hash" | "map" | "filter" => "call stack exhausted",
            "compile" => "nested too deeply",
            _ => "RecursionError",
        };
        if !failure.reason.contains(says) {
            wrong.push(format!("{name}: {}", failure.reason));
        }
        assert_eq!(recurse.value(&"nothing".into()), "it ended".into(), "{name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(names.lines().count() > 20, "{names}");
}

/// Prints the names of the kinds of recursion in the plugin, which this Python cannot import.
const NAMES: &str = "import ast
tree = ast.parse(open('../tests/e2e/plugins/python-more/more.py').read())
for node in tree.body:
    if isinstance(node, ast.Assign) and node.targets[0].id == 'RECURSION':
        print(*(key.value for key in node.value.keys), sep='\\n')";

#[test]
fn an_instance_that_is_reused_does_not_grow() {
    // The interpreter has 17 MiB of them. What an item leaves behind until it is collected are some hundred bytes.
    let count = Tried::within(32 << 20, plugin(), "count", Value::Null, &[], Isolation::Worker).with_state("count");
    assert_eq!(count.run_many((0..100_000).map(Value::from)), 100_000.into());
}

#[test]
fn a_task_in_python_reaches_what_it_is_granted() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |asked| {
        let is_known = asked.header("authorization") == Some(&format!("Bearer {SECRET}"));
        Reply::new(if is_known { 200 } else { 401 }, "0.92")
    });
    build(&cluster.path("more.wasm"));
    let stage = "[[stage]]\nname = \"reach\"\nplugin = \"more.wasm\"";
    let stage = stage.to_owned() + "\n" + &world.grants();
    cluster.deploy(&format!("name = \"more\"\nversion = \"1.0\"\n{stage}"));
    let _node = world.node(&cluster, "a");
    let url = format!("{}/rates", world.api.url());
    cluster.run_with_input(&["feed", "more"], lines([json!({ "url": url })])).succeeded();
    cluster.ok(&["wait", "more"]);
    let results = cluster.pull_all("more");
    let dead = cluster.ok(&["dead", "ls", "more"]);
    let expected = json!({
        "before": null, "status": 200, "cached": "0.92", "stored": "0.92", "denied": ["denied", "denied"]
    });
    assert_eq!(results, [expected], "{dead}");
}
