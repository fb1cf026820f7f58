//! Compares what one schema gives with what another takes.

use std::collections::BTreeSet;
use std::fmt;

use ciborium::Value;

use super::Schema;
use super::datum::Datum;
use super::describe::{describe, describe_any, part_at, pointer, reason};
use super::given::given;
use super::judge::{Judge, Refusal, Step, Truth, Why};
use super::merge::merge;
use super::node::{Id, Node};
use super::pattern::Patterns;
use super::search::{Found, Goal, Search};
use crate::frame::json::to_json;

/// Whether all that one schema gives is what another takes.
#[derive(Debug, Clone)]
pub(crate) enum Fit {
    /// Every value that the one gives is taken.
    Fits,
    /// The one gives a value that the other does not take.
    Misfit(Box<Misfit>),
    /// Nobody knows, because of this.
    Unknown(String),
}

/// A value that one schema gives and another does not take.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Misfit {
    /// The part of the value that is not taken, as a JSON Pointer.
    pub path: String,
    /// What the one gives there, in words. `None` if it need not give anything.
    pub gives: Option<String>,
    /// What the other takes there, in words. `None` if it takes nothing.
    pub takes: Option<String>,
    /// Why the example is not taken.
    pub reason: String,
    /// The value.
    pub example: Value,
}

impl Misfit {
    /// Says what does not fit, with the names of the two.
    pub(crate) fn told<'a>(&'a self, before: &'a str, after: &'a str) -> impl fmt::Display + 'a {
        fmt::from_fn(move |formatter| {
            let path = self.path.as_str();
            let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
            match (&self.gives, &self.takes) {
                (None, Some(takes)) => {
                    write!(formatter, "`{before}` may leave out `{path}`, `{after}` needs it as `{takes}`")?;
                }
                (Some(gives), None) => {
                    write!(formatter, "`{before}` gives `{path}: {gives}`, `{after}` takes no such key")?;
                }
                (Some(gives), Some(takes)) if gives != takes => {
                    write!(formatter, "`{before}` gives `{place}{gives}`, `{after}` takes `{takes}`")?;
                }
                _ => {
                    let part = if path.is_empty() { "an item".to_owned() } else { format!("`{path}`") };
                    write!(formatter, "`{after}` does not take all that `{before}` gives: {part} {}", self.reason)?;
                }
            }
            write!(formatter, "; for example {}", to_json(&self.example))
        })
    }
}

/// Compares what one schema gives with what another takes.
pub(crate) fn compare(gives: &Schema, takes: &Schema) -> Fit {
    let closed = given(&gives.nodes, gives.root);
    let (nodes, roots) = merge(&[(&gives.nodes, gives.root), (&closed, 0), (&takes.nodes, takes.root)]);
    let &[before, closed, after] = roots.as_slice() else {
        return Fit::Unknown("schemas that are not there".to_owned());
    };
    let patterns = &gives.patterns;
    let found = Search::new(nodes.clone(), patterns).find(&Goal::new([before, closed], [after]));
    match found {
        Found::Never => Fit::Fits,
        Found::Doubt(why) => Fit::Unknown(why),
        Found::Example(example) => {
            let misfit = misfit(&nodes, patterns, before, after, &example);
            misfit.map_or_else(
                || Fit::Unknown("an example that cannot be shown".to_owned()),
                |misfit| Fit::Misfit(Box::new(misfit)),
            )
        }
    }
}

/// Returns what is told of an example. `None` if the judge does not refuse it.
fn misfit(nodes: &[Node], patterns: &Patterns, before: Id, after: Id, example: &Datum<'static>) -> Option<Misfit> {
    let mut judge = Judge::telling(nodes, patterns);
    let is_refused = judge.judge(after, example) == Truth::No;
    let refusal = judge.refusal.take().filter(|_| is_refused)?;
    let reason = reason(nodes, &refusal, part_at(example, &refusal.path));
    let mut path = refusal.path.clone();
    let (gives, takes) = match &refusal.why {
        Why::Missing(name) => {
            path.push(Step::Key(name.clone()));
            let takes = nodes[refusal.id].object.properties.get(name);
            (None, Some(takes.map_or_else(|| "any value".to_owned(), |id| describe(nodes, *id))))
        }
        Why::Extra(name) => {
            path.push(Step::Key(name.clone()));
            (Some(words_of(nodes, patterns, before, example, &path)), None)
        }
        _ => (Some(words_of(nodes, patterns, before, example, &path)), Some(describe_any(nodes, refusal.ids()))),
    };
    Some(Misfit { path: pointer(&path), gives, takes, reason, example: example.to_value()? })
}

/// Returns what a schema gives at this path of an example that it gives.
fn words_of(nodes: &[Node], patterns: &Patterns, root: Id, example: &Datum<'static>, path: &[Step]) -> String {
    let mut ids = BTreeSet::from([root]);
    for (at, step) in path.iter().enumerate() {
        let part = part_at(example, &path[..at]);
        ids = fitted(nodes, patterns, ids, part)
            .into_iter()
            .flat_map(|id| parts_of(&nodes[id], patterns, step))
            .collect();
    }
    let part = part_at(example, path);
    let mut words: Vec<String> = Vec::new();
    for id in fitted(nodes, patterns, ids, part) {
        let text = describe(nodes, id);
        if text != "any value" && !words.contains(&text) {
            words.push(text);
        }
    }
    // What says more is longer.
    words.into_iter().max_by_key(String::len).unwrap_or_else(|| "any value".to_owned())
}

/// Returns these nodes and those of their schemas that the value fits.
fn fitted(nodes: &[Node], patterns: &Patterns, ids: BTreeSet<Id>, part: &Datum<'_>) -> BTreeSet<Id> {
    let mut all = BTreeSet::new();
    let mut due: Vec<Id> = ids.into_iter().collect();
    while let Some(id) = due.pop() {
        if all.insert(id) {
            let logic = &nodes[id].logic;
            let several = logic.any.iter().chain(&logic.one).flatten().copied();
            let fits = |id: &Id| Judge::new(nodes, patterns).judge(*id, part) != Truth::No;
            due.extend(logic.all.iter().copied().chain(several.filter(fits)));
        }
    }
    all
}

/// Returns the nodes that a node holds a part of a value against.
fn parts_of(node: &Node, patterns: &Patterns, step: &Step) -> Vec<Id> {
    let (list, object) = (&node.list, &node.object);
    match step {
        Step::Item(at) => list.prefix.get(*at).copied().or(list.rest).into_iter().collect(),
        Step::Key(key) => {
            let matched = object.patterns.iter().filter(|(pattern, _)| patterns.matches(pattern, key) == Some(true));
            let named: Vec<Id> =
                object.properties.get(key).copied().into_iter().chain(matched.map(|(_, id)| *id)).collect();
            if named.is_empty() { object.others.into_iter().collect() } else { named }
        }
    }
}

/// Returns why a refusal is told, for a value that was judged.
pub(super) fn told(nodes: &[Node], refusal: &Refusal, value: &Datum<'_>) -> (String, String) {
    (pointer(&refusal.path), reason(nodes, refusal, part_at(value, &refusal.path)))
}
