//! The tasks of the storm. Their outputs depend only on the item and the attempt.

use std::time::Duration;
use std::{iter, thread};

use pcluster_sdk::{Context, Error, task};
use serde::Deserialize;

/// The configuration of `fan`.
#[derive(Debug, Deserialize)]
struct Fan {
    times: u64,
}

/// The configuration of `shaky`.
#[derive(Debug, Deserialize)]
struct Shaky {
    /// The duration of an item in microseconds.
    micros: u64,
}

/// Returns as many numbers as the stage's `times` says. No other item returns the same numbers.
#[task(generator)]
fn fan(item: u64, cx: &Context<Fan>) -> impl Iterator<Item = u64> {
    let times = cx.config().times;
    let mut number = 0;
    iter::from_fn(move || {
        let given = (number < times).then_some(item * times + number);
        number += 1;
        given
    })
}

/// Waits, and fails early attempts of some items. More items fail the first attempt than the second. Returns the others
/// unchanged.
#[task]
fn shaky(item: u64, cx: &Context<Shaky>) -> Result<u64, Error> {
    thread::sleep(Duration::from_micros(cx.config().micros));
    let failures = u32::from(item.is_multiple_of(31)) + u32::from(item.is_multiple_of(31 * 7));
    if cx.attempt() <= failures { Err(Error::new("shaken")) } else { Ok(item) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_items_fan_out_to_the_same_number() {
        let context = Context::for_test(Fan { times: 3 });
        let numbers: Vec<u64> = (0..4).flat_map(|item| fan(item, &context)).collect();
        assert_eq!(numbers, (0..12).collect::<Vec<_>>());
    }

    #[test]
    fn an_item_is_shaken_at_its_first_attempts_only() {
        let context = |attempt| Context::for_test(Shaky { micros: 0 }).with_attempt(attempt);
        assert!(shaky(31, &context(1)).is_err());
        assert_eq!(shaky(31, &context(2)).ok(), Some(31));
        assert!(shaky(217, &context(2)).is_err());
        assert_eq!(shaky(5, &context(1)).ok(), Some(5));
    }
}
