//! Silent servers, and streams, consumers, entries and plugins that are missing or damaged.
//!
//! Nothing hangs, each fault is reported with a remedy, other chains continue, and a repaired chain is served again.

use std::net::TcpListener;
use std::time::Duration;

use futures_util::TryStreamExt;
use serde_json::Value;
use support::{Cluster, NatsClient, Process, Proxy, Run, assert_refused, eventually, lines, numbers, probe_chain};

/// The five seconds that an answer may take, and what a slow machine adds.
const IN_TIME: Duration = Duration::from_secs(20);
/// What makes streams anew.
const HINT: &str = "`pcluster start broken` makes it anew";

/// A cluster with two chains, of which one is about to be broken, and a node.
fn two_chains() -> (Cluster, NatsClient, Process) {
    let cluster = Cluster::start();
    for name in ["sound", "broken"] {
        cluster.deploy(&probe_chain(name, &["echo"], ""));
    }
    let (client, node) = (NatsClient::connect(&cluster), cluster.node("a"));
    (cluster, client, node)
}

/// Asserts that the chain that is not broken is served, and shown beside the other.
#[track_caller]
fn assert_sound(cluster: &Cluster) {
    cluster.ok(&["feed", "sound", "7"]);
    assert_eq!(cluster.pull_all("sound"), [7]);
    let status = cluster.run(&["status"]);
    assert!(status.stdout.contains("sound 1.0 (r1), 1 node, "), "{status:?}");
}

/// What keeps the node from serving the broken chain, once something does.
#[track_caller]
fn problem(cluster: &Cluster) -> String {
    eventually("the problem is shown", || {
        let problems = problems(cluster);
        (!problems.is_empty()).then(|| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}

/// Waits until nothing keeps the node from serving.
#[track_caller]
fn until_sound(cluster: &Cluster) {
    eventually("the problem is gone", || problems(cluster).is_empty().then_some(()));
}

fn problems(cluster: &Cluster) -> Vec<Value> {
    let nodes = cluster.nodes();
    let problems: Vec<Value> = nodes.iter().flat_map(|node| node["problems"].as_array().unwrap().clone()).collect();
    assert!(problems.iter().all(|problem| problem["chain"] == "broken"), "{problems:?}");
    problems
}

/// Runs `pcluster` against another address.
fn run_at(cluster: &Cluster, url: &str, arguments: &[&str]) -> Run {
    let mut command = cluster.command(arguments);
    command.env("PCLUSTER_NATS", url);
    Run::of(command, b"")
}

#[test]
fn a_server_that_accepts_connections_and_never_answers_hangs_nothing() {
    let cluster = Cluster::start();
    cluster.file("chain.toml", probe_chain("a", &["echo"], ""));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", silent.local_addr().unwrap());
    std::thread::scope(|scope| {
        for command in [
            "deploy",
            "feed a 1",
            "pull a",
            "watch a",
            "logs a",
            "wait a",
            "status",
            "nodes",
            "stop a",
            "start a",
            "reset a",
            "node --no-wait",
            "node --no-wait --until-empty",
        ] {
            let (cluster, url) = (&cluster, &url);
            scope.spawn(move || {
                let arguments: Vec<&str> = command.split(' ').collect();
                let run = run_at(cluster, url, &arguments);
                assert_refused(&run, 5, &[&format!("cannot reach NATS at {url}: ")]);
                assert!(run.took < IN_TIME, "{run:?}");
            });
        }
    });
    // Of several servers, one that is silent is passed over.
    let both = format!("{url},{}", cluster.server.url);
    run_at(&cluster, &both, &["status"]).failed(0, "no chain is deployed");
}

#[test]
fn a_server_that_falls_silent_is_noticed_and_found_again() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("silent", &["sleep"], "config = { millis = 200 }\nconcurrency = 2"));
    let proxy = Proxy::to(&cluster.server.url);
    let by_proxy = |arguments: &[&str]| {
        let mut command = cluster.command(arguments);
        command.env("PCLUSTER_NATS", &proxy.url);
        Process::start(command)
    };
    cluster.run_with_input(&["feed", "silent"], lines(0..40)).succeeded();
    let mut wait = by_proxy(&["wait", "silent"]);
    wait.said("no node serves silent");
    let node = by_proxy(&["node", "--name", "a"]);
    // Asked for directly, because a command may take so long that all are done.
    let client = NatsClient::connect(&cluster);
    eventually("some are done", || (client.count("PCLUSTER_silent_OUT") > 2).then_some(()));
    proxy.stall();
    for process in [&node, &wait] {
        process.said("lost the connection to NATS");
    }
    let run = run_at(&cluster, &proxy.url, &["nodes"]);
    assert_refused(&run, 5, &[&format!("cannot reach NATS at {}: ", proxy.url)]);
    proxy.release();
    node.said("the connection to NATS is back");
    assert_eq!(wait.ended(), Some(0), "{}", wait.stderr());
    assert_eq!(numbers(&cluster.pull_all("silent")), (0..40).collect::<Vec<_>>());
}

#[test]
fn a_work_stream_that_is_gone_is_reported_and_made_anew_by_a_deploy() {
    let (cluster, client, _node) = two_chains();
    cluster.run_with_input(&["feed", "broken"], lines(0..20)).succeeded();
    assert_eq!(cluster.pull_all("broken").len(), 20);
    client.with(async |jetstream| jetstream.delete_stream("PCLUSTER_broken").await.unwrap());
    let gone = "the stream `PCLUSTER_broken` of chain `broken` is gone, and what it held";
    let shown = problem(&cluster);
    assert!(shown.contains(gone) && shown.contains(HINT), "{shown}");
    assert_sound(&cluster);
    for arguments in [&["status", "broken"][..], &["status"], &["wait", "broken"], &["feed", "broken", "1"]] {
        let run = cluster.run(arguments).failed(1, gone);
        assert!(run.stderr.contains(HINT), "{}", run.stderr);
    }

    assert_eq!(cluster.deploy(&probe_chain("broken", &["echo"], "")), "broken 1.0 is unchanged (r1)\n");
    until_sound(&cluster);
    // The new stream counts from another place, or these would pass for those before.
    cluster.run_with_input(&["feed", "broken"], lines(100..120)).succeeded();
    cluster.ok(&["wait", "broken"]);
    assert_eq!(numbers(&cluster.pull_all("broken")), (100..120).collect::<Vec<_>>());
    assert!(cluster.ok(&["status"]).contains("broken 1.0 (r1), 1 node, 0 result messages"));
}

#[test]
fn a_results_stream_that_is_gone_is_reported_and_no_item_is_lost() {
    let (cluster, client, _node) = two_chains();
    let mut pull = cluster.spawn(&["pull", "broken"]);
    cluster.ok(&["feed", "broken", "1"]);
    pull.printed("1");
    client.with(async |jetstream| jetstream.delete_stream("PCLUSTER_broken_OUT").await.unwrap());
    cluster.run_with_input(&["feed", "broken"], lines(10..20)).succeeded();
    assert_eq!(pull.ended(), Some(1), "{}", pull.stderr());
    pull.said(HINT);
    let mut wait = cluster.spawn(&["wait", "broken"]);
    let shown = problem(&cluster);
    assert!(shown.contains("outputs wait to be stored: no stream takes the subject `pcluster.broken.out`"), "{shown}");
    assert!(shown.contains("`pcluster start broken` makes its streams anew"), "{shown}");
    wait.said("broken cannot continue: node a: stage `echo`: outputs wait to be stored");
    assert_sound(&cluster);
    cluster.run(&["status"]).failed(1, "the consumer `pull` of stream `PCLUSTER_broken_OUT` of chain `broken` is gone");

    cluster.ok(&["start", "broken"]);
    assert_eq!(wait.ended(), Some(0), "{}", wait.stderr());
    until_sound(&cluster);
    assert_eq!(numbers(&cluster.pull_all("broken")), (10..20).collect::<Vec<_>>());
}

/// The consumers of the chain in the test below.
const CONSUMERS: [&str; 6] =
    ["r1-alone_echo", "r1-alone_sleep", "r1-retry_echo", "r1-retry_sleep", "r1_echo", "r1_sleep"];

#[test]
fn consumers_that_are_gone_are_made_again_and_what_is_in_hand_is_not_lost() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("broken", &["sleep", "echo"], "config = { millis = 400 }\nconcurrency = 4"));
    let _node = cluster.node("a");
    cluster.run_with_input(&["feed", "broken"], lines(0..24)).succeeded();
    for done in [4, 12] {
        let reached = |status: &Value| status["revisions"][0]["stages"][0]["done"].as_u64() >= Some(done);
        cluster.until("broken", "some are done", reached);
        client.with(async |jetstream| {
            let stream = jetstream.get_stream("PCLUSTER_broken").await.unwrap();
            for consumer in CONSUMERS {
                stream.delete_consumer(consumer).await.unwrap();
            }
        });
        let made_again = || (client.consumers("PCLUSTER_broken") == CONSUMERS).then_some(());
        eventually("the consumers are there again", made_again);
    }
    cluster.ok(&["wait", "broken"]);
    assert_eq!(numbers(&cluster.pull_all("broken")), (0..24).collect::<Vec<_>>());
    assert_eq!(cluster.status("broken")["dead"], 0);
}

#[test]
fn an_entry_that_was_damaged_is_served_again_when_it_is_mended() {
    for key in ["broken", "broken.r1"] {
        let cluster = Cluster::start();
        let client = NatsClient::connect(&cluster);
        for name in ["sound", "broken"] {
            cluster.deploy(&probe_chain(name, &["echo"], ""));
        }
        let write = |value: bytes::Bytes| {
            client.with(async |jetstream| {
                let store = jetstream.get_key_value("pcluster_chains").await.unwrap();
                store.put(key, value.clone()).await.unwrap()
            })
        };
        let sound = client.with(async |jetstream| {
            jetstream.get_key_value("pcluster_chains").await.unwrap().get(key).await.unwrap().unwrap()
        });
        write("{ this is no entry".into());
        let _node = cluster.node("a");
        let shown = problem(&cluster);
        assert!(shown.contains("key must be a string at line 1"), "{shown}");
        assert_sound(&cluster);
        cluster.run(&["status"]).failed(1, &format!("cannot read the entry `{key}` of pcluster_chains"));
        cluster.run(&["nodes"]).failed(0, "a: cannot serve broken");
        write(sound);
        until_sound(&cluster);
        cluster.ok(&["feed", "broken", "5"]);
        assert_eq!(cluster.pull_all("broken"), [5]);
    }
}

#[test]
fn a_plugin_that_was_damaged_is_stored_again_by_deploying_the_same() {
    let wrong_bytes = async |store: &async_nats::jetstream::object_store::ObjectStore, name: &str| {
        store.put(name, &mut &b"other bytes"[..]).await.unwrap();
    };
    for (damage, said) in [
        ("bytes", "what is stored under this name has another digest"),
        ("parts", "some of its bytes are missing"),
        ("all", "it is not stored"),
    ] {
        let cluster = Cluster::start();
        let client = NatsClient::connect(&cluster);
        cluster.file("plain.wasm", plain());
        let manifest = "name = \"broken\"\nversion = \"1.0\"\n[[stage]]\nname = \"plain\"\nplugin = \"plain.wasm\"\n";
        cluster.deploy(manifest);
        cluster.deploy(&probe_chain("sound", &["echo"], ""));
        let digest = plain_digest();
        client.with(async |jetstream| {
            let store = jetstream.get_object_store("pcluster_plugins").await.unwrap();
            let nuid = store.info(&digest).await.unwrap().nuid;
            let stream = jetstream.get_stream("OBJ_pcluster_plugins").await.unwrap();
            match damage {
                "bytes" => wrong_bytes(&store, &digest).await,
                "parts" => drop(stream.purge().filter(format!("$O.pcluster_plugins.C.{nuid}")).await.unwrap()),
                _ => store.delete(&digest).await.unwrap(),
            }
        });
        let _node = cluster.node("a");
        let shown = problem(&cluster);
        assert!(shown.contains(said) && shown.contains("deploying the same manifest again stores it"), "{shown}");
        assert_sound(&cluster);
        assert_eq!(cluster.deploy(manifest), "broken 1.0 is unchanged (r1)\n");
        until_sound(&cluster);
        cluster.ok(&["feed", "broken", "5"]);
        assert_eq!(cluster.pull_all("broken"), [5, 5]);
        // What stood there before is gone, and any client can read what stands there now.
        let (bytes, parts) = client.with(async |jetstream| {
            let store = jetstream.get_object_store("pcluster_plugins").await.unwrap();
            let mut bytes = Vec::new();
            let mut object = store.get(&digest).await.unwrap();
            tokio::io::AsyncReadExt::read_to_end(&mut object, &mut bytes).await.unwrap();
            let stream = jetstream.get_stream("OBJ_pcluster_plugins").await.unwrap();
            let parts = stream.info_with_subjects("$O.pcluster_plugins.C.>").await.unwrap();
            (bytes, parts.try_collect::<Vec<_>>().await.unwrap().len())
        });
        assert_eq!((bytes, parts), (plain(), 2));
    }
}

/// The plugin in WAT, compiled.
fn plain() -> Vec<u8> {
    wat::parse_file(support::repository().join("tests/e2e/plugins/plain.wat")).unwrap()
}

/// Its sha-256 in hexadecimal digits.
fn plain_digest() -> String {
    use sha2::Digest;
    format!("{:x}", sha2::Sha256::digest(plain()))
}
