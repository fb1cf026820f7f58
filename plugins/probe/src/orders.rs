//! Tasks that obey their items. So good and bad items can be in one message.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;
use std::{hint, iter, thread};

use pcluster_sdk::{Context, Error, Value, log, task};
use serde::{Deserialize, Serialize};

/// The outputs of `obey` and `draw`, one after the other.
type Outputs<T> = Box<dyn Iterator<Item = T>>;

/// The configuration of `draw`.
#[derive(Debug, Deserialize)]
struct Chances {
    /// The duration of an attempt in milliseconds.
    #[serde(default)]
    millis: u64,
    /// Percentage of attempts that fail.
    fail: u64,
    /// Percentage of attempts that fail for good.
    fatal: u64,
    /// The most outputs. The least is one.
    outputs: u64,
}

/// An output of `draw`.
#[derive(Debug, PartialEq, Serialize)]
struct Drawn {
    item: Value,
    /// The execution that gave the output.
    run: String,
    /// The position among the outputs of this execution, from 0.
    number: u64,
    /// The number of outputs of this execution.
    of: u64,
}

/// Obeys the first word of the item. A number may follow the word, and the rest only distinguishes items.
///
/// The words are `sleep MILLIS`, `flaky FAILURES` (attempts that fail first), `repeat TIMES`, `wide TIMES` (outputs of 64 KiB),
/// `fail`, `fatal`, `trap`, `spin` and `allocate`. For any other word, it returns the item unchanged. Each execution logs `runs`
/// and the item.
#[task(generator)]
fn obey(item: String, cx: &Context) -> Result<Outputs<String>, Error> {
    log::info!("runs {item}");
    let mut words = item.split(' ');
    let verb = words.next().unwrap_or_default();
    let number: usize = words.next().and_then(|word| word.parse().ok()).unwrap_or(1);
    match verb {
        "sleep" => thread::sleep(Duration::from_millis(number as u64)),
        "flaky" if cx.attempt() as usize <= number => return Err(Error::new("not yet")),
        "repeat" => return Ok(Box::new(iter::repeat_n(item, number))),
        "wide" => return Ok(Box::new(iter::repeat_n(item + " " + &"x".repeat(64 << 10), number))),
        "fail" => return Err(Error::new("told to fail")),
        "fatal" => return Err(Error::fatal("told to fail for good")),
        "trap" => panic!("told to panic"),
        "spin" => loop {
            hint::spin_loop();
        },
        "allocate" => {
            let mut all = Vec::new();
            loop {
                all.push(hint::black_box(vec![1_u8; 1 << 20]));
            }
        }
        _ => {}
    }
    Ok(Box::new(iter::once(item)))
}

/// Draws the outcome of an item at random, anew at each execution.
#[task(generator)]
fn draw(item: Value, cx: &Context<Chances>) -> Result<Outputs<Drawn>, Error> {
    // The seeds of a hash map are random, and need no further crate.
    let random = || RandomState::new().build_hasher().finish();
    let Chances { millis, fail, fatal, outputs } = cx.config();
    thread::sleep(Duration::from_millis(*millis));
    let lot = random() % 100;
    if lot < *fatal {
        return Err(Error::fatal("drawn: fails for good"));
    }
    if lot < fatal + fail {
        return Err(Error::new("drawn: fails"));
    }
    let (run, of) = (format!("{:016x}", random()), random() % outputs + 1);
    Ok(Box::new((0..of).map(move |number| Drawn { item: item.clone(), run: run.clone(), number, of })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(item: &str, attempt: u32) -> Result<Vec<String>, Error> {
        let context = Context::for_test(serde::de::IgnoredAny).with_attempt(attempt);
        obey(item.to_owned(), &context).map(Iterator::collect)
    }

    #[test]
    fn an_order_is_obeyed() {
        assert_eq!(given("plain", 1).expect("the item"), ["plain"]);
        assert_eq!(given("repeat 2 a", 1).expect("outputs"), ["repeat 2 a", "repeat 2 a"]);
        assert_eq!(given("wide 3", 1).expect("outputs").len(), 3);
        assert!(!given("flaky 2 a", 2).expect_err("an error").is_fatal());
        assert_eq!(given("flaky 2 a", 3).expect("the item"), ["flaky 2 a"]);
        assert!(given("fatal", 1).expect_err("an error").is_fatal());
    }

    #[test]
    fn chance_gives_all_outputs_of_one_execution_the_same_name() {
        let context = Context::for_test(Chances { millis: 0, fail: 0, fatal: 0, outputs: 9 });
        let drawn: Vec<Drawn> = draw(5.into(), &context).expect("outputs").collect();
        assert!(drawn.iter().zip(0..).all(|(one, number)| one.number == number && one.run == drawn[0].run));
        let context = Context::for_test(Chances { millis: 0, fail: 0, fatal: 100, outputs: 9 });
        assert!(draw(5.into(), &context).err().expect("an error").is_fatal());
    }
}
