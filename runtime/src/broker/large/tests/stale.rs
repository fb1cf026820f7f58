//! Stale records, and messages whose records were never written.

use super::sweeps::{NO_GRACE, QUEUE};
use super::*;
use crate::broker::large::sweep::removal::Removal;
use crate::broker::large::sweep::{MOST_STALE, Swept};
use crate::subject as names;

const RESULT: &str = "pcluster.films.out";
const LETTER: &str = "pcluster.films.dead.cut";

impl World {
    /// Returns the holders that have records of an object.
    async fn holders(&self, reference: &Reference) -> Vec<String> {
        let prefix = format!("$O.{}.R.{}.", subject::bucket(&self.chain), reference.name);
        self.subjects().await.iter().filter_map(|subject| Some(subject.strip_prefix(&prefix)?.to_owned())).collect()
    }

    async fn remove_from(&self, stream: &str, place: u64) {
        let stream = Stream::of(&self.broker, stream);
        assert!(stream.remove_message(place).await.expect("removed"), "message {place} is there");
    }

    /// Stores an object, and a queued message that refers to it.
    async fn queued(&self) -> (Reference, u64) {
        let reference = self.put(&pattern(1_000), 1_000_000).await;
        self.refer(QUEUE, &reference).await;
        let place = self.last_of(&names::work_stream(&self.chain)).await;
        self.store.hold(&reference.name, Holder::Work(place)).await.expect("held");
        self.store.release(&reference.name, Holder::Making(1_000_000)).await.expect("released");
        (reference, place)
    }

    async fn last_of(&self, stream: &str) -> u64 {
        Stream::of(&self.broker, stream).last_place().await.expect("told")
    }
}

/// A node hands a large item on, and dies before it writes the record. The next run of the frame fails for good.
#[tokio::test]
async fn what_an_interrupted_frame_has_stored_keeps_its_object_after_the_letter_is_removed() {
    let world = World::start().await;
    world.streams().await;
    let [work, out, dead] =
        [names::work_stream, names::results_stream, names::dead_stream].map(|stream| stream(&world.chain));
    for sweeps_between in [false, true] {
        let (reference, frame) = world.queued().await;
        world.refer(RESULT, &reference).await;
        world.refer(RESULT, &reference).await;
        world.refer(LETTER, &reference).await;
        let (result, letter) = (world.last_of(&out).await, world.last_of(&dead).await);
        world.store.hold(&reference.name, Holder::Dead(letter)).await.expect("held");
        world.remove_from(&work, frame).await;
        if sweeps_between {
            assert_eq!(world.sweep(NO_GRACE).await, Swept::default());
        }
        world.remove_from(&dead, letter).await;
        world.store.release(&reference.name, Holder::Dead(letter)).await.expect("released");
        assert!(world.has(&reference).await, "a result refers to it");
        let swept = world.sweep(NO_GRACE).await;
        assert_eq!((swept.objects, swept.records), (0, 1));
        let results = [result - 1, result];
        assert_eq!(world.holders(&reference).await, results.map(|place| Holder::Result(place).to_string()));
        for place in results {
            assert!(world.has(&reference).await, "the result at {place} refers to it");
            world.remove_from(&out, place).await;
            world.store.release(&reference.name, Holder::Result(place)).await.expect("released");
        }
        assert_eq!(world.subjects().await, [""; 0], "the last record takes it along");
    }
    world.end().await;
}

#[tokio::test]
async fn stale_records_stay_with_an_object_that_is_held_but_not_without_number() {
    let world = World::start().await;
    world.streams().await;
    let (reference, frame) = world.queued().await;
    // Of frames that are gone.
    for number in 0..MOST_STALE as u64 {
        world.store.hold(&reference.name, Holder::Making(1_000 + number)).await.expect("held");
    }
    assert_eq!(world.sweep(NO_GRACE).await, Swept::default());
    assert_eq!(world.holders(&reference).await.len(), MOST_STALE + 1);
    // Another one of these has stored a result without a record.
    world.refer(RESULT, &reference).await;
    let result = world.last_of(&names::results_stream(&world.chain)).await;
    world.store.hold(&reference.name, Holder::Work(999)).await.expect("held");
    let swept = world.sweep(NO_GRACE).await;
    assert_eq!((swept.objects, swept.records), (0, MOST_STALE as u64 + 1));
    let left = [Holder::Result(result), Holder::Work(frame)].map(|holder| holder.to_string());
    assert_eq!(world.holders(&reference).await, left);
    world.end().await;
}

/// A client was cut off until its lease ran out, and comes back while a sweep removes its object.
#[tokio::test]
async fn an_object_that_its_owner_holds_anew_while_it_is_removed_stays_or_is_seen_to_be_gone() {
    let world = World::start().await;
    world.streams().await;
    let left = async || {
        let reference = world.put(&pattern(200_000), 1).await;
        world.store.release(&reference.name, Holder::Work(1)).await.expect("nothing to release");
        world.purge(&subject::records(&world.chain, &reference.name)).await;
        reference
    };
    let lease = world.store.lease();
    let is_seen = async |reference: &Reference| world.store.has(&reference.name).await.expect("told");
    // It holds the object before the sweep has begun, or just after.
    let early = left().await;
    lease.hold(&early.name).await.expect("held");
    assert!(Removal::begin(&world.store, &early.name, &[]).await.expect("told").is_none());
    let between = left().await;
    assert!(is_seen(&between).await);
    let removal = Removal::begin(&world.store, &between.name, &[]).await.expect("told").expect("it is free");
    lease.hold(&between.name).await.expect("held");
    assert!(!removal.finish().await.expect("ended"));
    for reference in [&early, &between] {
        assert!(is_seen(reference).await && world.has(reference).await);
        lease.release(&reference.name).await.expect("released");
    }
    // It holds the object before the sweep has ended, and looks: it stores it anew.
    let late = left().await;
    let removal = Removal::begin(&world.store, &late.name, &[]).await.expect("told").expect("it is free");
    let held = async {
        lease.hold(&late.name).await.expect("held");
        assert!(!is_seen(&late).await);
        lease.release(&late.name).await.expect("released");
    };
    held.await;
    removal.finish().await.expect("ended");
    lease.end().await.expect("ended");
    // What was put back after that has no record, and the next sweep takes it.
    world.sweep(NO_GRACE).await;
    assert_eq!(world.subjects().await, [""; 0]);
    world.end().await;
}
