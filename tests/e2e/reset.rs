//! `reset` and `stop`: removed items never run again, and all others do.

use std::time::Duration;

use serde_json::{Value, json};
use support::{Cluster, NatsClient, eventually, lines, numbers, probe_chain};

#[test]
fn a_reset_ends_what_runs_and_nothing_fed_before_ever_runs() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("spinning", &["spin"], "concurrency = 2"));
    let _node = cluster.node("a");
    cluster.run_with_input(&["feed", "spinning", "--pack-items", "1"], lines(0..3_000)).succeeded();
    cluster.until("spinning", "two run", |status| status["revisions"][0]["stages"][0]["running"] == 2);

    let reset = cluster.run(&["reset", "spinning"]);
    assert!(reset.took < Duration::from_secs(20), "it took {:?}", reset.took);
    // What the node is about to put back in this moment may be counted in both places.
    let said = reset.succeeded();
    let dropped = said.strip_prefix("spinning reset: ").and_then(|rest| rest.split(' ').next()).unwrap();
    assert!((3_000..3_100).contains(&dropped.parse().unwrap()), "{said}");
    assert!(said.ends_with(" unfinished messages dropped; it goes on as r2\n"), "{said}");
    assert_eq!(client.count("PCLUSTER_spinning"), 0);
    eventually("the node runs nothing", || {
        let nodes: Value = serde_json::from_str(&cluster.ok(&["nodes", "--json"])).unwrap();
        let hops = nodes[0]["hops"].as_array()?;
        (hops.len() == 1 && hops[0]["revision"] == 2 && hops[0]["running"] == 0).then_some(())
    });

    cluster.deploy(&probe_chain("spinning", &["echo"], "").replace("1.0", "1.1"));
    cluster.run_with_input(&["feed", "spinning"], lines(5_000..5_003)).succeeded();
    assert_eq!(numbers(&cluster.pull_all("spinning")), [5_000, 5_001, 5_002]);
    let status = cluster.status("spinning");
    assert_eq!((&status["dead"], &status["result_messages"]), (&json!(0), &json!(0)));
}

#[test]
fn a_node_that_slept_through_a_reset_leaves_nothing_behind() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("paused", &["sleep", "echo"], "config = { millis = 300 }\nconcurrency = 4"));
    let node = cluster.node("a");
    cluster.run_with_input(&["feed", "paused"], lines(0..100)).succeeded();
    cluster.until_begun("paused", 0, 4);
    node.signal("STOP");
    let reset = cluster.run(&["reset", "paused"]);
    assert!(reset.took < Duration::from_secs(20), "it took {:?}", reset.took);
    reset.failed(0, "node a has not answered yet");
    assert_eq!(client.count("PCLUSTER_paused"), 0);
    node.signal("CONT");
    node.said("no longer served");
    cluster.until("paused", "the node serves the new revision", |status| status["nodes"] == 1);

    cluster.run_with_input(&["feed", "paused"], lines(500..503)).succeeded();
    cluster.ok(&["wait", "paused"]);
    // What the last stage had in hand may still become a result: the queues are what a reset empties.
    let results = numbers(&cluster.pull_all("paused"));
    assert_eq!(results[results.len() - 3..], [500, 501, 502]);
    assert!(results.is_sorted_by(|left, right| left < right), "twice: {results:?}");
    assert_eq!(client.count("PCLUSTER_paused"), 0);
    assert_eq!(client.count("PCLUSTER_paused_DEAD"), 0);
    eventually("the consumers of the revision before are gone", || {
        let consumers = client.consumers("PCLUSTER_paused");
        let all = ["r2-alone_echo", "r2-alone_sleep", "r2-retry_echo", "r2-retry_sleep", "r2_echo", "r2_sleep"];
        (consumers == all).then_some(())
    });
}

#[test]
fn a_reset_is_brought_to_its_end_and_one_that_was_killed_is_mended_by_the_next() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("cut", &["echo"], ""));
    for (round, signal) in [(1, "INT"), (2, "KILL")] {
        cluster.run_with_input(&["feed", "cut", "--pack-items", "1"], lines(0..20)).succeeded();
        let mut reset = cluster.spawn(&["reset", "cut"]);
        let written = format!("$KV.pcluster_chains.cut.r{}", round + 1);
        eventually("it has begun", || client.by_subject("KV_pcluster_chains").contains_key(&written).then_some(()));
        reset.signal(signal);
        let ended = reset.ended();
        if signal == "INT" {
            assert_eq!(ended, Some(0), "{}", reset.stderr());
        } else {
            cluster.ok(&["reset", "cut"]);
        }
        assert_eq!(client.count("PCLUSTER_cut"), 0, "{signal}");
    }
    let _node = cluster.node("a");
    cluster.ok(&["feed", "cut", "7"]);
    cluster.ok(&["wait", "cut"]);
    assert_eq!(numbers(&cluster.pull_all("cut")), [7]);
}

#[test]
fn a_reset_drops_the_items_of_every_version_and_all_forgets_the_results() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("several", &["echo"], ""));
    let mut node = cluster.node("a");
    cluster.ok(&["feed", "several", "--pack-items", "1", "1", "2"]);
    cluster.ok(&["wait", "several"]);
    assert_eq!(node.stop(), Some(0));
    cluster.ok(&["feed", "several", "--pack-items", "1", "3", "4", "5"]);
    cluster.deploy(&probe_chain("several", &["echo", "fail"], "").replace("1.0", "1.1"));
    cluster.ok(&["feed", "several", "6"]);
    assert_eq!(cluster.status("several")["revisions"].as_array().unwrap().len(), 2);

    let said = cluster.ok(&["reset", "several", "--all"]);
    let expected =
        "several reset: 4 unfinished messages dropped, 2 results and dead letters forgotten; it goes on as r3\n";
    assert_eq!(said, expected);
    for stream in ["PCLUSTER_several", "PCLUSTER_several_OUT", "PCLUSTER_several_DEAD"] {
        assert_eq!(client.count(stream), 0, "{stream}");
    }
    let status = cluster.status("several");
    assert_eq!((&status["version"], &status["revision"]), (&json!("1.1"), &json!(3)));
    assert_eq!(status["revisions"].as_array().unwrap().len(), 1);
    // With nothing that runs or waits, there is nothing to do and nothing to complain of.
    cluster.ok(&["wait", "several"]);
    let said = cluster.ok(&["reset", "several"]);
    assert_eq!(said, "several reset: 0 unfinished messages dropped; it goes on as r4\n");
}

#[test]
fn a_stopped_chain_takes_nothing_and_finishes_the_rest() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("closed", &["sleep"], "config = { millis = 50 }\nconcurrency = 2"));
    let _node = cluster.node("a");
    cluster.run_with_input(&["feed", "closed"], lines(0..20)).succeeded();
    let stop = cluster.run(&["stop", "closed"]);
    assert!(
        stop.stderr.contains("the intake of closed is closed; items that were fed are still finished"),
        "{}",
        stop.stderr
    );
    cluster
        .run(&["feed", "closed", "99"])
        .failed(1, "error: the intake of chain `closed` is closed; `pcluster start closed` opens it");
    assert!(client.publish("pcluster.closed.in", &[], "\x01").is_err(), "another client could still feed");
    assert_eq!(cluster.status("closed")["open"], json!(false));
    cluster.ok(&["wait", "closed"]);
    assert_eq!(numbers(&cluster.pull_all("closed")), (0..20).collect::<Vec<_>>());
    cluster.run(&["stop", "closed"]).failed(0, "already closed");

    // Neither a deploy nor a reset opens it.
    cluster.deploy(&probe_chain("closed", &["echo"], "").replace("1.0", "1.1"));
    cluster.ok(&["reset", "closed"]);
    cluster.run(&["feed", "closed", "99"]).failed(1, "is closed");
    cluster.run(&["start", "closed"]).failed(0, "the intake of closed is open");
    cluster.ok(&["feed", "closed", "100"]);
    assert_eq!(numbers(&cluster.pull_all("closed")), [100]);
}

#[test]
fn after_a_reset_the_ids_of_what_was_fed_before_are_new() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("again", &["echo"], ""));
    let fed = |id: &str| cluster.run(&["feed", "again", "--id", id, "7"]).stderr;
    let publish = || client.publish("pcluster.again.in", &[("Nats-Msg-Id", "foreign")], "\x07").unwrap().duplicate;
    assert!(fed("job").starts_with("fed 1 item in "));
    assert!(!publish());
    cluster.ok(&["reset", "again"]);
    assert!(fed("job").starts_with("fed 1 item in "), "what was dropped");
    assert!(!publish(), "what another client had fed");
    assert!(fed("job").contains("1 item dropped"), "the window is as long as before");
    let _node = cluster.node("a");
    assert_eq!(numbers(&cluster.pull_all("again")), [7, 7]);
    for all in [&["reset", "again"][..], &["reset", "again", "--all"]] {
        cluster.ok(all);
        assert!(fed("job").starts_with("fed 1 item in "), "what was finished");
        assert_eq!(numbers(&cluster.pull_all("again")), [7]);
    }
    let window = client.with(async |jetstream| {
        jetstream.get_stream("PCLUSTER_again").await.unwrap().cached_info().config.duplicate_window
    });
    assert_eq!(window, Duration::from_mins(2));
}
