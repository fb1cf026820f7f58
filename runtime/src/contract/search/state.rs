//! What a search has decided about an array or object.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::fact::{Fact, Part, Range, Scope};
use crate::contract::node::Id;

/// What is decided about an array or object.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// The nodes that it fits or does not fit.
    pub nodes: HashMap<Id, bool>,
    /// The least number of parts.
    pub least: u64,
    /// The most parts.
    pub most: Option<u64>,
    /// What each item of a range is like.
    pub each_item: Vec<(Range, Part)>,
    /// What some item of a range is like.
    pub some_item: Vec<(Range, Part)>,
    /// `true` if no two items are equal.
    pub is_unique: bool,
    /// `true` if two items are equal.
    pub has_twice: bool,
    /// The properties that are there.
    pub has: BTreeSet<String>,
    /// The properties that are not there.
    pub lacks: BTreeSet<String>,
    /// What each property of a scope is like.
    pub each_property: Vec<(Rc<Scope>, Part)>,
    /// What some property of a scope is like.
    pub some_property: Vec<(Rc<Scope>, Part)>,
    /// What each name is like.
    pub each_name: Vec<Part>,
    /// What some name is like.
    pub some_name: Vec<Part>,
    /// What nobody knows about it.
    pub doubt: Option<String>,
}

impl State {
    /// Decides a fact. Returns `false` if it cannot hold.
    pub(super) fn decide(&mut self, fact: Fact) -> bool {
        match fact {
            Fact::Least(least) => self.least = self.least.max(least),
            Fact::Most(most) => self.most = Some(self.most.map_or(most, |known| known.min(most))),
            Fact::EachItem(range, part) => push(&mut self.each_item, (range, part)),
            Fact::SomeItem(range, part) => push(&mut self.some_item, (range, part)),
            Fact::Unique => self.is_unique = true,
            Fact::Twice => self.has_twice = true,
            Fact::Has(name) => drop(self.has.insert(name)),
            Fact::Lacks(name) => drop(self.lacks.insert(name)),
            Fact::EachProperty(scope, part) => push(&mut self.each_property, (scope, part)),
            Fact::SomeProperty(scope, part) => {
                // A property that must be there anyway need not be looked for.
                if let Scope::Key(name) = scope.as_ref() {
                    self.has.insert(name.clone());
                    push(&mut self.each_property, (scope, part));
                } else {
                    push(&mut self.some_property, (scope, part));
                }
            }
            Fact::EachName(part) => push(&mut self.each_name, part),
            Fact::SomeName(part) => push(&mut self.some_name, part),
        }
        !(self.is_unique && self.has_twice)
            && self.most.is_none_or(|most| self.least.max(self.has.len() as u64) <= most)
            && self.has.is_disjoint(&self.lacks)
    }
}

fn push<T: PartialEq>(all: &mut Vec<T>, new: T) {
    if !all.contains(&new) {
        all.push(new);
    }
}
