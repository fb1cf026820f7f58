//! Sweeps, and those that race with them.

use serde_json::json;

use super::super::sweep::{Grace, Sweep, Swept};
use super::*;
use crate::subject as names;

pub(super) const NO_GRACE: Grace = Grace { own: Duration::ZERO, foreign: Duration::ZERO };
pub(super) const QUEUE: &str = "pcluster.films.work.1.cut";

impl World {
    /// Makes the streams of the chain. The work stream begins at 1, the others where the server begins.
    pub(super) async fn streams(&self) {
        let streams = [
            (names::work_stream(&self.chain), vec!["pcluster.films.work.>".to_owned()]),
            (names::results_stream(&self.chain), names::results_stream_subjects(&self.chain)),
            (names::dead_stream(&self.chain), vec!["pcluster.films.dead.*".to_owned()]),
        ];
        for (name, subjects) in streams {
            let config = json!({
                "name": name, "subjects": subjects, "allow_direct": true, "storage": "file", "num_replicas": 1,
            });
            let api = format!("STREAM.CREATE.{name}");
            let _: serde_json::Value =
                self.broker.api(api, &config, || "make a stream".to_owned()).await.expect("made");
        }
    }

    /// Publishes a message that refers to an object.
    pub(super) async fn refer(&self, subject: &str, reference: &Reference) {
        let mut headers = HeaderMap::new();
        headers.insert("Pcluster-Large", "0");
        let payload = Bytes::from(reference.to_cbor());
        self.broker.put(subject.to_owned(), headers, payload, || "publish".to_owned()).await.expect("stored");
    }

    pub(super) async fn sweep(&self, grace: Grace) -> Swept {
        Sweep::of(&self.store, grace).whole().await.expect("swept")
    }

    pub(super) async fn has(&self, reference: &Reference) -> bool {
        self.store.read(reference).await.is_ok()
    }
}

#[tokio::test]
async fn what_messages_refer_to_stays_and_goes_with_them() {
    let world = World::start().await;
    world.streams().await;
    assert_eq!(world.sweep(NO_GRACE).await, Swept::default(), "there is no store yet");
    let bytes = pattern(200_000);
    let (work, dead) = (names::work_stream(&world.chain), names::dead_stream(&world.chain));
    let kept = world.put(&bytes, 1).await;
    world.refer(QUEUE, &kept).await;
    world.refer("pcluster.films.dead.cut", &kept).await;
    world.store.hold(&kept.name, Holder::Work(1)).await.expect("held");
    world.store.hold(&kept.name, Holder::Dead(1)).await.expect("held");
    let made_by_gone = world.put(&bytes, 7).await;
    let leased = world.store.lease();
    let content = Content::Bytes(Bytes::from(bytes.clone()));
    let under_lease = world.store.upload(content, Form::Bytes, Maker::Lease(&leased), Share::Feeder).await;
    let under_lease = under_lease.expect("stored");
    let swept = world.sweep(NO_GRACE).await;
    assert_eq!((swept.objects, swept.records), (1, 0), "the maker's message is beyond the end of the stream");
    assert!(!world.has(&made_by_gone).await && world.has(&kept).await && world.has(&under_lease).await);
    Stream::of(&world.broker, &work).remove_message(1).await.expect("removed");
    let swept = world.sweep(NO_GRACE).await;
    assert_eq!((swept.objects, swept.records), (0, 0), "the letter still refers to it");
    assert!(world.has(&kept).await);
    Stream::of(&world.broker, &dead).remove_message(1).await.expect("removed");
    assert_eq!(world.sweep(NO_GRACE).await.objects, 1);
    leased.end().await.expect("ended");
    assert_eq!(world.subjects().await, [""; 0]);
    world.end().await;
}

#[tokio::test]
async fn what_is_new_is_spared_and_what_a_queued_message_names_is_recorded() {
    let world = World::start().await;
    world.streams().await;
    let bytes = pattern(200_000);
    let (own, hour) = (Duration::ZERO, Duration::from_hours(1));
    let new = world.put(&bytes, 9).await;
    assert_eq!(world.sweep(Grace { own: hour, foreign: hour }).await.objects, 0);
    assert!(world.has(&new).await);
    // As a feeder leaves it that dies between its message and the record.
    world.refer(QUEUE, &new).await;
    assert_eq!(world.sweep(NO_GRACE).await.objects, 0);
    let record = subject::record(&world.chain, &new.name, &Holder::Work(1));
    assert!(world.subjects().await.contains(&record), "{:?}", world.subjects().await);
    // What another client has stored, with chunks under an id of its own.
    let client = async_nats::connect(&world.server.url).await.expect("a connection");
    let foreign = async_nats::jetstream::new(client).get_object_store("pcluster_large_films").await.expect("a store");
    let put = foreign.put("theirs", &mut bytes.as_slice()).await.expect("put");
    assert_eq!(world.sweep(Grace { own, foreign: hour }).await.objects, 0);
    assert_eq!(foreign.info("theirs").await.expect("still there").nuid, put.nuid);
    let theirs = Reference {
        name: "theirs".to_owned(),
        size: put.size as u64,
        digest: put.digest.expect("one"),
        form: Form::Bytes,
    };
    world.refer(QUEUE, &theirs).await;
    assert_eq!(world.sweep(NO_GRACE).await.objects, 0);
    assert!(world.has(&theirs).await);
    let work = names::work_stream(&world.chain);
    Stream::of(&world.broker, &work).purge(None).await.expect("purged");
    assert_eq!(world.sweep(NO_GRACE).await.objects, 2);
    assert_eq!(world.subjects().await, [""; 0]);
    world.end().await;
}

#[tokio::test]
async fn the_rest_of_an_upload_that_was_killed_goes() {
    let world = World::start().await;
    world.streams().await;
    let bytes = pattern(300_000);
    let half = world.put(&bytes, 5).await;
    world.purge(&subject::head(&world.chain, &half.name)).await;
    world.store.hold("01JNOTHING", Holder::Making(6)).await.expect("held");
    // A record of a kind that this program does not know is left alone.
    world.publish(format!("$O.{}.R.01JLATER.later-1", subject::bucket(&world.chain)), "").await;
    let chunks_alone = world.put(&bytes, 7).await;
    world.purge(&subject::head(&world.chain, &chunks_alone.name)).await;
    world.purge(&subject::records(&world.chain, &chunks_alone.name)).await;
    let hour = Duration::from_hours(1);
    assert_eq!(world.sweep(Grace { own: hour, foreign: Duration::ZERO }).await.objects, 1, "the record alone");
    assert_eq!(world.sweep(NO_GRACE).await.objects, 2);
    let left = world.subjects().await;
    assert!(matches!(left.as_slice(), [left] if left.ends_with(".R.01JLATER.later-1")), "{left:?}");
    world.end().await;
}

#[tokio::test]
async fn a_result_goes_once_all_pullers_have_taken_it() {
    let world = World::start().await;
    world.streams().await;
    let bytes = pattern(100_000);
    let stream = names::results_stream(&world.chain);
    let mut references = Vec::new();
    for place in 1..=2 {
        let reference = world.put(&bytes, 1).await;
        world.refer("pcluster.films.out", &reference).await;
        world.store.hold(&reference.name, Holder::Result(place)).await.expect("held");
        references.push(reference);
    }
    world.publish("pcluster.films.out".to_owned(), "small").await;
    assert_eq!(world.sweep(NO_GRACE).await.results, 0, "nobody pulls");
    let client = async_nats::connect(&world.server.url).await.expect("a connection");
    let jetstream = async_nats::jetstream::new(client);
    let out = jetstream.get_stream(&stream).await.expect("a stream");
    let consumer = out
        .create_consumer(async_nats::jetstream::consumer::pull::Config {
            durable_name: Some(names::PULL_CONSUMER.to_owned()),
            ..Default::default()
        })
        .await
        .expect("made");
    let mut taken = futures_util::StreamExt::take(consumer.messages().await.expect("messages"), 3);
    let first = futures_util::StreamExt::next(&mut taken).await.expect("one").expect("a message");
    assert_eq!(world.sweep(NO_GRACE).await.results, 0, "it is not acknowledged");
    first.double_ack().await.expect("acknowledged");
    let swept = world.sweep(NO_GRACE).await;
    assert_eq!((swept.results, swept.objects), (1, 1));
    assert!(!world.has(&references[0]).await && world.has(&references[1]).await);
    let has = async |place| Stream::of(&world.broker, &stream).has_message(place).await.expect("told");
    assert!(!has(1).await && has(2).await && has(3).await);
    for _ in 0..2 {
        let next = futures_util::StreamExt::next(&mut taken).await.expect("one").expect("a message");
        next.double_ack().await.expect("acknowledged");
    }
    let mut floors = world.store.taken().await.expect("told");
    assert!(floors.remove(2).await.expect("told") && floors.remove(2).await.expect("told again"));
    assert!(!floors.remove(3).await.expect("told"), "small results stay");
    world.store.release(&references[1].name, Holder::Result(2)).await.expect("released");
    world.store.release(&references[1].name, Holder::Making(1)).await.expect("released");
    assert_eq!(world.subjects().await, [""; 0]);
    world.end().await;
}

#[tokio::test]
async fn one_node_at_a_time_has_the_turn() {
    let world = World::start().await;
    let second = Duration::from_secs(1);
    assert!(!world.store.take_turn(second).await.expect("asked"), "there is nothing to sweep");
    let reference = world.put(b"x", 1).await;
    assert!(world.store.take_turn(second).await.expect("asked"));
    assert!(!world.store.take_turn(second).await.expect("asked"), "another has it");
    eventually("the turn ends by itself", async || world.store.take_turn(second).await.expect("asked")).await;
    world.store.release(&reference.name, Holder::Making(1)).await.expect("released");
    eventually("nothing stays", async || world.subjects().await.is_empty()).await;
    assert!(!world.store.take_turn(second).await.expect("asked"));
    world.end().await;
}

/// Nodes hand references on while others sweep, with no grace at all: nothing that a message refers to may go.
#[tokio::test(flavor = "multi_thread")]
async fn sweeps_race_with_nodes_and_nothing_is_lost() {
    let world = World::start().await;
    world.streams().await;
    let work = names::work_stream(&world.chain);
    let bytes = pattern(50_000);
    let place_of = async |reference: &Reference, after: u64| {
        let mut scan = Stream::of(&world.broker, &work).scan(QUEUE.to_owned(), None).await.expect("a scan");
        while let Some(message) = scan.next().await.expect("read") {
            if message.sequence > after && message.payload == reference.to_cbor() {
                return message.sequence;
            }
        }
        panic!("the message is stored");
    };
    let pass_on = async |number: u64| {
        let maker = Holder::Lease(ulid::Ulid::from_parts(number, 1));
        let lease = world.store.lease();
        let content = Content::Bytes(Bytes::from(bytes.clone()));
        let stored = world.store.upload(content, Form::Bytes, Maker::Lease(&lease), Share::Feeder).await;
        let reference = stored.expect("stored");
        world.store.hold(&reference.name, maker).await.expect("held");
        world.refer(QUEUE, &reference).await;
        let mut place = place_of(&reference, 0).await;
        world.store.hold(&reference.name, Holder::Work(place)).await.expect("held");
        world.store.release(&reference.name, maker).await.expect("released");
        lease.end().await.expect("ended");
        for _ in 0..8 {
            assert!(world.has(&reference).await, "a message refers to it");
            world.refer(QUEUE, &reference).await;
            let next = place_of(&reference, place).await;
            world.store.hold(&reference.name, Holder::Work(next)).await.expect("held");
            Stream::of(&world.broker, &work).remove_message(place).await.expect("acknowledged");
            world.store.release(&reference.name, Holder::Work(place)).await.expect("released");
            place = next;
        }
        assert!(world.has(&reference).await, "a message refers to it");
        Stream::of(&world.broker, &work).remove_message(place).await.expect("acknowledged");
        world.store.release(&reference.name, Holder::Work(place)).await.expect("released");
    };
    let all = join_all((0..6).map(pass_on));
    let sweeping = async || {
        loop {
            world.sweep(NO_GRACE).await;
        }
    };
    tokio::select! {
        _ = all => {}
        () = async { tokio::join!(sweeping(), sweeping()).0 } => {}
    }
    // A sweep may have recorded a message that went at that moment.
    world.sweep(NO_GRACE).await;
    assert_eq!(world.subjects().await, [""; 0]);
    world.end().await;
}

/// A feeder may die between its message and the record, and a node takes the message while others sweep.
#[tokio::test(flavor = "multi_thread")]
async fn sweeps_race_with_nodes_that_take_messages_without_records() {
    let world = World::start().await;
    world.streams().await;
    let work = names::work_stream(&world.chain);
    for _ in 0..15 {
        let reference = world.put(&pattern(40_000), 1_000_000).await;
        world.refer(QUEUE, &reference).await;
        let first = Stream::of(&world.broker, &work).last_place().await.expect("told");
        world.purge(&subject::records(&world.chain, &reference.name)).await;
        let node = async {
            world.refer("pcluster.films.work.1.glue", &reference).await;
            let next = Stream::of(&world.broker, &work).last_place().await.expect("told");
            world.store.hold(&reference.name, Holder::Work(next)).await.expect("held");
            Stream::of(&world.broker, &work).remove_message(first).await.expect("acknowledged");
            next
        };
        let (next, ..) = tokio::join!(node, world.sweep(NO_GRACE), world.sweep(NO_GRACE));
        assert!(world.has(&reference).await, "message {next} refers to it");
        Stream::of(&world.broker, &work).remove_message(next).await.expect("acknowledged");
        world.sweep(NO_GRACE).await;
        assert_eq!(world.subjects().await, [""; 0]);
    }
    world.end().await;
}

#[tokio::test]
async fn a_store_is_made_as_its_chain_says_and_never_too_narrow() {
    let world = World::start().await;
    let reference = world.put(&pattern(3 << 20), 1).await;
    let stream = subject::stream(&world.chain);
    let limit = async || {
        let what = || "look".to_owned();
        let info: serde_json::Value = world.broker.api(format!("STREAM.INFO.{stream}"), &(), what).await.expect("told");
        info["config"]["max_bytes"].as_i64().expect("a number")
    };
    let settled = async |max_bytes| {
        let settings = LargeSettings { max_bytes, ..LargeSettings::default() };
        LargeStore::of(&world.broker, &world.chain, settings).settle().await.expect("settled");
        limit().await
    };
    assert_eq!(limit().await, -1);
    let wide = settled(Some(1 << 30)).await;
    assert!(wide > 1 << 30);
    assert_eq!(settled(Some(1 << 20)).await, wide.min(super::super::room::on_server(1 << 20)).max(0));
    assert!(world.has(&reference).await, "nothing is removed to make room");
    world.end().await;
}

/// Returns the headers of the newest message of a subject.
async fn headers_of(world: &World, subject: &str) -> crate::frame::Headers {
    let stream = subject::stream(&world.chain);
    let scan = Stream::of(&world.broker, &stream).scan(subject.to_owned(), None).await;
    scan.expect("a scan").next().await.expect("read").expect("a message").headers
}

#[tokio::test]
async fn what_a_dead_client_held_goes_once_its_lease_has_run_out() {
    let world = World::start().await;
    world.streams().await;
    let lease = world.store.lease();
    let content = || Content::Bytes(Bytes::from(pattern(100_000)));
    let share = Share::Feeder;
    let left = world.store.upload(content(), Form::Bytes, Maker::Lease(&lease), share).await.expect("stored");
    let record = subject::record(&world.chain, &left.name, &lease.holder());
    assert_eq!(headers_of(&world, &record).await.get("Nats-TTL"), Some("60s"));
    drop(lease);
    assert_eq!(world.sweep(NO_GRACE).await.objects, 0, "the server forgets it within a minute");
    // The same record with less time, in place of the minute.
    let mut headers = HeaderMap::new();
    headers.insert("Nats-TTL", "1s");
    headers.insert("Nats-Rollup", "sub");
    world.broker.put(record, headers, Bytes::new(), || "publish".to_owned()).await.expect("stored");
    eventually("it is gone", async || world.sweep(NO_GRACE).await.objects == 1).await;
    assert_eq!(world.subjects().await, [""; 0]);
    let lease = world.store.lease();
    let one = world.store.upload(content(), Form::Bytes, Maker::Lease(&lease), share).await.expect("stored");
    let other = world.store.upload(content(), Form::Bytes, Maker::Lease(&lease), share).await.expect("stored");
    world.store.hold(&one.name, Holder::Work(1)).await.expect("held");
    lease.release(&other.name).await.expect("released");
    assert!(world.has(&one).await && !world.has(&other).await);
    assert!(lease.is_fresh(&one.name) && !lease.is_fresh(&other.name));
    let told = async |of: &Reference| world.store.has(&of.name).await.expect("told");
    assert!(told(&one).await && !told(&other).await && !told(&left).await);
    lease.end().await.expect("ended");
    assert!(world.has(&one).await, "the message holds it");
    world.end().await;
}

#[tokio::test]
async fn an_object_does_not_take_the_chunks_of_another_with_it() {
    let world = World::start().await;
    let good = world.put(&pattern(200_000), 1).await;
    let stolen = json!({ "name": "thief", "nuid": good.name, "size": good.size, "chunks": 2, "digest": good.digest });
    world.publish(subject::head(&world.chain, "thief"), stolen.to_string()).await;
    world.store.hold("thief", Holder::Work(1)).await.expect("held");
    world.store.release("thief", Holder::Work(1)).await.expect("released");
    assert!(world.has(&good).await);
    world.end().await;
}
