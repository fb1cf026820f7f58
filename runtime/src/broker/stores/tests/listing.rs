//! Names in pages.

use pcluster_abi::call;
use serde_json::json;

use super::With::{Number, Text};
use super::*;

const KEYS: usize = 10_000;

impl World {
    /// Stores entries without waiting for each, and an API's answer behind them.
    async fn fill(&self, bucket: &str, keys: impl Iterator<Item = String>) {
        let client = self.broker.client();
        for key in keys {
            client.publish(format!("$KV.{bucket}.{key}"), "v".into()).await.expect("sent");
        }
        self.broker.flush().await.expect("sent");
    }

    async fn keys(&self, with: &[(&str, With<'_>)]) -> (Vec<String>, bool) {
        let page = self.call(call::KV_KEYS, with).await.expect("a page");
        (page.texts("keys"), page.get("more").as_bool().expect("a flag"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_keys_come_in_pages_and_in_order() {
    let world = World::start("").await;
    world.bucket("cache", json!({ "max_msgs_per_subject": 3 })).await;
    let key = |number: usize| format!("orders.{:05}", number * 7919 % KEYS);
    world.fill("cache", (0..KEYS).map(key)).await;
    eventually("all are stored", async || (world.count("KV_cache", ">").await == KEYS as u64).then_some(())).await;
    for number in 0..10 {
        let delete = [("bucket", Text("cache")), ("key", Text(&format!("orders.{number:05}")[..]))];
        world.call(call::KV_DELETE, &delete).await.expect("deleted");
    }
    world
        .call(call::KV_PUT, &[("bucket", Text("cache")), ("key", Text("z")), ("value", Text("v"))])
        .await
        .expect("put");
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let with =
            [("bucket", Text("cache")), ("prefix", Text("orders.")), ("after", Text(&after)), ("limit", Number(999))];
        let (page, more) = world.keys(&with).await;
        assert!(page.len() == 999 || !more, "{}", page.len());
        all.extend(page);
        after.clone_from(all.last().expect("a key"));
        if !more {
            break;
        }
    }
    let expected: Vec<String> = (10..KEYS).map(|number| format!("orders.{number:05}")).collect();
    assert_eq!(all, expected);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_bounded_by_prefix_and_room() {
    let world = World::start("").await;
    world.bucket("cache", json!({})).await;
    let cache = ("bucket", Text("cache"));
    assert_eq!(world.keys(&[cache]).await, (Vec::new(), false), "an empty bucket");
    assert_eq!(world.keys(&[cache, ("prefix", Text("none."))]).await, (Vec::new(), false));
    for key in ["b.1", "a", "b", "b.2.x", "b2", "c"] {
        world.call(call::KV_PUT, &[cache, ("key", Text(key)), ("value", Text("v"))]).await.expect("put");
    }
    for (prefix, keys) in [("b", &["b", "b.1", "b.2.x", "b2"][..]), ("b.", &["b.1", "b.2.x"]), ("b.2", &["b.2.x"])] {
        assert_eq!(
            world.keys(&[cache, ("prefix", Text(prefix))]).await,
            (keys.iter().map(|key| (*key).to_owned()).collect(), false)
        );
    }
    let page = world.call_within(call::KV_KEYS, &[cache], 5, None).await.expect("a page");
    assert_eq!(
        (page.texts("keys"), page.get("more").as_bool()),
        (vec!["a".into(), "b".into(), "b.1".into()], Some(true))
    );
    let page = world.call_within(call::KV_KEYS, &[cache], 0, None).await;
    assert_failed(page, FailureKind::TooLarge, false, "the response has room for 0");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_stay_are_listed_while_others_write() {
    let world = World::start("").await;
    world.bucket("cache", json!({})).await;
    let stay: Vec<String> = (0..500).map(|number| format!("stays.{number:03}")).collect();
    world.fill("cache", stay.iter().cloned()).await;
    let client = world.broker.client();
    let writing = tokio::spawn({
        let stay = stay.clone();
        async move {
            for key in stay.iter().cycle() {
                // Waits for the answer: a server that is flooded answers nobody in time.
                client.request(format!("$KV.cache.{key}"), "w".into()).await.expect("stored");
            }
        }
    });
    for _ in 0..20 {
        let (page, more) = world.keys(&[("bucket", Text("cache"))]).await;
        assert!(page == stay && !more, "{} keys", page.len());
    }
    writing.abort();
    world.end().await;
}
