//! Tasks that pass items on, fail, or never end.

use std::time::Duration;
use std::{hint, iter, thread};

use pcluster_sdk::{Context, Error, Value, task};
use serde::{Deserialize, Serialize};

/// The configuration of `mark`.
#[derive(Debug, Deserialize)]
struct Mark {
    mark: String,
}

/// An output of `mark`.
#[derive(Debug, PartialEq, Serialize)]
struct Marked {
    mark: String,
    item: Value,
}

/// The configuration of `sleep`.
#[derive(Debug, Deserialize)]
struct Sleep {
    millis: u64,
}

/// The configuration of `flaky`.
#[derive(Debug, Deserialize)]
struct Flaky {
    failures: u32,
}

/// The configuration of `repeat`.
#[derive(Debug, Deserialize)]
struct Repeat {
    times: usize,
}

/// The configuration of `big`.
#[derive(Debug, Deserialize)]
struct Big {
    bytes: usize,
}

/// Returns the item unchanged.
#[task]
fn echo(item: Value) -> Value {
    item
}

/// Wraps the item together with the stage's `mark`.
#[task]
fn mark(item: Value, cx: &Context<Mark>) -> Marked {
    Marked { mark: cx.config().mark.clone(), item }
}

/// Waits the stage's `millis`, then returns the item unchanged.
#[task]
fn sleep(item: Value, cx: &Context<Sleep>) -> Value {
    thread::sleep(Duration::from_millis(cx.config().millis));
    item
}

/// Waits as many milliseconds as the item says, then returns it unchanged.
#[task]
fn nap(item: u64) -> u64 {
    thread::sleep(Duration::from_millis(item));
    item
}

/// Runs until it is stopped.
#[task]
fn spin(_item: Value) -> Value {
    loop {
        hint::spin_loop();
    }
}

/// Panics.
#[task]
fn trap(_item: Value) -> Value {
    panic!("this task always panics");
}

/// Fails on every attempt. The error says that another attempt may succeed.
#[task]
fn fail(_item: Value) -> Result<Value, Error> {
    Err(Error::new("this task always fails"))
}

/// Fails for good.
#[task]
fn fatal(_item: Value) -> Result<Value, Error> {
    Err(Error::fatal("this task always fails for good"))
}

/// Fails the first `failures` attempts of the stage, then returns the item unchanged.
#[task]
fn flaky(item: Value, cx: &Context<Flaky>) -> Result<Value, Error> {
    let failures = cx.config().failures;
    if cx.attempt() > failures {
        Ok(item)
    } else {
        Err(Error::new(format_args!("attempt {} of {failures} that fail", cx.attempt())))
    }
}

/// Returns the item as often as the stage's `times` says.
#[task(generator)]
fn repeat(item: Value, cx: &Context<Repeat>) -> impl Iterator<Item = Value> {
    iter::repeat_n(item, cx.config().times)
}

/// Drops odd numbers.
#[task]
fn drop_odd(item: i64) -> Option<i64> {
    (item % 2 == 0).then_some(item)
}

/// Returns a text of as many bytes as the stage's `bytes` says.
#[task]
fn big(_item: Value, cx: &Context<Big>) -> String {
    "x".repeat(cx.config().bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_wraps_the_item() {
        let context = Context::for_test(Mark { mark: "new".to_owned() });
        assert_eq!(mark(5.into(), &context), Marked { mark: "new".to_owned(), item: 5.into() });
    }

    #[test]
    fn the_attempt_after_the_failures_succeeds() {
        let context = |attempt| Context::for_test(Flaky { failures: 2 }).with_attempt(attempt);
        assert!(!flaky(5.into(), &context(2)).expect_err("an error").is_fatal());
        assert_eq!(flaky(5.into(), &context(3)).expect("the item"), 5.into());
    }

    #[test]
    fn errors_differ_in_whether_they_are_fatal() {
        assert!(!fail(5.into()).expect_err("an error").is_fatal());
        assert!(fatal(5.into()).expect_err("an error").is_fatal());
    }

    #[test]
    #[should_panic(expected = "always panics")]
    fn a_trap_panics() {
        trap(5.into());
    }

    #[test]
    fn items_are_passed_on_as_often_as_asked() {
        assert_eq!(echo(5.into()), 5.into());
        assert_eq!(sleep(5.into(), &Context::for_test(Sleep { millis: 1 })), 5.into());
        assert_eq!(repeat(5.into(), &Context::for_test(Repeat { times: 3 })).count(), 3);
        assert_eq!(repeat(5.into(), &Context::for_test(Repeat { times: 0 })).count(), 0);
        assert_eq!([drop_odd(2), drop_odd(3), drop_odd(-1)], [Some(2), None, None]);
        assert_eq!(big(5.into(), &Context::for_test(Big { bytes: 1000 })).len(), 1000);
    }
}
