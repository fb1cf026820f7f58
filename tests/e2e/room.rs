//! A full server: stored items are kept, each command reports why it waits, and all continue once there is room.

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use support::{Cluster, DEADLINE, NatsClient, Server, eventually, lines, numbers, probe_chain, sequence};

/// A cluster on a server with room for a few megabytes.
fn small() -> (Cluster, NatsClient) {
    let cluster =
        Cluster::with_server(Server::with_configuration("jetstream { store_dir: data, max_file_store: 12MB }"));
    let client = NatsClient::connect(&cluster);
    // The log would set more aside than there is.
    make(&client, "PCLUSTER_LOG", "pcluster.*.log.>", 1 << 20, DiscardPolicy::Old);
    (cluster, client)
}

fn make(client: &NatsClient, name: &str, subject: &str, max_bytes: i64, discard: DiscardPolicy) {
    let (name, subjects) = (name.to_owned(), vec![subject.to_owned()]);
    let config = Config { name, subjects, max_bytes, discard, ..Config::default() };
    client.with(async |jetstream| jetstream.create_stream(config.clone()).await.map(drop).unwrap());
}

/// Publishes until the server has no room.
fn fill(client: &NatsClient, subject: &str) {
    let megabyte = vec![0; 900_000];
    while client.publish(subject, &[], megabyte.clone()).is_ok() {}
    // And what is left.
    while client.publish(subject, &[], vec![0; 10_000]).is_ok() {}
}

#[test]
fn outputs_and_items_wait_for_room_and_say_so() {
    let (cluster, client) = small();
    make(&client, "FILL", "fill", -1, DiscardPolicy::Old);
    cluster.deploy(&probe_chain("small", &["repeat", "echo"], "config = { times = 3 }"));
    cluster.run_with_input(&["feed", "small", "--pack-items", "1"], lines(0..20)).succeeded();
    fill(&client, "fill");

    let node = cluster.node("a");
    let mut wait = cluster.spawn(&["wait", "small"]);
    cluster.file("more.ndjson", lines(20..30));
    let mut feed = cluster.spawn(&["feed", "small", "-f", "more.ndjson"]);
    feed.said("waiting: the server has no room: insufficient resources; give it more room with `max_file_store`");
    let late = cluster.run(&["feed", "small", "99", "-t", "3"]);
    late.failed(3, "no item was taken for 3s: the server has no room");
    let problem = "stage `repeat`: outputs wait to be stored: the server has no room: insufficient resources";
    node.said(problem);
    cluster.run(&["status"]).failed(0, problem);
    wait.said(&format!("small cannot continue: node a: {problem}"));
    // Nothing is given up, however long it takes.
    assert_eq!((client.count("PCLUSTER_small"), cluster.status("small")["dead"].as_u64()), (20, Some(0)));

    client.with(async |jetstream| jetstream.get_stream("FILL").await.unwrap().purge().await.unwrap());
    assert_eq!(feed.ended(), Some(0), "{}", feed.stderr());
    feed.said("fed 10 items in ");
    assert_eq!(wait.ended(), Some(0), "{}", wait.stderr());
    node.said("goes on");
    cluster.ok(&["wait", "small"]);
    let expected: Vec<u64> = (0..30).flat_map(|number| [number; 3]).collect();
    assert_eq!(numbers(&cluster.pull_all("small")), expected);
    assert_eq!(cluster.status("small")["problems"].as_array().map(Vec::len), Some(0));
}

#[test]
fn results_that_fill_the_server_can_be_forgotten() {
    let (cluster, client) = small();
    cluster.deploy(&probe_chain("small", &["echo"], ""));
    let _node = cluster.node("a");
    fill(&client, "pcluster.small.out");
    cluster.run(&["stop", "small"]).failed(1, "insufficient resources; give it more room with `max_file_store`");
    cluster.ok(&["reset", "small", "--all"]);
    cluster.ok(&["feed", "small", "1"]);
    assert_eq!(cluster.pull_all("small"), [1]);
}

#[test]
fn a_plugin_that_finds_no_room_leaves_nothing() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    // Room for one part of it.
    make(&client, "OBJ_pcluster_plugins", "$O.pcluster_plugins.>", 200_000, DiscardPolicy::New);
    cluster.file("chain.toml", probe_chain("small", &["echo"], ""));
    cluster.run(&["deploy"]).failed(1, "cannot store a plugin of ");
    eventually("nothing is left", || (client.count("OBJ_pcluster_plugins") == 0).then_some(()));
    assert_eq!(cluster.ok(&["status", "--json"]).trim(), "[]");
}

#[test]
fn what_goes_in_together_is_not_sent_while_the_server_opens_no_batch() {
    let configuration = "jetstream { store_dir: data, limits { batch { max_inflight_per_stream: 1 } } }";
    let cluster = Cluster::with_server(Server::with_configuration(configuration));
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("open", &["echo"], ""));
    // Nobody knows how long these take, so the node puts them back for others to share, all at once.
    client.publish("pcluster.open.in", &[], sequence(0..8)).unwrap();
    assert!(client.publish_of_batch("pcluster.open.in", "held", 1).is_empty(), "it has the only place");
    let sent = client.hear_header("pcluster.open.retry.>", "Nats-Batch-Sequence");
    let _node = cluster.node("a");
    for _ in 0..4 {
        assert_eq!(sent.recv_timeout(DEADLINE).unwrap().as_deref(), Some("1"), "the others wait until it is open");
    }
    // A batch with a gap is dropped.
    let dropped = client.publish_of_batch("pcluster.open.in", "held", 3);
    assert!(String::from_utf8_lossy(&dropped).contains("10176"), "{dropped:?}");
    cluster.ok(&["wait", "open"]);
    assert_eq!(numbers(&cluster.pull_all("open")), (0..8).collect::<Vec<_>>());
}
