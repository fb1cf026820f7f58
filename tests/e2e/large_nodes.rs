//! Large items between nodes: stored by the hop that makes them, fetched by the one that takes them, handed on without a copy,
//! and dead letters where there is nothing to fetch. The fed items are small enough for a message, so a message holds them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ciborium::Value;
use serde_json::json;
use support::{Cluster, NatsClient, eventually, json_lines, probe_chain, with_table};
use tokio::io::AsyncReadExt;

/// Items of more bytes are large.
const TABLE: &str = "[queue]\nlarge = \"1KiB\"\nack_wait = \"1s\"";
const RETRIED: &str =
    "retry = { attempts = 100, backoff = [\"10ms\"] }\nconfig = { times = 2, failures = 1, millis = 0 }";
/// The SHA-256 of nothing, as references have it.
const EMPTY: &str = "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=";

fn chain(name: &str, tasks: &[&str]) -> String {
    with_table(TABLE, &probe_chain(name, tasks, RETRIED))
}

/// A text of so many bytes that begins with a number.
fn text(number: usize, size: usize) -> String {
    format!("{number} {}", "x".repeat(size))
}

/// The subjects below the object store of a chain that have messages, without its name.
fn stored(client: &NatsClient, chain: &str) -> BTreeSet<String> {
    let prefix = format!("$O.pcluster_large_{chain}.");
    let subjects = client.by_subject(&format!("OBJ_pcluster_large_{chain}"));
    subjects.into_keys().filter_map(|subject| subject.strip_prefix(&prefix).map(str::to_owned)).collect()
}

/// The names of the objects that can be read.
fn objects(client: &NatsClient, chain: &str) -> BTreeSet<String> {
    stored(client, chain).iter().filter_map(|subject| subject.strip_prefix("C.").map(str::to_owned)).collect()
}

/// The content of an object, as any client reads it.
fn content(client: &NatsClient, chain: &str, name: &str) -> Vec<u8> {
    client.with(async |jetstream| {
        let store = jetstream.get_object_store(format!("pcluster_large_{chain}")).await.unwrap();
        let mut content = Vec::new();
        store.get(name).await.unwrap().read_to_end(&mut content).await.unwrap();
        content
    })
}

/// The texts of all results, and the names of the objects of those that are references.
fn results(client: &NatsClient, chain: &str, number: usize) -> (Vec<String>, Vec<String>) {
    let (mut texts, mut names) = (Vec::new(), Vec::new());
    for message in client.items(&format!("PCLUSTER_{chain}_OUT"), number) {
        match message.item() {
            Value::Text(text) => texts.push(text),
            Value::Map(fields) => {
                let name = fields.iter().find(|(key, _)| key.as_text() == Some("name"));
                let name = name.and_then(|(_, name)| name.as_text()).unwrap().to_owned();
                texts.push(String::from_utf8(content(client, chain, &name)).unwrap());
                names.push(name);
            }
            other => panic!("{other:?}"),
        }
    }
    texts.sort_unstable();
    (texts, names)
}

/// Feeds items in one message.
fn feed(client: &NatsClient, chain: &str, number: usize, items: &[String]) {
    let id = number.to_string();
    client.publish(&format!("pcluster.{chain}.in"), &[("Nats-Msg-Id", &id)], support::sequence(items)).unwrap();
}

#[test]
fn a_large_item_goes_through_all_hops_and_one_that_is_handed_on_is_stored_once() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&chain("through", &["echo", "sleep", "flaky"]));
    let items: Vec<String> = (0..6).map(|number| text(number, 3_000)).collect();
    feed(&client, "through", 0, &items);
    let _node = cluster.node("a");
    cluster.ok(&["wait", "through"]);
    let (texts, names) = results(&client, "through", items.len());
    assert_eq!(texts, items);
    let names: BTreeSet<String> = names.into_iter().collect();
    assert_eq!(names.len(), items.len());
    eventually("only what results refer to is stored", || (objects(&client, "through") == names).then_some(()));
}

#[test]
fn small_and_large_items_of_one_frame_give_their_own_results() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&chain("mixed", &["echo", "repeat"]));
    let items: Vec<String> = (0..40).map(|number| text(number, if number % 2 == 0 { 10 } else { 3_000 })).collect();
    for (number, items) in items.chunks(10).enumerate() {
        feed(&client, "mixed", number, items);
    }
    let _node = cluster.node("a");
    cluster.ok(&["wait", "mixed"]);
    let copies = results(&client, "mixed", 80);
    let mut expected: Vec<String> = items.iter().flat_map(|item| [item.clone(), item.clone()]).collect();
    expected.sort_unstable();
    assert_eq!(copies.0, expected);
    // The generator gives the same item twice: both are the object that it was given.
    let names: BTreeSet<String> = copies.1.iter().cloned().collect();
    assert_eq!((copies.1.len(), names.len()), (40, 20), "each is one object");
    eventually("only what results refer to is stored", || (objects(&client, "mixed") == names).then_some(()));
    let records: BTreeSet<String> =
        stored(&client, "mixed").into_iter().filter(|each| each.starts_with("R.")).collect();
    assert!(records.iter().all(|record| record.contains(".out-")), "{records:?}");
}

#[test]
fn nodes_that_die_at_any_point_neither_lose_nor_double_a_large_item() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&chain("dying", &["echo", "flaky"]));
    let mut fed: BTreeMap<usize, String> = BTreeMap::new();
    let points = ["received", "ran", "unrecorded", "unrecorded:2", "claimed", "stored", "stored:2", "acknowledged"];
    for (number, point) in points.iter().enumerate() {
        let items: Vec<String> = (0..4).map(|item| text(number * 4 + item, 2_000)).collect();
        feed(&client, "dying", number, &items);
        fed.extend((number * 4..).zip(items));
        let mut node = cluster.spawn(&["node", "--name", "doomed", "--die-at", point]);
        eventually("the node has died", || node.has_ended().then_some(()));
    }
    let _node = cluster.node_with("a", &["--sweep-every", "1s"]);
    cluster.ok(&["wait", "dying", "--timeout", "100s"]);
    let mut expected: Vec<String> = fed.into_values().collect();
    expected.sort_unstable();
    let (texts, names) = results(&client, "dying", expected.len());
    assert_eq!(texts, expected);
    assert_eq!(names.len(), expected.len(), "all are large");
    let names: BTreeSet<String> = names.into_iter().collect();
    eventually("a sweep has removed what dead nodes have left", || {
        let stored = stored(&client, "dying");
        let of_results = stored.iter().filter(|each| each.starts_with("R.") && each.contains(".out-"));
        (objects(&client, "dying") == names && of_results.count() == names.len()).then_some(())
    });
    assert_eq!(cluster.pull_all("dying").len(), expected.len());
    eventually("stale records go with their objects", || stored(&client, "dying").is_empty().then_some(()));
}

#[test]
fn a_dead_letter_keeps_its_large_item() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&chain("letters", &["echo", "fatal"]));
    feed(&client, "letters", 0, &[text(0, 5_000)]);
    let _node = cluster.node("a");
    cluster.ok(&["wait", "letters"]);
    let letters = client.messages("PCLUSTER_letters_DEAD", 1);
    assert_eq!(letters[0].header("Pcluster-Large"), "0");
    eventually("the letter has the only record", || {
        let records: Vec<String> =
            stored(&client, "letters").into_iter().filter(|each| each.starts_with("R.")).collect();
        (records.len() == 1 && records[0].contains(".dead-")).then_some(())
    });
    let names = objects(&client, "letters");
    assert_eq!(content(&client, "letters", names.first().unwrap()), text(0, 5_000).into_bytes());
}

#[test]
fn a_reference_to_nothing_or_to_something_else_is_a_dead_letter() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    for name in ["own", "other"] {
        cluster.deploy(&chain(name, &["echo"]));
        feed(&client, name, 0, &[text(0, 2_000)]);
    }
    let _node = cluster.node("a");
    for name in ["own", "other"] {
        cluster.ok(&["wait", name]);
    }
    let size = text(0, 2_000).len();
    let (own, other) = (objects(&client, "own"), objects(&client, "other"));
    let (own, other) = (own.first().unwrap().as_str(), other.first().unwrap().as_str());
    let reference = |name: &str, size: usize, digest: &str, form: &str| {
        support::sequence([json!({"name": name, "size": size, "digest": digest, "form": form})])
    };
    let cases = [
        ("missing", reference("nothing", 7, EMPTY, "bytes"), "0"),
        ("of another chain", reference(other, size, EMPTY, "text"), "0"),
        ("wrong digest", reference(own, size, EMPTY, "text"), "0"),
        ("wrong size", reference(own, size + 1, EMPTY, "text"), "0"),
        ("no reference", support::sequence([json!({"name": "x"})]), "0"),
        ("no such position", reference(own, size, EMPTY, "text"), "1"),
    ];
    let begun = Instant::now();
    for (id, payload, positions) in &cases {
        let headers = [("Nats-Msg-Id", *id), ("Pcluster-Large", *positions)];
        client.publish("pcluster.own.in", &headers, payload.clone()).unwrap();
    }
    // What looks like a reference is data, without the header.
    client.publish("pcluster.own.in", &[], reference("nothing", 7, EMPTY, "bytes")).unwrap();
    cluster.ok(&["wait", "own"]);
    assert!(begun.elapsed() < Duration::from_secs(90), "none waits for what never comes");
    let letters = json_lines(&cluster.ok(&["dead", "ls", "own", "--json"]));
    let ids: BTreeSet<&str> = letters.iter().filter_map(|letter| letter["id"].as_str()).collect();
    assert_eq!(ids, cases.iter().map(|(id, ..)| *id).collect(), "{letters:?}");
    assert_eq!(client.items_now("PCLUSTER_own_OUT"), 2, "the first item and the data");
}

#[test]
fn an_item_beyond_the_memory_of_its_stage_is_a_dead_letter_with_both_sizes() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let manifest = chain("small", &["echo"]).replace(RETRIED, &format!("{RETRIED}\nmemory = \"16MiB\""));
    cluster.deploy(&manifest);
    let size = 20 << 20;
    let payload = support::sequence([json!({"name": "large", "size": size, "digest": EMPTY, "form": "bytes"})]);
    client.publish("pcluster.small.in", &[("Pcluster-Large", "0")], payload).unwrap();
    let _node = cluster.node("a");
    cluster.ok(&["wait", "small"]);
    let letters = json_lines(&cluster.ok(&["dead", "ls", "small", "--json"]));
    let reason = letters[0]["reason"].as_str().unwrap();
    assert_eq!((letters[0]["failure"].as_str(), letters[0]["attempts"].as_u64()), (Some("memory"), Some(1)));
    assert!(reason.contains(&(size + 5).to_string()) && reason.contains(&(16 << 20).to_string()), "{reason}");
}
