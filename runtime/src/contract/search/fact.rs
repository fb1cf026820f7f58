//! What an array or object must be like, one rule at a time. The opposite of a fact is a fact.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::contract::node::Id;

/// What an array or object must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    /// It has at least so many parts.
    Least(u64),
    /// It has at most so many parts.
    Most(u64),
    /// Each item of this range fits, or does not.
    EachItem(Range, Part),
    /// There is an item in this range, and it fits, or does not.
    SomeItem(Range, Part),
    /// No two items are equal.
    Unique,
    /// Two items are equal.
    Twice,
    /// It has this property.
    Has(String),
    /// It lacks this property.
    Lacks(String),
    /// Each property of this scope fits, or does not.
    EachProperty(Rc<Scope>, Part),
    /// There is a property of this scope, and it fits, or does not.
    SomeProperty(Rc<Scope>, Part),
    /// Each name fits, or does not.
    EachName(Part),
    /// There is a name that fits, or does not.
    SomeName(Part),
}

/// What a part must be like: it fits a node, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Part {
    /// The node.
    pub id: Id,
    /// `true` if the part fits it.
    pub fits: bool,
}

impl Part {
    /// Returns the opposite.
    pub(super) fn not(self) -> Self {
        Self { fits: !self.fits, ..self }
    }
}

/// Items of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Range {
    /// The item at this place.
    At(usize),
    /// All items from this place on.
    From(usize),
}

impl Range {
    /// Returns `true` if the range has this place.
    pub(super) fn has(self, place: usize) -> bool {
        match self {
            Self::At(at) => at == place,
            Self::From(from) => place >= from,
        }
    }

    /// Returns the first place from which on all places are alike.
    pub(super) fn end(self) -> usize {
        match self {
            Self::At(at) => at + 1,
            Self::From(from) => from,
        }
    }
}

/// Properties of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The property of this name.
    Key(String),
    /// Those whose names match this pattern.
    Pattern(String),
    /// Those that have none of these names, and match none of these patterns.
    Others(BTreeSet<String>, Vec<String>),
}

impl Fact {
    /// Returns the opposite. `None` if it can never hold.
    pub(super) fn not(&self) -> Option<Self> {
        Some(match self {
            Self::Least(0) => return None,
            Self::Least(count) => Self::Most(count - 1),
            Self::Most(count) => Self::Least(count.checked_add(1)?),
            Self::EachItem(range, part) => Self::SomeItem(*range, part.not()),
            Self::SomeItem(range, part) => Self::EachItem(*range, part.not()),
            Self::Unique => Self::Twice,
            Self::Twice => Self::Unique,
            Self::Has(name) => Self::Lacks(name.clone()),
            Self::Lacks(name) => Self::Has(name.clone()),
            Self::EachProperty(scope, part) => Self::SomeProperty(Rc::clone(scope), part.not()),
            Self::SomeProperty(scope, part) => Self::EachProperty(Rc::clone(scope), part.not()),
            Self::EachName(part) => Self::SomeName(part.not()),
            Self::SomeName(part) => Self::EachName(part.not()),
        })
    }
}
