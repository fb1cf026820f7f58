//! Holds arrays against their rules.

use std::collections::HashMap;

use super::{Judge, Step, Truth, Why};
use crate::contract::datum::Datum;
use crate::contract::node::{Id, ListRules};

impl<'a> Judge<'a> {
    /// Holds an array against its rules.
    pub(super) fn judge_list(&mut self, id: Id, rules: &'a ListRules, items: &[Datum<'_>]) -> Truth {
        if !rules.length.allows(items.len() as u64) {
            return self.refuse(id, Why::Items(rules.length.clone()));
        }
        let mut truth = Truth::Yes;
        for (at, item) in items.iter().enumerate() {
            let Some(rule) = rules.prefix.get(at).copied().or(rules.rest) else { break };
            truth = truth.and(self.judge_part(rule, || Step::Item(at), item));
            if truth == Truth::No {
                return truth;
            }
        }
        if let Some((first, second)) = if rules.is_unique { equal_items(items) } else { None } {
            return self.refuse(id, Why::Twice(first, second));
        }
        if let Some(contained) = rules.contains {
            truth = truth.and(self.judge_contains(id, contained, items));
        }
        truth
    }

    fn judge_contains(&mut self, id: Id, contained: Id, items: &[Datum<'_>]) -> Truth {
        let mut truth = Truth::No;
        for item in items {
            match self.silently(|judge| judge.judge(contained, item)) {
                Truth::Yes => return Truth::Yes,
                Truth::Unknown => truth = Truth::Unknown,
                Truth::No => {}
            }
        }
        if truth == Truth::No { self.refuse(id, Why::Contains) } else { truth }
    }
}

/// Returns the places of two items that are equal.
fn equal_items(items: &[Datum<'_>]) -> Option<(usize, usize)> {
    let mut seen = HashMap::with_capacity(items.len());
    items.iter().enumerate().find_map(|(at, item)| seen.insert(item, at).map(|before| (before, at)))
}
