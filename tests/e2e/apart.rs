//! Nodes of their own: several share the work, and one that is stopped takes nothing with it.

use serde_json::json;

use crate::support::{Cluster, eventually, probe_chain};

#[test]
fn several_nodes_share_the_work_and_are_seen() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("shared", &["sleep"], "config = { millis = 50 }\nconcurrency = 2"));
    let _nodes = [cluster.node("a"), cluster.node("b"), cluster.node("c")];
    cluster.run_with_input(&["feed", "shared"], (0..60).map(|n| format!("{n}\n")).collect::<String>()).succeeded();
    cluster.ok(&["wait", "shared"]);
    let nodes: Vec<serde_json::Value> = serde_json::from_str(&cluster.ok(&["nodes", "--json"])).unwrap();
    assert_eq!(nodes.iter().map(|node| node["node"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b", "c"]);
    for node in &nodes {
        assert!(node["hops"][0]["done"].as_u64().unwrap() > 0, "{node}");
    }
    let stage = eventually("all are counted", || {
        let stage = cluster.status("shared")["revisions"][0]["stages"][0].clone();
        (stage["done"] == 60).then_some(stage)
    });
    assert_eq!((&stage["queued"], &stage["running"], &stage["failed"]), (&json!(0), &json!(0), &json!(0)));
}

#[test]
fn a_stopped_node_loses_nothing_and_repeats_nothing() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("stopped", &["sleep"], "config = { millis = 20 }\nconcurrency = 4"));
    let mut first = cluster.node("first");
    let input: String = (0..200).map(|n| format!("{n}\n")).collect();
    cluster.run_with_input(&["feed", "stopped"], input).succeeded();
    eventually("some are done", || {
        (cluster.status("stopped")["revisions"][0]["stages"][0]["done"].as_u64()? > 10).then_some(())
    });
    let _second = cluster.node("second");
    assert_eq!(first.stop(), Some(0), "{}", first.stderr());
    let mut results: Vec<u64> = cluster.pull_all("stopped").iter().map(|result| result.as_u64().unwrap()).collect();
    results.sort_unstable();
    assert_eq!(results, (0..200).collect::<Vec<_>>());
}
