//! `wait`: it is exact, and reports when it waits in vain.

use support::{Cluster, NatsClient, json_lines, lines, probe_chain};

#[test]
fn wait_never_returns_early() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let tasks = ["repeat", "drop_odd", "sleep", "echo"];
    cluster.deploy(&probe_chain("exact", &tasks, "config = { times = 3, millis = 5 }\nconcurrency = 8"));
    let _nodes = [cluster.node("a"), cluster.node("b"), cluster.node("c")];
    for round in 1..=8 {
        cluster.run_with_input(&["feed", "exact"], lines(0..40)).succeeded();
        cluster.ok(&["wait", "exact"]);
        // Of 40 numbers 20 are even, and each of these comes three times.
        assert_eq!(client.items_now("PCLUSTER_exact_OUT"), round * 60, "round {round}");
        assert_eq!(client.count("PCLUSTER_exact"), 0, "round {round}");
    }
}

#[test]
fn wait_returns_at_once_when_nothing_was_fed() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("idle", &["echo"], ""));
    cluster.run(&["wait", "idle"]).failed(0, "idle is empty after ");
}

#[test]
fn wait_says_when_no_node_serves_the_chain_and_waits_on() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("unserved", &["echo"], ""));
    cluster.deploy(&probe_chain("other", &["echo"], ""));
    cluster.ok(&["feed", "unserved", "1"]);
    let _elsewhere = cluster.node_with("elsewhere", &["--chain", "other"]);
    let mut wait = cluster.spawn(&["wait", "unserved"]);
    wait.said("no node serves unserved: 1 node answers and does not serve it, or not yet; waiting");
    let _node = cluster.node("a");
    assert_eq!(wait.ended(), Some(0), "{}", wait.stderr());
    wait.said("unserved is empty after");
    assert_eq!(json_lines(&cluster.ok(&["pull", "unserved", "-n", "1"])), [1]);
}

#[test]
fn wait_gives_up_after_its_timeout() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("late", &["spin"], ""));
    let _node = cluster.node("a");
    cluster.ok(&["feed", "late", "1"]);
    let wait = cluster.run(&["wait", "late", "--timeout", "300ms"]);
    assert!(wait.took.as_millis() >= 300, "it gave up after {:?}", wait.took);
    wait.failed(3, "error: chain `late` still has unfinished items after 300ms");
}
