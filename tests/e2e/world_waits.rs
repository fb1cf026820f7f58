//! Calls that take long, fail, or never end: what becomes of their items, their node and those beside them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Cluster, Reply, World, eventually, json_lines, lines, numbers, probe_chain};

/// An item that makes these calls.
fn ask(calls: &[Value]) -> String {
    json!({ "do": calls }).to_string()
}

#[test]
fn a_task_says_when_it_is_tried_again() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |_| Reply::new(200, ""));
    cluster.deploy(&world.chain("world", "ask", "retry = { attempts = 2, backoff = [\"1h\"] }"));
    let _node = world.node(&cluster, "a");
    let item = json!({ "do": [world.get("/")], "then": "fail", "attempts": 1, "retry_after_ms": 50 });
    cluster.ok(&["feed", "world", &item.to_string()]);
    assert_eq!(cluster.pull_all("world").len(), 1);
    assert_eq!(world.api.requests().len(), 2);
}

#[test]
fn a_call_that_is_never_answered_ends_with_the_time_of_its_item_and_holds_nothing() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |asked| match asked.target.as_str() {
        "/never" => Reply::none(),
        _ => Reply::new(200, ""),
    });
    // One item at a time: what an item held would be missing to the next.
    let stage = "timeout = \"1s\"\nconcurrency = 1\nretry = { attempts = 1 }";
    cluster.deploy(&world.chain("world", "ask", stage));
    let _node = world.node(&cluster, "a");
    let late = json!({ "call": "http", "request": { "url": format!("{}/never", world.api.url()), "timeout_ms": 50 } });
    cluster.ok(&[
        "feed",
        "world",
        "--pack-items",
        "1",
        &ask(&[world.post("/never", "x")]),
        &ask(&[late, world.get("/")]),
    ]);
    let results = cluster.pull_all("world");
    assert_eq!(results.len(), 1, "{results:?}");
    assert_eq!((&results[0][0]["failed"]["kind"], &results[0][1]["ok"]["status"]), (&json!("timeout"), &json!(200)));
    let letters = json_lines(&cluster.ok(&["dead", "ls", "world", "--json"]));
    assert_eq!((letters.len(), &letters[0]["failure"]), (1, &json!("timeout")), "{letters:?}");
    let shown = cluster.ok(&["dead", "show", "world", "1", "--calls"]);
    assert!(shown.contains(&format!("POST {}/never", world.api.url())), "{shown}");
    assert_eq!(cluster.status("world")["revisions"][0]["stages"][0]["running"], 0);
}

#[test]
fn what_an_api_does_wrong_is_a_failure_that_a_task_sees() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |asked| match asked.target.as_str() {
        "/garbage" => Reply::raw("no HTTP at all\r\n\r\n"),
        "/closed" => Reply::raw(""),
        "/cut" => Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345"),
        "/busy" => Reply::new(429, "later").with("Retry-After", "7"),
        _ => Reply::new(302, "").with("Location", "http://127.0.0.2:9/"),
    });
    cluster.deploy(&world.chain("world", "ask", ""));
    let _node = world.node(&cluster, "a");
    let calls = ["/garbage", "/closed", "/cut", "/busy", "/away"].map(|path| world.get(path));
    cluster.ok(&["feed", "world", &ask(&calls)]);
    let answers = cluster.pull_all("world").remove(0);
    for position in 0..3 {
        let failed = &answers[position]["failed"];
        assert_eq!((&failed["kind"], &failed["transient"]), (&json!("unavailable"), &json!(true)), "{answers}");
    }
    let busy = &answers[3]["ok"];
    assert_eq!((&busy["status"], &busy["retry_after_ms"]), (&json!(429), &json!(7_000)), "{answers}");
    assert_eq!(answers[4]["failed"]["kind"], "denied", "{answers}");
}

#[test]
fn a_node_that_stops_gives_items_back_that_wait_without_an_attempt() {
    let cluster = Cluster::start();
    let calls = AtomicU32::new(0);
    let world = World::start(&cluster, move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::none(),
        _ => Reply::new(200, ""),
    });
    cluster.deploy(&world.chain("world", "ask", "retry = { attempts = 1 }"));
    let allowed = world.allowed();
    let arguments: Vec<&str> = ["--grace", "100ms"].into_iter().chain(allowed.iter().map(String::as_str)).collect();
    let mut first = cluster.node_with("a", &arguments);
    cluster.ok(&["feed", "world", &ask(&[world.post("/", "{attempt}")])]);
    eventually("the first request", || (world.api.requests().len() == 1).then_some(()));
    assert_eq!(first.stop(), Some(0), "{}", first.stderr());
    let _second = world.node(&cluster, "b");
    assert_eq!(cluster.pull_all("world")[0][0]["ok"]["status"], 200);
    let requests = world.api.requests();
    // The second could not be the last attempt of an item that has one.
    assert_eq!(requests.iter().map(|asked| &asked.body[..]).collect::<Vec<_>>(), [b"1", b"1"]);
    let keys: BTreeSet<_> = world.headers("idempotency-key").into_iter().collect();
    assert_eq!(keys.len(), 1, "{requests:?}");
}

#[test]
fn a_thousand_items_that_each_wait_a_second_wait_together_and_slow_nobody() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |_| {
        std::thread::sleep(Duration::from_secs(1));
        Reply::new(200, "")
    });
    for (chain, packing) in [("packed", &[][..]), ("single", &["--pack-items", "1"])] {
        cluster.deploy(&world.chain(chain, "ask", "concurrency = 500"));
        cluster.deploy(&probe_chain("plain", &["echo"], ""));
        let node = world.node(&cluster, "a");
        let items = (0..1_000).map(|item| ask(&[world.post(&format!("/{chain}/{item}"), "x")]));
        let started = Instant::now();
        let feed = [&["feed", chain, "--format", "ndjson"], packing].concat();
        cluster.run_with_input(&feed, lines(items)).succeeded();
        eventually("the first request", || {
            world.api.requests().iter().any(|asked| asked.target.starts_with(&format!("/{chain}/"))).then_some(())
        });
        let beside = Instant::now();
        cluster.run_with_input(&["feed", "plain"], lines(0..100)).succeeded();
        assert_eq!(numbers(&cluster.pull_all("plain")), (0..100).collect::<Vec<_>>());
        let beside = beside.elapsed();
        assert_eq!(cluster.pull_all(chain).len(), 1_000);
        eprintln!("{chain}: {:?}, beside it {beside:?}", started.elapsed());
        drop(node);
    }
    let keys: BTreeSet<_> = world.headers("idempotency-key").into_iter().collect();
    assert_eq!(keys.len(), 2_000);
}
