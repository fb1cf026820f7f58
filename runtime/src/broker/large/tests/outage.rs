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
