//! Makes objects.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::fact::Part;
use super::keys::{Key, names, new_keys};
use super::state::State;
use super::{Found, Goal, Search, TOO_COMPLEX};
use crate::contract::datum::Datum;
use crate::contract::kinds::Kinds;

/// The most properties of an object that is made.
const MAX_SIZE: u64 = 200;

/// A property that the object gets.
#[derive(Debug, Clone)]
struct Slot {
    key: Key,
    /// What the value must be like besides.
    value: Vec<Part>,
    /// What the name must be like besides.
    name: Vec<Part>,
}

impl Slot {
    fn of(key: Key) -> Self {
        Self { key, value: Vec::new(), name: Vec::new() }
    }
}

impl Search<'_> {
    /// Searches an object.
    pub(super) fn find_object(&mut self, goal: &Goal) -> Found {
        self.find_listed(goal, Kinds::OBJECT).or(|| self.solve_kind(Kinds::OBJECT, goal))
    }

    /// Makes an object of what is decided.
    pub(super) fn build_object(&mut self, state: &State) -> Found {
        let slots = state.has.iter().cloned().map(Key::Named).map(Slot::of).collect();
        self.place_values(state, slots, 0)
    }

    /// Chooses a property for each rule that some property must be like something.
    fn place_values(&mut self, state: &State, slots: Vec<Slot>, at: usize) -> Found {
        let Some((scope, part)) = state.some_property.get(at) else { return self.place_names(state, slots, 0) };
        if !self.step(1) {
            return Found::Doubt(TOO_COMPLEX.to_owned());
        }
        let mut found = Found::Never;
        for choice in choices(&slots, self.keys_in(state, scope)) {
            if self.has(scope, &choice.1.key) == Some(false) {
                continue;
            }
            let with = placed(&slots, choice, |slot| slot.value.push(*part));
            found = found.or(|| self.place_values(state, with, at + 1));
            if matches!(found, Found::Example(_)) {
                break;
            }
        }
        found
    }

    /// Chooses a property for each rule that some name must be like something.
    fn place_names(&mut self, state: &State, slots: Vec<Slot>, at: usize) -> Found {
        let Some(part) = state.some_name.get(at) else { return self.fill(state, slots) };
        if !self.step(1) {
            return Found::Doubt(TOO_COMPLEX.to_owned());
        }
        let keys = names(state).into_iter().filter(|name| !state.lacks.contains(name)).map(Key::Named);
        let keys: Vec<Key> = keys.chain(new_keys(state)).collect();
        let mut found = Found::Never;
        for choice in choices(&slots, keys) {
            let with = placed(&slots, choice, |slot| slot.name.push(*part));
            found = found.or(|| self.place_names(state, with, at + 1));
            if matches!(found, Found::Example(_)) {
                break;
            }
        }
        found
    }

    /// Adds properties until there are enough, and searches their values.
    fn fill(&mut self, state: &State, mut slots: Vec<Slot>) -> Found {
        if state.least > MAX_SIZE {
            return Found::Doubt("very large objects".to_owned());
        }
        let mut values = Vec::new();
        for slot in &slots {
            let mut goal = self.property_goal(state, &slot.key);
            slot.value.iter().for_each(|part| goal.add(part.id, part.fits));
            match self.find(&goal) {
                Found::Example(value) => values.push(value),
                other => return other,
            }
        }
        let mut doubt = None;
        let wanted = if self.is_full { state.most.unwrap_or(MAX_SIZE) } else { state.least };
        let named = names(state).into_iter().filter(|name| !state.lacks.contains(name)).map(Key::Named);
        let mut free: Vec<Key> = named.filter(|key| !slots.iter().any(|slot| slot.key == *key)).collect();
        for key in new_keys(state) {
            let missing = usize::try_from(state.least).unwrap_or(0).saturating_sub(slots.len());
            free.extend(std::iter::repeat_n(key, missing));
        }
        for key in free {
            if slots.len() as u64 >= wanted {
                break;
            }
            let goal = self.property_goal(state, &key);
            match self.find(&goal) {
                Found::Example(value) => {
                    let slot = Slot::of(key);
                    if matches!(self.name_of(state, &slot, &taken(&slots)), Found::Example(_)) {
                        slots.push(slot);
                        values.push(value);
                    } else {
                        doubt = Some("names of properties".to_owned());
                    }
                }
                Found::Never => {}
                Found::Doubt(why) => doubt = Some(why),
            }
        }
        if state.most.is_some_and(|most| slots.len() as u64 > most) {
            return Found::Never;
        }
        if (slots.len() as u64) < state.least {
            return doubt.map_or(Found::Never, Found::Doubt);
        }
        self.name_all(state, &slots, &values)
    }

    /// Makes the object of its properties.
    fn name_all(&mut self, state: &State, slots: &[Slot], values: &[Rc<Datum<'static>>]) -> Found {
        let mut used = taken(slots);
        let mut object = BTreeMap::new();
        for (slot, value) in slots.iter().zip(values) {
            let name = match self.name_of(state, slot, &used) {
                Found::Example(name) => name,
                other => return other,
            };
            let Datum::Text(name) = name.as_ref() else { return Found::Never };
            used.insert(name.to_string());
            object.insert(Cow::Owned(name.to_string()), value.as_ref().clone());
        }
        Found::Example(Rc::new(Datum::Object(object)))
    }

    /// Returns the name of a property, which none of those in use is.
    fn name_of(&mut self, state: &State, slot: &Slot, used: &BTreeSet<String>) -> Found {
        let mut goal = Goal::default();
        state.each_name.iter().chain(&slot.name).for_each(|part| goal.add(part.id, part.fits));
        match &slot.key {
            Key::Named(name) => self.find_among(&goal, [Datum::text(name.clone())]),
            Key::New(matched) => {
                let mut used = used.clone();
                used.extend(names(state));
                self.find_text(&goal, matched, &used)
            }
        }
    }
}

/// Returns the names that properties have.
fn taken(slots: &[Slot]) -> BTreeSet<String> {
    let name = |slot: &Slot| match &slot.key {
        Key::Named(name) => Some(name.clone()),
        Key::New(_) => None,
    };
    slots.iter().filter_map(name).collect()
}

/// Returns the properties with one of them changed, or with another.
fn placed(slots: &[Slot], (at, mut slot): (Option<usize>, Slot), change: impl FnOnce(&mut Slot)) -> Vec<Slot> {
    let mut slots = slots.to_vec();
    change(&mut slot);
    match at {
        Some(at) => slots[at] = slot,
        None => slots.push(slot),
    }
    slots
}

/// Returns the properties to choose from: those of the object, and others.
fn choices(slots: &[Slot], keys: Vec<Key>) -> Vec<(Option<usize>, Slot)> {
    let is_there = |key: &Key| matches!(key, Key::Named(_)) && slots.iter().any(|slot| slot.key == *key);
    let new = keys.into_iter().filter(|key| !is_there(key)).map(|key| (None, Slot::of(key)));
    slots.iter().cloned().enumerate().map(|(at, slot)| (Some(at), slot)).chain(new).collect()
}
