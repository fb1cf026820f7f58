//! Large items against a real server.

mod faults;
mod outage;
mod stale;
mod sweeps;
mod taken;

use std::io::{Read as _, Seek as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::future::join_all;
use support::Server;

use super::{Content, Holder, LargeError, LargeSettings, LargeStore, Maker, Share, subject};
use crate::broker::Broker;
use crate::broker::stream::Stream;
use crate::frame::large::{Form, Reference};
use crate::name::ChainName;

/// A server, and the store of a chain on it.
struct World {
    server: Server,
    broker: Broker,
    chain: ChainName,
    store: LargeStore,
}

impl World {
    async fn start() -> Self {
        Self::limited(None).await
    }

    async fn limited(max_bytes: Option<u64>) -> Self {
        let server = tokio::task::spawn_blocking(|| Server::start("")).await.expect("a server");
        let broker = Broker::connect(&server.url.as_str().into(), "large").await.expect("a connection");
        let chain: ChainName = "films".parse().expect("valid");
        let store = LargeStore::of(&broker, &chain, LargeSettings { max_bytes, ..LargeSettings::default() });
        Self { server, broker, chain, store }
    }

    async fn put(&self, bytes: &[u8], place: u64) -> Reference {
        let content = Content::Bytes(Bytes::copy_from_slice(bytes));
        self.store.upload(content, Form::Bytes, Maker::Message(place), Share::Feeder).await.expect("stored")
    }

    /// Returns the subjects of the store.
    async fn subjects(&self) -> Vec<String> {
        match Stream::of(&self.broker, &subject::stream(&self.chain)).subjects(">").await {
            Err(error) if error.is_not_found() => Vec::new(),
            subjects => subjects.expect("a state"),
        }
    }

    async fn purge(&self, subject: &str) {
        Stream::of(&self.broker, &subject::stream(&self.chain)).purge(Some(subject)).await.expect("purged");
    }

    async fn publish(&self, subject: String, payload: impl Into<Bytes>) {
        self.broker.put(subject, HeaderMap::new(), payload.into(), || "publish".to_owned()).await.expect("stored");
    }

    /// Stops the server.
    async fn end(self) {
        tokio::task::spawn_blocking(move || drop(self.server)).await.expect("the server is stopped");
    }
}

/// Waits until something holds.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < support::DEADLINE, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns bytes that differ from place to place.
fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|place| u8::try_from((place * 31 + place / 251) % 256).unwrap_or_default()).collect()
}

fn file_of(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("written");
    file
}

fn contents(file: &mut std::fs::File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().expect("rewound");
    file.read_to_end(&mut bytes).expect("read");
    bytes
}

#[tokio::test]
async fn what_is_stored_is_read_and_goes_with_its_last_holder() {
    let world = World::start().await;
    assert_eq!(world.store.usage().await.expect("told").objects, 0);
    for size in [0, 1, 1_000, 128 << 10, (128 << 10) + 1, 3 << 20] {
        let bytes = pattern(size);
        let whole = world.put(&bytes, 7).await;
        assert_eq!(world.store.read(&whole).await.expect("read"), bytes, "{size}");
        let file = file_of(&bytes);
        let content = Content::File { file: &file, size: size as u64 };
        let filed = world.store.upload(content, Form::Text, Maker::Message(8), Share::Feeder).await.expect("stored");
        assert_eq!((filed.digest.as_str(), filed.size), (whole.digest.as_str(), size as u64));
        let content = Content::Hashed { file: &Arc::new(file), size: size as u64, digest: &whole.digest };
        let hashed = world.store.upload(content, Form::Text, Maker::Message(8), Share::Feeder).await.expect("stored");
        assert_eq!((hashed.digest.as_str(), hashed.size), (whole.digest.as_str(), size as u64));
        assert_eq!(world.store.read(&hashed).await.expect("read"), bytes, "{size}");
        world.store.release(&hashed.name, Holder::Making(8)).await.expect("released");
        let mut into = tempfile::tempfile().expect("a file");
        world.store.fetch(&filed, &mut into).await.expect("fetched");
        assert_eq!(contents(&mut into), bytes, "{size}");
        assert_eq!(world.store.usage().await.expect("told").objects, 2);
        world.store.hold(&whole.name, Holder::Work(9)).await.expect("held");
        world.store.hold(&whole.name, Holder::Work(9)).await.expect("held once more");
        world.store.release(&whole.name, Holder::Making(7)).await.expect("released");
        assert_eq!(world.store.read(&whole).await.expect("held still"), bytes);
        world.store.release(&whole.name, Holder::Work(9)).await.expect("released");
        world.store.release(&whole.name, Holder::Work(9)).await.expect("released again");
        world.store.release(&filed.name, Holder::Making(8)).await.expect("released");
        assert!(matches!(world.store.read(&whole).await, Err(LargeError::Missing { .. })), "{size}");
        assert_eq!(world.subjects().await, [""; 0], "{size}: no mark stays");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_stores_and_reads_at_once() {
    let world = World::start().await;
    let one = async |number: usize| {
        let bytes = pattern(150_000 + number * 7_001);
        let reference = world.put(&bytes, number as u64).await;
        assert_eq!(world.store.read(&reference).await.expect("read"), bytes);
        reference.name
    };
    let names = join_all((0..100).map(one)).await;
    assert_eq!(world.store.usage().await.expect("told").objects, 100);
    join_all((0..).zip(&names).map(|(place, name)| world.store.release(name, Holder::Making(place)))).await;
    assert_eq!(world.subjects().await, [""; 0]);
    world.end().await;
}

#[tokio::test]
async fn a_client_of_nats_reads_what_we_store_and_the_other_way_round() {
    let world = World::start().await;
    let bytes = pattern(700_000);
    let ours = world.put(&bytes, 1).await;
    let client = async_nats::connect(&world.server.url).await.expect("a connection");
    let foreign = async_nats::jetstream::new(client).get_object_store("pcluster_large_films").await.expect("a store");
    let mut object = foreign.get(&ours.name).await.expect("found");
    let mut read = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut object, &mut read).await.expect("read");
    assert_eq!(read, bytes);
    let put = foreign.put("theirs", &mut bytes.as_slice()).await.expect("put");
    let theirs = Reference {
        name: "theirs".to_owned(),
        size: put.size as u64,
        digest: put.digest.expect("a digest"),
        form: Form::Bytes,
    };
    assert_eq!(world.store.read(&theirs).await.expect("read"), bytes);
    world.store.hold("theirs", Holder::Work(1)).await.expect("held");
    world.store.release("theirs", Holder::Work(1)).await.expect("released");
    world.store.release(&ours.name, Holder::Making(1)).await.expect("released");
    assert_eq!(world.subjects().await, [""; 0]);
    world.end().await;
}
