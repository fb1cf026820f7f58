//! A schema as nodes, each with what one object of the document says.

use std::collections::{BTreeMap, BTreeSet};

use super::datum::Datum;
use super::decimal::Decimal;
use super::kinds::Kinds;

/// The place of a node among those of its schema.
pub(super) type Id = usize;

/// What one object of a schema says. A value fits if it fits all parts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Node {
    /// The kinds of values that fit.
    pub kinds: Kinds,
    /// The values that fit. `None`: all.
    pub values: Option<BTreeSet<Datum<'static>>>,
    /// What must hold of numbers.
    pub number: NumberRules,
    /// What must hold of texts.
    pub text: TextRules,
    /// What must hold of arrays.
    pub list: ListRules,
    /// What must hold of objects.
    pub object: ObjectRules,
    /// What must hold of all values.
    pub logic: Logic,
    /// What this node says and nobody here understands: for which kinds of values, and what.
    pub unknown: Vec<(Kinds, String)>,
    /// What tells the node apart from others that say the same.
    pub mark: Vec<usize>,
}

/// A bound of numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Bound {
    /// The number.
    pub value: Decimal,
    /// `true` if the number itself does not fit.
    pub is_open: bool,
}

/// What must hold of numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct NumberRules {
    /// The bounds from below.
    pub least: Vec<Bound>,
    /// The bounds from above.
    pub most: Vec<Bound>,
    /// What the number must be a multiple of.
    pub step: Option<Decimal>,
    /// The least and the most that the format says. They are not checked, but an author's type may hold no more.
    pub hinted: Option<(Decimal, Decimal)>,
}

/// How many there may be of a thing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Count {
    /// The least.
    pub least: u64,
    /// The most. `None`: any number.
    pub most: Option<u64>,
}

impl Count {
    /// Returns `true` if there may be so many.
    pub(super) fn allows(&self, count: u64) -> bool {
        count >= self.least && self.most.is_none_or(|most| count <= most)
    }
}

/// What must hold of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct TextRules {
    /// How many characters there may be.
    pub length: Count,
    /// The pattern that the text must hold.
    pub pattern: Option<String>,
    /// The format of the text.
    pub format: Option<String>,
}

/// What must hold of arrays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct ListRules {
    /// How many items there may be.
    pub length: Count,
    /// What the first items must fit, one by one.
    pub prefix: Vec<Id>,
    /// What all others must fit.
    pub rest: Option<Id>,
    /// What at least one item must fit.
    pub contains: Option<Id>,
    /// `true` if no two items may be equal.
    pub is_unique: bool,
}

/// What must hold of objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct ObjectRules {
    /// How many properties there may be.
    pub size: Count,
    /// The properties that must be there.
    pub required: BTreeSet<String>,
    /// What properties must fit, by name.
    pub properties: BTreeMap<String, Id>,
    /// What properties must fit, by pattern of the name.
    pub patterns: BTreeMap<String, Id>,
    /// What all others must fit.
    pub others: Option<Id>,
    /// What all names must fit.
    pub names: Option<Id>,
    /// The properties that must be there if another is.
    pub needs: BTreeMap<String, BTreeSet<String>>,
    /// What the object must fit if a property is there.
    pub schemas: BTreeMap<String, Id>,
}

/// What must hold of all values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Logic {
    /// What the value must fit.
    pub all: Vec<Id>,
    /// Of each list, the value must fit at least one.
    pub any: Option<Vec<Id>>,
    /// Of these, the value must fit exactly one.
    pub one: Option<Vec<Id>>,
    /// What the value must not fit.
    pub not: Option<Id>,
    /// If the value fits the first, it must fit the second, and otherwise the third.
    pub condition: Option<(Id, Option<Id>, Option<Id>)>,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            kinds: Kinds::ALL,
            values: None,
            number: NumberRules::default(),
            text: TextRules::default(),
            list: ListRules::default(),
            object: ObjectRules::default(),
            logic: Logic::default(),
            unknown: Vec::new(),
            mark: Vec::new(),
        }
    }
}

impl Node {
    /// Returns the node that no value fits.
    pub(super) fn nothing() -> Self {
        Self { kinds: Kinds::NONE, ..Self::default() }
    }

    /// Returns the nodes that the same value is held against.
    pub(super) fn in_place(&self) -> impl Iterator<Item = Id> {
        let logic = &self.logic;
        let condition = logic.condition.iter().flat_map(|(when, then, other)| [Some(*when), *then, *other]).flatten();
        let lists = [Some(&logic.all), logic.any.as_ref(), logic.one.as_ref()].into_iter().flatten().flatten().copied();
        lists.chain(logic.not).chain(condition).chain(self.object.schemas.values().copied())
    }

    /// Returns all nodes that this one names.
    pub(super) fn used(&self) -> impl Iterator<Item = Id> {
        let (list, object) = (&self.list, &self.object);
        let singles = [list.rest, list.contains, object.others, object.names].into_iter().flatten();
        let maps = object.properties.values().chain(object.patterns.values()).copied();
        self.in_place().chain(list.prefix.iter().copied()).chain(singles).chain(maps)
    }

    /// Changes the ids of all nodes that this one names.
    pub(super) fn renumber(&mut self, new: impl Fn(Id) -> Id) {
        let (list, object, logic) = (&mut self.list, &mut self.object, &mut self.logic);
        let lists = [Some(&mut list.prefix), Some(&mut logic.all), logic.any.as_mut(), logic.one.as_mut()];
        let singles = [&mut list.rest, &mut list.contains, &mut object.others, &mut object.names, &mut logic.not];
        let maps = [&mut object.properties, &mut object.patterns, &mut object.schemas];
        lists.into_iter().flatten().flatten().for_each(|id| *id = new(*id));
        singles.into_iter().flatten().for_each(|id| *id = new(*id));
        maps.into_iter().flat_map(BTreeMap::values_mut).for_each(|id| *id = new(*id));
        if let Some((when, then, other)) = &mut logic.condition {
            [Some(when), then.as_mut(), other.as_mut()].into_iter().flatten().for_each(|id| *id = new(*id));
        }
    }
}
