//! Contracts: what a task takes and gives, as JSON Schemas. [`Schema::validate`] holds an item against one, [`compare()`] holds what one
//! stage gives against what the next takes, and [`Schema::example`] makes an item.
//!
//! Nothing here fetches anything, and everything ends: a budget of steps, and of levels, leaves open what takes too long.
//!
//! # What schemas say
//!
//! Drafts 4 to 2020-12 are read. A `$ref` leads to a place of its own document, which may refer to itself. What cannot be decided
//! is never a reason to refuse an item or a chain:
//!
//! - keywords that are not known, but for notes such as `title` and `x-…`; `$dynamicRef`, `minContains` above 1, `maxContains`, and
//!   `unevaluatedItems` and `unevaluatedProperties` beside other schemas of the same value;
//! - a `$ref` out of the document, to an anchor, or below another `$id`; a schema that holds a value against itself;
//! - a `pattern` that dialects of regular expressions read differently, or for a text that is not plain ASCII;
//! - `x-untold`, by which an SDK says that a type of its language tells less than all, such as Python's `dict`;
//! - a `format`. It is a note, but says with which values of CBOR a text may come.
//!
//! # What items mean
//!
//! | item | to a schema |
//! |---|---|
//! | integer of any size, float, decimal fraction (tag 4) | a number, by its decimal value: 1 and 1.0 are equal, 19.99 is a multiple of 0.01. A float stands for the shortest decimal that is read as it |
//! | null, undefined, simple values | `null` |
//! | map whose keys are texts, each once | an object |
//! | byte string | a `string` with `contentEncoding` base64, or `format` binary |
//! | tags 0 and 1; 100 and 1004; 37 | a `string` with `format` date-time; date; uuid |
//! | NaN, infinities, other tags, other maps | of no type |
//!
//! What is of no type, or is no text, breaks `type`, `enum` and `const`, and no other rule.
//!
//! # Which comparisons are decided
//!
//! What a schema gives is read as closed: an object of which it names properties has no others, unless something there is about
//! properties without a name, such as `additionalProperties`. So a property that only the taker names is no misfit.
//!
//! [`compare()`] never refuses a pair that fits: a misfit has an example, a value of JSON that was judged to fit the one schema and not
//! the other. It says that a pair fits only if a search for such a value has ended without one. The search is complete, so that the
//! answer is one of the two, for `type`, `enum`, `const`, the bounds of numbers, `multipleOf` (four different ones, and numbers of up to
//! 36 digits), the bounds of lengths and sizes, `items`, `prefixItems`, `contains`, `properties`, `additionalProperties`, `required`,
//! `dependentRequired`, `dependentSchemas`, `allOf`, `anyOf`, `oneOf`, `not`, `if`, and `$ref`, however they are combined, as long as
//! the budget lasts. `pattern`, `patternProperties`, `propertyNames`, `uniqueItems` and text formats are decided if an example is found
//! or if both schemas name the same; otherwise the answer is that nobody knows. So it is where only a value of CBOR that JSON does not
//! have, or a number beyond what its format says, would be a misfit.
//!
//! # Why not a library
//!
//! The crate `jsonschema` needs 30 crates that this program does without, and both it and `boon` read `serde_json` values, where large
//! integers, bytes and tags are lost. Neither has a budget: a schema comes with a plugin, and may be made to take long.

mod compare;
mod datum;
mod decimal;
mod describe;
mod given;
mod judge;
mod kinds;
mod merge;
mod node;
mod pattern;
mod read;
mod search;
#[cfg(test)]
mod tests;

use ciborium::Value;

pub(crate) use compare::{Fit, compare};
use datum::Datum;
use judge::{Judge, Truth};
use node::{Id, Node};
use pattern::Patterns;
use read::SchemaError;
use search::{Found, Goal, Search};

/// Returns `true` if two items are numbers of the same decimal value, whatever holds them.
pub(crate) fn is_same_number(one: &Value, other: &Value) -> bool {
    matches!((Datum::of(one), Datum::of(other)), (Datum::Number(one), Datum::Number(other)) if one == other)
}

/// A schema of items.
#[derive(Debug)]
pub(crate) struct Schema {
    nodes: Vec<Node>,
    root: Id,
    patterns: Patterns,
}

/// Why an item does not fit a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {reason}", if path.is_empty() { "the item".to_owned() } else { format!("`{path}`") })]
pub(crate) struct Refused {
    /// The part of the item that does not fit, as a JSON Pointer.
    pub path: String,
    /// Why it does not.
    pub reason: String,
}

impl Schema {
    /// Reads a document of JSON Schema.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, SchemaError> {
        let (nodes, roots) = merge::merge(&[(&read::read(json)?, 0)]);
        Ok(Self { nodes, root: roots.first().copied().unwrap_or(0), patterns: Patterns::default() })
    }

    /// Holds an item against the schema. What cannot be decided passes.
    pub(crate) fn validate(&self, item: &Value) -> Result<(), Refused> {
        let datum = Datum::of(item);
        let mut judge = Judge::telling(&self.nodes, &self.patterns).for_parts(datum.parts());
        if judge.judge(self.root, &datum) != Truth::No {
            return Ok(());
        }
        let Some(refusal) = judge.refusal.take() else {
            return Err(Refused { path: String::new(), reason: "does not fit".to_owned() });
        };
        let (path, reason) = compare::told(&self.nodes, &refusal, &datum);
        Err(Refused { path, reason })
    }

    /// Returns an item that fits, with all that it may have. `None` if none is found.
    pub(crate) fn example(&self) -> Option<Value> {
        let goal = Goal::new([self.root], []);
        let search = || Search::new(self.nodes.clone(), &self.patterns);
        match search().with_all().find(&goal).or(|| search().find(&goal)) {
            Found::Example(example) => example.to_value().filter(|example| self.validate(example).is_ok()),
            _ => None,
        }
    }

    /// Returns the schema of what this one gives, for items that fit this one too.
    #[cfg(test)]
    pub(crate) fn given(&self) -> Self {
        Self { nodes: given::given(&self.nodes, self.root), root: 0, patterns: Patterns::default() }
    }
}
