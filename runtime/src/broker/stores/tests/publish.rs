//! Messages.

use futures_util::StreamExt;
use pcluster_abi::call;
use serde_json::json;

use super::With::{Bytes, Flag, Text};
use super::*;

fn message<'a>(subject: &'a str, payload: &'a [u8], waits: bool) -> [(&'static str, With<'a>); 3] {
    [("subject", Text(subject)), ("payload", Bytes(payload)), ("wait", Flag(waits))]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_comes_with_its_headers_and_key() {
    let world = World::start("").await;
    let client = world.broker.client();
    let mut heard = client.subscribe("alerts.>").await.expect("subscribed");
    world.broker.flush().await.expect("subscribed");
    let mut response = Response::new();
    response.text("subject", "alerts.a");
    response.text("payload", "hot");
    response.pairs("headers", [("X-Room", &b"7"[..]), ("X-Room", b"8")].into_iter());
    let bytes = response.finish();
    let publish = StoreRequest::read(call::PUBLISH, &mut Request::read(&bytes).expect("a map")).expect("a message");
    Arc::clone(&world.stores).run(publish, ROOM, Some("key-1".to_owned())).await.expect("sent");
    world.call(call::PUBLISH, &message("alerts.b", b"", false)).await.expect("sent");
    let first = heard.next().await.expect("a message");
    let headers = first.headers.expect("headers");
    let rooms: Vec<&str> = headers.get_all("X-Room").map(async_nats::HeaderValue::as_str).collect();
    assert_eq!((&*first.payload, rooms), (&b"hot"[..], vec!["7", "8"]));
    assert_eq!(headers.get("Nats-Msg-Id").map(async_nats::HeaderValue::as_str), Some("key-1"));
    let second = heard.next().await.expect("a message");
    assert_eq!((second.subject.as_str(), second.headers), ("alerts.b", None));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_stores_a_message_with_a_key_once() {
    let world = World::start("").await;
    let more = json!({ "max_msg_size": 500 });
    world.stream(json!({ "name": "ALERTS", "subjects": ["alerts.>"], "storage": "file" }), more).await;
    let send = async |key| world.call_within(call::PUBLISH, &message("alerts.a", b"hot", true), ROOM, key).await;
    for (key, sequence, duplicate) in [(Some("k"), 1, false), (Some("k"), 1, true), (None, 2, false), (None, 3, false)]
    {
        let stored = send(key).await.expect("stored");
        assert_eq!((stored.get("stream").as_text(), stored.number("sequence")), (Some("ALERTS"), sequence));
        assert_eq!(stored.get("duplicate").as_bool(), Some(duplicate));
    }
    let large = world.call(call::PUBLISH, &message("alerts.a", &[0; 600], true)).await;
    assert_failed(large, FailureKind::TooLarge, false, "the stream that takes `alerts.a`");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_no_stream_stores_is_told() {
    let world = World::start("max_payload: 4096").await;
    let said = "no stream takes the subject `alerts.a`";
    let sent = world.call(call::PUBLISH, &message("alerts.a", b"", true)).await;
    assert_failed(sent, FailureKind::NotFound, true, said);
    // A service that answers is no stream, and cannot break the connection of others.
    let client = world.broker.client();
    let mut heard = client.subscribe("alerts.a").await.expect("subscribed");
    let url = world.server.url.clone();
    let answering = tokio::spawn(async move {
        while let Some(message) = heard.next().await {
            let reply = message.reply.expect("a reply subject").to_string();
            client.publish(reply.clone(), "{\"seq\":0}".into()).await.expect("sent");
            let url = url.clone();
            tokio::task::block_in_place(|| publish_raw(&url, &reply, b"NATS/1.0\r\nA: b\rc\r\n\r\n", b""));
        }
    });
    let sent = world.call(call::PUBLISH, &message("alerts.a", b"", true)).await;
    assert_failed(sent, FailureKind::NotFound, true, said);
    answering.abort();
    assert!(world.broker.is_connected() && world.broker.losses() == 0);

    for waits in [false, true] {
        let sent = world.call(call::PUBLISH, &message("alerts.a", &[0; 4097], waits)).await;
        assert_failed(sent, FailureKind::TooLarge, false, "more than the server takes");
    }
    world.stream(json!({ "name": "FULL", "subjects": ["full"], "max_msgs": 1, "discard": "new" }), json!({})).await;
    world.call(call::PUBLISH, &message("full", b"", true)).await.expect("stored");
    let sent = world.call(call::PUBLISH, &message("full", b"", true)).await;
    assert_failed(sent, FailureKind::Unavailable, true, "the stream that takes `full` has no room");
    world.end().await;
}
