//! Chains of the previous release, and of a later release, beside those of this one.

use serde_json::{Value, json};
use support::{Cluster, NatsClient, assert_refused, lines, numbers};

use crate::deploys::{chain, config, entries};

/// Writes an entry of the registry anew.
pub fn rewrite(client: &NatsClient, key: &str, change: impl FnOnce(&mut Value)) {
    client.with(async |jetstream| {
        let store = jetstream.get_key_value("pcluster_chains").await.unwrap();
        let mut value: Value = serde_json::from_slice(&store.get(key).await.unwrap().unwrap()).unwrap();
        change(&mut value);
        store.put(key, serde_json::to_vec(&value).unwrap().into()).await.unwrap();
    });
}

/// Sets or removes the number of the wire in a stream's metadata.
fn mark(client: &NatsClient, stream: &str, number: Option<&str>) {
    let mut config = config(client, stream);
    match number {
        Some(number) => config.metadata.insert("pcluster.wire".to_owned(), number.to_owned()),
        None => config.metadata.remove("pcluster.wire"),
    };
    client.with(async |jetstream| jetstream.update_stream(&config).await.map(drop).unwrap());
}

#[test]
fn what_the_release_before_deployed_goes_on_and_the_next_deploy_numbers_it() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&chain("old", "1.0", "", "max_in_flight = 4"));
    // As it was before there were numbers.
    rewrite(&client, "old", |state| drop(state.as_object_mut().unwrap().remove("wire")));
    rewrite(&client, "old.r1", |deployed| {
        deployed["manifest"].as_object_mut().unwrap().remove("wire");
        deployed.as_object_mut().unwrap().remove("by");
    });
    for stream in ["PCLUSTER_old", "PCLUSTER_old_OUT", "PCLUSTER_old_DEAD"] {
        mark(&client, stream, None);
    }
    let _node = cluster.node("a");
    cluster.run_with_input(&["feed", "old"], lines(0..20)).succeeded();
    assert_eq!(cluster.pull_all("old").len(), 20);
    assert_eq!(cluster.deploy(&chain("old", "1.0", "", "max_in_flight = 4")), "old 1.0 is unchanged (r1)\n");
    let wire = |stream: &str| config(&client, stream).metadata.get("pcluster.wire").cloned();
    assert_eq!(wire("PCLUSTER_old"), None, "the revision is still of the wire before");
    cluster.deploy(&chain("old", "1.1", "", "max_in_flight = 4"));
    for stream in ["PCLUSTER_old", "PCLUSTER_old_OUT", "PCLUSTER_old_DEAD"] {
        assert_eq!(wire(stream).as_deref(), Some("2"), "{stream}");
    }
    let state = entries(&client, "old");
    assert_eq!((&state["old"]["wire"], &state["old.r2"]["manifest"]["wire"]), (&json!(2), &json!(2)));
    cluster.run_with_input(&["feed", "old"], lines(0..20)).succeeded();
    assert_eq!(cluster.pull_all("old").len(), 20);
}

#[test]
fn a_revision_of_the_release_before_takes_no_topic_until_a_new_version_is_deployed() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&chain("plain", "1.0", "", ""));
    rewrite(&client, "plain.r1", |deployed| drop(deployed["manifest"].as_object_mut().unwrap().remove("wire")));
    let file = cluster.file("item.txt", "text");
    let file = file.to_str().unwrap();
    for arguments in [
        &["feed", "plain", "--topic", "a", "1"][..],
        &["feed", "plain", "--topic", "a", "-f", file, "--format", "text"],
    ] {
        cluster.run(arguments).failed(1, "write a new version into the manifest and deploy it");
    }
    assert_eq!(client.count("PCLUSTER_plain"), 0);
    cluster.ok(&["feed", "plain", "1"]);
    cluster.deploy(&chain("plain", "1.1", "", ""));
    cluster.ok(&["feed", "plain", "--topic", "a", "2"]);
    let _node = cluster.node("a");
    cluster.ok(&["wait", "plain"]);
    assert_eq!(numbers(&cluster.pull_all("plain")), [1, 2]);
    assert_eq!(cluster.ok(&["pull", "plain", "--topic", "a", "--all"]), "2\n");
}

#[test]
fn another_wire_is_refused_with_what_to_do_and_other_chains_go_on() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    for name in ["stream", "state", "manifest", "good"] {
        cluster.deploy(&chain(name, "1.0", "", ""));
    }
    mark(&client, "PCLUSTER_stream", Some("9"));
    rewrite(&client, "state", |state| state["wire"] = json!(9));
    rewrite(&client, "manifest.r1", |deployed| deployed["manifest"]["wire"] = json!(9));
    let remedy = "use the release that deployed it or a newer one, here and on every node";
    for (name, thing) in [
        ("stream", "the stream `PCLUSTER_stream` of chain `stream` speaks wire 9"),
        ("state", "chain `state` speaks wire 9"),
        ("manifest", "chain `manifest` r1 speaks wire 9"),
    ] {
        cluster.file("next.toml", chain(name, "1.1", "", ""));
        let before = config(&client, &format!("PCLUSTER_{name}"));
        for arguments in [&["deploy", "next.toml"][..], &["status", name], &["reset", name]] {
            assert_refused(&cluster.run(arguments), 1, &[thing, remedy]);
        }
        let after = config(&client, &format!("PCLUSTER_{name}"));
        assert_eq!((after.subjects, after.metadata), (before.subjects, before.metadata), "{name}");
    }
    let node = cluster.node("a");
    cluster.ok(&["feed", "good", "1"]);
    assert_eq!(cluster.pull_all("good"), [1]);
    for thing in ["the stream `PCLUSTER_stream`", "chain `state`", "chain `manifest`"] {
        node.said(&format!("{thing} "));
    }
}
