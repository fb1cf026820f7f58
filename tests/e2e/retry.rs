//! `dead retry`: an item returns once to the revision where it failed or its successor, with fresh attempts.

use serde_json::{Value, json};
use support::{Cluster, NatsClient, assert_refused, eventually, json_lines, plugin, probe_chain, with_table};

/// A chain `marking` of two stages that marks each item with its version.
fn marking(version: &str) -> String {
    let plugin = plugin("probe");
    format!(
        "name = \"marking\"\nversion = \"{version}\"\n\
         [[stage]]\nname = \"echo\"\nplugin = \"{plugin}\"\n\
         [[stage]]\nname = \"mark\"\nplugin = \"{plugin}\"\nconfig = {{ mark = \"{version}\" }}\n"
    )
}

/// Buries an item as a node does whose stage has failed; the stage would handle the item well if it got it.
fn bury(client: &NatsClient, chain: &str, stage: &str, id: &str, payload: &[u8]) {
    let headers = [
        ("Pcluster-Id", id),
        ("Pcluster-Chain", chain),
        ("Pcluster-Stage", stage),
        ("Pcluster-Version", "1.0"),
        ("Pcluster-Revision", "1"),
        ("Pcluster-Attempts", "5"),
        ("Pcluster-Failure", "error"),
        ("Pcluster-Reason", "something was missing"),
    ];
    client.publish(&format!("pcluster.{chain}.dead.{stage}"), &headers, payload.to_vec()).unwrap();
}

/// The id, revision and item of each result, sorted.
fn results(cluster: &Cluster, chain: &str) -> Vec<(String, u64, Value)> {
    let printed = json_lines(&cluster.ok(&["pull", chain, "--all", "--meta"]));
    let result = |each: &Value| {
        (each["id"].as_str().unwrap().to_owned(), each["revision"].as_u64().unwrap(), each["item"].clone())
    };
    let mut results: Vec<_> = printed.iter().map(result).collect();
    results.sort_by(|left, right| left.0.cmp(&right.0));
    results
}

fn letters(cluster: &Cluster, chain: &str) -> Vec<Value> {
    json_lines(&cluster.ok(&["dead", "ls", chain, "--json"]))
}

#[test]
fn a_retried_item_gets_fresh_attempts_where_it_failed() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let retry = "retry = { attempts = 2, backoff = [\"10ms\"] }";
    cluster.deploy(&probe_chain("failing", &["echo", "fail"], retry));
    let _node = cluster.node("a");
    let headers = [("Nats-Msg-Id", "batch.7"), ("X-Customer", "ada")];
    client.publish("pcluster.failing.in", &headers, b"\x01\x02".as_slice()).unwrap();
    client.messages("PCLUSTER_failing_DEAD", 2);
    cluster.ok(&["wait", "failing"]);
    assert_refused(&cluster.run(&["dead", "retry", "failing", "2", "7"]), 4, &["chain `failing` has no dead letter 7"]);
    assert_eq!(letters(&cluster, "failing").len(), 2);
    let second = letters(&cluster, "failing").into_iter().find(|letter| letter["item"] == 2).unwrap();
    assert_eq!(second["id"], "batch.7#1");

    let number = second["number"].to_string();
    assert_eq!(cluster.ok(&["dead", "retry", "failing", &number]), "1 dead letter retried\n");
    cluster.ok(&["wait", "failing"]);
    let again = letters(&cluster, "failing").into_iter().find(|letter| letter["item"] == 2).unwrap();
    assert_eq!(again["number"], 3);
    for key in ["id", "stage", "revision", "attempts", "headers", "failure", "reason"] {
        assert_eq!(again[key], second[key], "{key}");
    }
    // Two items went through the first stage; the second stage has handled three.
    let status = cluster.until("failing", "all is counted", |status| status["revisions"][0]["stages"][1]["done"] == 3);
    let stages = &status["revisions"][0]["stages"];
    assert_eq!((&stages[0]["done"], &stages[1]["failed"], &status["dead"]), (&json!(2), &json!(3), &json!(2)));
}

#[test]
fn a_letter_of_a_retired_revision_is_retried_by_that_revision_which_then_retires_again() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&marking("1.0"));
    let _nodes = [cluster.node("a"), cluster.node("b")];
    cluster.deploy(&marking("1.1"));
    let retired = || {
        cluster.until("marking", "one revision is left", |status| status["revisions"].as_array().unwrap().len() == 1);
    };
    retired();
    cluster.run(&["stop", "marking"]).succeeded();
    for number in 1..=12 {
        bury(&client, "marking", "mark", &format!("item{number:02}"), &[number]);
    }
    // One after the other, so that the revision is met in every state: live, retiring, retired.
    for number in 1..=12 {
        assert_eq!(cluster.ok(&["dead", "retry", "marking", &number.to_string()]), "1 dead letter retried\n");
        if number % 4 == 0 {
            retired();
        } else {
            cluster.ok(&["wait", "marking"]);
        }
    }
    let expected: Vec<_> =
        (1..=12).map(|item| (format!("item{item:02}"), 1, json!({"mark": "1.0", "item": item}))).collect();
    assert_eq!(results(&cluster, "marking"), expected);
    assert_eq!(client.count("PCLUSTER_marking_DEAD"), 0);
    eventually("the consumers of the retired revision are gone", || {
        client.consumers("PCLUSTER_marking").iter().all(|name| name.starts_with("r2")).then_some(())
    });
    cluster.run(&["feed", "marking", "99"]).failed(1, "the intake of chain `marking` is closed");
}

#[test]
fn a_new_version_takes_what_failed_in_the_one_before() {
    let cluster = Cluster::start();
    let manifest = |version: &str, tasks: &str, last: &str| {
        let stages: String = tasks
            .split(' ')
            .zip(["first", last])
            .map(|(task, name)| {
                let plugin = plugin("probe");
                format!("[[stage]]\nname = \"{name}\"\nplugin = \"{plugin}\"\ntask = \"{task}\"\nretry = {{ attempts = 1 }}\n")
            })
            .collect();
        format!("name = \"mended\"\nversion = \"{version}\"\n{stages}")
    };
    cluster.deploy(&manifest("1.0", "drop_odd fail", "work"));
    let _node = cluster.node("a");
    cluster.ok(&["feed", "mended", "--id", "a", "2", "x", "4", "y", "6"]);
    cluster.ok(&["wait", "mended"]);
    assert_eq!(letters(&cluster, "mended").len(), 5);

    // Of 1.1, only the first stage has a name that 1.0 had.
    cluster.deploy(&manifest("1.1", "echo echo", "other"));
    let some = cluster.run(&["dead", "retry", "mended", "--all", "--active", "--json"]);
    let some = some.failed(1, "error: 3 dead letters of chain `mended` cannot be retried");
    let printed: Value = serde_json::from_str(&some.stdout).unwrap();
    assert_eq!(printed["retried"], 2);
    assert_eq!(printed["refused"].as_array().unwrap().len(), 3);
    let reason = "1.1 (r2) has no stage `work`; its stages are first, other";
    assert_eq!(printed["refused"][0]["reason"], reason);
    let refused = cluster.run(&["dead", "retry", "mended", "--stage", "work", "--active"]);
    let refused = refused.failed(1, &format!(" stays: {reason}"));
    assert_eq!(refused.stdout, "0 dead letters retried\n");

    cluster.deploy(&manifest("1.2", "drop_odd echo", "work"));
    assert_eq!(cluster.ok(&["dead", "retry", "mended", "--id", "a-3", "--active"]), "1 dead letter retried\n");
    assert_eq!(cluster.ok(&["dead", "retry", "mended", "--failure", "error", "--active"]), "2 dead letters retried\n");
    let expected = [
        ("a-1".to_owned(), 3, json!(2)),
        ("a-2".to_owned(), 2, json!("x")),
        ("a-3".to_owned(), 3, json!(4)),
        ("a-4".to_owned(), 2, json!("y")),
        ("a-5".to_owned(), 3, json!(6)),
    ];
    assert_eq!(results(&cluster, "mended"), expected);
    assert!(letters(&cluster, "mended").is_empty());
}

#[test]
fn a_letter_from_before_a_reset_can_be_retried_and_nothing_else_comes_back() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&marking("1.0"));
    cluster.ok(&["feed", "marking", "--pack-items", "1", "1", "2"]);
    bury(&client, "marking", "mark", "lost", b"\x07");
    // A retry that was cut short before the reset: what it has put back is gone with the rest, and its letter is still there.
    let headers = [("Nats-Msg-Id", "pcluster.dead.1"), ("Pcluster-Id", "lost"), ("Pcluster-Attempt", "0")];
    client.publish("pcluster.marking.retry.1.mark.dead-1", &headers, b"\x07".as_slice()).unwrap();
    assert_eq!(cluster.ok(&["reset", "marking"]), "marking reset: 3 unfinished messages dropped; it goes on as r2\n");
    let _node = cluster.node("a");
    assert_eq!(cluster.ok(&["dead", "retry", "marking", "1"]), "1 dead letter retried\n");
    // The revision that goes on has the same manifest.
    assert_eq!(results(&cluster, "marking"), [("lost".to_owned(), 2, json!({"mark": "1.0", "item": 7}))]);
    let status = cluster.status("marking");
    assert_eq!((&status["revision"], &status["result_messages"]), (&json!(2), &json!(0)));
}

#[test]
fn what_a_reset_has_closed_stays_closed_though_letters_from_before_are_retried() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&marking("1.0"));
    for number in 1..=2 {
        bury(&client, "marking", "mark", &format!("old{number}"), &[number]);
    }
    cluster.deploy(&marking("1.1"));
    assert!(cluster.ok(&["reset", "marking"]).ends_with("it goes on as r3\n"));
    // Each is retried in a revision of its own manifest, and both in the same.
    for number in ["1", "2"] {
        assert_eq!(cluster.ok(&["dead", "retry", "marking", number]), "1 dead letter retried\n");
        for subject in ["pcluster.marking.work.1.mark", "pcluster.marking.retry.1.mark.9-0"] {
            assert!(client.publish(subject, &[], b"\x07".as_slice()).is_err(), "{subject} is open again");
        }
    }
    let _node = cluster.node("a");
    let expected =
        [("old1", 1), ("old2", 2)].map(|(id, item)| (id.to_owned(), 4, json!({"mark": "1.0", "item": item})));
    assert_eq!(results(&cluster, "marking"), expected);
    cluster.until("marking", "it retires again", |status| status["revisions"].as_array().unwrap().len() == 1);
    assert_eq!(cluster.status("marking")["revision"], 3);
    assert!(cluster.ok(&["deploy", cluster.file("next.toml", marking("1.2")).to_str().unwrap()]).contains("as r5"));
}

#[test]
fn an_item_that_is_retried_twice_runs_once() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&marking("1.0"));
    for number in 1..=200 {
        bury(&client, "marking", "mark", &format!("item{number:03}"), &[0x18, number]);
    }
    // A retry that was cut short: the item is in the queue, and its letter is still there.
    let info = async |jetstream: &async_nats::jetstream::Context| -> serde_json::Value {
        jetstream.request("STREAM.INFO.PCLUSTER_marking", &()).await.unwrap()
    };
    let created = client.with(info)["created"].as_str().unwrap().to_owned();
    let id = format!("pcluster.{}.dead.1", &pcluster::name::Digest::of(created.as_bytes()).as_hex()[..12]);
    let headers = [("Nats-Msg-Id", id.as_str()), ("Pcluster-Id", "item001"), ("Pcluster-Attempt", "0")];
    client.publish("pcluster.marking.retry.1.mark.dead-1", &headers, b"\x18\x01".as_slice()).unwrap();
    // And two at once.
    let mut retries = [(); 2].map(|()| cluster.spawn(&["dead", "retry", "marking", "--all", "--json"]));
    let mut counted = 0;
    for retry in &mut retries {
        assert_eq!(retry.ended(), Some(0), "{}", retry.stderr());
        counted += json_lines(&retry.stdout())[0]["retried"].as_u64().unwrap();
    }
    assert_eq!(counted, 200, "each letter is counted once");
    assert_eq!(client.count("PCLUSTER_marking"), 200);
    let _node = cluster.node("a");
    let ids: Vec<String> = results(&cluster, "marking").into_iter().map(|(id, ..)| id).collect();
    assert_eq!(ids, (1..=200).map(|number| format!("item{number:03}")).collect::<Vec<_>>());
    assert!(letters(&cluster, "marking").is_empty());
}

#[test]
fn what_could_not_be_read_is_read_again_by_the_first_stage() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let manifest = |version: &str, format: &str| {
        let chain = probe_chain("read", &["first", "second"], "task = \"echo\"").replace("1.0", version);
        with_table(&format!("[input]\nformat = \"{format}\""), &chain)
    };
    cluster.deploy(&manifest("1.0", "json"));
    let _node = cluster.node("a");
    let publish = |id: &str, more: &[(&str, &str)]| {
        let headers = [&[("Nats-Msg-Id", id), ("X-Customer", "ada")], more].concat();
        client.publish("pcluster.read.in", &headers, "50% of {").unwrap();
    };
    publish("order.7", &[]);
    publish("typed", &[("Content-Type", "application/json")]);
    client.messages("PCLUSTER_read_DEAD", 2);
    cluster.ok(&["wait", "read"]);
    cluster.deploy(&manifest("1.1", "text"));
    assert_eq!(cluster.ok(&["dead", "retry", "read", "--all", "--active"]), "2 dead letters retried\n");
    assert_eq!(results(&cluster, "read"), [("order.7".to_owned(), 2, json!("50% of {"))]);
    // What it was said to be is still what it is read as.
    let again = letters(&cluster, "read");
    assert_eq!(again.len(), 1);
    let place = ["id", "stage", "failure", "content_type", "item"].map(|key| again[0][key].as_str().unwrap());
    assert_eq!(place, ["typed", "first", "undecodable", "application/json", "50% of {"]);
    assert_eq!(again[0]["headers"], json!({"X-Customer": "ada"}));
}

#[test]
fn a_letter_that_has_lost_its_item_is_refused_and_the_others_are_retried() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&marking("1.0"));
    bury(&client, "marking", "mark", "large", b"");
    bury(&client, "marking", "mark", "small", b"\x01");
    let _node = cluster.node("a");
    let retry =
        cluster.run(&["dead", "retry", "marking", "1", "2"]).failed(1, "dead letter 1 stays: its item is not kept");
    assert_eq!(retry.stdout, "1 dead letter retried\n");
    assert_eq!(results(&cluster, "marking"), [("small".to_owned(), 1, json!({"mark": "1.0", "item": 1}))]);
    let left = letters(&cluster, "marking");
    assert_eq!((left.len(), &left[0]["id"], &left[0]["item"]), (1, &json!("large"), &Value::Null));
    assert!(
        cluster
            .ok(&["dead", "show", "marking", "1"])
            .contains("the letter has no room for the item, which is not stored")
    );
}

#[test]
fn retrying_more_letters_than_the_queue_may_hold_waits_for_room() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let chain = |name: &str, rest: &str| with_table("[queue]\nlimit = 10", &probe_chain(name, &["echo"], rest));
    for (name, rest) in [("open", ""), ("limited", "max_in_flight = 3")] {
        cluster.deploy(&chain(name, rest));
        for number in 0..60 {
            bury(&client, name, "echo", &format!("item{number:02}"), &[number / 3]);
        }
        let mut retry = cluster.spawn(&["dead", "retry", name, "--all"]);
        let queued = || client.count(&format!("PCLUSTER_{name}"));
        eventually("the queue is full", || (queued() == 10).then_some(()));
        let mut most = 0;
        let letters = eventually("the letters of what is queued are gone", || {
            let letters = client.count(&format!("PCLUSTER_{name}_DEAD"));
            most = most.max(queued());
            (letters == 50).then_some(letters)
        });
        let _node = cluster.node_with("a", &["--chain", name]);
        eventually("all are retried", || {
            most = most.max(queued());
            retry.has_ended().then_some(())
        });
        assert_eq!(retry.ended(), Some(0), "{}", retry.stderr());
        cluster.ok(&["wait", name]);
        assert_eq!(
            (letters, results(&cluster, name).len(), client.count(&format!("PCLUSTER_{name}_DEAD"))),
            (50, 60, 0)
        );
        // What a node has in hand is no longer in the queue.
        assert!(most <= 10 + 32, "{name}: {most} messages of a queue of 10");
    }
}

#[test]
fn an_item_that_is_too_large_as_cbor_keeps_what_was_fed_or_comes_out_whole() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    for (chain, task) in [("kept", "fatal"), ("whole", "echo")] {
        cluster.deploy(&with_table("[input]\nformat = \"json\"", &probe_chain(chain, &[task], "")));
    }
    let _node = cluster.node("a");
    let array = format!("[{}]", vec!["0.1"; 130_000].join(","));
    let payloads = [array.clone(), format!("{{\"a\":{array}}}")];
    for payload in &payloads {
        client.publish("pcluster.kept.in", &[("X-Customer", "ada")], payload.clone()).unwrap();
    }
    for round in 1..=2 {
        cluster.ok(&["wait", "kept"]);
        let mut letters = client.messages("PCLUSTER_kept_DEAD", 2);
        letters.sort_by_key(|letter| letter.payload.len());
        for (letter, payload) in letters.iter().zip(&payloads) {
            assert!(letter.payload == payload.as_bytes(), "round {round}: {:?}", letter.headers);
            let expected = [("Content-Type", "application/json"), ("Pcluster-Attempts", "1"), ("X-Customer", "ada")];
            for (name, value) in expected {
                assert_eq!(letter.header(name), value);
            }
        }
        if round == 1 {
            cluster.ok(&["dead", "retry", "kept", "--all"]);
        }
    }
    let shown = json_lines(&cluster.ok(&["dead", "ls", "kept", "--json"]));
    assert!(shown.iter().any(|letter| letter["item"][129_999] == 0.1), "the item can be looked at");
    // As an output it goes to the object store, beside the other lines of its message.
    let lines = [("Content-Type", "application/x-ndjson")];
    client.publish("pcluster.whole.in", &lines, format!("1\n{array}\n3\n")).unwrap();
    cluster.ok(&["wait", "whole"]);
    let results = json_lines(&cluster.ok(&["pull", "whole", "--all"]));
    let sizes: Vec<usize> = results.iter().map(|result| result.as_array().map_or(0, Vec::len)).collect();
    assert_eq!(sizes, [0, 130_000, 0]);
}
