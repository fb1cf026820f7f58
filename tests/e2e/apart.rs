//! Nodes of their own: several share the work, and one that is stopped takes nothing with it.

use std::collections::BTreeMap;

use serde_json::json;
use support::{Client, Cluster, Process, eventually, json_lines, lines, numbers, probe_chain, recovering, sequence};

#[test]
fn several_nodes_share_the_work_and_are_seen() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("shared", &["sleep"], "config = { millis = 50 }\nconcurrency = 2"));
    let _nodes = [cluster.node("a"), cluster.node("b"), cluster.node("c")];
    cluster.run_with_input(&["feed", "shared"], lines(0..60)).succeeded();
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
    assert_eq!((&stage["queued_messages"], &stage["running"], &stage["failed"]), (&json!(0), &json!(0), &json!(0)));
}

#[test]
fn a_stopped_node_loses_nothing_and_repeats_nothing() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("stopped", &["sleep"], "config = { millis = 20 }\nconcurrency = 4"));
    let mut first = cluster.node("first");
    let input = lines(0..200);
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

#[test]
fn a_node_added_midway_takes_its_share() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("added", &["sleep"], "config = { millis = 30 }\nconcurrency = 2"));
    let _first = cluster.node("first");
    cluster.run_with_input(&["feed", "added"], lines(0..200)).succeeded();
    cluster.until("added", "some are done", |status| status["revisions"][0]["stages"][0]["done"].as_u64() > Some(10));
    let _second = cluster.node("second");
    let left = Client::connect(&cluster).count("PCLUSTER_added");
    cluster.ok(&["wait", "added"]);
    let nodes: Vec<serde_json::Value> = serde_json::from_str(&cluster.ok(&["nodes", "--json"])).unwrap();
    let done: Vec<u64> = nodes.iter().map(|node| node["hops"][0]["done"].as_u64().unwrap()).collect();
    assert_eq!(done.iter().sum::<u64>(), 200);
    assert!(done[1] >= left / 5, "the second did {} of the {left} that were left", done[1]);
    assert_eq!(numbers(&cluster.pull_all("added")), (0..200).collect::<Vec<_>>());
}

#[test]
fn status_and_nodes_show_what_is_true_of_each_stage() {
    let cluster = Cluster::start();
    let rest = "config = { millis = 200_000 }\nconcurrency = 2\nretry = { attempts = 1 }";
    cluster.deploy(&probe_chain("shown", &["drop_odd", "sleep"], rest));
    assert!(
        cluster
            .ok(&["status", "shown"])
            .starts_with("shown 1.0 (r1), 0 nodes, 0 result messages to pull, 0 dead letters\n")
    );
    cluster.run(&["nodes"]).failed(0, "no node answers; start one with `pcluster node`");
    let _nodes = [cluster.node("a"), cluster.node("b")];
    let items = ["1", "2", "4", "6", "8", "10", "12", "14", "no number"];
    cluster.ok(&[&["feed", "shown", "--pack-items", "1"], &items[..]].concat());
    let status = cluster.until("shown", "the second stage is full", |status| {
        let stages = &status["revisions"][0]["stages"];
        stages[0]["done"] == 9 && stages[1]["running"] == 4 && stages[0]["rate"].as_f64() > Some(0.0)
    });
    let stages = &status["revisions"][0]["stages"];
    let of = |position: usize| {
        ["queued_messages", "running", "done", "failed"].map(|key| stages[position][key].as_u64().unwrap())
    };
    assert_eq!((of(0), of(1)), ([0, 0, 9, 1], [3, 4, 0, 0]));

    let shown = cluster.ok(&["status", "shown"]);
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(shown.lines().next(), Some("shown 1.0 (r1), 2 nodes, 0 result messages to pull, 1 dead letter"));
    assert_eq!(rows[1], ["STAGE", "QUEUED", "RUNNING", "DONE", "FAILED", "ITEMS/S"]);
    assert_eq!(rows[2][..5], ["drop_odd", "0", "0", "9", "1"]);
    assert_eq!(rows[3][..5], ["sleep", "3", "4", "0", "0"]);
    let nodes = cluster.ok(&["nodes"]);
    let rows: Vec<Vec<&str>> = nodes.lines().map(|line| line.split_whitespace().collect()).collect();
    let heading = ["NODE", "HOST", "PID", "UP", "STATE", "RUNNING", "DONE", "ITEMS/S", "MEMORY", "CHAINS"];
    assert_eq!(rows[0], heading);
    assert_eq!(rows.len(), 3);
    for (row, name) in rows[1..].iter().zip(["a", "b"]) {
        assert_eq!((row[0], row[4], row[5], row[9]), (name, "ready", "2", "shown"), "{nodes}");
    }
}

#[test]
fn a_node_takes_items_again_after_the_server_was_killed_and_restarted() {
    let mut cluster = Cluster::start();
    cluster.deploy(&probe_chain("back", &["echo"], ""));
    let node = cluster.node("a");
    cluster.ok(&["feed", "back", "1"]);
    cluster.ok(&["wait", "back"]);
    cluster.server.restart();
    node.said("the connection to NATS is back");
    cluster.ok(&["feed", "back", "2", "3"]);
    cluster.ok(&["wait", "back"]);
    let mut results = cluster.pull_all("back");
    results.sort_by_key(serde_json::Value::as_u64);
    assert_eq!(results, [1, 2, 3]);
}

#[test]
fn an_item_interrupted_by_a_stopping_node_has_not_used_an_attempt() {
    let cluster = Cluster::start();
    let rest = "config = { millis = 3000 }\nconcurrency = 2\nretry = { attempts = 1 }";
    cluster.deploy(&probe_chain("once", &["sleep"], rest));
    let mut first = cluster.node_with("first", &["--grace", "100ms"]);
    cluster.ok(&["feed", "once", "1", "2", "3", "4"]);
    cluster.until("once", "two run", |status| status["revisions"][0]["stages"][0]["running"] == 2);
    assert_eq!(first.stop(), Some(0), "{}", first.stderr());
    let _second = cluster.node("second");
    let mut results = cluster.pull_all("once");
    results.sort_by_key(serde_json::Value::as_u64);
    assert_eq!(results, [1, 2, 3, 4]);
    assert_eq!(cluster.status("once")["dead"], 0);
}

#[test]
fn a_node_added_after_quick_items_takes_its_share_of_slow_ones() {
    let cluster = Cluster::start();
    // The task sleeps for as many milliseconds as the item says.
    cluster.deploy(&probe_chain("turn", &["nap"], "concurrency = 2"));
    let _first = cluster.node("first");
    cluster.run_with_input(&["feed", "turn"], "0\n".repeat(1000)).succeeded();
    cluster.ok(&["wait", "turn"]);
    cluster.run_with_input(&["feed", "turn"], "400\n".repeat(40)).succeeded();
    let _second = cluster.node("second");
    cluster.ok(&["wait", "turn"]);
    let nodes: Vec<serde_json::Value> = serde_json::from_str(&cluster.ok(&["nodes", "--json"])).unwrap();
    let done = nodes.iter().find(|node| node["node"] == "second").unwrap()["hops"][0]["done"].as_u64().unwrap();
    assert!(done >= 5, "the second node did {done} of 40");
}

#[test]
fn nodes_share_the_items_of_one_message() {
    let cluster = Cluster::start();
    let client = Client::connect(&cluster);
    cluster.deploy(&probe_chain("frame", &["obey"], "concurrency = 8"));
    let _nodes = ["a", "b", "c", "d"].map(|name| cluster.node(name));
    let items: Vec<String> = (0..256).map(|item| format!("sleep 200 {item}")).collect();
    client.publish("pcluster.frame.in", &[("Nats-Msg-Id", "one")], sequence(&items)).unwrap();
    cluster.ok(&["wait", "frame", "-t", "60s"]);
    let results = client.all_items("PCLUSTER_frame_OUT");
    let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
    for result in &results {
        *shares.entry(result.header("Pcluster-Node")).or_default() += 1;
    }
    assert!(shares.len() == 4 && shares.values().all(|share| *share >= 16), "{shares:?}");
    let mut texts: Vec<String> = results.iter().map(|result| result.item().into_text().unwrap()).collect();
    texts.sort();
    let mut expected = items;
    expected.sort();
    assert_eq!(texts, expected);
    // By what the nodes counted, none ran twice and was found out only afterwards.
    let nodes: Vec<serde_json::Value> = serde_json::from_str(&cluster.ok(&["nodes", "--json"])).unwrap();
    assert_eq!(nodes.iter().map(|node| node["hops"][0]["done"].as_u64().unwrap()).sum::<u64>(), 256);
    assert_eq!(runs(&cluster, "frame", 256).len(), 256);
}

/// How often each item was run, by what it logged; waits until there are so many lines.
fn runs(cluster: &Cluster, chain: &str, lines: usize) -> BTreeMap<String, usize> {
    let runs = || -> Vec<String> {
        let logged = cluster.ok(&["logs", chain, "--no-follow"]);
        logged.lines().filter_map(|line| Some(line.split(": runs ").nth(1)?.to_owned())).collect()
    };
    let runs = eventually("all runs are logged", || Some(runs()).filter(|runs| runs.len() >= lines));
    let mut counted = BTreeMap::new();
    for run in runs {
        *counted.entry(run).or_default() += 1;
    }
    counted
}

#[test]
fn an_item_runs_once_however_long_it_takes_and_again_elsewhere_when_its_node_is_killed() {
    let cluster = Cluster::start();
    cluster.deploy(&recovering(&probe_chain("long", &["obey"], "")));
    let first = cluster.node("first");
    cluster.ok(&["feed", "long", "sleep 3500 killed"]);
    cluster.until("long", "it runs", |status| status["revisions"][0]["stages"][0]["running"] == 1);
    let _second = cluster.node("second");
    runs(&cluster, "long", 1);
    drop(first);
    // Three times as long as the server waits for a word of a node.
    cluster.ok(&["feed", "long", "sleep 3500 left"]);
    cluster.ok(&["wait", "long", "-t", "60s"]);
    let results = json_lines(&cluster.ok(&["pull", "long", "--all", "--meta"]));
    assert!(results.iter().all(|result| result["node"] == "second"), "{results:?}");
    assert_eq!(results.len(), 2);
    let expected = [("sleep 3500 killed".to_owned(), 2), ("sleep 3500 left".to_owned(), 1)];
    assert_eq!(runs(&cluster, "long", 3), BTreeMap::from(expected));
}

#[test]
fn nodes_stopped_under_load_end_in_time_and_nothing_is_done_twice() {
    const GRACE: [&str; 2] = ["--grace", "50ms"];
    let cluster = Cluster::start();
    let client = Client::connect(&cluster);
    // A queue that is full most of the time, in front of a last stage that is slow.
    let rest = "config = { times = 2, millis = 15 }\nconcurrency = 4\nretry = { attempts = 1 }";
    let manifest = probe_chain("load", &["echo", "repeat", "sleep"], rest);
    cluster.deploy(&support::with_table("[queue]\nlimit = 30", &manifest));
    cluster.file("numbers.ndjson", lines(0..1_500));
    let mut feed = cluster.spawn(&["feed", "load", "-f", "numbers.ndjson", "--pack-items", "1"]);
    let mut nodes: Vec<Process> = ["a", "b", "c"].iter().map(|name| cluster.node_with(name, &GRACE)).collect();
    let mut stopped = 0;
    while !feed.has_ended() {
        let done = client.items_now("PCLUSTER_load_OUT");
        eventually("it goes on", || {
            (client.items_now("PCLUSTER_load_OUT") > done + 50 || feed.has_ended()).then_some(())
        });
        let mut node = nodes.remove(0);
        assert_eq!(node.stop(), Some(0), "{}", node.stderr());
        stopped += 1;
        nodes.push(cluster.node_with(&format!("n{stopped}"), &GRACE));
    }
    assert!(stopped >= 3, "{stopped} nodes were stopped while items were fed");
    assert_eq!(feed.ended(), Some(0), "{}", feed.stderr());
    cluster.ok(&["wait", "load", "-t", "60s"]);
    // With a single attempt, an item that was not given back in order would be a dead letter.
    let letters = client.all_items("PCLUSTER_load_DEAD");
    assert!(letters.is_empty(), "{letters:#?}");
    assert_eq!(numbers(&cluster.pull_all("load")), (0..3_000).map(|number| number / 2).collect::<Vec<_>>());
}

/// How many of a chain's results each node has made.
fn made(cluster: &Cluster, chain: &str) -> BTreeMap<String, usize> {
    let mut made = BTreeMap::new();
    for result in json_lines(&cluster.ok(&["pull", chain, "--all", "--meta"])) {
        *made.entry(result["node"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    made
}

#[test]
fn few_heavy_items_of_one_message_are_shared_by_idle_nodes() {
    let cluster = Cluster::start();
    let nodes = [cluster.node("a"), cluster.node("b")];
    let millis = "config = { millis = 700 }";
    let narrow = format!("{millis}\nconcurrency = 4");
    let cases = [("three", narrow.as_str(), 3), ("eight", &narrow, 8), ("thirty", &narrow, 30), ("wide", millis, 8)];
    for (name, rest, _) in cases {
        cluster.deploy(&probe_chain(name, &["sleep"], rest));
        for node in &nodes {
            node.said(&format!("chain={name} revision=r1"));
        }
    }
    // At first nobody knows how long they take, then everybody. A node that a busy machine holds up may be late for its share.
    let mut left: Vec<_> = cases.into();
    for _ in 0..5 {
        for (name, _, items) in &left {
            cluster.run_with_input(&["feed", name], lines(0..*items)).succeeded();
        }
        left.retain(|(name, _, items)| {
            let made = made(&cluster, name);
            assert_eq!(made.values().sum::<usize>(), *items, "{name}");
            made.len() == 1 || made.values().any(|each| *each > items.div_ceil(2) + 4)
        });
    }
    assert!(left.is_empty(), "always done by one node for the most part: {left:?}");
}

#[test]
fn a_message_of_quick_items_is_cut_no_more_than_once() {
    let cluster = Cluster::start();
    let client = Client::connect(&cluster);
    cluster.deploy(&probe_chain("quick", &["echo"], ""));
    let _node = cluster.node("a");
    let stored = || {
        let last = async |jetstream: &async_nats::jetstream::Context| {
            jetstream.get_stream("PCLUSTER_quick").await.unwrap().cached_info().state.last_sequence
        };
        client.with(last)
    };
    cluster.run_with_input(&["feed", "quick"], lines(0..256)).succeeded();
    cluster.ok(&["wait", "quick"]);
    let first = stored();
    assert!(first <= 65, "{first}");
    // On a machine that is busy with other tests quick items may take long now and then.
    let least = (0..5).map(|_| {
        let before = stored();
        cluster.run_with_input(&["feed", "quick"], lines(0..256 * 20)).succeeded();
        cluster.ok(&["wait", "quick"]);
        stored() - before
    });
    let least = least.min().unwrap();
    assert!((20..40).contains(&least), "{least} for twenty messages");
}
