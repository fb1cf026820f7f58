//! Versions: a deploy is a cut between two items, and processing does not stop for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};
use support::{Cluster, NatsClient, Process, Server, eventually, json_lines, lines, plugin, probe_chain, repository};

/// A chain that takes its time and then marks each item with its version.
fn marking(version: &str, millis: u64, more: &str) -> String {
    let plugin = plugin("probe");
    format!(
        "name = \"marking\"\nversion = \"{version}\"\n\
         [[stage]]\nname = \"sleep\"\nplugin = \"{plugin}\"\nconfig = {{ millis = {millis} }}\nconcurrency = 4\n\
         [[stage]]\nname = \"mark\"\nplugin = \"{plugin}\"\nconfig = {{ mark = \"{version}\" }}\n{more}"
    )
}

/// How many items the first stage of a revision is done with, if a node tells.
fn done_of(status: &Value, position: usize) -> Option<u64> {
    status["revisions"][position]["stages"][0]["done"].as_u64()
}

#[test]
fn a_deploy_is_a_cut_between_two_items_and_stops_nothing() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let another_stage = format!("[[stage]]\nname = \"echo\"\nplugin = \"{}\"\n", plugin("probe"));
    cluster.deploy(&marking("1.0", 60, ""));
    let node = cluster.node("a");
    cluster.run_with_input(&["feed", "marking"], lines(0..200)).succeeded();
    let running = cluster.until("marking", "some are done", |status| done_of(status, 0) > Some(0));
    let done = done_of(&running, 0);
    // However long the commands take, items of 1.0 are left after the deploy.
    node.signal("STOP");
    let said = cluster.deploy(&marking("1.1", 60, &another_stage));
    assert_eq!(said, "marking 1.1 deployed as r2, after 1.0 (r1)\n");
    let both = cluster.status("marking");
    node.signal("CONT");
    let versions: Vec<&Value> = both["revisions"].as_array().unwrap().iter().map(|each| &each["version"]).collect();
    assert_eq!(versions, ["1.0", "1.1"], "items of 1.0 were still queued");
    cluster.run_with_input(&["feed", "marking"], lines(200..400)).succeeded();
    cluster.until("marking", "both versions go on", |status| {
        done_of(status, 0) > done && done_of(status, 1) > Some(0) || status["revisions"].as_array().unwrap().len() == 1
    });

    let mut results: Vec<(u64, String)> = Vec::new();
    for result in json_lines(&cluster.ok(&["pull", "marking", "--all", "--meta"])) {
        let (item, mark) = (result["item"]["item"].as_u64().unwrap(), result["item"]["mark"].as_str().unwrap());
        assert_eq!(result["version"], mark);
        results.push((item, mark.to_owned()));
    }
    results.sort();
    let expected = |item| (item, if item < 200 { "1.0" } else { "1.1" }.to_owned());
    assert_eq!(results, (0..400).map(expected).collect::<Vec<_>>());

    cluster.until("marking", "the old revision is gone", |status| status["revisions"].as_array().unwrap().len() == 1);
    eventually("its consumers are gone", || {
        client.consumers("PCLUSTER_marking").iter().all(|name| name.starts_with("r2")).then_some(())
    });
    node.said("no longer served");
}

#[test]
fn items_fed_while_others_deploy_are_each_in_exactly_one_version() {
    let cluster = Cluster::start();
    cluster.deploy(&marking("1.0", 1, ""));
    let _node = cluster.node("a");
    let (mut feeding, mut stdin) = Process::start_fed(cluster.command(&["feed", "marking", "--format", "ndjson"]));
    let enough = AtomicBool::new(false);
    let fed = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut number = 0_u64;
            while !enough.load(Relaxed) {
                writeln!(stdin, "{number}").unwrap();
                number += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            drop(stdin);
            number
        });
        for version in ["1.1", "1.2", "1.3"] {
            let revision = cluster.status("marking")["revision"].as_u64().unwrap();
            cluster.until("marking", "items went to the version before", |status| {
                let all = status["revisions"].as_array().unwrap();
                let active = all.iter().find(|each| each["revision"] == revision).unwrap();
                active["stages"][0]["done"].as_u64() > Some(10)
            });
            cluster.deploy(&marking(version, 1, ""));
        }
        cluster.until("marking", "items go to the last version", |status| {
            let all = status["revisions"].as_array().unwrap();
            all.last().unwrap()["stages"][0]["done"].as_u64() > Some(10)
        });
        enough.store(true, Relaxed);
        writing.join().unwrap()
    });
    assert_eq!(feeding.ended(), Some(0), "{}", feeding.stderr());
    feeding.said(&format!("fed {fed} items in "));

    let mut versions: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for result in cluster.pull_all("marking") {
        let mark = result["mark"].as_str().unwrap().to_owned();
        versions.entry(result["item"].as_u64().unwrap()).or_default().push(mark);
    }
    assert_eq!(versions.keys().copied().collect::<Vec<_>>(), (0..fed).collect::<Vec<_>>());
    assert!(versions.values().all(|each| each.len() == 1), "some item came out twice: {versions:?}");
    let seen: BTreeSet<&str> = versions.values().flatten().map(String::as_str).collect();
    assert_eq!(seen, BTreeSet::from(["1.0", "1.1", "1.2", "1.3"]));
}

#[test]
fn deploying_the_same_again_changes_nothing_and_says_so() {
    let cluster = Cluster::start();
    let manifest = probe_chain("same", &["echo"], "");
    assert_eq!(cluster.deploy(&manifest), "same 1.0 deployed as r1\n");
    let again = format!("# a comment is no content\n{manifest}");
    assert_eq!(cluster.deploy(&again), "same 1.0 is unchanged (r1)\n");
    let json: Value = serde_json::from_str(&cluster.ok(&["deploy", "chain.toml", "--json"])).unwrap();
    let expected =
        json!({"chain": "same", "version": "1.0", "revision": 1, "changed": false, "open": true, "grants": {}});
    assert_eq!(json, expected);
}

#[test]
fn a_version_with_other_content_is_refused_and_changes_nothing() {
    let cluster = Cluster::start();
    let refused = "error: chain `marking` already has a version 1.1 with other content; \
                   write a new version into the manifest and deploy again";
    cluster.deploy(&marking("1.0", 1, ""));
    cluster.deploy(&marking("1.1", 1, ""));
    let file = cluster.file("other.toml", marking("1.1", 2, ""));
    cluster.run(&["deploy", file.to_str().unwrap()]).failed(1, refused);
    // A version that was replaced is as settled as the active one.
    let file = cluster.file("other.toml", marking("1.0", 2, ""));
    cluster.run(&["deploy", file.to_str().unwrap()]).failed(1, "already has a version 1.0");
    let status = cluster.status("marking");
    assert_eq!((&status["version"], &status["revision"]), (&json!("1.1"), &json!(2)));
}

#[test]
fn another_plugin_under_the_same_file_name_is_other_content() {
    let cluster = Cluster::start();
    let plain = wat::parse_file(repository().join("tests/e2e/plugins/plain.wat")).unwrap();
    let mut longer = plain.clone();
    // An empty custom section named `x`: another file that does the same.
    longer.extend([0, 2, 1, b'x']);
    let manifest = |version: &str| {
        format!("name = \"file\"\nversion = \"{version}\"\n[[stage]]\nname = \"plain\"\nplugin = \"plain.wasm\"\n")
    };
    cluster.file("plain.wasm", plain);
    cluster.deploy(&manifest("1.0"));
    cluster.file("plain.wasm", longer);
    cluster.run(&["deploy", "chain.toml"]).failed(1, "already has a version 1.0 with other content");
    assert_eq!(cluster.deploy(&manifest("1.1")), "file 1.1 deployed as r2, after 1.0 (r1)\n");
}

#[test]
fn a_chain_that_was_deployed_very_often_is_deployed_again_and_knows_all_its_versions() {
    let max = 64 << 10;
    let cluster = Cluster::with_server(Server::start(&format!("max_payload: {max}")));
    let client = NatsClient::connect(&cluster);
    let manifest = |version: &str| probe_chain("often", &["echo"], "").replace("1.0", version);
    cluster.deploy(&manifest("1.0"));
    let state = || {
        let subject = "$KV.pcluster_chains.often".to_owned();
        let read = async |jetstream: &async_nats::jetstream::Context| {
            let bucket = jetstream.get_stream("KV_pcluster_chains").await.unwrap();
            bucket.get_last_raw_message_by_subject(&subject).await.unwrap().payload
        };
        client.with(read)
    };
    // As it was after many deploys: another makes it larger than a message.
    let mut often: serde_json::Value = serde_json::from_slice(&state()).unwrap();
    for number in 0..u32::MAX {
        often["versions"][format!("0.{number}")] = format!("sha256:{number:064x}").into();
        if serde_json::to_vec_pretty(&often).unwrap().len() > max - 200 {
            break;
        }
    }
    let often = serde_json::to_vec_pretty(&often).unwrap();
    client.publish("$KV.pcluster_chains.often", &[], often).unwrap();

    assert!(cluster.deploy(&manifest("1.1")).contains("often 1.1 deployed as r2"));
    assert!(state().len() < 4 << 10, "{} bytes", state().len());
    for version in ["0.7", "1.1"] {
        cluster.file("chain.toml", manifest(version) + "timeout = \"9s\"\n");
        cluster.run(&["deploy"]).failed(1, &format!("chain `often` already has a version {version}"));
    }
    assert!(cluster.deploy(&manifest("1.0")).contains("often 1.0 deployed as r3"));
    cluster.ok(&["stop", "often"]);
    cluster.ok(&["reset", "often"]);
}
