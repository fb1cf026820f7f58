//! What a node says of an array or an object, as a formula of facts.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::fact::{Fact, Part, Range, Scope};
use crate::contract::kinds::Kinds;
use crate::contract::node::{Count, Id, ListRules, Node, ObjectRules};

/// The most schemas of which exactly one must fit.
const MAX_ONE: usize = 150;

/// What must hold of a value.
#[derive(Debug, Clone)]
pub(super) enum Formula {
    /// A fact.
    Fact(Fact),
    /// The value fits a node, or does not.
    Is(Part),
    /// All of these hold.
    All(Vec<Formula>),
    /// At least one of these holds.
    Any(Vec<Formula>),
    /// Nobody knows whether this holds, and why.
    Unknown(String),
}

impl Formula {
    /// What never holds.
    pub(super) fn never() -> Self {
        Self::Any(Vec::new())
    }

    /// Returns what it takes to fit a node, for a value of this kind that no node lists.
    pub(super) fn of(node: &Node, kind: Kinds) -> Self {
        if !node.kinds.meets(kind) || node.values.is_some() {
            return Self::never();
        }
        let mut all = if kind == Kinds::LIST { list(&node.list) } else { object(&node.object) };
        let unknown = node.unknown.iter().filter(|(kinds, _)| kinds.meets(kind));
        all.extend(unknown.map(|(_, what)| Self::Unknown(what.clone())));
        logic(node, &mut all);
        Self::All(all)
    }
}

fn fits(id: Id) -> Part {
    Part { id, fits: true }
}

fn is(id: Id) -> Formula {
    Formula::Is(fits(id))
}

fn is_not(id: Id) -> Formula {
    Formula::Is(fits(id).not())
}

fn count(count: &Count, all: &mut Vec<Formula>) {
    if count.least > 0 {
        all.push(Formula::Fact(Fact::Least(count.least)));
    }
    all.extend(count.most.map(|most| Formula::Fact(Fact::Most(most))));
}

fn list(rules: &ListRules) -> Vec<Formula> {
    let mut all = Vec::new();
    count(&rules.length, &mut all);
    let each = |range, id: Id| Formula::Fact(Fact::EachItem(range, fits(id)));
    all.extend(rules.prefix.iter().enumerate().map(|(at, id)| each(Range::At(at), *id)));
    all.extend(rules.rest.map(|id| each(Range::From(rules.prefix.len()), id)));
    all.extend(rules.contains.map(|id| Formula::Fact(Fact::SomeItem(Range::From(0), fits(id)))));
    if rules.is_unique {
        all.push(Formula::Fact(Fact::Unique));
    }
    all
}

fn object(rules: &ObjectRules) -> Vec<Formula> {
    let mut all = Vec::new();
    let has = |name: &String| Formula::Fact(Fact::Has(name.clone()));
    let lacks = |name: &String| Formula::Fact(Fact::Lacks(name.clone()));
    all.extend(rules.required.iter().map(has));
    count(&rules.size, &mut all);
    let each = |scope, id: Id| Formula::Fact(Fact::EachProperty(Rc::new(scope), fits(id)));
    all.extend(rules.properties.iter().map(|(name, id)| each(Scope::Key(name.clone()), *id)));
    all.extend(rules.patterns.iter().map(|(pattern, id)| each(Scope::Pattern(pattern.clone()), *id)));
    if let Some(id) = rules.others {
        let names: BTreeSet<String> = rules.properties.keys().cloned().collect();
        all.push(each(Scope::Others(names, rules.patterns.keys().cloned().collect()), id));
    }
    all.extend(rules.names.map(|id| Formula::Fact(Fact::EachName(fits(id)))));
    for (name, needed) in &rules.needs {
        all.extend(needed.iter().map(|needed| Formula::Any(vec![lacks(name), has(needed)])));
    }
    all.extend(rules.schemas.iter().map(|(name, id)| Formula::Any(vec![lacks(name), is(*id)])));
    all
}

fn logic(node: &Node, all: &mut Vec<Formula>) {
    let logic = &node.logic;
    all.extend(logic.all.iter().map(|id| is(*id)));
    all.extend(logic.any.iter().map(|any| Formula::Any(any.iter().map(|id| is(*id)).collect())));
    all.extend(logic.not.map(is_not));
    match &logic.one {
        Some(one) if one.len() > MAX_ONE => all.push(Formula::Unknown("a `oneOf` of too many schemas".to_owned())),
        Some(one) => {
            let only = |chosen: usize| {
                one.iter().enumerate().map(move |(at, id)| if at == chosen { is(*id) } else { is_not(*id) })
            };
            all.push(Formula::Any((0..one.len()).map(|chosen| Formula::All(only(chosen).collect())).collect()));
        }
        None => {}
    }
    if let Some((when, then, other)) = logic.condition {
        all.extend(then.map(|then| Formula::Any(vec![is_not(when), is(then)])));
        all.extend(other.map(|other| Formula::Any(vec![is(when), is(other)])));
    }
}
