//! Objects.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use pcluster_abi::call;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::With::{Bytes, Number, Text};
use super::*;
use crate::subject::stores as subject;

const STORE: (&str, With<'static>) = ("store", Text("models"));
const M: [(&str, With<'static>); 2] = [STORE, ("name", Text("m"))];

fn put<'a>(name: &'a str, data: &'a [u8]) -> [(&'static str, With<'a>); 3] {
    [STORE, ("name", Text(name)), ("data", Bytes(data))]
}

/// Returns bytes of which no two parts are equal.
fn data(size: usize, seed: u64) -> Vec<u8> {
    (0..size.div_ceil(8)).flat_map(|number| (number as u64 ^ seed << 40).to_le_bytes()).take(size).collect()
}

fn digest(data: &[u8]) -> String {
    format!("SHA-256={}", BASE64_URL_SAFE.encode(Sha256::digest(data)))
}

impl World {
    async fn range(&self, name: &str, from: u64, length: Option<u64>) -> Result<Answer, CallFailure> {
        let mut with = vec![STORE, ("name", Text(name)), ("from", Number(from))];
        with.extend(length.map(|length| ("length", Number(length))));
        self.call(call::OBJECTS_GET, &with).await
    }

    /// Returns how many chunks the store has.
    async fn chunks(&self) -> u64 {
        self.count("OBJ_models", "$O.models.C.>").await
    }

    /// Describes an object as another client may.
    async fn describe(&self, name: &str, head: serde_json::Value) {
        let subject = subject::object_head("models", name);
        let sent = self.broker.client().request(subject, head.to_string().into()).await;
        assert!(String::from_utf8_lossy(&sent.expect("an answer").payload).contains("\"seq\""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_read_whole_or_in_part() {
    let world = World::start("").await;
    world.object_store("models", json!({})).await;
    assert_failed(world.call(call::OBJECTS_GET, &M).await, FailureKind::NotFound, false, "has no object `m`");
    for size in [0, 1, (128 << 10) - 1, 128 << 10, (128 << 10) + 1, 20 << 20] {
        let data = data(size, 1);
        let written = world.call(call::OBJECTS_PUT, &put("m", &data)).await.expect("put");
        assert_eq!((written.number("size"), written.get("digest").as_text()), (size as u64, Some(&*digest(&data))));
        let read = world.call(call::OBJECTS_GET, &M).await.expect("there");
        assert!(read.bytes("data") == data, "{size}");
        assert_eq!((read.number("size"), read.get("digest").as_text()), (size as u64, Some(&*digest(&data))));
        assert_eq!(world.chunks().await, size.div_ceil(128 << 10) as u64, "the ones before are gone");
    }
    let (data, whole, chunk) = (data(20 << 20, 1), 20_u64 << 20, 128_u64 << 10);
    for (from, length, taken) in [
        (0, Some(10), 0..10),
        (7, Some(chunk), 7..7 + chunk),
        (chunk, Some(chunk), chunk..2 * chunk),
        (5 * chunk - 1, Some(2 * chunk), 5 * chunk - 1..7 * chunk - 1),
        (whole - 3, None, whole - 3..whole),
        (whole - 3, Some(9), whole - 3..whole),
        (whole, None, whole..whole),
        (whole + 9, Some(9), whole..whole),
        (3, Some(0), 3..3),
        (1, Some(u64::MAX), 1..whole),
    ] {
        let read = world.range("m", from, length).await.expect("there");
        let taken = usize::try_from(taken.start).expect("small")..usize::try_from(taken.end).expect("small");
        assert!(read.bytes("data") == &data[taken], "{from} {length:?}");
        assert_eq!((read.number("size"), read.get("digest").as_text()), (whole, Some(&*digest(&data))));
    }
    let read = world.call_within(call::OBJECTS_GET, &M, whole - 1, None).await;
    assert_failed(read, FailureKind::TooLarge, false, "read it in ranges");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_gives_no_bytes() {
    let world = World::start("").await;
    world.object_store("models", json!({})).await;
    world.call(call::OBJECTS_PUT, &put("kept", b"kept")).await.expect("put");
    let chunks = subject::object_chunks("models", "u").expect("an id");
    world.broker.client().request(chunks, "12345".into()).await.expect("stored");
    let right = digest(b"12345");
    let head = |id: &str, size: usize, chunks: usize, digest: &str| json!({ "name": "m", "bucket": "models", "nuid": id, "size": size, "chunks": chunks, "digest": digest });
    for (head, said) in [
        (head("u", 5, 1, &digest(b"other")), "another digest"),
        (head("u", 5, 1, ""), "no SHA-256"),
        (head("u", 6, 1, &right), "bytes are missing"),
        (head("u", 6, 2, &right), "bytes are missing"),
        (head("u", 4, 1, &right), "more bytes than"),
        (head("none", 5, 1, &right), "bytes are missing"),
        (head(">", 5, 1, &right), "no part of a subject"),
        (head("", 5, 1, &right), "no part of a subject"),
        (json!([1]), "description cannot be read"),
    ] {
        world.describe("m", head).await;
        assert_failed(world.call(call::OBJECTS_GET, &M).await, FailureKind::Unavailable, false, said);
    }
    world.describe("m", head("u", 5, 1, &right)).await;
    assert_eq!(world.call(call::OBJECTS_GET, &M).await.expect("whole").bytes("data"), b"12345");
    world.describe("m", json!({ "name": "m", "nuid": "u", "deleted": true })).await;
    assert_failed(world.call(call::OBJECTS_GET, &M).await, FailureKind::NotFound, false, "has no object `m`");
    world.describe("m", json!({ "name": "m", "options": { "link": { "bucket": "other", "name": "x" } } })).await;
    assert_failed(world.call(call::OBJECTS_GET, &M).await, FailureKind::Denied, false, "links are not followed");
    // An id that is a wildcard purges nobody else's bytes.
    world.describe("m", head(">", 5, 1, &right)).await;
    world.call(call::OBJECTS_PUT, &put("m", b"new")).await.expect("put");
    let read = world.call(call::OBJECTS_GET, &[STORE, ("name", Text("kept"))]).await.expect("there");
    assert_eq!(read.bytes("data"), b"kept");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_replaced_is_read_old_or_new() {
    let world = World::start("").await;
    world.object_store("models", json!({})).await;
    let versions = [data(1 << 20, 1), data((1 << 20) + 9, 2)];
    world.call(call::OBJECTS_PUT, &put("m", &versions[0])).await.expect("put");
    for version in versions.iter().cycle().skip(1).take(40) {
        let request = request(call::OBJECTS_PUT, &put("m", version)).expect("a request");
        let putting = tokio::spawn(Arc::clone(&world.stores).run(request, ROOM, None));
        let whole = world.call(call::OBJECTS_GET, &M);
        let (whole, part) = tokio::join!(whole, world.range("m", 300_000, Some(300_000)));
        let (whole, part) = (whole.expect("one of them"), part.expect("one of them"));
        assert!(versions.iter().any(|version| whole.bytes("data") == version), "two versions are mixed");
        assert!(versions.iter().any(|version| part.bytes("data") == &version[300_000..600_000]));
        putting.await.expect("no panic").expect("put");
    }
    world.call(call::OBJECTS_PUT, &put("m", &versions[1])).await.expect("put");
    assert_eq!(world.chunks().await, 9, "only the last one's");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_at_the_same_time_do_not_mix() {
    let world = World::start("").await;
    world.object_store("models", json!({})).await;
    let names = ["a", "b", "c"];
    let puts = names.map(|name| {
        let data = data(1 << 20, u64::from(name.as_bytes()[0]));
        let request = request(call::OBJECTS_PUT, &put(name, &data)).expect("a request");
        tokio::spawn(Arc::clone(&world.stores).run(request, ROOM, None))
    });
    for put in puts {
        put.await.expect("no panic").expect("put");
    }
    // Writers of one object: the last one stays, and nothing of the others.
    let same: Vec<_> = (0..4)
        .map(|seed| {
            let request = request(call::OBJECTS_PUT, &put("same", &data(300_000, seed))).expect("a request");
            tokio::spawn(Arc::clone(&world.stores).run(request, ROOM, None))
        })
        .collect();
    for put in same {
        put.await.expect("no panic").expect("put");
    }
    for name in names {
        let data = data(1 << 20, u64::from(name.as_bytes()[0]));
        let read = world.range(name, 400_000, Some(400_000)).await.expect("there");
        assert!(read.bytes("data") == &data[400_000..800_000], "{name}");
        assert!(world.range(name, 0, None).await.expect("there").bytes("data") == data, "{name}");
    }
    world.range("same", 0, None).await.expect("whole");
    assert_eq!(world.chunks().await, 3 * 8 + 3);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_leaves_nothing_behind() {
    let world = World::start("").await;
    world.object_store("models", json!({ "max_bytes": 2 << 20 })).await;
    world.call(call::OBJECTS_PUT, &put("m", b"old")).await.expect("put");
    let large = data(3 << 20, 1);
    let said = "the object store `models` is full";
    assert_failed(world.call(call::OBJECTS_PUT, &put("m", &large)).await, FailureKind::Unavailable, true, said);
    eventually("its chunks are gone", async || (world.chunks().await == 1).then_some(())).await;
    assert_eq!(world.call(call::OBJECTS_GET, &M).await.expect("there").bytes("data"), b"old");
    // A call that ends in the middle.
    let half = data(1 << 20, 1);
    let request = request(call::OBJECTS_PUT, &put("m", &half)).expect("a request");
    let putting = tokio::spawn(Arc::clone(&world.stores).run(request, ROOM, None));
    eventually("it has begun", async || (world.chunks().await > 1).then_some(())).await;
    putting.abort();
    let _ = putting.await;
    let read = eventually("one of the two remains", async || {
        let read = world.call(call::OBJECTS_GET, &M).await.expect("there");
        let left = if read.bytes("data") == b"old" { 1 } else { 8 };
        (world.chunks().await == left).then_some(read)
    })
    .await;
    assert!(read.bytes("data") == b"old" || read.bytes("data") == half);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_listed_in_pages_without_deleted_ones_and_links() {
    let world = World::start("").await;
    world.object_store("models", json!({})).await;
    assert_eq!(
        world.call(call::OBJECTS_LIST, &[STORE]).await.expect("a page").get("objects"),
        &Value::Array(Vec::new())
    );
    for name in ["b", "a/größe", "a/1", "gone"] {
        world.call(call::OBJECTS_PUT, &put(name, name.as_bytes())).await.expect("put");
    }
    world.describe("gone", json!({ "name": "gone", "deleted": true })).await;
    world.describe("link", json!({ "name": "link", "options": { "link": { "bucket": "o" } } })).await;
    let names = |page: &Answer| -> Vec<String> {
        let objects = page.get("objects").as_array().expect("a list").iter();
        objects
            .map(|object| {
                let object = Answer(object.as_map().expect("a map").clone());
                let name = object.get("name").as_text().expect("a text").to_owned();
                assert_eq!(object.number("size"), name.len() as u64);
                assert_eq!(object.get("digest").as_text(), Some(&*digest(name.as_bytes())));
                name
            })
            .collect()
    };
    for (with, expected, more) in [
        (&[STORE][..], &["a/1", "a/größe", "b"][..], false),
        (&[STORE, ("prefix", Text("a/"))], &["a/1", "a/größe"], false),
        (&[STORE, ("limit", Number(1))], &["a/1"], true),
        (&[STORE, ("after", Text("a/1"))], &["a/größe", "b"], false),
    ] {
        let page = world.call(call::OBJECTS_LIST, with).await.expect("a page");
        assert_eq!(
            (names(&page), page.get("more").as_bool()),
            (expected.iter().map(|name| (*name).to_owned()).collect(), Some(more))
        );
    }
    world.remove("OBJ_models").await;
    let said = "there is no object store `models`; `nats object add models` makes it";
    for (name, with) in
        [(call::OBJECTS_LIST, &[STORE][..]), (call::OBJECTS_GET, &M), (call::OBJECTS_PUT, &put("m", b"1"))]
    {
        assert_failed(world.call(name, with).await, FailureKind::NotFound, true, said);
    }
    world.end().await;
}
