//! `max_in_flight`: the limit of a stage in the whole cluster, whatever else waits.

use std::time::Duration;

use support::{Cluster, NatsClient, eventually, json_lines, lines, plugin, recovering, sequence};

/// A chain whose only stage obeys its items.
fn chain(name: &str, version: &str, rest: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"{version}\"\n[[stage]]\nname = \"only\"\nplugin = \"{}\"\ntask = \"obey\"\n{rest}\n",
        plugin("probe")
    )
}

/// Messages that nodes hold of the consumers of a stage whose names start like this.
fn held(client: &NatsClient, chain: &str, consumers: &str) -> usize {
    let names = client.consumers(&format!("PCLUSTER_{chain}"));
    let names: Vec<&String> = names.iter().filter(|name| name.starts_with(consumers)).collect();
    client.with(async |jetstream| {
        let stream = jetstream.get_stream(format!("PCLUSTER_{chain}")).await.unwrap();
        let mut held = 0;
        for name in names {
            held += stream.consumer_info(name).await.unwrap().num_ack_pending;
        }
        held
    })
}

#[test]
fn no_more_runs_at_once_in_the_whole_cluster_than_the_stage_says() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let rest = "concurrency = 4\nmax_in_flight = 2\nretry = { attempts = 3, backoff = [\"10ms\"] }";
    cluster.deploy(&chain("narrow", "1.0", rest));
    // Some come from the retry lane, and wait for a place there beside those that were never tried.
    let items =
        (0..30).map(|number| format!("flaky 1 {number}")).chain((0..30).map(|number| format!("sleep 100 {number}")));
    cluster.run_with_input(&["feed", "narrow", "--format", "lines", "--pack-items", "1"], lines(items)).succeeded();
    let _nodes = [cluster.node("a"), cluster.node("b"), cluster.node("c")];
    let mut most_held = 0;
    eventually("all is done", || {
        most_held = most_held.max(held(&client, "narrow", "r1_"));
        (client.count("PCLUSTER_narrow") == 0).then_some(())
    });
    assert_eq!(most_held, 2);
    assert_eq!(client.items_now("PCLUSTER_narrow_OUT"), 60);
}

#[test]
fn items_that_wait_for_their_back_off_hold_nobodys_place() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let rest = "concurrency = 1\nretry = { attempts = 2, backoff = [\"1h\"] }";
    let items = |orders: &[&str]| sequence(orders.iter().copied());
    for (name, limit) in [("limited", "max_in_flight = 2"), ("open", "")] {
        cluster.deploy(&chain(name, "1.0", &format!("{rest}\n{limit}")));
    }
    let node = cluster.node("a");
    for name in ["limited", "open"] {
        let intake = format!("pcluster.{name}.in");
        let stream = format!("PCLUSTER_{name}");
        client
            .publish(&intake, &[], items(&["fail 1 a", "fail 1 b", "fail 1 c", "fail 1 d", "fail 1 e", "fail 1 f"]))
            .unwrap();
        eventually("all that fail wait", || {
            (held(&client, name, "r1-") == 6 && held(&client, name, "r1_") == 0).then_some(())
        });
        // What takes long is left in pieces, which go the same way as what failed.
        client.publish(&intake, &[], items(&["sleep 300 g", "sleep 300 h", "sleep 300 i", "fail 1 j"])).unwrap();
        cluster.run_with_input(&["feed", name, "--format", "lines", "--pack-items", "1"], lines(0..20)).succeeded();
        eventually("the others are done", || (client.items_now(&format!("{stream}_OUT")) == 23).then_some(()));
        eventually("seven wait", || (client.count(&stream) == 7).then_some(()));
        assert_eq!(cluster.status(name)["revisions"][0]["stages"][0]["queued_messages"], 7);
    }
    // They are the first version's until they are done.
    cluster.deploy(&chain("limited", "1.1", ""));
    cluster.ok(&["feed", "limited", "new"]);
    eventually("the new version runs", || (client.items_now("PCLUSTER_limited_OUT") == 24).then_some(()));
    assert_eq!(cluster.status("limited")["revisions"].as_array().map(Vec::len), Some(2));
    cluster.ok(&["reset", "limited"]);
    assert_eq!(client.count("PCLUSTER_limited"), 0);
    drop(node);
}

#[test]
fn what_is_fed_does_not_wait_for_all_that_has_waited() {
    const WAITED: usize = 100;
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&chain("fair", "1.0", "max_in_flight = 1"));
    for number in 0..WAITED {
        let subject = format!("pcluster.fair.parked.1.only.retry-{number}-0");
        client.publish(&subject, &[("Pcluster-Delay", "1")], sequence([format!("sleep 50 {number}")])).unwrap();
    }
    let _node = cluster.node("a");
    eventually("the first runs", || (client.items_now("PCLUSTER_fair_OUT") > 0).then_some(()));
    client.publish("pcluster.fair.in", &[], sequence(["echo 1 fresh"])).unwrap();
    let before = eventually("what was fed is done", || {
        let done = client.all_items("PCLUSTER_fair_OUT");
        done.iter().position(|done| done.item().as_text() == Some("echo 1 fresh"))
    });
    assert!(before < WAITED, "it came last");
}

#[test]
fn an_item_waits_for_its_back_off_though_the_node_dies_that_was_to_begin_the_wait() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let last_stored = |stream: String| {
        client.with(async |jetstream| jetstream.get_stream(stream).await.unwrap().cached_info().state.last_timestamp)
    };
    let chains = [("limited", "max_in_flight = 2"), ("open", "")];
    // The delivery that was lost costs no attempt either.
    let rest = "retry = { attempts = 2, backoff = [\"4s\"] }";
    let mut doomed = Vec::new();
    for (name, limit) in chains {
        cluster.deploy(&recovering(&chain(name, "1.0", &format!("{rest}\n{limit}"))));
        cluster.ok(&["feed", name, "flaky 1 a"]);
        doomed.push(cluster.spawn(&["node", "--name", "doomed", "--chain", name, "--die-at", "waits"]));
    }
    for node in &mut doomed {
        assert_eq!(node.ended(), None, "it did not die\n{}", node.stderr());
    }
    let failed = chains.map(|(name, _)| last_stored(format!("PCLUSTER_{name}")));
    let _node = cluster.node("a");
    for ((name, _), failed) in chains.into_iter().zip(failed) {
        client.items(&format!("PCLUSTER_{name}_OUT"), 1);
        let waited = last_stored(format!("PCLUSTER_{name}_OUT")) - failed;
        assert!(waited >= Duration::from_secs(4), "{name}: {waited}");
    }
}

#[test]
fn items_that_have_waited_run_again_once_though_their_nodes_die_meanwhile() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let rest = "max_in_flight = 2\nretry = { attempts = 3, backoff = [\"1s\"] }";
    cluster.deploy(&recovering(&chain("again", "1.0", rest)));
    let mut node = cluster.node("a");
    cluster
        .run_with_input(
            &["feed", "again", "--format", "lines"],
            lines((0..40).map(|number| format!("flaky 1 {number}"))),
        )
        .succeeded();
    eventually("all wait", || (held(&client, "again", "r1-parked") == 40).then_some(()));
    node.signal("KILL");
    node.ended();
    let _node = cluster.node("b");
    cluster.ok(&["wait", "again"]);
    let results = json_lines(&cluster.ok(&["pull", "again", "--all"]));
    assert_eq!(results.len(), 40, "{results:?}");
    assert_eq!(client.count("PCLUSTER_again_DEAD"), 0);
}
