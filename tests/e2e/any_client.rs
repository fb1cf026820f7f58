//! Any NATS client can feed a chain and read its results.

use ciborium::Value;
use ciborium::cbor;
use serde_json::json;
use support::{Cluster, Message, NatsClient, eventually, json_lines, probe_chain, with_table};

/// A chain that passes everything on, deployed, and a client that knows nothing of pcluster.
fn passing_on(cluster: &Cluster, input: &str) -> NatsClient {
    cluster.deploy(&with_table(input, &probe_chain("any", &["first", "second"], "task = \"echo\"")));
    NatsClient::connect(cluster)
}

/// Waits until the chain has nothing left, and gives its results in a fixed order.
fn results(client: &NatsClient, number: usize) -> Vec<Message> {
    let mut results = client.items("PCLUSTER_any_OUT", number);
    eventually("the chain is empty", || (client.count("PCLUSTER_any") == 0).then_some(()));
    assert_eq!(client.items_now("PCLUSTER_any_OUT"), number);
    results.sort_by_key(|result| format!("{:?}", result.item()));
    results
}

#[test]
fn another_client_feeds_json_and_reads_results_with_its_own_headers() {
    let cluster = Cluster::start();
    let client = passing_on(&cluster, "");
    let _node = cluster.node("a");
    let headers = [
        ("Content-Type", "application/json; charset=utf-8"),
        ("Nats-Msg-Id", "order.7"),
        ("X-Customer", "Ada Lovelace"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let ack = client.publish("pcluster.any.in", &headers, r#"{"total": 7.5, "lines": [1, "two", null]}"#).unwrap();
    assert_eq!((ack.stream.as_str(), ack.duplicate), ("PCLUSTER_any", false));
    let result = &results(&client, 1)[0];
    assert_eq!(result.subject, "pcluster.any.out");
    assert_eq!(result.item(), cbor!({"total" => 7.5, "lines" => [1, "two", null]}).unwrap());
    assert_eq!(result.header("X-Customer"), "Ada Lovelace");
    assert_eq!(result.header("traceparent"), headers[3].1);
    // The id is what the client gave, its dot written so that it is none of ours, and two hops.
    assert_eq!(result.header("Pcluster-Id"), "order%2E7.0.0");
    assert_eq!((result.header("Pcluster-Version"), result.header("Pcluster-Revision")), ("1.0", "1"));
    assert_eq!(result.header("Pcluster-Node"), "a");
    assert_eq!(result.headers.get("Content-Type"), None, "results are always CBOR");
}

#[test]
fn every_content_type_is_taken_and_without_one_the_manifest_decides() {
    let cluster = Cluster::start();
    let client = passing_on(&cluster, "[input]\nformat = \"json\"");
    let _node = cluster.node("a");
    let messages: [(Option<&str>, &[u8]); 7] = [
        (None, b"{\"from\": \"the manifest\"}"),
        (Some("application/json"), b"[1, 2]"),
        (Some("application/x-ndjson"), b"10\n\n11\n"),
        (Some("text/plain"), b"12\n13"),
        (Some("application/cbor"), b"\x14"),
        (Some("application/cbor-seq"), b"\x15\x16\x17"),
        (Some("application/octet-stream"), b"\xff\x00"),
    ];
    for (content_type, payload) in messages {
        let headers: Vec<(&str, &str)> =
            content_type.map(|content_type| ("Content-Type", content_type)).into_iter().collect();
        client.publish("pcluster.any.in", &headers, payload).unwrap();
    }
    let items: Vec<Value> = results(&client, 10).iter().map(Message::item).collect();
    let mut expected: Vec<Value> = [10, 11, 20, 21, 22, 23].map(Value::from).to_vec();
    expected.push(cbor!({"from" => "the manifest"}).unwrap());
    expected.push(cbor!([1, 2]).unwrap());
    expected.push(Value::from("12\n13"));
    expected.push(Value::Bytes(vec![0xff, 0x00]));
    expected.sort_by_key(|item| format!("{item:?}"));
    assert_eq!(items, expected);
}

#[test]
fn the_items_of_one_message_keep_their_message_and_their_place_in_it() {
    let cluster = Cluster::start();
    let client = passing_on(&cluster, "");
    let _node = cluster.node("a");
    let headers = [("Nats-Msg-Id", "batch"), ("X-Batch", "yes")];
    client.publish("pcluster.any.in", &headers, b"\x01\x02\x03".as_slice()).unwrap();
    let results = results(&client, 3);
    assert!(results.iter().all(|result| result.header("X-Batch") == "yes"));
    let printed = cluster.ok(&["pull", "any", "--all", "--meta"]);
    let mut ids: Vec<(u64, String)> = json_lines(&printed)
        .iter()
        .map(|result| (result["item"].as_u64().unwrap(), result["id"].as_str().unwrap().to_owned()))
        .collect();
    ids.sort();
    assert_eq!(ids, [(1, "batch".to_owned()), (2, "batch#1".to_owned()), (3, "batch#2".to_owned())]);
}

#[test]
fn a_message_id_makes_feeding_idempotent() {
    let cluster = Cluster::start();
    let client = passing_on(&cluster, "");
    let feed = |id: &str| client.publish("pcluster.any.in", &[("Nats-Msg-Id", id)], "\x05").unwrap().duplicate;
    assert_eq!([feed("a"), feed("a"), feed("b")], [false, true, false]);
    let _node = cluster.node("a");
    results(&client, 2);
    assert!(feed("a"), "the id is known after the item was finished too");
    results(&client, 2);
}

#[test]
fn an_undecodable_message_is_a_dead_letter_and_the_chain_goes_on() {
    let cluster = Cluster::start();
    let client = passing_on(&cluster, "");
    let _node = cluster.node("a");
    let json = [("Content-Type", "application/json"), ("X-Customer", "ada"), ("Nats-Msg-Id", "bad")];
    client.publish("pcluster.any.in", &json, "{\"a\": ").unwrap();
    client.publish("pcluster.any.in", &[("Content-Type", "image/png")], "\x01").unwrap();
    client.publish("pcluster.any.in", &[], "\x7f\x7f").unwrap();
    client.publish("pcluster.any.in", &[], "").unwrap();
    client.publish("pcluster.any.in", &[], "\x07").unwrap();
    assert_eq!(results(&client, 1)[0].item(), Value::from(7));

    let dead = client.messages("PCLUSTER_any_DEAD", 4);
    let of = |payload: &[u8]| dead.iter().find(|letter| letter.payload == payload).unwrap();
    let letter = of(b"{\"a\": ");
    assert_eq!(letter.subject, "pcluster.any.dead.first");
    let expected = [
        ("Content-Type", "application/json"),
        ("X-Customer", "ada"),
        ("Pcluster-Id", "bad"),
        ("Pcluster-Chain", "any"),
        ("Pcluster-Stage", "first"),
        ("Pcluster-Version", "1.0"),
        ("Pcluster-Revision", "1"),
        ("Pcluster-Node", "a"),
        ("Pcluster-Attempts", "1"),
        ("Pcluster-Failure", "undecodable"),
        ("Pcluster-Reason", "not JSON: EOF while parsing a value at line 1 column 6"),
    ];
    for (name, value) in expected {
        assert_eq!(letter.header(name), value, "{name}");
    }
    assert!(of(b"\x01").header("Pcluster-Reason").starts_with("the content type `image/png` is not known; known are "));
    for letter in [of(b"\x7f\x7f"), of(b"")] {
        assert_eq!(letter.header("Pcluster-Failure"), "undecodable");
        assert_ne!(letter.header("Pcluster-Reason"), "");
    }
    assert_eq!(cluster.status("any")["dead"], 4);
}

#[test]
fn nothing_but_results_is_read_as_a_result() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let chain = probe_chain("noted", &["obey"], "retry = { attempts = 2, backoff = [\"10ms\"] }");
    cluster.deploy(&chain);
    let _node = cluster.node("a");
    // From the first on, so that it does not matter when it begins to watch.
    let mut watch = cluster.spawn(&["watch", "noted", "--all"]);
    let mut bench =
        cluster.spawn(&["bench", "noted", "-n", "4", "\"fatal\"", "\"well\"", "--json", "--pack-items", "1"]);
    bench.ended();
    let report = &json_lines(&bench.stdout())[0];
    assert_eq!((&report["results"], &report["failures"]), (&json!(2), &json!(2)), "{report}");

    cluster.ok(&["feed", "noted", "--pack-items", "1", "fatal", "flaky 1", "fail", "repeat 3", "last"]);
    cluster.ok(&["wait", "noted"]);
    // Each attempt that failed has left a note, which stands in the stream beside the results.
    let subjects = client.by_subject("PCLUSTER_noted_OUT");
    assert_eq!(subjects["pcluster.noted.note"], 2 + 4, "{subjects:?}");
    assert_eq!(subjects["pcluster.noted.out"], 3, "{subjects:?}");

    // What the wire's contract says, done by a client that knows nothing else.
    let read = client.messages_of("PCLUSTER_noted_OUT", "pcluster.noted.out");
    let mut texts: Vec<String> =
        read.iter().flat_map(Message::split).map(|result| result.item().into_text().unwrap()).collect();
    texts.sort();
    let expected = ["flaky 1", "last", "repeat 3", "repeat 3", "repeat 3"];
    assert_eq!(texts, expected);

    watch.printed("last");
    watch.signal("INT");
    watch.ended();
    let mut watched = json_lines(&watch.stdout());
    watched.retain(|result| result != "well");
    watched.sort_by_key(ToString::to_string);
    assert_eq!(watched, expected);
    let mut again = json_lines(&cluster.ok(&["watch", "noted", "--all", "-n", "5"]));
    again.sort_by_key(ToString::to_string);
    assert_eq!(again, expected);
    assert_eq!(cluster.status("noted")["result_messages"], 3);
    let reset = cluster.ok(&["reset", "noted", "--all"]);
    assert!(reset.contains("7 results and dead letters forgotten"), "{reset}");
}
