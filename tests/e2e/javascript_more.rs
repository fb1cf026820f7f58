//! Tasks in JavaScript that go on for long: packages that others wrote, calls of the node, time zones, and the memory of an instance
//! that is reused.

use std::collections::BTreeMap;

use pcluster::internal::{Isolation, to_cbor};
use serde_json::{Value, json};
use support::{Cluster, Process, Reply, SECRET, World, json_lines, lines};

use crate::javascript_sandbox::tried;
use crate::languages::chain;
use crate::tried::{Tried, load};

#[test]
fn packages_of_npm_do_what_their_pages_show() {
    let cluster = Cluster::start();
    cluster.deploy(&chain("shown", tried(), &["shown"], "retry = { attempts = 1 }"));
    let _node = cluster.node("a");
    let expected = [
        ("ajv", json!(true)),
        ("ajv, wrong", json!(["/foo must be integer"])),
        ("fast-xml-parser", json!({ "root": { "@_a": "nice", "@_checked": true, "a": "wow" } })),
        ("fast-xml-parser, numbers", json!({ "root": { "a": [-47, 6, 6, -100, "+1212121212"] } })),
        ("marked", json!("<p>hello world</p>\n")),
        ("papaparse", json!([["A", "B\"B\"B", "C"], ["a", "b", "c,c\nc"]])),
        ("papaparse, header", json!([{ "A": "a", "B": "b", "C": "c" }])),
    ];
    cluster.run_with_input(&["feed", "shown"], lines(expected.each_ref().map(|(name, _)| name))).succeeded();
    cluster.ok(&["wait", "shown"]);
    let shown: BTreeMap<String, Value> = cluster
        .pull_all("shown")
        .into_iter()
        .map(|pair| (pair[0].as_str().unwrap().to_owned(), pair[1].clone()))
        .collect();
    assert_eq!(shown, expected.map(|(name, value)| (name.to_owned(), value)).into());
    // What a package requires of Node.js is missed by who gets there, and by nobody else.
    cluster.ok(&["feed", "shown", "\"papaparse, stream\""]);
    cluster.ok(&["wait", "shown"]);
    let letters = json_lines(&cluster.ok(&["dead", "show", "shown", "--all", "--json"]));
    let reason = letters[0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("Error: Cannot find module 'stream': the sandbox is not Node.js; "), "{reason}");
}

#[test]
fn a_fresh_interpreter_has_room_for_an_item_and_is_put_back_after_it() {
    let plugin = load(tried());
    let pages = |name: &str, item: &str| {
        let task = Tried::new(&plugin, name, ciborium::Value::Null, &[], Isolation::Item).with_state(name);
        for _ in 0..3 {
            task.run(to_cbor(&item)).unwrap();
        }
        task.pages_put_back()
    };
    // A machine that cannot tell which pages an item has written to has a new instance for each.
    if pages("echo", "small").is_some() {
        for item in ["marked", "papaparse", "fast-xml-parser"] {
            assert!(pages("shown", item).is_some(), "the memory has grown for {item}");
        }
    }
}

#[test]
fn a_task_in_javascript_reaches_what_it_is_granted() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |asked| {
        let is_known = asked.header("authorization") == Some(&format!("Bearer {SECRET}"));
        Reply::new(if is_known { 200 } else { 401 }, "0.92")
    });
    cluster.deploy(&chain("reach", tried(), &["reach"], &world.grants()));
    let _node = world.node(&cluster, "a");
    let url = format!("{}/rates", world.api.url());
    cluster.run_with_input(&["feed", "reach"], lines([json!({ "url": url })])).succeeded();
    cluster.ok(&["wait", "reach"]);
    let results = cluster.pull_all("reach");
    let dead = cluster.ok(&["dead", "ls", "reach"]);
    let expected = json!({
        "before": null, "status": 200, "cached": "0.92", "stored": "0.92", "denied": ["denied", "denied"]
    });
    assert_eq!(results, [expected], "{dead}");
}

#[test]
fn local_time_is_utc_in_javascript_whatever_the_zone_of_its_stage_and_node() {
    let cluster = Cluster::start();
    let zones = ["UTC", "America/St_Johns", "Pacific/Chatham"];
    let name = |zone: &str| zone.replace('/', "-").to_lowercase();
    for zone in zones {
        cluster.deploy(&chain(&name(zone), tried(), &["clock"], &format!("env = {{ TZ = \"{zone}\" }}")));
    }
    let mut command = cluster.command(&["node", "--name", "a"]);
    command.env("TZ", "Asia/Kathmandu");
    let node = Process::start(command);
    node.said("ready: serving");
    for zone in zones {
        let time = ciborium::Value::Tag(0, Box::new("2026-01-02T23:30:00.5+05:30".into()));
        cluster.run_with_input(&["feed", &name(zone), "--format", "cbor"], to_cbor(&time)).succeeded();
        cluster.ok(&["wait", &name(zone)]);
        let shown =
            json!(["2026-01-02T23:30:00.5+05:30", 18, 0, "2026-01-02T18:00:00Z", "Fri Jan 02 2026 18:00:00 GMT+0000"]);
        assert_eq!(cluster.pull_all(&name(zone)), [shown], "{zone}");
    }
}

#[test]
fn an_instance_of_javascript_that_is_reused_does_not_grow() {
    let cluster = Cluster::start();
    let stage = "isolation = \"worker\"\nconcurrency = 1\nretry = { attempts = 1 }\nmemory = \"32 MiB\"";
    cluster.deploy(&chain("count", tried(), &["count"], stage));
    let _node = cluster.node("a");
    cluster.run_with_input(&["feed", "count"], lines(0..100_000)).succeeded();
    cluster.ok(&["wait", "count"]);
    let counted: Vec<Value> = (1..=100).map(|thousand| json!(thousand * 1000)).collect();
    assert_eq!(cluster.pull_all("count"), counted, "{}", cluster.ok(&["dead", "ls", "count"]));
}
