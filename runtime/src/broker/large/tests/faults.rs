//! Objects that are damaged, missing, replaced or unfinished, and stores without room.

use super::super::Patience;
use super::*;

/// Returns the reason why an object cannot be read.
async fn fault(world: &World, reference: &Reference) -> LargeError {
    let mut into = tempfile::tempfile().expect("a file");
    let read = tokio::time::timeout(support::DEADLINE, world.store.fetch(reference, &mut into)).await;
    read.expect("an answer, not a wait").expect_err("a fault")
}

/// Returns the places of the chunks of an object.
async fn places(world: &World, reference: &Reference) -> Vec<u64> {
    let stream = subject::stream(&world.chain);
    let scan = Stream::of(&world.broker, &stream).scan(subject::chunks(&world.chain, &reference.name), None).await;
    let (mut scan, mut places) = (scan.expect("a scan"), Vec::new());
    while let Some(chunk) = scan.next().await.expect("a chunk") {
        places.push(chunk.sequence);
    }
    places
}

#[tokio::test]
async fn what_is_missing_or_damaged_is_told_at_once() {
    let world = World::start().await;
    let bytes = pattern(1 << 20);
    let stream = subject::stream(&world.chain);
    // Nothing at all, not even a store.
    let nothing =
        Reference { name: "x".to_owned(), size: 1, digest: super::super::head::digest(&[0; 32]), form: Form::Bytes };
    assert!(matches!(fault(&world, &nothing).await, LargeError::Missing { .. }));
    for missing in [0, 3, 7] {
        let reference = world.put(&bytes, 1).await;
        let place = places(&world, &reference).await[missing];
        Stream::of(&world.broker, &stream).remove_message(place).await.expect("removed");
        let error = fault(&world, &reference).await;
        assert!(matches!(&error, LargeError::Missing { .. }), "{error}");
        assert!(error.to_string().contains("of its 1048576 bytes, 917504 are stored"), "{error}");
    }
    let reference = world.put(&bytes, 1).await;
    world.purge(&subject::chunks(&world.chain, &reference.name)).await;
    assert!(fault(&world, &reference).await.to_string().contains("0 are stored"));
    let reference = world.put(&bytes, 1).await;
    world.purge(&subject::head(&world.chain, &reference.name)).await;
    assert!(fault(&world, &reference).await.to_string().contains("no description"));
    assert!(fault(&world, &nothing).await.is_final());
    world.end().await;
}

#[tokio::test]
async fn what_is_not_as_the_reference_says_is_damaged() {
    let world = World::start().await;
    let bytes = pattern(300_000);
    let damaged = async |reference: &Reference, says: &str| {
        let error = fault(&world, reference).await;
        assert!(matches!(&error, LargeError::Damaged { .. }) && error.is_final(), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    };
    let good = world.put(&bytes, 1).await;
    damaged(&Reference { size: good.size - 1, ..good.clone() }, "300000 bytes, and the reference says 299999").await;
    let other = super::super::head::digest(&[7; 32]);
    damaged(&Reference { digest: other.clone(), ..good.clone() }, "digest is not that of the reference").await;
    // Another object under the same name, as `nats object put` makes it.
    let client = async_nats::connect(&world.server.url).await.expect("a connection");
    let foreign = async_nats::jetstream::new(client).get_object_store("pcluster_large_films").await.expect("a store");
    let replaced = world.put(&bytes, 1).await;
    foreign.put(replaced.name.as_str(), &mut [1, 2, 3].as_slice()).await.expect("put");
    damaged(&replaced, "3 bytes, and the reference says 300000").await;
    foreign.add_link("link", &foreign.info(&good.name).await.expect("found")).await.expect("linked");
    damaged(&Reference { name: "link".to_owned(), ..good.clone() }, "a link").await;
    // A changed chunk: the same size, other bytes.
    let changed = world.put(&bytes, 1).await;
    world.purge(&subject::chunks(&world.chain, &changed.name)).await;
    world.publish(subject::chunks(&world.chain, &changed.name), vec![9; 300_000]).await;
    damaged(&changed, "another digest").await;
    world.publish(subject::chunks(&world.chain, &changed.name), vec![9; 10]).await;
    damaged(&changed, "another digest").await;
    world.purge(&subject::chunks(&world.chain, &changed.name)).await;
    world.publish(subject::chunks(&world.chain, &changed.name), vec![9; 300_001]).await;
    damaged(&changed, "more than its 300000 bytes").await;
    foreign.delete(&good.name).await.expect("deleted");
    assert!(matches!(fault(&world, &good).await, LargeError::Missing { .. }));
    world.end().await;
}

#[tokio::test]
async fn an_upload_that_is_dropped_leaves_nothing() {
    let world = World::start().await;
    let bytes = Bytes::from(pattern(8 << 20));
    for limit in [0, 1, 5, 20, 60] {
        let upload = world.store.upload(Content::Bytes(bytes.clone()), Form::Bytes, Maker::Message(5), Share::Feeder);
        let _ = tokio::time::timeout(Duration::from_millis(limit), upload).await.map(drop);
    }
    let lease = world.store.lease();
    let upload = world.store.upload(Content::Bytes(bytes), Form::Bytes, Maker::Lease(&lease), Share::Feeder);
    let _ = tokio::time::timeout(Duration::from_millis(15), upload).await.map(drop);
    lease.end().await.expect("ended");
    let done = world.subjects().await.into_iter().filter(|subject| subject.contains(".M.")).count();
    eventually("only what was finished is left", async || {
        // An object has its chunks, its description and one record.
        world.subjects().await.len() == done * 3
    })
    .await;
    world.end().await;
}

#[tokio::test]
async fn items_that_are_too_large_are_refused_with_both_sizes() {
    let world = World::limited(Some(2 << 20)).await;
    let file = file_of(b"");
    let refused = async |size: u64, form: Form, share: Share| {
        let content = Content::File { file: &file, size };
        world.store.upload(content, form, Maker::Message(1), share).await.expect_err("too large").to_string()
    };
    let share = Share::Feeder;
    assert!(
        refused((1 << 30) + 1, Form::Bytes, share).await.starts_with("the item has 1073741825 bytes; 1073741824 is")
    );
    assert!(refused((64 << 20) + 1, Form::Cbor, share).await.starts_with("the item has 67108865 bytes; 67108864 is"));
    assert!(refused((2 << 20) + 1, Form::Cbor, share).await.starts_with("the item has 2097153 bytes; 2097152 is"));
    let hop = Share::Hop { position: 0, of: 1, holding: 1 << 20, patience: Patience::None };
    assert!(refused((1 << 20) + 1, Form::Cbor, hop).await.contains("1048576 is the most: `large_bytes`"));
    assert_eq!(world.subjects().await, [""; 0]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_waited_for_and_later_hops_come_first() {
    let world = World::limited(Some(5 << 20)).await;
    let piece = Content::Bytes(Bytes::from(pattern(1 << 20)));
    let upload = async |share: Share| world.store.upload(piece.clone(), Form::Bytes, Maker::Message(1), share).await;
    let first = upload(Share::Feeder).await.expect("room");
    upload(Share::Feeder).await.expect("room");
    let soon = Duration::from_millis(300);
    assert!(tokio::time::timeout(soon, upload(Share::Feeder)).await.is_err(), "a quarter is for nodes");
    for _ in 0..2 {
        upload(Share::Hop { position: 1, of: 2, holding: 0, patience: Patience::Endless(Duration::MAX) })
            .await
            .expect("room for the last hop");
    }
    let impatient = upload(Share::Hop { position: 1, of: 2, holding: 0, patience: Patience::None }).await;
    assert!(matches!(impatient, Err(LargeError::NoRoom { .. })));
    assert!(
        tokio::time::timeout(
            soon,
            upload(Share::Hop { position: 0, of: 2, holding: 0, patience: Patience::Endless(Duration::MAX) })
        )
        .await
        .is_err()
    );
    let waiting = upload(Share::Hop { position: 1, of: 2, holding: 0, patience: Patience::Endless(Duration::MAX) });
    let freeing = async {
        tokio::time::sleep(soon).await;
        world.store.release(&first.name, Holder::Making(1)).await.expect("released");
    };
    let (stored, ()) = tokio::join!(waiting, freeing);
    stored.expect("room again");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_shares_a_store_that_holds_few_at_once() {
    let world = World::limited(Some(3 << 20)).await;
    let one = async |number: u64| {
        let reference = world.put(&pattern(700_000), number).await;
        world.store.release(&reference.name, Holder::Making(number)).await.expect("released");
    };
    let all = join_all((0..20).map(one));
    tokio::time::timeout(support::DEADLINE, all).await.expect("all have their turn");
    assert_eq!(world.subjects().await, [""; 0]);
    world.end().await;
}

/// Stores a message with any bytes as headers, as other clients can, and waits until the server has it.
fn publish_raw(url: &str, subject: &str, block: &[u8], payload: &[u8]) {
    let mut stream = std::net::TcpStream::connect(url.trim_start_matches("nats://")).expect("the server");
    let (headers, all) = (block.len(), block.len() + payload.len());
    let mut said = b"CONNECT {\"verbose\":false,\"headers\":true,\"lang\":\"raw\",\"version\":\"1\"}\r\n".to_vec();
    said.extend_from_slice(format!("HPUB {subject} {headers} {all}\r\n").as_bytes());
    for part in [block, payload, b"\r\nPING\r\n"] {
        said.extend_from_slice(part);
    }
    stream.write_all(&said).expect("sent");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stream));
    assert!(lines.any(|line| line.is_ok_and(|line| line.starts_with("PONG"))), "the server has it");
}

/// Chunks with headers that the client library cannot read end its connection, even for good.
#[tokio::test(flavor = "multi_thread")]
async fn chunks_with_odd_headers_are_read_all_the_same() {
    let world = World::start().await;
    let bytes = pattern(50_000);
    for block in [&b"NATS/1.0\r\nA: b\rc\r\n\r\n"[..], b"NATS/1.0\r\nno colon\r\n\r\n", b"NATS/1.0 404 Not\r\n\r\n"] {
        let odd = world.put(&bytes, 1).await;
        let chunks = subject::chunks(&world.chain, &odd.name);
        world.purge(&chunks).await;
        let (url, payload) = (world.server.url.clone(), bytes.clone());
        tokio::task::block_in_place(|| publish_raw(&url, &chunks, block, &payload));
        assert_eq!(world.store.read(&odd).await.expect("read"), bytes);
        let next = world.put(&bytes, 1).await;
        assert_eq!(world.store.read(&next).await.expect("read"), bytes, "the line works again");
    }
    world.end().await;
}
