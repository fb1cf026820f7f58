//! Why a value does not fit.

use crate::contract::decimal::Decimal;
use crate::contract::kinds::Kinds;
use crate::contract::node::{Bound, Count, Id};

/// A step from a value to a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::contract) enum Step {
    /// To the value of a key.
    Key(String),
    /// To an item of an array.
    Item(usize),
}

/// Why a value does not fit, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::contract) struct Refusal {
    /// The way to the part that does not fit.
    pub path: Vec<Step>,
    /// The node that it does not fit.
    pub id: Id,
    /// Other nodes that would do, of several schemas.
    pub others: Vec<Id>,
    /// Why it does not.
    pub why: Why,
}

impl Refusal {
    /// Returns the refusal that says more: the one of the part that is further inside, or both if they are about one part.
    pub(super) fn or(self, before: Option<Self>) -> Self {
        match before {
            Some(before) if before.depth() < self.depth() => self,
            Some(mut before) => {
                if before.path == self.path && before.why == Why::Value && self.why == Why::Value {
                    before.others.push(self.id);
                    before.others.extend(self.others);
                }
                before
            }
            None => self,
        }
    }

    /// Returns the nodes that the part does not fit.
    pub(in crate::contract) fn ids(&self) -> impl Iterator<Item = Id> + '_ {
        std::iter::once(self.id).chain(self.others.iter().copied())
    }

    /// Returns how far the value was followed.
    fn depth(&self) -> usize {
        self.path.len() + usize::from(matches!(self.why, Why::Missing(_) | Why::Extra(_)))
    }

    /// Returns `true` if it is about a part of the value at this path.
    pub(super) fn is_inside(&self, path: &[Step]) -> bool {
        self.depth() > path.len()
    }
}

/// What a value does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::contract) enum Why {
    /// It is of none of these kinds.
    Kind(Kinds),
    /// It is none of the values that are listed.
    Value,
    /// It is below this bound.
    Least(Bound),
    /// It is above this bound.
    Most(Bound),
    /// It is no multiple of this.
    Step(Decimal),
    /// Its number of characters.
    Length(Count),
    /// It does not match this pattern.
    Pattern(String),
    /// Its number of items.
    Items(Count),
    /// No item is what one must be.
    Contains,
    /// These items are equal.
    Twice(usize, usize),
    /// It has no property of this name.
    Missing(String),
    /// It has a property of this name, which no schema allows.
    Extra(String),
    /// The name of this property.
    Name(String),
    /// Its number of properties.
    Size(Count),
    /// It fits none of several schemas.
    None,
    /// It fits more than one of several schemas.
    Several,
    /// It fits what it must not.
    Not,
}
