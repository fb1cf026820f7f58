//! Entries.

use pcluster_abi::call;
use serde_json::json;
use support::Proxy;

use super::With::{Bytes, Number, Text};
use super::*;

const A: [(&str, With<'static>); 2] = [("bucket", Text("cache")), ("key", Text("a"))];

/// Returns the request of a write.
fn write<'a>(bucket: &'a str, key: &'a str, value: &'a [u8]) -> [(&'static str, With<'a>); 3] {
    [("bucket", Text(bucket)), ("key", Text(key)), ("value", Bytes(value))]
}

fn and<'a>(with: &[(&'static str, With<'a>)], more: (&'static str, With<'a>)) -> Vec<(&'static str, With<'a>)> {
    with.iter().copied().chain([more]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_written_read_compared_and_deleted() {
    let world = World::start("").await;
    world.bucket("cache", json!({ "max_msgs_per_subject": 5 })).await;
    let absent = "the bucket `cache` has no entry `a`";
    assert_failed(world.call(call::KV_GET, &A).await, FailureKind::NotFound, false, absent);
    world.call(call::KV_DELETE, &A).await.expect("whether there is one or not");
    assert_failed(world.call(call::KV_GET, &A).await, FailureKind::NotFound, false, absent);
    let first = world.call(call::KV_CREATE, &write("cache", "a", b"1")).await.expect("created over a deleted one");
    let again = world.call(call::KV_CREATE, &write("cache", "a", b"2")).await;
    assert_failed(again, FailureKind::Conflict, false, "exists already");
    let read = world.call(call::KV_GET, &A).await.expect("there");
    assert_eq!((read.bytes("value"), read.number("revision")), (&b"1"[..], first.number("revision")));

    let revision = read.number("revision");
    let update = and(&write("cache", "a", b"3"), ("revision", Number(revision)));
    let second = world.call(call::KV_UPDATE, &update).await.expect("it has this revision").number("revision");
    let said = format!("has not revision {revision}: it has revision {second}");
    assert_failed(world.call(call::KV_UPDATE, &update).await, FailureKind::Conflict, false, &said);
    let delete = and(&A, ("revision", Number(revision)));
    assert_failed(world.call(call::KV_DELETE, &delete).await, FailureKind::Conflict, false, &said);
    let delete = and(&A, ("revision", Number(second)));
    for _ in 0..2 {
        world.call(call::KV_DELETE, &delete).await.expect("deleted, and harmless to repeat");
    }
    assert_failed(world.call(call::KV_GET, &A).await, FailureKind::NotFound, false, absent);
    let update = and(&write("cache", "a", b"3"), ("revision", Number(second)));
    assert_failed(world.call(call::KV_UPDATE, &update).await, FailureKind::Conflict, false, "it does not exist");

    world.call(call::KV_PUT, &write("cache", "a", b"")).await.expect("an empty value");
    assert_eq!(world.call(call::KV_GET, &A).await.expect("there").bytes("value"), b"");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_expires_and_can_be_created_again() {
    let world = World::start("").await;
    let marking = json!({ "allow_msg_ttl": true, "subject_delete_marker_ttl": 60_000_000_000_u64 });
    for (bucket, more) in [("quiet", json!({ "allow_msg_ttl": true })), ("marking", marking)] {
        world.bucket(bucket, more).await;
        let put = and(&write(bucket, "a", b"1"), ("ttl_ms", Number(500)));
        world.call(call::KV_PUT, &put).await.expect("put");
        eventually("it expires", async || {
            let read = world.call(call::KV_GET, &[("bucket", Text(bucket)), ("key", Text("a"))]).await;
            read.err().map(|failure| assert_eq!(failure.kind, FailureKind::NotFound, "{failure:?}"))
        })
        .await;
        let keys = world.call(call::KV_KEYS, &[("bucket", Text(bucket))]).await.expect("a page");
        assert!(keys.texts("keys").is_empty());
        world.call(call::KV_CREATE, &write(bucket, "a", b"2")).await.expect("nothing is in the way");
    }
    world.bucket("cache", json!({})).await;
    let put = and(&write("cache", "a", b"1"), ("ttl_ms", Number(1000)));
    let said = "`nats stream edit KV_cache --allow-msg-ttl` allows it";
    assert_failed(world.call(call::KV_PUT, &put).await, FailureKind::Invalid, false, said);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_room_is_told_by_what_is_full() {
    let world = World::start("max_payload: 4096").await;
    world.bucket("small", json!({ "max_msg_size": 200 })).await;
    let put = world.call(call::KV_PUT, &write("small", "a", &[0; 300])).await;
    assert_failed(put, FailureKind::TooLarge, false, "the limit of the bucket `small`");
    world.bucket("full", json!({ "max_bytes": 2000 })).await;
    let mut put = Ok(Answer(Vec::new()));
    for number in 0..10 {
        if put.is_ok() {
            put = world.call(call::KV_PUT, &write("full", &number.to_string(), &[0; 500])).await;
        }
    }
    assert_failed(put, FailureKind::Unavailable, true, "the bucket `full` is full");
    world.bucket("cache", json!({})).await;
    let put = world.call(call::KV_PUT, &write("cache", "a", &[0; 4096])).await;
    assert_failed(put, FailureKind::TooLarge, false, "more than the server takes");
    world.call(call::KV_PUT, &write("cache", "a", &[7; 1000])).await.expect("put");
    let read = world.call_within(call::KV_GET, &A, 999, None).await;
    assert_failed(read, FailureKind::TooLarge, false, "has 1000 bytes, and the response has room for 999");
    world.call_within(call::KV_GET, &A, 1000, None).await.expect("it fits");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_gone_is_told_with_how_to_make_it() {
    let world = World::start("").await;
    for is_made in [false, true] {
        if is_made {
            world.bucket("cache", json!({})).await;
            world.call(call::KV_PUT, &write("cache", "a", b"1")).await.expect("put");
            world.remove("KV_cache").await;
        }
        let update = and(&write("cache", "a", b"1"), ("revision", Number(1)));
        for (name, with) in [
            (call::KV_GET, &A[..]),
            (call::KV_PUT, &write("cache", "a", b"1")[..]),
            (call::KV_CREATE, &write("cache", "a", b"1")[..]),
            (call::KV_UPDATE, &update),
            (call::KV_DELETE, &A[..]),
            (call::KV_KEYS, &A[..1]),
        ] {
            let said = "there is no bucket `cache`; `nats kv add cache` makes it";
            assert_failed(world.call(name, with).await, FailureKind::NotFound, true, said);
        }
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_happens_once_and_is_no_conflict() {
    let world = World::start("").await;
    world.bucket("cache", json!({ "max_msgs_per_subject": 9 })).await;
    let proxy = Proxy::to(&world.server.url);
    let broker = Broker::connect(&proxy.url.as_str().into(), "calls").await.expect("a connection");
    let stores = GrantedStores::of(&broker, Memory::new());
    let before = [
        (call::KV_PUT, write("cache", "put", b"1").to_vec()),
        (call::KV_CREATE, write("cache", "create", b"1").to_vec()),
        (call::KV_UPDATE, and(&write("cache", "update", b"1"), ("revision", Number(0)))),
    ];
    for (name, with) in before {
        let With::Text(key) = with[1].1 else { panic!("a key") };
        // The connection stands before the write.
        let run = Arc::clone(&stores).run(request(call::KV_GET, &[with[0], with[1]]).expect("a request"), ROOM, None);
        run.await.expect_err("not there");
        proxy.stall_after(&format!("$KV.cache.{key}"));
        let writing = tokio::spawn(Arc::clone(&stores).run(request(name, &with).expect("a request"), ROOM, None));
        tokio::task::block_in_place(|| proxy.await_stall());
        eventually("it is stored", async || {
            (world.count("KV_cache", &format!("$KV.cache.{key}")).await == 1).then_some(())
        })
        .await;
        proxy.cut();
        proxy.release();
        let written = writing.await.expect("no panic").map(|bytes| Answer::of(&bytes)).expect(name);
        assert_eq!(world.count("KV_cache", &format!("$KV.cache.{key}")).await, 1, "{name}");
        let read = world.call(call::KV_GET, &[with[0], with[1]]).await.expect("there");
        assert_eq!(written.number("revision"), read.number("revision"), "{name}");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_waited_out() {
    let mut world = World::start("").await;
    world.bucket("cache", json!({})).await;
    world.call(call::KV_PUT, &write("cache", "a", b"1")).await.expect("put");
    let mut calls = Vec::new();
    tokio::task::block_in_place(|| {
        world.server.restart_after(|| {
            for (name, with) in [(call::KV_GET, A.to_vec()), (call::KV_PUT, write("cache", "b", b"2").to_vec())] {
                let request = request(name, &with).expect("a request");
                calls.push(tokio::spawn(Arc::clone(&world.stores).run(request, ROOM, None)));
            }
        });
    });
    for call in calls {
        call.await.expect("no panic").expect("the server is back");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_header_of_another_client_harms_a_reader() {
    let world = World::start("").await;
    world.bucket("cache", json!({})).await;
    world.call(call::KV_PUT, &write("cache", "b", b"1")).await.expect("put");
    for (key, block) in [("a", &b"NATS/1.0\r\nA: b\rc\r\n\r\n"[..]), ("c", b"NATS/1.0\r\nno colon\r\n\r\n")] {
        publish_raw(&world.server.url, &format!("$KV.cache.{key}"), block, b"odd");
        let read = world.call(call::KV_GET, &[A[0], ("key", Text(key))]).await.expect("there");
        assert_eq!(read.bytes("value"), b"odd");
    }
    world.call(call::KV_PUT, &write("cache", "d", b"1")).await.expect("put");
    let keys = world.call(call::KV_KEYS, &A[..1]).await.expect("a page");
    assert_eq!(keys.texts("keys"), ["a", "b", "c", "d"]);
    assert!(world.broker.is_connected() && world.broker.losses() == 0);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_forbids_is_denied() {
    let users = r#"authorization { users: [
        { user: "admin", password: "a" }
        { user: "node", password: "n", permissions: { publish: { deny: ["$KV.cache.>"] } } }
    ] }"#;
    let server = tokio::task::spawn_blocking(move || Server::start(users)).await.expect("a server");
    let url = |who: &str| server.url.replace("nats://", &format!("nats://{who}@"));
    let admin = Broker::connect(&url("admin:a").as_str().into(), "admin").await.expect("a connection");
    let broker = Broker::connect(&url("node:n").as_str().into(), "node").await.expect("a connection");
    let world = World { stores: GrantedStores::of(&broker, Memory::new()), broker: admin, server };
    world.bucket("cache", json!({})).await;
    let put = world.call(call::KV_PUT, &write("cache", "a", b"1")).await;
    assert_failed(put, FailureKind::Denied, false, "$KV.cache.a");
    world.end().await;
}
