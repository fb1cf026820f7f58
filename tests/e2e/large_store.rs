//! The object store of a chain's large items, as `status`, `reset` and the sweep of a node treat it.

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use serde_json::{Value, json};
use support::{Cluster, NatsClient, eventually, probe_chain};

const STREAM: &str = "OBJ_pcluster_large_films";

/// Makes the store as the page of the wire says.
fn make(client: &NatsClient) {
    let subjects = ["C.>", "M.>", "R.>", "S"].map(|rest| format!("$O.pcluster_large_films.{rest}")).to_vec();
    let config = Config {
        name: STREAM.to_owned(),
        subjects,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        allow_direct: true,
        allow_message_ttl: true,
        ..Config::default()
    };
    client.with(async |jetstream| jetstream.create_stream(config).await.unwrap());
}

/// Stores an object with the client library alone.
fn put(client: &NatsClient, name: &str, size: usize) {
    client.with(async |jetstream| {
        let store = jetstream.get_object_store("pcluster_large_films").await.unwrap();
        store.put(name, &mut vec![7; size].as_slice()).await.unwrap();
    });
}

/// Writes the record of a holder.
fn record(client: &NatsClient, name: &str, holder: &str) {
    let subject = format!("$O.pcluster_large_films.R.{name}.{holder}");
    client.with(async |jetstream| {
        jetstream.publish_with_headers(subject, HeaderMap::new(), "".into()).await.unwrap().await.unwrap();
    });
}

fn large(cluster: &Cluster) -> (Value, u64) {
    let status = cluster.status("films");
    (status["large_items"].clone(), status["large_bytes"].as_u64().unwrap())
}

#[test]
fn status_shows_large_items_and_a_reset_removes_those_of_what_it_drops() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let bounded = probe_chain("films", &["echo"], "")
        .replace("[[stage]]", "[queue]\nlarge = \"100KiB\"\nlarge_bytes = \"64MiB\"\n[[stage]]");
    cluster.deploy(&bounded);
    assert_eq!(large(&cluster), (json!(0), 0));
    assert!(!cluster.ok(&["status", "films"]).contains("large item"));
    cluster.run(&["reset", "films"]).succeeded();

    make(&client);
    put(&client, "one", 300_000);
    put(&client, "two", 500_000);
    let (items, bytes) = large(&cluster);
    assert!(items == 2 && (800_000..900_000).contains(&bytes), "{items} {bytes}");
    let shown = cluster.ok(&["status", "films"]);
    assert!(shown.contains(", 2 large items (78") && shown.contains("KiB)"), "{shown}");

    // Of a message that was removed: the work stream was never that long. The other is of a client that is about to feed.
    record(&client, "one", "work-7");
    cluster.run(&["reset", "films"]).succeeded();
    assert_eq!(large(&cluster).0, 2, "the other client has an hour, also for what it has recorded itself");
    cluster.run(&["reset", "films", "--all"]).succeeded();
    assert_eq!(large(&cluster), (json!(0), 0));
}

#[test]
fn a_node_removes_what_nothing_refers_to() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("films", &["echo"], ""));
    make(&client);
    put(&client, "left", 300_000);
    record(&client, "left", "making-9");
    record(&client, "nothing", "work-12");
    record(&client, "kept", "later-1");
    let _node = cluster.node_with("a", &["--sweep-every", "1s"]);
    eventually("only what a newer program may know stays", || {
        let left = client.by_subject(STREAM);
        let left: Vec<_> = left.keys().filter(|subject| subject.strip_suffix(".S").is_none()).collect();
        (left == ["$O.pcluster_large_films.R.kept.later-1"]).then_some(())
    });
}
