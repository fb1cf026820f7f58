//! What is known of a formula from what is decided already.

use super::fact::{Fact, Part, Range};
use super::formula::Formula;
use super::state::State;
use super::{Goal, Search};
use crate::contract::judge::Truth;
use crate::contract::kinds::Kinds;

/// How many nodes deep a formula is looked into.
const MAX_DEPTH: usize = 3;

impl Search<'_> {
    /// Returns whether a formula holds, or its opposite.
    pub(super) fn status(&mut self, kind: Kinds, state: &State, formula: &Formula, holds: bool, depth: usize) -> Truth {
        let truth = match formula {
            Formula::Fact(fact) => {
                self.step(1);
                return if holds {
                    self.fact_status(state, fact)
                } else {
                    fact.not().map_or(Truth::No, |fact| self.fact_status(state, &fact))
                };
            }
            Formula::Is(part) => match state.nodes.get(&part.id) {
                Some(fits) => Truth::from(*fits == part.fits),
                None if depth < MAX_DEPTH => {
                    let formula = self.formula(part.id, kind);
                    return self.status(kind, state, &formula, holds == part.fits, depth + 1);
                }
                None => Truth::Unknown,
            },
            Formula::All(parts) | Formula::Any(parts) => {
                // Of the opposite of all, the opposite of any one holds.
                let is_all = matches!(formula, Formula::All(_)) == holds;
                let decisive = if is_all { Truth::No } else { Truth::Yes };
                let mut truth = decisive.not();
                for part in parts {
                    match self.status(kind, state, part, holds, depth) {
                        status if status == decisive => return decisive,
                        Truth::Unknown => truth = Truth::Unknown,
                        _ => {}
                    }
                }
                return truth;
            }
            Formula::Unknown(_) => Truth::Unknown,
        };
        if holds { truth } else { truth.not() }
    }

    fn fact_status(&mut self, state: &State, fact: &Fact) -> Truth {
        if self.is_excluded(state, fact) {
            return Truth::No;
        }
        match fact.not() {
            Some(opposite) if !self.is_excluded(state, &opposite) => Truth::Unknown,
            _ => Truth::Yes,
        }
    }

    /// Returns `true` if a fact cannot hold.
    fn is_excluded(&mut self, state: &State, fact: &Fact) -> bool {
        match fact {
            Fact::Least(least) => state.most.is_some_and(|most| most < *least),
            Fact::Most(most) => state.least.max(state.has.len() as u64) > *most,
            Fact::Has(name) => state.lacks.contains(name) || state.most == Some(0),
            Fact::Lacks(name) => state.has.contains(name),
            Fact::SomeProperty(scope, part) => !self.may_have(state, scope, *part),
            Fact::EachProperty(scope, part) => {
                // Only a property that is there can break a rule.
                let super::fact::Scope::Key(name) = scope.as_ref() else { return false };
                state.has.contains(name) && !self.may_have(state, scope, *part)
            }
            Fact::SomeItem(range, part) => !self.may_have_item(state, *range, *part),
            Fact::EachItem(range, part) => {
                let Range::At(at) = range else { return false };
                state.least > *at as u64 && !self.may_have_item(state, *range, *part)
            }
            Fact::Unique => state.has_twice,
            Fact::Twice => state.is_unique || state.most.is_some_and(|most| most < 2),
            Fact::EachName(_) | Fact::SomeName(_) => false,
        }
    }

    fn may_have_item(&mut self, state: &State, range: Range, part: Part) -> bool {
        let end = state.each_item.iter().map(|(range, _)| range.end()).max().unwrap_or(0).max(range.end());
        let most = state.most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        self.step(end as u64);
        (0..=end).filter(|place| range.has(*place) && *place < most).any(|place| {
            let goal = item_goal(state, place).with(part.id, part.fits);
            !self.is_never(&goal)
        })
    }
}

/// Returns what the item at a place must be like.
pub(super) fn item_goal(state: &State, place: usize) -> Goal {
    let mut goal = Goal::default();
    for (range, part) in &state.each_item {
        if range.has(place) {
            goal.add(part.id, part.fits);
        }
    }
    goal
}
