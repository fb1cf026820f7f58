//! Servers that go away in the middle.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_and_a_fetch_go_on_after_the_server_was_away() {
    let mut world = World::start().await;
    let bytes = Bytes::from(pattern(64 << 20));
    let before = world.put(&bytes, 1).await;
    let upload = {
        let (store, content) = (world.store.clone(), Content::Bytes(bytes.clone()));
        tokio::spawn(async move { store.upload(content, Form::Bytes, Maker::Message(2), Share::Feeder).await })
    };
    let fetch = {
        let (store, before) = (world.store.clone(), before.clone());
        tokio::spawn(async move { store.read(&before).await })
    };
    eventually("the upload is under way", async || {
        world.subjects().await.iter().filter(|subject| subject.contains(".C.")).count() > 1
    })
    .await;
    let server = world.server;
    world.server = tokio::task::spawn_blocking(move || {
        let mut server = server;
        server.restart_after(|| std::thread::sleep(Duration::from_secs(8)));
        server
    })
    .await
    .expect("restarted");
    let within = support::DEADLINE;
    let stored = tokio::time::timeout(within, upload).await.expect("in time").expect("ran").expect("stored");
    assert_eq!(tokio::time::timeout(within, fetch).await.expect("in time").expect("ran").expect("read"), bytes);
    assert_eq!(world.store.read(&stored).await.expect("read"), bytes);
    world.store.release(&stored.name, Holder::Making(2)).await.expect("released");
    world.store.release(&before.name, Holder::Making(1)).await.expect("released");
    assert_eq!(world.subjects().await, [""; 0]);
    world.end().await;
}

/// The servers keep three copies, and one of them is killed in the middle of uploads and fetches.
#[tokio::test(flavor = "multi_thread")]
async fn with_copies_nothing_waits_for_a_killed_server() {
    let mut servers = tokio::task::spawn_blocking(support::Servers::start).await.expect("servers");
    let url = support::Nats::url(&servers);
    let chain: ChainName = "films".parse().expect("valid");
    let mut broker = Broker::connect(&url.as_str().into(), "large").await;
    let started = Instant::now();
    while broker.is_err() {
        assert!(started.elapsed() < support::DEADLINE, "no server is ready: {broker:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        broker = Broker::connect(&url.as_str().into(), "large").await;
    }
    let broker = broker.expect("a connection");
    let settings = LargeSettings { replicas: 3, ..LargeSettings::default() };
    let store = LargeStore::of(&broker, &chain, settings);
    let bytes = Bytes::from(pattern(24 << 20));
    let put = |place: u64| {
        let (store, bytes) = (store.clone(), bytes.clone());
        async move { store.upload(Content::Bytes(bytes), Form::Bytes, Maker::Message(place), Share::Feeder).await }
    };
    let before = put(1).await.expect("stored");
    let uploads: Vec<_> = (2..5).map(|place| tokio::spawn(put(place))).collect();
    let reads: Vec<_> = (0..3).map(|_| (store.clone(), before.clone())).collect();
    let reads: Vec<_> =
        reads.into_iter().map(|(store, of)| tokio::spawn(async move { store.read(&of).await })).collect();
    eventually("uploads are under way", async || store.usage().await.is_ok_and(|usage| usage.bytes > 26 << 20)).await;
    let what = || "look".to_owned();
    let info: serde_json::Value =
        broker.api(format!("STREAM.INFO.{}", subject::stream(&chain)), &(), what).await.expect("told");
    let leader = info["cluster"]["leader"].as_str().expect("a leader").to_owned();
    let servers = tokio::task::spawn_blocking(move || {
        servers.named(&leader).kill();
        servers
    });
    let servers = servers.await.expect("killed");
    let within = support::DEADLINE;
    for read in reads {
        assert_eq!(tokio::time::timeout(within, read).await.expect("in time").expect("ran").expect("read"), bytes);
    }
    for upload in uploads {
        let stored = tokio::time::timeout(within, upload).await.expect("in time").expect("ran").expect("stored");
        assert_eq!(store.read(&stored).await.expect("read"), bytes);
    }
    tokio::task::spawn_blocking(move || drop(servers)).await.expect("stopped");
}
