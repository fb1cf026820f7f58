//! Calls that an API can tell to be the same call: keys, at each attempt, on each node, after each death.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use support::{Cluster, NatsClient, Reply, World, eventually, recovering};

/// The header of a key.
const KEY: &str = "idempotency-key";

/// Retries soon, twice.
const SOON: &str = "retry = { attempts = 3, backoff = [\"10ms\"] }";

/// An item that makes these calls and fails this many attempts.
fn failing(calls: &[Value], attempts: u32) -> String {
    json!({ "do": calls, "then": "fail", "attempts": attempts }).to_string()
}

/// An item that makes these calls.
fn ask(calls: &[Value]) -> String {
    json!({ "do": calls }).to_string()
}

/// The keys of the requests so far, each of which has one.
fn keys(world: &World) -> Vec<String> {
    world.headers(KEY).into_iter().map(|key| key.expect("a key")).collect()
}

/// Waits for this many dead letters.
fn until_dead(client: &NatsClient, letters: u64) {
    eventually("dead letters", || (client.count("PCLUSTER_world_DEAD") == letters).then_some(()));
}

#[test]
fn a_key_is_the_same_at_each_attempt_and_no_two_calls_have_the_same() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |_| Reply::new(200, ""));
    for chain in ["world", "other"] {
        cluster.deploy(&world.chain(chain, "ask", SOON));
    }
    let _node = world.node(&cluster, "a");
    // Two equal requests, and one that differs in its path alone.
    let calls = [world.post("/a", "x"), world.post("/a", "x"), world.post("/b", "x")];
    cluster.ok(&["feed", "world", &failing(&calls, 2)]);
    cluster.pull_all("world");
    let first = keys(&world);
    assert_eq!(first.len(), 9, "{first:?}");
    assert_eq!((&first[..3], &first[3..6]), (&first[3..6], &first[6..]), "{first:?}");

    // The same item again, in one message with another, and in another chain.
    let item = ask(&calls);
    cluster.ok(&["feed", "world", &item, &item]);
    cluster.ok(&["feed", "other", &item]);
    cluster.pull_all("world");
    cluster.pull_all("other");
    let all = keys(&world);
    assert_eq!(all.len(), 18, "{all:?}");
    let all: BTreeSet<_> = all.into_iter().collect();
    assert_eq!(all.len(), 12, "{all:?}");
    assert!(all.iter().all(|key| (16..=64).contains(&key.len())), "{all:?}");
}

#[test]
fn a_call_whose_node_was_killed_has_the_same_key_on_another_node() {
    let cluster = Cluster::start();
    let calls = AtomicU32::new(0);
    let world = World::start(&cluster, move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::none(),
        _ => Reply::new(200, ""),
    });
    cluster.deploy(&recovering(&world.chain("world", "ask", "")));
    let killed = world.node(&cluster, "a");
    cluster.ok(&["feed", "world", &ask(&[world.post("/a", "x")])]);
    eventually("the request of the first node", || (world.api.requests().len() == 1).then_some(()));
    drop(killed);
    let _node = world.node(&cluster, "b");
    assert_eq!(cluster.pull_all("world")[0][0]["ok"]["status"], 200);
    let keys = keys(&world);
    assert_eq!((keys.len(), &keys[0]), (2, &keys[1]));
}

#[test]
fn a_retried_letter_keeps_its_keys_unless_it_is_to_have_fresh_ones() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |_| Reply::new(200, ""));
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&world.chain("world", "ask", "retry = { attempts = 1 }"));
    let _node = world.node(&cluster, "a");
    let item = json!({ "do": [world.post("/a", "x")], "then": "fatal" }).to_string();
    // A message of two items, so that a letter is a part of what was fed.
    cluster.ok(&["feed", "world", &ask(&[]), &item]);
    until_dead(&client, 1);
    for (letters, more) in [(2, &[][..]), (3, &["--fresh-keys"]), (4, &[])] {
        cluster.ok(&[&["dead", "retry", "world", "--all"], more].concat());
        eventually("another attempt", || (keys(&world).len() == letters).then_some(()));
        until_dead(&client, 1);
    }
    let keys = keys(&world);
    assert_eq!((&keys[0], &keys[2]), (&keys[1], &keys[3]), "{keys:?}");
    assert_ne!(keys[0], keys[2]);
}

#[test]
fn an_author_may_do_without_a_key_or_give_one() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |_| Reply::new(200, ""));
    cluster.deploy(&world.chain("world", "ask", SOON));
    let _node = world.node(&cluster, "a");
    let with = |mut call: Value, idempotency: Value| {
        call["request"]["idempotency"] = idempotency;
        call
    };
    let calls = [
        world.get("/a"),
        with(world.post("/a", "x"), json!(false)),
        with(world.post("/a", "x"), json!("order-7")),
        with(world.post("/a", "x"), json!(true)),
    ];
    cluster.ok(&["feed", "world", &failing(&calls, 1)]);
    let answers = cluster.pull_all("world");
    let found = world.headers(KEY);
    let own = Some("order-7".to_owned());
    assert_eq!(found[..3], [None, None, own.clone()], "{answers:?}");
    assert_eq!(found.len() % 2, 0);
    assert_eq!(found[..found.len() / 2], found[found.len() / 2..]);
}

#[test]
fn another_body_under_the_same_key_is_told() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |_| Reply::new(200, ""));
    cluster.deploy(&world.chain("world", "ask", SOON));
    let mut node = world.node(&cluster, "a");
    cluster.ok(&["feed", "world", &failing(&[world.post("/same", "x"), world.post("/other", "{attempt}")], 1)]);
    cluster.pull_all("world");
    assert_eq!(node.stop(), Some(0));
    let keys = keys(&world);
    let logs = cluster.ok(&["logs", "world", "--no-follow"]);
    let told: Vec<&str> = logs.lines().filter(|line| line.contains("another body")).collect();
    assert_eq!(told.len(), 1, "{logs}");
    assert!(told[0].contains("/other` is sent another body than at the attempt before under the same key"), "{logs}");
    assert!(told[0].contains(&keys[1]) && told[0].contains("warn"), "{keys:?}: {logs}");
}

#[test]
fn a_message_that_is_published_twice_is_stored_once() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |_| Reply::new(200, ""));
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&world.chain("world", "ask", SOON));
    let _node = world.node(&cluster, "a");
    let publish = |wait: bool| {
        let request = json!({ "subject": "alerts.fire", "payload": "x", "wait": wait, "headers": [["X-Of", "a"]] });
        json!({ "call": "publish", "request": request })
    };
    cluster.ok(&["feed", "world", &failing(&[publish(true), publish(true), publish(false)], 1)]);
    let answers = cluster.pull_all("world").remove(0);
    let duplicate = |position: usize| answers[position]["ok"]["duplicate"].clone();
    assert_eq!((duplicate(0), duplicate(1)), (json!(true), json!(true)), "{answers}");
    let messages = client.messages("ALERTS", 3);
    let ids: BTreeSet<&str> = messages.iter().map(|message| message.header("Nats-Msg-Id")).collect();
    assert_eq!(ids.len(), 3, "{messages:?}");
    assert!(messages.iter().all(|message| message.header("X-Of") == "a" && message.subject == "alerts.fire"));
}
