//! Nodes start and stop in order. A fault of one chain or folder does not affect others.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{
    Cluster, NatsClient, Process, eventually, json_lines, lines, numbers, probe_chain, repository, with_table,
};

/// What `pcluster nodes` shows of a node.
fn node(cluster: &Cluster, name: &str) -> Option<Value> {
    cluster.nodes().into_iter().find(|node| node["node"] == name)
}

/// Deploys a chain whose only task takes this long, and feeds it one item.
fn one_long_item(cluster: &Cluster, name: &str, millis: u64) {
    cluster.deploy(&probe_chain(name, &["sleep"], &format!("config = {{ millis = {millis} }}")));
    cluster.ok(&["feed", name, "7"]);
}

fn until_it_runs(cluster: &Cluster, chain: &str) {
    cluster.until_begun(chain, 0, 1);
}

#[test]
fn a_node_told_to_stop_finishes_what_it_has_in_hand() {
    let cluster = Cluster::start();
    one_long_item(&cluster, "drained", 1_500);
    let mut first = cluster.node("first");
    until_it_runs(&cluster, "drained");
    let _second = cluster.node("second");
    first.signal("TERM");
    eventually("it shows that it is draining", || {
        node(&cluster, "first").is_none_or(|node| node["draining"] == true).then_some(())
    });
    assert_eq!(first.ended(), Some(0), "{}", first.stderr());
    first.said("stopping: finishing what is in hand");
    first.said("stopped");
    let result = &json_lines(&cluster.ok(&["pull", "drained", "-n", "1", "--meta"]))[0];
    assert_eq!((&result["item"], &result["node"]), (&json!(7), &json!("first")));
    assert_eq!(node(&cluster, "first"), None, "a node that has ended is not shown");
    cluster.node("second").said("another node is called `second` too: process ");
}

#[test]
fn what_takes_longer_than_the_grace_period_is_given_to_another_node() {
    let cluster = Cluster::start();
    one_long_item(&cluster, "given", 6_000);
    let mut first = cluster.node_with("first", &["--grace", "100ms"]);
    until_it_runs(&cluster, "given");
    assert_eq!(first.stop(), Some(0), "{}", first.stderr());
    first.said("items are still running after the grace period: interrupted and given back");
    let _second = cluster.node("second");
    let results = json_lines(&cluster.ok(&["pull", "given", "--all", "--meta"]));
    assert_eq!(results.len(), 1);
    assert_eq!((&results[0]["item"], &results[0]["node"]), (&json!(7), &json!("second")));
}

#[test]
fn a_second_signal_ends_a_node_at_once_and_its_item_is_not_lost() {
    let cluster = Cluster::start();
    let chain = probe_chain("twice", &["sleep"], "config = { millis = 6_000 }");
    cluster.deploy(&with_table("[queue]\nack_wait = \"1s\"", &chain));
    cluster.ok(&["feed", "twice", "7"]);
    let mut first = cluster.node("first");
    until_it_runs(&cluster, "twice");
    first.signal("TERM");
    first.said("stopping");
    first.signal("INT");
    assert_eq!(first.ended(), Some(130), "{}", first.stderr());
    let _second = cluster.node("second");
    let results = json_lines(&cluster.ok(&["pull", "twice", "--all", "--meta"]));
    assert_eq!(results.len(), 1);
    assert_eq!(results[0]["node"], "second");
}

#[test]
fn a_node_until_empty_ends_when_the_chains_are_empty() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("empty", &["repeat", "sleep"], "config = { times = 3, millis = 20 }"));
    cluster.run_with_input(&["feed", "empty"], lines(0..50)).succeeded();
    let mut node = cluster.node_with("a", &["--until-empty"]);
    assert_eq!(node.ended(), Some(0), "{}", node.stderr());
    assert_eq!(client.count("PCLUSTER_empty"), 0);
    assert_eq!(client.items_now("PCLUSTER_empty_OUT"), 150);
    // With nothing to do it ends at once.
    assert_eq!(cluster.node_with("b", &["--until-empty"]).ended(), Some(0));
}

#[test]
fn a_node_limited_to_a_chain_leaves_the_others_alone() {
    let cluster = Cluster::start();
    for name in ["mine", "other"] {
        cluster.deploy(&probe_chain(name, &["echo"], ""));
        cluster.ok(&["feed", name, "1"]);
    }
    let _node = cluster.node_with("limited", &["--chain", "mine"]);
    cluster.ok(&["wait", "mine"]);
    cluster.deploy(&probe_chain("later", &["echo"], ""));
    let hops = node(&cluster, "limited").unwrap()["hops"].clone();
    let chains: Vec<&Value> = hops.as_array().unwrap().iter().map(|hop| &hop["chain"]).collect();
    assert_eq!(chains, ["mine"]);
    let status = cluster.status("other");
    assert_eq!((&status["nodes"], &status["revisions"][0]["stages"][0]["queued_messages"]), (&json!(0), &json!(1)));
}

#[test]
fn a_plugin_that_is_gone_is_reported_and_the_other_chains_are_served() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.file("plain.wasm", wat::parse_file(repository().join("tests/e2e/plugins/plain.wat")).unwrap());
    let manifest = "name = \"broken\"\nversion = \"1.0\"\n[[stage]]\nname = \"plain\"\nplugin = \"plain.wasm\"\n";
    let file = cluster.file("broken.toml", manifest);
    cluster.ok(&["deploy", file.to_str().unwrap()]);
    cluster.deploy(&probe_chain("sound", &["echo"], ""));
    let entry: Value = client.with(async |jetstream| {
        let store = jetstream.get_key_value("pcluster_chains").await.unwrap();
        serde_json::from_slice(&store.get("broken.r1").await.unwrap().unwrap()).unwrap()
    });
    let digest = entry["manifest"]["stage"][0]["plugin"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    client.with(async |jetstream| {
        jetstream.get_object_store("pcluster_plugins").await.unwrap().delete(&digest).await.unwrap();
    });

    let _node = cluster.node("a");
    cluster.ok(&["feed", "sound", "1"]);
    assert_eq!(cluster.pull_all("sound"), [1]);
    let status = cluster.until("broken", "the problem is shown", |status| status["problems"][0].is_object());
    assert_eq!((&status["problems"][0]["node"], &status["nodes"]), (&json!("a"), &json!(0)));
    assert!(status["problems"][0]["problem"].as_str().unwrap().contains(&digest), "{status}");
    cluster.run(&["status"]).failed(0, "node a cannot serve it: stage `plain`: cannot fetch the plugin");
    cluster.run(&["nodes"]).failed(0, "a: cannot serve broken r1: stage `plain`");
    cluster.ok(&["feed", "broken", "5"]);
    let mut wait = cluster.spawn(&["wait", "broken"]);
    wait.said("no node serves broken: node a: stage `plain`");

    // Deploying it again stores what is missing, and the node goes on by itself.
    assert_eq!(cluster.ok(&["deploy", file.to_str().unwrap()]), "broken 1.0 is unchanged (r1)\n");
    assert_eq!(wait.ended(), Some(0), "{}", wait.stderr());
    assert_eq!(cluster.pull_all("broken"), [5, 5]);
    cluster.until("broken", "the problem is gone", |status| status["problems"] == json!([]));
}

#[test]
fn an_entry_that_cannot_be_read_is_reported_and_the_other_chains_are_served() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    for name in ["broken", "sound"] {
        cluster.deploy(&probe_chain(name, &["echo"], ""));
    }
    let running = cluster.node("running");
    client.with(async |jetstream| {
        let store = jetstream.get_key_value("pcluster_chains").await.unwrap();
        store.put("broken", "{ this is no state".into()).await.unwrap();
    });
    running.said("an entry of the registry cannot be read; the other chains go on");
    let mut starting = cluster.node("starting");
    for name in ["running", "starting"] {
        let problems = node(&cluster, name).unwrap()["problems"].clone();
        assert_eq!(problems[0]["chain"], "broken", "{name}");
    }
    cluster.run(&["status", "broken"]).failed(1, "cannot read the entry `broken`");
    let all = cluster.run(&["status"]).failed(1, "cannot read the entry `broken`");
    assert!(all.stdout.contains("sound 1.0 (r1), 2 nodes"), "{}", all.stdout);
    cluster.ok(&["feed", "sound", "1"]);
    assert_eq!(cluster.pull_all("sound"), [1]);
    assert_eq!(starting.stop(), Some(0));
}

/// A node with a cache folder of the test's own.
fn node_with_cache(cluster: &Cluster, name: &str, cache: &Path) -> Process {
    cluster.spawn(&["node", "--name", name, "--cache", cache.to_str().unwrap()])
}

#[test]
fn nodes_that_start_at_once_share_a_cache_folder_and_rebuild_what_is_damaged_in_it() {
    let cluster = Cluster::start();
    let cache = cluster.path("cache");
    cluster.deploy(&probe_chain("cached", &["sleep"], "config = { millis = 20 }\nconcurrency = 1"));
    let mut nodes = ["a", "b"].map(|name| node_with_cache(&cluster, name, &cache));
    for node in &nodes {
        node.said("ready: serving");
    }
    // On a busy machine one of them may be done with all before the other has begun.
    eventually("both have done something", || {
        cluster.run_with_input(&["feed", "cached"], lines(0..50)).succeeded();
        assert_eq!(numbers(&cluster.pull_all("cached")), (0..50).collect::<Vec<_>>());
        let has_done = |name| node(&cluster, name).unwrap()["hops"][0]["done"].as_u64() > Some(0);
        ["a", "b"].into_iter().all(has_done).then_some(())
    });
    for node in &mut nodes {
        assert_eq!(node.stop(), Some(0));
    }
    let files = || -> Vec<_> { std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect() };
    let [file] = files().try_into().expect("one plugin, one file, and nothing left of writing it");
    let sound = std::fs::read(&file).unwrap();

    let mut damaged = sound.clone();
    damaged[sound.len() / 2] ^= 0xff;
    for content in [&damaged[..], &sound[..sound.len() / 2], b"", b"not compiled code"] {
        std::fs::write(&file, content).unwrap();
        let mut node = node_with_cache(&cluster, "c", &cache);
        node.said("ready: serving");
        cluster.ok(&["feed", "cached", "7"]);
        assert_eq!(cluster.pull_all("cached"), [7]);
        assert_eq!(node.stop(), Some(0));
        assert_eq!(std::fs::read(&file).unwrap().len(), sound.len(), "it was not rebuilt");
    }
    assert_eq!(files(), [file]);
}

#[test]
fn a_node_without_a_usable_cache_folder_says_so_and_works() {
    let cluster = Cluster::start();
    let file = cluster.file("file", "");
    cluster.deploy(&probe_chain("uncached", &["echo"], ""));
    let node = node_with_cache(&cluster, "a", &file.join("below"));
    node.said("cannot use the cache folder");
    node.said("ready: serving");
    cluster.ok(&["feed", "uncached", "1"]);
    assert_eq!(cluster.pull_all("uncached"), [1]);
    let empty = cluster.node_with("b", &["--cache", ""]);
    assert!(!empty.stderr().contains("cache folder"), "{}", empty.stderr());
}

#[test]
fn a_node_may_have_as_many_files_open_as_the_system_allows_it() {
    let cluster = Cluster::start();
    let node = cluster.command(&["node", "--name", "a"]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -n 100; exec \"$0\" \"$@\""]).arg(node.get_program()).args(node.get_args());
    command.current_dir(cluster.path("."));
    for (name, value) in node.get_envs() {
        command.env(name, value.unwrap());
    }
    let node = Process::start(command);
    node.said("ready: serving");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", node.id())).unwrap();
    let limit: Vec<&str> =
        limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().collect();
    let [.., soft, hard, _files] = limit[..] else { panic!("{limits}") };
    assert_eq!(soft, hard);
    assert_ne!(soft, "100");
}
