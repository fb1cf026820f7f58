//! Several nodes share the work, and a stopped node loses none of it.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;

use serde_json::json;
use support::{
    Cluster, NatsClient, Process, eventually, json_lines, lines, numbers, probe_chain, recovering, sequence,
};

/// An order to `obey` that does not end in the time of a test.
const ENDLESS: &str = "sleep 600000";

/// Returns one counter of a chain's first hop on each node that serves it.
fn by_node(cluster: &Cluster, chain: &str, counter: &str) -> BTreeMap<String, u64> {
    let nodes = cluster.nodes();
    let of = |node: &serde_json::Value| {
        let hop = node["hops"].as_array().unwrap().iter().find(|hop| hop["chain"] == chain)?;
        Some((node["node"].as_str().unwrap().to_owned(), hop[counter].as_u64().unwrap()))
    };
    nodes.iter().filter_map(of).collect()
}

/// Waits until each of these nodes runs as many items of a chain as its stage allows.
#[track_caller]
fn fill(cluster: &Cluster, chain: &str, nodes: &[&str], concurrency: u64) {
    let expected: BTreeMap<String, u64> = nodes.iter().map(|node| ((*node).to_owned(), concurrency)).collect();
    let mut running = BTreeMap::new();
    let full = || {
        running = by_node(cluster, chain, "running");
        (running == expected).then_some(())
    };
    eventually(&format!("every turn of {chain} is taken"), full);
}

#[test]
fn several_nodes_share_the_work_and_are_seen() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("shared", &["sleep"], "config = { millis = 50 }\nconcurrency = 2"));
    let _nodes = [cluster.node("a"), cluster.node("b"), cluster.node("c")];
    let mut fed = 0;
    let done = eventually("each node has done some", || {
        cluster.run_with_input(&["feed", "shared"], lines(0..60)).succeeded();
        cluster.ok(&["wait", "shared"]);
        fed += 60;
        let done = by_node(&cluster, "shared", "done");
        (done.len() == 3 && done.values().all(|done| *done > 0)).then_some(done)
    });
    assert_eq!(done.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(done.values().sum::<u64>(), fed);
    let stage = eventually("all are counted", || {
        let stage = cluster.status("shared")["revisions"][0]["stages"][0].clone();
        (stage["done"] == fed).then_some(stage)
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
fn a_node_added_midway_does_what_the_first_has_no_turn_for() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("added", &["obey"], "concurrency = 2"));
    let _first = cluster.node("first");
    for _ in 0..2 {
        client.publish("pcluster.added.in", &[], sequence([ENDLESS])).unwrap();
    }
    fill(&cluster, "added", &["first"], 2);
    let items: Vec<String> = (0..200).map(|item| format!("echo 1 {item:03}")).collect();
    client.publish("pcluster.added.in", &[], sequence(&items[..100])).unwrap();
    for item in &items[100..] {
        client.publish("pcluster.added.in", &[], sequence([item])).unwrap();
    }
    let _second = cluster.node("second");
    let mut results = client.items("PCLUSTER_added_OUT", 200);
    results.sort_by_key(|result| result.item().into_text().unwrap());
    for (result, item) in results.iter().zip(items) {
        assert_eq!((result.item().into_text().unwrap(), result.header("Pcluster-Node")), (item, "second"));
    }
    assert_eq!(by_node(&cluster, "added", "running")["first"], 2);
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
        stages[0]["done"] == 9 && stages[1]["running"] == 4 && stages[0]["rate"].is_f64()
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
    let heading =
        ["NODE", "HOST", "PID", "UP", "STATE", "RUNNING", "DONE", "ITEMS/S", "MEMORY", "SLOTS", "LABELS", "CHAINS"];
    assert_eq!(rows[0], heading);
    assert_eq!(rows.len(), 3);
    for (row, name) in rows[1..].iter().zip(["a", "b"]) {
        assert_eq!((row[0], row[4], row[5], row[11]), (name, "ready", "2", "shown"), "{nodes}");
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
    cluster.until_begun("once", 0, 2);
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
    // More than one node does in the time of a test.
    cluster.run_with_input(&["feed", "turn"], "400\n".repeat(400)).succeeded();
    let _second = cluster.node("second");
    eventually("the second node does some", || {
        (by_node(&cluster, "turn", "done").get("second") > Some(&0)).then_some(())
    });
}

#[test]
fn nodes_share_the_items_of_one_message() {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let chains = ["held", "frame"].map(|name| {
        cluster.deploy(&probe_chain(name, &["obey"], "concurrency = 8"));
        name
    });
    let nodes = NAMES.map(|name| cluster.node(name));
    for (node, chain) in nodes.iter().flat_map(|node| chains.map(|chain| (node, chain))) {
        node.said(&format!("chain={chain} revision=r1"));
    }
    client.publish("pcluster.held.in", &[], sequence([ENDLESS; 32])).unwrap();
    fill(&cluster, "held", &NAMES, 8);

    let items: Vec<String> = (0..256).map(|item| format!("sleep 20 {item}")).collect();
    client.publish("pcluster.frame.in", &[("Nats-Msg-Id", "one")], sequence(&items)).unwrap();
    cluster.ok(&["wait", "frame"]);
    let results = client.all_items("PCLUSTER_frame_OUT");
    let mut texts: Vec<String> = results.iter().map(|result| result.item().into_text().unwrap()).collect();
    texts.sort();
    let mut expected = items;
    expected.sort();
    assert_eq!(texts, expected);
    // By what the nodes counted, none ran twice and was found out only afterwards.
    let done = || by_node(&cluster, "frame", "done").values().sum::<u64>();
    assert_eq!(eventually("all are counted", || Some(done()).filter(|done| *done >= 256)), 256);
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
    cluster.ok(&["feed", "long", "sleep 6000 killed"]);
    runs(&cluster, "long", 1);
    drop(first);
    let _others = [cluster.node("second"), cluster.node("third")];
    // Three times as long as the server waits for a word of a node.
    cluster.ok(&["feed", "long", "sleep 3500 left"]);
    cluster.ok(&["wait", "long"]);
    let results = json_lines(&cluster.ok(&["pull", "long", "--all", "--meta"]));
    assert!(results.iter().all(|result| result["node"] != "first"), "{results:?}");
    assert_eq!(results.len(), 2);
    let expected = [("sleep 6000 killed".to_owned(), 2), ("sleep 3500 left".to_owned(), 1)];
    assert_eq!(runs(&cluster, "long", 3), BTreeMap::from(expected));
}

#[test]
fn nodes_stopped_under_load_end_in_time_and_nothing_is_done_twice() {
    const GRACE: [&str; 2] = ["--grace", "50ms"];
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    // A queue that is full most of the time, in front of a last stage that is slow.
    let rest = "config = { times = 2, millis = 15 }\nconcurrency = 4\nretry = { attempts = 1 }";
    let manifest = probe_chain("load", &["echo", "repeat", "sleep"], rest);
    cluster.deploy(&support::with_table("[queue]\nlimit = 30", &manifest));
    let (mut feed, mut input) = Process::start_fed(cluster.command(&["feed", "load", "--pack-items", "1"]));
    let mut nodes: Vec<Process> = ["a", "b", "c"].iter().map(|name| cluster.node_with(name, &GRACE)).collect();
    for round in 0..5 {
        input.write_all(lines(round * 300..(round + 1) * 300).as_bytes()).unwrap();
        let done = client.items_now("PCLUSTER_load_OUT");
        eventually("it goes on", || (client.items_now("PCLUSTER_load_OUT") > done + 50).then_some(()));
        let mut node = nodes.remove(0);
        assert_eq!(node.stop(), Some(0), "{}", node.stderr());
        nodes.push(cluster.node_with(&format!("n{round}"), &GRACE));
    }
    drop(input);
    assert_eq!(feed.ended(), Some(0), "{}", feed.stderr());
    cluster.ok(&["wait", "load"]);
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
fn few_heavy_items_of_one_message_take_every_turn_of_idle_nodes() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let nodes = [cluster.node("a"), cluster.node("b")];
    for (name, items, concurrency) in [("two", 2, 1), ("eight", 8, 4), ("thirty", 30, 4)] {
        cluster.deploy(&probe_chain(name, &["obey"], &format!("concurrency = {concurrency}")));
        for node in &nodes {
            node.said(&format!("chain={name} revision=r1"));
        }
        client.publish(&format!("pcluster.{name}.in"), &[], sequence(vec![ENDLESS; items])).unwrap();
        fill(&cluster, name, &["a", "b"], concurrency);
    }
}

#[test]
fn heavy_items_of_one_message_are_shared_though_one_node_could_run_them_all() {
    let cluster = Cluster::start();
    let nodes = [cluster.node("a"), cluster.node("b")];
    cluster.deploy(&probe_chain("wide", &["sleep"], "config = { millis = 300 }"));
    for node in &nodes {
        node.said("chain=wide revision=r1");
    }
    // At first nobody knows how long an item takes, then everybody.
    let mut shared = 0;
    eventually("two messages are shared", || {
        cluster.run_with_input(&["feed", "wide"], lines(0..8)).succeeded();
        let made = made(&cluster, "wide");
        assert_eq!(made.values().sum::<usize>(), 8);
        shared += usize::from(made.len() == 2);
        (shared == 2).then_some(())
    });
}

#[test]
fn messages_of_quick_items_are_cut_for_what_ran_and_no_more() {
    /// The most pieces that a message is cut into on a guess, and the most that nodes save up.
    const PIECES: u64 = 64;
    const TURNS: u64 = 2;
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("quick", &["echo"], &format!("concurrency = {TURNS}")));
    let _node = cluster.node("a");
    let started = Instant::now();
    let stored = || {
        let last = async |jetstream: &async_nats::jetstream::Context| {
            jetstream.get_stream("PCLUSTER_quick").await.unwrap().cached_info().state.last_sequence
        };
        client.with(last)
    };
    // A message more for every 250 ms that items ran, which on a busy machine quick ones do too.
    let earned = || u64::try_from(started.elapsed().as_millis()).unwrap() * TURNS / 250;
    cluster.run_with_input(&["feed", "quick"], lines(0..256)).succeeded();
    cluster.ok(&["wait", "quick"]);
    let first = stored();
    assert!(first <= 1 + PIECES + earned(), "{first} for one message");
    cluster.run_with_input(&["feed", "quick"], lines(0..256 * 20)).succeeded();
    cluster.ok(&["wait", "quick"]);
    let more = stored() - first;
    assert!((20..=20 + PIECES + earned()).contains(&more), "{more} for twenty messages");
}
