//! Feeders of large items that are killed or sleep: what they have uploaded goes, and what they have fed is worked once.

use std::collections::BTreeSet;
use std::fs;

use support::{Cluster, NatsClient, Objects, Process, Server, eventually};

/// A user who may do everything, and one who may not record that the first message refers to an object.
const USERS: &str = r#"authorization { users: [
    { user: all, password: "secret" }
    { user: mute, password: "secret", permissions: { publish: { deny: ["$O.pcluster_large_fed.R.*.work-1"] } } }
] }"#;
/// The arguments of a node that sweeps often.
const NODE: [&str; 4] = ["--allow-exec", "sh", "--sweep-every", "1s"];

/// A chain whose items wait for the file `gate`, and come out as they are.
fn deploy(cluster: &Cluster, queue: &str) {
    let gate = cluster.path("gate");
    let script = format!("until [ -e '{}' ]; do sleep 0.05; done; cat", gate.display());
    cluster.deploy(&format!(
        "name = \"fed\"\nversion = \"1\"\n[queue]\nlarge = \"1KiB\"\n{queue}\n[[stage]]\nname = \"pass\"\n\
         exec = [\"sh\", \"-c\", {script:?}]\ninput = \"bytes\"\noutput = \"bytes\"\ntimeout = \"10m\"\n"
    ));
}

/// Bytes that differ from place to place and from seed to seed.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let words = (0..=length as u64 / 8).map(|at| (at + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    words.flat_map(u64::to_le_bytes).take(length).collect()
}

/// Starts to feed a file as one byte string.
fn feed(cluster: &Cluster, name: &str, content: &[u8]) -> Process {
    cluster.file(name, content);
    cluster.spawn(&["feed", "fed", "-f", name, "--format", "bytes", "--id", name])
}

/// Stops a feeder once it has stored a part of an object that is not among these. Returns the name of the object.
fn stopped_halfway(feeder: &Process, objects: &Objects<'_>, others: &BTreeSet<String>) -> String {
    let name = eventually("a part of it is stored", || objects.names().difference(others).next().cloned());
    feeder.signal("STOP");
    name
}

/// Takes all results into files, and checks that they are these.
#[track_caller]
fn assert_results(cluster: &Cluster, expected: &[(&str, &[u8])]) {
    cluster.ok(&["wait", "fed"]);
    cluster.ok(&["pull", "fed", "--all", "--output", "results"]);
    for (name, content) in expected {
        assert!(fs::read(cluster.path("results").join(name)).unwrap() == *content, "{name} is not as it was fed");
    }
    assert_eq!(fs::read_dir(cluster.path("results")).unwrap().count(), expected.len(), "each once");
}

#[test]
fn of_a_killed_feeder_only_what_it_has_fed_is_left_and_that_comes_out_whole() {
    let mut cluster = Cluster::with_server(Server::start(USERS));
    let url = cluster.server.url.replace("nats://", "nats://all:secret@");
    cluster.server.url = url;
    let client = NatsClient::connect(&cluster);
    let objects = Objects::of(&client, "fed");
    deploy(&cluster, "");
    // It stores its message, and comes no further.
    let content = noise(3_000_000, 1);
    cluster.file("fed", &content);
    let mut mute = cluster.command(&["feed", "fed", "-f", "fed", "--format", "bytes", "--id", "fed"]);
    mute.env("PCLUSTER_NATS", cluster.server.url.replace("all:", "mute:"));
    let mut mute = Process::start(mute);
    let name = eventually("its message is stored", || (client.count("PCLUSTER_fed") == 1).then(|| objects.names()));
    mute.signal("KILL");
    mute.ended();
    assert!(objects.holders().iter().all(|holder| holder.starts_with("lease-")), "{:?}", objects.holders());

    // So large that its feeder cannot be done before it is killed.
    fs::File::create(cluster.path("half")).unwrap().set_len(1 << 30).unwrap();
    let mut killed = cluster.spawn(&["feed", "fed", "-f", "half", "--format", "bytes"]);
    stopped_halfway(&killed, &objects, &name);
    assert_eq!((objects.described(), client.count("PCLUSTER_fed")), (1, 1), "it is not whole");
    killed.signal("KILL");
    killed.ended();
    let _node = cluster.node_with("a", &NODE);
    eventually("only what was fed is there, and its message holds it", || {
        (objects.names() == name && objects.holders() == BTreeSet::from(["work-1".to_owned()])).then_some(())
    });
    cluster.file("gate", "");
    assert_results(&cluster, &[("fed", &content)]);
    eventually("nothing is left", || objects.subjects().is_empty().then_some(()));
}

#[test]
fn a_feeder_that_has_slept_beyond_its_lease_uploads_again_and_its_item_comes_out_once() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let objects = Objects::of(&client, "fed");
    deploy(&cluster, "limit = 1");
    let _node = cluster.node_with("a", &NODE);
    // It keeps the queue full until the gate opens.
    cluster.run_with_input(&["feed", "fed", "--format", "bytes", "--id", "first"], "x").succeeded();
    let (whole, half) = (noise(2_000_000, 3), noise(60_000_000, 4));
    let mut waiting = feed(&cluster, "whole", &whole);
    eventually("it waits for room in the queue", || (objects.described() == 1).then_some(()));
    waiting.signal("STOP");
    let mut uploading = feed(&cluster, "half", &half);
    stopped_halfway(&uploading, &objects, &objects.names());
    eventually("both leases run out, and what they held is swept", || objects.subjects().is_empty().then_some(()));
    cluster.file("gate", "");
    for feeder in [&mut waiting, &mut uploading] {
        feeder.signal("CONT");
    }
    for feeder in [&mut waiting, &mut uploading] {
        assert_eq!(feeder.ended(), Some(0), "{}", feeder.stderr());
        assert!(feeder.stderr().contains("fed 1 item in "), "{}", feeder.stderr());
    }
    assert_results(&cluster, &[("first", b"x"), ("whole", &whole), ("half", &half)]);
    eventually("nothing is left", || objects.subjects().is_empty().then_some(()));
}
