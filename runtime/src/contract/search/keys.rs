//! The properties that an object may have: those that a rule names, and others, of which all that match the same patterns are
//! alike.

use std::collections::BTreeSet;

use super::fact::{Part, Scope};
use super::state::State;
use super::{Goal, Search};

/// The most patterns that properties are told apart by.
const MAX_PATTERNS: usize = 3;

/// A property that an object may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// That of this name.
    Named(String),
    /// One that no rule names, and whether it matches patterns.
    New(Vec<(String, bool)>),
}

impl Search<'_> {
    /// Returns `true` if a scope has a property. `None` if that is not known.
    pub(super) fn has(&self, scope: &Scope, key: &Key) -> Option<bool> {
        let matches = |pattern: &String| match key {
            Key::Named(name) => self.patterns.matches(pattern, name),
            Key::New(matched) => matched.iter().find(|(each, _)| each == pattern).map(|(_, matches)| *matches),
        };
        match scope {
            Scope::Key(name) => Some(matches!(key, Key::Named(key) if key == name)),
            Scope::Pattern(pattern) => matches(pattern),
            Scope::Others(names, _) if matches!(key, Key::Named(name) if names.contains(name)) => Some(false),
            Scope::Others(_, patterns) => {
                let known: Vec<Option<bool>> = patterns.iter().map(matches).collect();
                if known.contains(&Some(true)) { Some(false) } else { (!known.contains(&None)).then_some(true) }
            }
        }
    }

    /// Returns what the value of a property must be like.
    pub(super) fn property_goal(&self, state: &State, key: &Key) -> Goal {
        let mut goal = Goal::default();
        for (scope, part) in &state.each_property {
            // A rule of which it is not known whether it is about this property is left out. What is made is judged.
            if self.has(scope, key) == Some(true) {
                goal.add(part.id, part.fits);
            }
        }
        goal
    }

    /// Returns the properties of a scope that the object may have.
    pub(super) fn keys_in(&self, state: &State, scope: &Scope) -> Vec<Key> {
        if let Scope::Key(name) = scope {
            return if state.lacks.contains(name) { Vec::new() } else { vec![Key::Named(name.clone())] };
        }
        let named = names(state).into_iter().filter(|name| !state.lacks.contains(name)).map(Key::Named);
        named.chain(new_keys(state)).filter(|key| self.has(scope, key) != Some(false)).collect()
    }

    /// Returns `true` if a property of this scope may be like this.
    pub(super) fn may_have(&mut self, state: &State, scope: &Scope, part: Part) -> bool {
        let keys = self.keys_in(state, scope);
        self.step(keys.len() as u64);
        keys.iter().any(|key| {
            let goal = self.property_goal(state, key).with(part.id, part.fits);
            !self.is_never(&goal)
        })
    }
}

/// Returns the names that rules tell apart.
pub(super) fn names(state: &State) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = state.has.union(&state.lacks).cloned().collect();
    for (scope, _) in state.each_property.iter().chain(&state.some_property) {
        match scope.as_ref() {
            Scope::Key(name) => drop(names.insert(name.clone())),
            Scope::Others(others, _) => names.extend(others.iter().cloned()),
            Scope::Pattern(_) => {}
        }
    }
    names
}

/// Returns one property of each class of those that no rule names.
pub(super) fn new_keys(state: &State) -> Vec<Key> {
    let mut patterns = BTreeSet::new();
    for (scope, _) in state.each_property.iter().chain(&state.some_property) {
        match scope.as_ref() {
            Scope::Pattern(pattern) => drop(patterns.insert(pattern)),
            Scope::Others(_, more) => patterns.extend(more),
            Scope::Key(_) => {}
        }
    }
    if patterns.len() > MAX_PATTERNS {
        return vec![Key::New(Vec::new())];
    }
    let class = |chosen: usize| {
        patterns.iter().enumerate().map(move |(at, pattern)| ((*pattern).clone(), chosen >> at & 1 == 1))
    };
    (0..1_usize << patterns.len()).map(|chosen| Key::New(class(chosen).collect())).collect()
}
