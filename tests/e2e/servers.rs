//! Several servers: a chain with three copies survives the loss of any server.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use serde_json::Value;
use support::{
    Cluster, NatsClient, Servers, assert_refused, eventually, json_lines, lines, numbers, probe_chain, with_table,
};

/// Items that are fed while a server dies, three in a message, and how often each comes out.
const ITEMS: u64 = 600;
const TIMES: usize = 2;

/// The manifest with this many replicas.
fn with_replicas(replicas: u32, manifest: &str) -> String {
    manifest.replacen("version", &format!("replicas = {replicas}\nversion"), 1)
}

/// How many copies there are to be of each stream.
fn replicas(client: &NatsClient) -> BTreeMap<String, usize> {
    client.with(async |jetstream| {
        let mut streams = BTreeMap::new();
        for name in stream_names(jetstream).await {
            let stream = jetstream.get_stream(&name).await.unwrap();
            streams.insert(name, stream.cached_info().config.num_replicas);
        }
        streams
    })
}

async fn stream_names(jetstream: &async_nats::jetstream::Context) -> Vec<String> {
    jetstream.stream_names().try_collect().await.unwrap()
}

/// The server that leads a stream.
fn leader(client: &NatsClient, stream: &str) -> String {
    client.with(async |jetstream| {
        loop {
            let stream = jetstream.get_stream(stream).await.unwrap();
            if let Some(leader) = stream.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone()) {
                return leader;
            }
        }
    })
}

/// Kills the server that leads a chain's work while items are fed, run and pulled, and checks that each comes out as often as
/// it must. Returns the server's name.
fn lose_the_leader(cluster: &mut Cluster<Servers>) -> String {
    let client = NatsClient::connect(cluster);
    let rest = format!("config = {{ times = {TIMES}, millis = 20 }}\nconcurrency = 4");
    let stages = with_table("[queue]\nlimit = 60", &probe_chain("kept", &["echo", "sleep", "repeat"], &rest));
    cluster.deploy(&with_replicas(3, &stages));
    let nodes = [cluster.node("a"), cluster.node("b")];
    let expected: Vec<u64> = (0..ITEMS).flat_map(|number| [number; TIMES]).collect();
    cluster.file("numbers.ndjson", lines(0..ITEMS));
    let mut feed = cluster.spawn(&["feed", "kept", "-f", "numbers.ndjson", "--pack-items", "3"]);
    let mut pull = cluster.spawn(&["pull", "kept", "-n", &expected.len().to_string()]);
    cluster.until("kept", "results come", |status| status["revisions"][0]["stages"][2]["done"].as_u64() > Some(20));
    let mut wait = cluster.spawn(&["wait", "kept"]);

    let lost = leader(&client, "PCLUSTER_kept");
    cluster.server.named(&lost).kill();
    assert_eq!(feed.ended(), Some(0), "{}", feed.stderr());
    assert_eq!(wait.ended(), Some(0), "{}", wait.stderr());
    assert_eq!(pull.ended(), Some(0), "{}", pull.stderr());
    assert_eq!(numbers(&json_lines(&pull.stdout())), expected);
    let kept = client.items("PCLUSTER_kept_OUT", expected.len());
    let mut kept: Vec<u64> =
        kept.iter().map(|result| result.item().as_integer().unwrap().try_into().unwrap()).collect();
    kept.sort_unstable();
    assert_eq!(kept, expected);
    assert_eq!((client.count("PCLUSTER_kept"), client.count("PCLUSTER_kept_DEAD")), (0, 0));
    for mut node in nodes {
        assert_eq!(node.stop(), Some(0), "{}", node.stderr());
    }
    lost
}

/// Checks that the chain goes on as before.
fn goes_on(cluster: &Cluster<Servers>) {
    let _node = cluster.node("c");
    cluster.run_with_input(&["feed", "kept"], lines(0..50)).succeeded();
    cluster.ok(&["wait", "kept"]);
    let expected: Vec<u64> = (0..50).flat_map(|number| [number; TIMES]).collect();
    assert_eq!(numbers(&cluster.pull_all("kept")), expected);
}

#[test]
fn a_chain_kept_by_three_servers_outlives_the_one_that_leads_and_takes_it_back() {
    let mut cluster = Cluster::of_three_servers();
    let lost = lose_the_leader(&mut cluster);
    cluster.server.named(&lost).restart();
    goes_on(&cluster);
}

#[test]
fn a_chain_kept_by_three_servers_goes_on_with_two() {
    let mut cluster = Cluster::of_three_servers();
    lose_the_leader(&mut cluster);
    goes_on(&cluster);
}

#[test]
fn a_message_that_the_servers_passed_over_runs() {
    let cluster = Cluster::of_three_servers();
    cluster.deploy(&with_replicas(3, &probe_chain("passed", &["echo"], "")));
    cluster.ok(&["feed", "passed", "--pack-items", "1", "0", "1", "2", "3", "4"]);
    // As if the first three had been acknowledged, which no node was handed.
    let client = NatsClient::connect(&cluster);
    client.with(async |jetstream| {
        let api = "CONSUMER.RESET.PCLUSTER_passed.r1_echo".to_owned();
        let answer: serde_json::Value = jetstream.request(api, &serde_json::json!({ "seq": 4 })).await.unwrap();
        assert!(answer.get("error").is_none(), "{answer}");
    });
    let node = cluster.node("a");
    node.said("runs again");
    cluster.ok(&["wait", "passed"]);
    let mut results = numbers(&cluster.pull_all("passed"));
    results.sort_unstable();
    assert_eq!(results, [0, 1, 2, 3, 4]);
}

#[test]
fn more_replicas_than_servers_are_refused_and_change_nothing() {
    let alone = Cluster::start();
    let client = NatsClient::connect(&alone);
    alone.file("chain.toml", with_replicas(2, &probe_chain("kept", &["echo"], "")));
    let says =
        ["chain `kept` asks for 2 replicas", "write a smaller `replicas` into the manifest or start more servers"];
    assert_refused(&alone.run(&["deploy"]), 1, &says);
    assert!(replicas(&client).is_empty(), "{:?}", replicas(&client));
}

#[test]
fn replicas_are_raised_and_lowered_by_new_versions() {
    let cluster = Cluster::of_three_servers();
    let client = NatsClient::connect(&cluster);
    let version = |number: u32, replicas: u32| {
        with_replicas(replicas, &probe_chain("kept", &["echo"], "")).replacen("1.0", &format!("1.{number}"), 1)
    };
    cluster.deploy(&version(0, 1));
    let _node = cluster.node("a");
    let before = replicas(&client);
    let names = [
        "KV_pcluster_chains",
        "OBJ_pcluster_plugins",
        "PCLUSTER_CLAIM",
        "PCLUSTER_COUNT",
        "PCLUSTER_LOG",
        "PCLUSTER_kept",
    ];
    let names: Vec<String> =
        names.iter().copied().chain(["PCLUSTER_kept_DEAD", "PCLUSTER_kept_OUT"]).map(str::to_owned).collect();
    assert_eq!(before.keys().cloned().collect::<Vec<_>>(), names);
    assert!(before.values().all(|replicas| *replicas == 1), "{before:?}");

    let file = cluster.file("chain.toml", version(1, 4));
    assert_refused(&cluster.run(&["deploy", file.to_str().unwrap()]), 1, &["chain `kept` asks for 4 replicas"]);
    assert_eq!((replicas(&client), &cluster.status("kept")["version"]), (before, &Value::from("1.0")));

    cluster.deploy(&version(1, 3));
    assert!(replicas(&client).values().all(|replicas| *replicas == 3), "{:?}", replicas(&client));
    cluster.ok(&["feed", "kept", "1"]);
    cluster.ok(&["wait", "kept"]);

    // What all chains share is never lowered: others may need it.
    cluster.deploy(&version(2, 1));
    let of_chain = |name: &String| name.starts_with("PCLUSTER_kept");
    eventually("fewer copies once the version before has retired", || {
        let after = replicas(&client);
        after.iter().all(|(name, replicas)| *replicas == if of_chain(name) { 1 } else { 3 }).then_some(())
    });
    cluster.ok(&["feed", "kept", "2"]);
    assert_eq!(numbers(&cluster.pull_all("kept")), [1, 2]);
}

/// Items of which all but the last come out, and the last becomes a dead letter.
const FRAME: [&str; 4] = ["0", "2", "4", "\"no number\""];

#[test]
fn a_node_that_dies_costs_and_repeats_nothing_on_three_servers() {
    let cluster = Cluster::of_three_servers();
    let client = NatsClient::connect(&cluster);
    let chain = with_table("[queue]\nack_wait = \"2s\"", &probe_chain("kept", &["drop_odd"], ""));
    cluster.deploy(&with_replicas(3, &chain));
    let points = ["received", "ran", "claimed", "stored"];
    for point in points {
        // All in one message.
        cluster.run_with_input(&["feed", "kept", "--pack-wait", "1m"], lines(FRAME)).succeeded();
        assert_eq!(client.count("PCLUSTER_kept"), 1);
        assert_eq!(cluster.spawn(&["node", "--name", point, "--die-at", point]).ended(), None);
        cluster.ok(&["node", "--name", "after", "--until-empty"]);
    }
    let expected: Vec<u64> = [0, 2, 4].into_iter().flat_map(|number| [number; 4]).collect();
    assert_eq!(numbers(&cluster.pull_all("kept")), expected);
    assert_eq!(client.count("PCLUSTER_kept_DEAD"), points.len() as u64);
}

#[test]
fn asking_three_servers_for_a_key_does_not_make_them_remember_it() {
    let cluster = Cluster::of_three_servers();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&with_replicas(3, &probe_chain("kept", &["echo"], "")));
    for subject in ["pcluster.kept.retry.1.echo", "pcluster.kept.out", "pcluster.kept.dead.echo"] {
        for key in ["first", "second"] {
            let key = ("Nats-Msg-Id", key);
            let ask = || client.publish(subject, &[key, ("Nats-Rollup", "sub")], "");
            for _ in 0..3 {
                let refused = ask().unwrap_err().to_string();
                assert!(refused.contains("rollup not permitted"), "{subject} {refused}");
            }
            let stored = client.publish(subject, &[key], "\x01").unwrap();
            assert!(!stored.duplicate);
            let known = ask().unwrap();
            assert_eq!((known.duplicate, known.sequence), (true, stored.sequence));
        }
    }
    let counts = ["PCLUSTER_kept", "PCLUSTER_kept_OUT", "PCLUSTER_kept_DEAD"].map(|stream| client.count(stream));
    assert_eq!(counts, [2, 2, 2]);
}
