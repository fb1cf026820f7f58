//! Makes arrays.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::fact::Part;
use super::state::State;
use super::status::item_goal;
use super::{Found, Goal, Search, TOO_COMPLEX};
use crate::contract::datum::Datum;
use crate::contract::kinds::Kinds;
use crate::contract::node::Node;

/// The most items of an array that is made.
const MAX_LENGTH: usize = 300;

/// What items must be like besides: the place, and the nodes.
type Extra = Vec<(usize, Part)>;

impl Search<'_> {
    /// Searches an array.
    pub(super) fn find_list(&mut self, goal: &Goal) -> Found {
        self.find_listed(goal, Kinds::LIST).or(|| self.solve_kind(Kinds::LIST, goal))
    }

    /// Makes an array of what is decided.
    pub(super) fn build_list(&mut self, state: &State) -> Found {
        if state.each_item.iter().chain(&state.some_item).any(|(range, _)| range.end() > MAX_LENGTH) {
            return Found::Doubt("very long arrays".to_owned());
        }
        self.place_items(state, &Extra::new(), 0)
    }

    /// Chooses a place for each rule that some item must be like something.
    fn place_items(&mut self, state: &State, extra: &Extra, at: usize) -> Found {
        let Some((range, part)) = state.some_item.get(at) else { return self.place_twice(state, extra) };
        if !self.step(1) {
            return Found::Doubt(TOO_COMPLEX.to_owned());
        }
        let mut found = Found::Never;
        for place in (0..places(state, extra)).filter(|place| range.has(*place)) {
            let mut with = extra.clone();
            with.push((place, *part));
            found = found.or(|| self.place_items(state, &with, at + 1));
            if matches!(found, Found::Example(_)) {
                break;
            }
        }
        found
    }

    /// Chooses two places of equal items, if there must be two.
    fn place_twice(&mut self, state: &State, extra: &Extra) -> Found {
        if !state.has_twice {
            return self.fill_list(state, extra, None);
        }
        let most = state.most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let places = (places(state, extra) + 1).min(most);
        let mut found = Found::Never;
        for second in 1..places {
            for first in 0..second {
                if !self.step(1) {
                    return Found::Doubt(TOO_COMPLEX.to_owned());
                }
                found = found.or(|| self.fill_list(state, extra, Some((first, second))));
                if matches!(found, Found::Example(_)) {
                    return found;
                }
            }
        }
        found
    }

    /// Searches the items of as short an array as can be.
    fn fill_list(&mut self, state: &State, extra: &Extra, twice: Option<(usize, usize)>) -> Found {
        let least = usize::try_from(state.least).unwrap_or(usize::MAX);
        let most = usize::try_from(state.most.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let used =
            extra.iter().map(|(place, _)| place + 1).chain(twice.map(|(_, second)| second + 1)).max().unwrap_or(0);
        let wanted = usize::from(self.is_full && !state.is_unique).min(most);
        let length = least.max(used).max(wanted);
        if length > MAX_LENGTH {
            return Found::Doubt("very long arrays".to_owned());
        }
        if length > most {
            return Found::Never;
        }
        let mut items: Vec<Rc<Datum<'static>>> = Vec::with_capacity(length);
        for place in 0..length {
            let goal_of = |place| {
                let mut goal = item_goal(state, place);
                extra.iter().filter(|(at, _)| *at == place).for_each(|(_, part)| goal.add(part.id, part.fits));
                goal
            };
            let mut goal = goal_of(place);
            match twice {
                Some((first, second)) if place == second => {
                    items.push(Rc::clone(&items[first]));
                    continue;
                }
                Some((first, second)) if place == first => {
                    let other = goal_of(second);
                    goal.fit.extend(other.fit);
                    goal.miss.extend(other.miss);
                }
                _ => {}
            }
            let found = if state.is_unique { self.find_other(&goal, &items) } else { self.find(&goal) };
            match found {
                Found::Example(item) => items.push(item),
                // Without an item that it must not have, an array may be shorter.
                _ if place >= least.max(used) => break,
                other => return other,
            }
        }
        Found::Example(Rc::new(Datum::List(items.iter().map(|item| item.as_ref().clone()).collect())))
    }

    /// Searches an item that none of these is equal to.
    fn find_other(&mut self, goal: &Goal, items: &[Rc<Datum<'static>>]) -> Found {
        let found = self.find(goal);
        match &found {
            Found::Example(item) if items.contains(item) => {}
            _ => return found,
        }
        let values: BTreeSet<Datum<'static>> = items.iter().map(|item| item.as_ref().clone()).collect();
        self.nodes.push(Node { values: Some(values), ..Node::default() });
        match self.find(&goal.with(self.nodes.len() - 1, false)) {
            found @ Found::Example(_) => found,
            // Other items before it may have left it one.
            _ => Found::Doubt("arrays of different items".to_owned()),
        }
    }
}

/// Returns how many first places must be tried: those that rules tell apart, those in use, and a new one.
fn places(state: &State, extra: &Extra) -> usize {
    let ends = state.each_item.iter().chain(&state.some_item).map(|(range, _)| range.end());
    let places = ends.chain(extra.iter().map(|(place, _)| place + 1)).max().unwrap_or(0) + 1;
    let most = state.most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    places.min(most)
}
