//! The server goes away and comes back: all commands and nodes continue, and report it once.

use std::time::{Duration, Instant};

use support::{
    Cluster, NatsClient, Process, Proxy, assert_refused, eventually, json_lines, lines, numbers, probe_chain,
    with_table,
};

const LOST: &str = "lost the connection to NATS";
const BACK: &str = "the connection to NATS is back";
/// How long a command may take that is told to stop; a slow machine and what shares it take most of it.
const SOON: Duration = Duration::from_secs(20);
/// Items that are fed while the server is killed.
const ITEMS: u64 = 1_500;

/// Asserts that a process has said once that the server is gone, and once that it is back.
#[track_caller]
fn assert_told_once(process: &Process) {
    process.said(BACK);
    let said = process.stderr();
    assert_eq!((said.matches(LOST).count(), said.matches(BACK).count()), (1, 1), "{said}");
}

#[test]
fn a_server_killed_in_mid_run_loses_and_repeats_nothing() {
    let mut cluster = Cluster::start();
    let stages = probe_chain("back", &["sleep"], "config = { millis = 10 }\nconcurrency = 4");
    cluster.deploy(&with_table("[queue]\nlimit = 300", &stages));
    cluster.deploy(&probe_chain("talk", &["print"], ""));
    cluster.file("numbers.ndjson", lines(0..ITEMS));
    let mut feed = cluster.spawn(&["feed", "back", "-f", "numbers.ndjson", "--pack-items", "2"]);
    let client = NatsClient::connect(&cluster);
    eventually("the queue is full", || (client.count("PCLUSTER_back") == 300).then_some(()));
    let mut wait = cluster.spawn(&["wait", "back"]);
    wait.said("no node serves back");
    let nodes = [cluster.node("a"), cluster.node("b")];
    let mut pull = cluster.spawn(&["pull", "back", "-n", &ITEMS.to_string()]);
    let mut watch = cluster.spawn(&["watch", "back", "--all", "-n", &ITEMS.to_string()]);
    let logs = cluster.spawn(&["logs", "talk", "--since", "1h"]);
    cluster.ok(&["feed", "talk", "--id", "before", "1"]);
    cluster.until("back", "results come", |status| status["revisions"][0]["stages"][0]["done"].as_u64() > Some(20));
    // Each has all its connections then.
    pull.printed("1");
    watch.printed("1");
    logs.printed("print before");
    cluster.server.kill();
    for process in [&nodes[0], &nodes[1], &feed, &pull, &watch, &wait, &logs] {
        process.said(LOST);
    }
    assert_refused(&cluster.run(&["status"]), 5, &["cannot reach NATS at nats://127.0.0.1:"]);

    cluster.server.restart();
    for ended in [&mut feed, &mut pull, &mut watch, &mut wait] {
        assert_eq!(ended.ended(), Some(0), "{}", ended.stderr());
    }
    for process in [&nodes[0], &nodes[1], &feed, &pull, &watch, &wait, &logs] {
        assert_told_once(process);
    }
    let expected: Vec<u64> = (0..ITEMS).collect();
    for shown in [&pull, &watch] {
        assert_eq!(numbers(&json_lines(&shown.stdout())), expected);
    }
    assert_eq!(client.items("PCLUSTER_back_OUT", expected.len()).len(), expected.len());
    assert_eq!(["PCLUSTER_back", "PCLUSTER_back_DEAD"].map(|stream| client.count(stream)), [0, 0]);
    cluster.ok(&["feed", "talk", "--id", "after", "1"]);
    logs.printed("print after");
}

#[test]
fn what_a_node_stores_that_was_cut_off_comes_once_even_if_the_server_has_forgotten_the_first() {
    let mut cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&with_table(
        "[queue]\nack_wait = \"2s\"",
        &probe_chain("late", &["sleep", "echo"], "config = { millis = 4_000 }"),
    ));
    let proxy = Proxy::to(&cluster.server.url);
    let cut = cluster.spawn(&["node", "--name", "cut", "--nats", &proxy.url]);
    cut.said("ready: serving");
    cluster.ok(&["feed", "late", "1"]);
    cluster.until("late", "it runs", |status| status["revisions"][0]["stages"][0]["running"] == 1);
    proxy.cut();
    let other = cluster.node("other");
    cluster.ok(&["wait", "late"]);
    // It reads from what it has which keys it has seen: what has left the queues is forgotten.
    cluster.server.kill();
    cluster.server.restart();
    other.said(BACK);
    proxy.release();
    cut.said(BACK);
    eventually("what was late is stored or dropped", || {
        let nodes: serde_json::Value = serde_json::from_str(&cluster.ok(&["nodes", "--json"])).unwrap();
        let hops = nodes.as_array().unwrap().iter().flat_map(|node| node["hops"].as_array().unwrap());
        let dropped: u64 = hops.map(|hop| hop["duplicates"].as_u64().unwrap()).sum();
        (dropped > 0 || client.count("PCLUSTER_late_OUT") > 1).then_some(())
    });
    assert_eq!(client.count("PCLUSTER_late_OUT"), 1);
}

#[test]
fn a_node_whose_server_falls_silent_while_it_starts_serves_once_the_server_answers_again() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("slow", &["echo"], ""));
    cluster.ok(&["feed", "slow", "1"]);
    let way = Proxy::to(&cluster.server.url);
    // The node asks what is deployed, and hears nothing.
    way.stall_after("pcluster: reads without taking");
    let mut node = cluster.spawn(&["node", "--name", "a", "--nats", &way.url]);
    way.await_stall();
    eventually("it notices", || (node.has_ended() || node.stderr().contains("WARN")).then_some(()));
    assert!(!node.has_ended(), "{}", node.stderr());
    way.release();
    node.said("ready: serving");
    cluster.ok(&["wait", "slow"]);
    assert_eq!(node.stop(), Some(0), "{}", node.stderr());
}

#[test]
fn what_is_told_to_stop_or_runs_out_of_time_ends_while_the_server_is_away() {
    let mut cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("quick", &["print"], ""));
    cluster.deploy(&probe_chain("long", &["sleep"], "config = { millis = 200_000 }\nconcurrency = 2"));
    cluster.deploy(&with_table("[queue]\nlimit = 10", &probe_chain("full", &["echo"], "")));
    cluster.ok(&["feed", "quick", "1"]);
    cluster.ok(&["feed", "long", "1", "2", "3", "4"]);
    cluster.file("numbers.ndjson", lines(0..50));
    let mut feed = cluster.spawn(&["feed", "full", "-f", "numbers.ndjson", "--pack-items", "1", "-t", "8"]);
    let mut wait = cluster.spawn(&["wait", "long", "-t", "12"]);
    wait.said("no node serves long");
    let mut logs = cluster.spawn(&["logs", "quick", "--since", "1h"]);
    let mut watch = cluster.spawn(&["watch", "quick", "--all"]);
    let mut node = cluster.node_with("a", &["--grace", "1s", "--chain", "quick", "--chain", "long"]);
    logs.printed("to standard output");
    watch.printed("1");
    let mut pull = cluster.spawn(&["pull", "quick", "-t", "6"]);
    pull.printed("1");
    eventually("the queue is full", || (client.count("PCLUSTER_full") == 10).then_some(()));
    cluster.until("long", "two run", |status| status["revisions"][0]["stages"][0]["running"] == 2);

    cluster.server.kill();
    node.said(LOST);
    assert_eq!(node.stop(), Some(0), "{}", node.stderr());
    node.said("items are still running after the grace period: interrupted and given back");
    for follower in [&mut logs, &mut watch] {
        follower.said(LOST);
        follower.signal("INT");
        assert_eq!(follower.ended(), Some(130), "{}", follower.stderr());
    }
    for (late, said) in [
        (&mut pull, "no result for 6s"),
        (&mut wait, "unfinished items after 12s"),
        (&mut feed, "no item was taken for 8s"),
    ] {
        assert_eq!(late.ended(), Some(3), "{}", late.stderr());
        late.said(said);
    }
}

#[test]
fn a_server_that_does_not_answer_keeps_no_command_from_ending() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    for (name, task) in [("told", "fatal"), ("left", "fatal"), ("quick", "echo")] {
        cluster.deploy(&with_table("[queue]\nlimit = 10", &probe_chain(name, &[task], "")));
    }
    let mut node = cluster.node("a");
    for name in ["told", "left", "quick"] {
        cluster.run_with_input(&["feed", name, "--pack-items", "1"], lines(0..12)).succeeded();
        cluster.ok(&["wait", name]);
    }
    assert_eq!(node.stop(), Some(0), "{}", node.stderr());
    cluster.file("numbers.ndjson", lines(0..50));
    let feed = cluster.spawn(&["feed", "quick", "-f", "numbers.ndjson", "--pack-items", "1"]);
    let pull = cluster.spawn(&["pull", "quick"]);
    let watch = cluster.spawn(&["watch", "quick", "--all"]);
    let retry = cluster.spawn(&["dead", "retry", "told", "--all"]);
    let mut left = cluster.spawn(&["dead", "retry", "left", "--all"]);
    for shown in [&pull, &watch] {
        eventually("all results are shown", || (shown.stdout().lines().count() == 12).then_some(()));
    }
    for (stream, messages) in [("PCLUSTER_quick", 10), ("PCLUSTER_told_DEAD", 2), ("PCLUSTER_left_DEAD", 2)] {
        eventually("the queues are full", || (client.count(stream) == messages).then_some(()));
    }
    let wait = cluster.spawn(&["wait", "quick"]);
    wait.said("no node serves quick");

    cluster.server.signal("STOP");
    let started = Instant::now();
    let mut told = [
        (pull, "INT", 130, "interrupted: 12 results taken"),
        (feed, "TERM", 143, "interrupted: 10 items fed"),
        (wait, "HUP", 129, "no node serves quick"),
        (watch, "INT", 130, ""),
        (retry, "INT", 130, "interrupted: 10 dead letters retried; the server has confirmed no more"),
    ];
    for (process, signal, ..) in &told {
        process.signal(signal);
    }
    for (process, _, status, said) in &mut told {
        assert_eq!(process.ended(), Some(*status), "{}", process.stderr());
        assert!(process.stderr().contains(*said), "expected: {said}\n{}", process.stderr());
    }
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    // Nobody tells this one to stop.
    assert_eq!(left.ended(), Some(5), "{}", left.stderr());
    left.said("10 dead letters retried");
}

#[test]
fn what_was_deployed_on_a_server_that_has_lost_everything_is_never_run_again() {
    let mut cluster = Cluster::start();
    let node = cluster.node("a");
    let deploy = |cluster: &Cluster, round: u32| {
        cluster.deploy(&probe_chain("same", &["mark"], &format!("config = {{ mark = \"{round}\" }}")));
        // At once: the node may not know yet that the server has another registry.
        cluster.ok(&["feed", "same", "1", "2", "3"]);
        cluster.ok(&["wait", "same"]);
        for result in cluster.pull_all("same") {
            assert_eq!(result["mark"], round.to_string(), "{}", node.stderr());
        }
    };
    deploy(&cluster, 0);
    for round in 1..=6 {
        cluster.server.restart_empty();
        deploy(&cluster, round);
    }
}

#[test]
fn nodes_serve_what_is_deployed_on_a_server_that_has_lost_everything() {
    let mut cluster = Cluster::start();
    cluster.deploy(&probe_chain("lost", &["echo"], ""));
    let node = cluster.node("a");
    cluster.ok(&["feed", "lost", "1"]);
    assert_eq!(cluster.pull_all("lost"), [1]);
    cluster.server.restart_empty();
    node.said(BACK);
    // Another chain of the same name, whose first revision has the number of the one that is served.
    cluster.deploy(&probe_chain("lost", &["mark"], "config = { mark = \"new\" }"));
    cluster.ok(&["feed", "lost", "2"]);
    cluster.ok(&["wait", "lost"]);
    assert_eq!(cluster.pull_all("lost"), [serde_json::json!({ "mark": "new", "item": 2 })]);
}

#[test]
fn what_was_acknowledged_before_the_server_lost_its_removal_is_removed() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("orphans", &["echo"], ""));
    cluster.ok(&["feed", "orphans", "--pack-items", "1", "0", "1", "2", "3", "4"]);
    // As a server does that is killed after it has written the acknowledgements of the first three and before it has written
    // that they are gone: for a work queue, setting the consumer to a later place removes nothing.
    let client = NatsClient::connect(&cluster);
    client.with(async |jetstream| {
        let api = "CONSUMER.RESET.PCLUSTER_orphans.r1_echo".to_owned();
        let answer: serde_json::Value = jetstream.request(api, &serde_json::json!({ "seq": 4 })).await.unwrap();
        assert!(answer.get("error").is_none(), "{answer}");
    });
    let node = cluster.node("a");
    cluster.ok(&["wait", "orphans"]);
    node.said("removed=3");
    assert_eq!(numbers(&cluster.pull_all("orphans")), [3, 4]);
}
