//! Holds what a case expects against what came of it.
//!
//! # When values are equal
//!
//! | value | is equal to |
//! |---|---|
//! | number | a number of the same decimal value, whatever holds it: 1 and 1.0, or a big number; within the tolerance if one is a float |
//! | NaN | NaN |
//! | text, bytes, `null`, `true`, `false` | the same. Bytes are no text |
//! | tag | the same tag of an equal value |
//! | list | a list with equal values in the same order, also where the case is unordered |
//! | map | a map with equal values for the same keys, in any order |
//!
//! What is unordered is paired so that as many as can be are equal. What is left is shown as the nearest pairs.

mod equal;
mod letters;
mod pairs;
mod show;
mod walk;

use std::fmt;

use bytes::Bytes;
use ciborium::Value;

use super::case::{Case, Expect};
use super::outcome::Outcome;
use equal::Tolerance;
pub(super) use letters::matched;
use walk::Walk;

use crate::frame::cbor;
use crate::text::visible_line;

/// The most differences of a case.
const MOST: usize = 20;

/// A place at which what came differs from what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The path, as in `results[1]/lines/0`.
    pub(crate) path: String,
    /// What differs.
    pub(crate) what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", visible_line(&self.path), visible_line(&self.what))
    }
}

/// Differences, up to [`MOST`].
#[derive(Default)]
struct Differences {
    found: Vec<Difference>,
    /// How many more there were.
    more: usize,
}

impl Differences {
    fn add(&mut self, path: impl Into<String>, what: impl Into<String>) {
        if self.found.len() < MOST {
            self.found.push(Difference { path: path.into(), what: what.into() });
        } else {
            self.more += 1;
        }
    }
}

/// Returns where an outcome differs from what a case expects. Empty if the case passes.
pub(crate) fn compare(case: &Case, outcome: &Outcome) -> Vec<Difference> {
    let mut found = Differences::default();
    let expect = &case.expect;
    let tolerance = Tolerance(expect.tolerance);
    let mut items = |name: &str, expected: &[Bytes], got: &[Bytes]| {
        list(&mut found, name, (expected, got), tolerance, expect.unordered);
    };
    for (stage, expected) in &expect.stages {
        items(&format!("stage.{stage}"), expected, outcome.stages.get(stage).map_or(&[], Vec::as_slice));
    }
    if let Some(expected) = &expect.results {
        items("results", expected, &outcome.results);
    }
    letters::compare(&mut found, expect.dead.as_deref().unwrap_or_default(), &outcome.dead);
    let Differences { mut found, more } = found;
    if more > 0 {
        found.push(Difference { path: "…".to_owned(), what: format!("{more} more differences") });
    }
    found
}

/// Returns `true` if a list of items is as expected.
pub(super) fn is_list_equal(expected: &[Bytes], got: &[Bytes], expect: &Expect) -> bool {
    let mut found = Differences::default();
    list(&mut found, "", (expected, got), Tolerance(expect.tolerance), expect.unordered);
    found.found.is_empty()
}

/// Pairs items with equal ones. Returns for each of the expected the position of its partner.
pub(super) fn paired(expected: &[Bytes], got: &[Bytes], tolerance: f64) -> Vec<Option<usize>> {
    walk::paired(Tolerance(tolerance), &values(expected), &values(got))
}

/// Returns items as values. One that cannot be read is held as its bytes.
fn values(items: &[Bytes]) -> Vec<Value> {
    items.iter().map(|item| cbor::value(item).unwrap_or_else(|| Value::Bytes(item.to_vec()))).collect()
}

/// Returns `true` if items are equal.
pub(crate) fn is_equal(expected: &Bytes, got: &Bytes, tolerance: f64) -> bool {
    expected == got
        || match (cbor::value(expected), cbor::value(got)) {
            (Some(expected), Some(got)) => Tolerance(tolerance).is_equal(&expected, &got),
            _ => false,
        }
}

/// Compares lists of items.
fn list(
    found: &mut Differences,
    name: &str,
    (expected, got): (&[Bytes], &[Bytes]),
    tolerance: Tolerance,
    unordered: bool,
) {
    if expected == got {
        return;
    }
    let (expected, got) = (values(expected), values(got));
    let mut walk = Walk { tolerance, found };
    if expected.len() != got.len() {
        let items = |count: usize| if count == 1 { "1 item".to_owned() } else { format!("{count} items") };
        let came = if got.is_empty() { "none".to_owned() } else { items(got.len()) };
        let due = if expected.is_empty() { "no item".to_owned() } else { items(expected.len()) };
        walk.found.add(name, format!("expected {due}, got {came}"));
    }
    if unordered {
        walk.multiset(name, &expected, &got);
    } else {
        walk.list(&|at| format!("{name}[{at}]"), &expected, &got);
    }
}

#[cfg(test)]
mod tests;
