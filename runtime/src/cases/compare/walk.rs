//! Walks through two values, and finds where they differ.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use ciborium::Value;

use super::equal::{Entries, Tolerance, is_number};
use super::pairs::matching;
use super::show::{key, shown, shown_beside};
use super::{Difference, Differences};
use crate::frame::format::to_cbor;

/// The most values on each side of which the nearest pairs are looked for.
const NEAR_MAX: usize = 40;

/// A walk through two values.
pub(super) struct Walk<'a> {
    /// By how much floats may differ.
    pub(super) tolerance: Tolerance,
    /// What differs.
    pub(super) found: &'a mut Differences,
}

impl Walk<'_> {
    /// Compares two values.
    pub(super) fn value(&mut self, path: &str, expected: &Value, got: &Value) {
        match (expected, got) {
            (Value::Array(expected), Value::Array(got)) => self.list(&|at| format!("{path}/{at}"), expected, got),
            (Value::Map(expected), Value::Map(got)) => {
                let entries = Entries::pair(expected, got);
                for (name, expected, got) in entries.both {
                    self.value(&format!("{path}/{}", key(name)), expected, got);
                }
                for (name, expected) in entries.missing {
                    self.found.add(format!("{path}/{}", key(name)), format!("missing; expected {}", shown(expected)));
                }
                for (name, got) in entries.surplus {
                    self.found.add(format!("{path}/{}", key(name)), format!("not expected; got {}", shown(got)));
                }
            }
            (Value::Tag(tag, expected), Value::Tag(other, got)) if tag == other && !is_number(*tag) => {
                self.value(path, expected, got);
            }
            _ if self.tolerance.is_same(expected, got) => {}
            _ => {
                let (expected, got) = shown_beside(expected, got);
                self.found.add(path, format!("expected {expected}, got {got}"));
            }
        }
    }

    /// Compares two lists. What is equal at their beginnings and ends is left out, so that one value too many is one difference.
    pub(super) fn list(&mut self, path: &dyn Fn(usize) -> String, expected: &[Value], got: &[Value]) {
        let is_equal = |(expected, got): &(&Value, &Value)| self.tolerance.is_equal(expected, got);
        let begin = expected.iter().zip(got).take_while(is_equal).count();
        let (expected, got) = (&expected[begin..], &got[begin..]);
        let end = expected.iter().rev().zip(got.iter().rev()).take_while(is_equal).count();
        let (expected, got) = (&expected[..expected.len() - end], &got[..got.len() - end]);
        let both = expected.len().min(got.len());
        for at in 0..both {
            self.value(&path(begin + at), &expected[at], &got[at]);
        }
        for (at, expected) in expected.iter().enumerate().skip(both) {
            self.found.add(path(begin + at), format!("missing; expected {}", shown(expected)));
        }
        for (at, got) in got.iter().enumerate().skip(both) {
            self.found.add(path(begin + at), format!("not expected; got {}", shown(got)));
        }
    }

    /// Compares lists without their order.
    pub(super) fn multiset(&mut self, name: &str, expected: &[Value], got: &[Value]) {
        let (mut due, mut came) = self.unpaired(expected, got);
        for (at, other) in self.nearest(&due, &came, expected, got) {
            let mut own = Differences::default();
            Walk { tolerance: self.tolerance, found: &mut own }.value("", &expected[at], &got[other]);
            for Difference { path, what } in own.found {
                self.found
                    .add(format!("{name}[{at}]{path}"), format!("{what} (nearest: item {other} of those that came)"));
            }
            due.retain(|due| *due != at);
            came.retain(|came| *came != other);
        }
        for at in due {
            self.found.add(format!("{name}[{at}]"), format!("missing; expected {}", shown(&expected[at])));
        }
        for other in came {
            self.found.add(name, format!("not expected; got {}", shown(&got[other])));
        }
    }

    /// Returns the positions of what has no equal on the other side.
    fn unpaired(&self, expected: &[Value], got: &[Value]) -> (Vec<usize>, Vec<usize>) {
        let partners = paired(self.tolerance, expected, got);
        let taken: HashSet<usize> = partners.iter().flatten().copied().collect();
        let due = (0..expected.len()).filter(|at| partners[*at].is_none()).collect();
        (due, (0..got.len()).filter(|other| !taken.contains(other)).collect())
    }

    /// Returns pairs with the fewest differences, the nearest first.
    fn nearest(&self, due: &[usize], came: &[usize], expected: &[Value], got: &[Value]) -> Vec<(usize, usize)> {
        if due.len() > NEAR_MAX || came.len() > NEAR_MAX {
            return due.iter().copied().zip(came.iter().copied()).collect();
        }
        let mut all = Vec::new();
        for at in due {
            for other in came {
                let mut own = Differences::default();
                Walk { tolerance: self.tolerance, found: &mut own }.value("", &expected[*at], &got[*other]);
                all.push((own.found.len() + own.more, *at, *other));
            }
        }
        all.sort_unstable();
        let mut pairs: Vec<(usize, usize)> = Vec::new();
        for (_, at, other) in all {
            if pairs.iter().all(|(own, its)| *own != at && *its != other) {
                pairs.push((at, other));
            }
        }
        pairs.sort_unstable();
        pairs
    }
}

/// Pairs values with equal ones. Returns for each of the expected its partner.
pub(super) fn paired(tolerance: Tolerance, expected: &[Value], got: &[Value]) -> Vec<Option<usize>> {
    let mut partners = vec![None; expected.len()];
    let mut is_taken = vec![false; got.len()];
    if tolerance.0 <= 0.0 {
        // Without a tolerance, whatever is the same may be paired first.
        let mut same: HashMap<Bytes, Vec<usize>> = HashMap::new();
        for (other, value) in got.iter().enumerate().rev() {
            same.entry(to_cbor(value)).or_default().push(other);
        }
        for (partner, value) in partners.iter_mut().zip(expected) {
            *partner = same.get_mut(&to_cbor(value)).and_then(Vec::pop);
            if let Some(other) = *partner {
                is_taken[other] = true;
            }
        }
    }
    let due: Vec<usize> = (0..expected.len()).filter(|at| partners[*at].is_none()).collect();
    let came: Vec<usize> = (0..got.len()).filter(|other| !is_taken[*other]).collect();
    let rest = matching(due.len(), came.len(), |at, other| tolerance.is_equal(&expected[due[at]], &got[came[other]]));
    for (at, other) in due.into_iter().zip(rest) {
        partners[at] = other.map(|other| came[other]);
    }
    partners
}
