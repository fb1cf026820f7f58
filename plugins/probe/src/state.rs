//! Tasks that show how long their state lasts.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use pcluster_sdk::{Error, Value, log, task};
use serde::{Deserialize, Serialize};

/// The configuration of `count_up`.
#[derive(Debug, Deserialize)]
struct Start {
    #[serde(default)]
    start: u64,
}

/// The state of `count_up`.
#[derive(Debug)]
struct Counter {
    start: u64,
    /// The number of items that it has seen.
    seen: u64,
    /// A random number of this state.
    seed: u64,
}

/// An output of `count_up`.
#[derive(Debug, PartialEq, Serialize)]
struct Counted {
    item: Value,
    seen: u64,
    start: u64,
    seed: u64,
}

/// The configuration of `fail_init`.
#[derive(Debug, Deserialize)]
struct Refusal {
    reason: Option<String>,
}

/// The state of `fail_init`.
#[derive(Debug)]
struct Made;

fn count_from(Start { start }: Start) -> Counter {
    log::info!("initialized");
    // The seeds of a hash map are random, and need no further crate.
    Counter { start, seen: 0, seed: RandomState::new().build_hasher().finish() }
}

fn refuse(config: Refusal) -> Result<Made, Error> {
    config.reason.map_or(Ok(Made), |reason| Err(Error::new(reason)))
}

/// Counts the items of this instance in its state. Returns the count with the item and the values that `init` made.
#[task(init = count_from)]
fn count_up(item: Value, counter: &mut Counter) -> Counted {
    counter.seen += 1;
    Counted { item, seen: counter.seen, start: counter.start, seed: counter.seed }
}

/// Returns the item unchanged. If the stage's `config` has a `reason`, its state cannot be made.
#[task(init = refuse)]
fn fail_init(item: Value, _made: &Made) -> Value {
    item
}

/// Counts the items of this instance without a state. It fails for `fail` and panics for `trap`, which it counts too.
#[task]
fn remember(item: Value) -> Result<u64, Error> {
    static ITEMS: AtomicU64 = AtomicU64::new(0);
    let items = ITEMS.fetch_add(1, Ordering::Relaxed) + 1;
    match item.as_text() {
        Some("fail") => Err(Error::new("told to fail")),
        Some("trap") => panic!("told to panic"),
        _ => Ok(items),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_counts_the_items_it_sees() {
        let mut counter = count_from(Start { start: 7 });
        let seed = counter.seed;
        assert_eq!(count_up("a".into(), &mut counter), Counted { item: "a".into(), seen: 1, start: 7, seed });
        assert_eq!(count_up("b".into(), &mut counter), Counted { item: "b".into(), seen: 2, start: 7, seed });
        assert_ne!(count_from(Start { start: 7 }).seed, seed);
    }

    #[test]
    fn a_reason_is_why_there_is_no_state() {
        let error = refuse(Refusal { reason: Some("no model".to_owned()) }).expect_err("an error");
        assert_eq!((error.message(), error.is_fatal()), ("no model", false));
        let made = refuse(Refusal { reason: None }).expect("a state");
        assert_eq!(fail_init(5.into(), &made), 5.into());
    }

    #[test]
    fn an_item_that_fails_is_remembered() {
        let first = remember("a".into()).expect("a count");
        assert!(!remember("fail".into()).expect_err("an error").is_fatal());
        assert!(std::panic::catch_unwind(|| remember("trap".into())).is_err());
        assert_eq!(remember("b".into()).expect("a count"), first + 3);
    }
}
