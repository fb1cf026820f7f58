//! Searches a value that fits some nodes and does not fit others.
//!
//! A value that fits a schema and not another shows that the one gives what the other does not take. If there is none, all that
//! the one gives is taken. Each kind of values is searched by itself. Numbers and texts fall into few classes that the rules tell
//! apart, and one value of each class is judged. Arrays and objects are searched by their parts: [`solve`] chooses which of the rules
//! that the value must break it breaks, and where, and the parts are searched in turn.
//!
//! A search for a part of a value of a search that is going on for the same nodes finds nothing: if there is a value, then there
//! is one that holds no such part. So searches end with schemas that refer to themselves too.

mod fact;
mod formula;
mod keys;
mod list;
mod number;
mod object;
mod solve;
mod state;
mod status;
mod text;

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::datum::Datum;
use super::judge::{Judge, Truth};
use super::kinds::Kinds;
use super::node::{Id, Node};
use super::pattern::Patterns;
use formula::Formula;

/// The most steps of a search. Beyond them nothing is decided.
const MAX_STEPS: u64 = 400_000;
/// The most levels of a search. Beyond them nothing is decided.
const MAX_DEPTH: usize = 120;
/// What is said of a search that takes too long.
const TOO_COMPLEX: &str = "schemas that are too complex";

/// The nodes that a value must fit, and those that it must not fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Goal {
    fit: BTreeSet<Id>,
    miss: BTreeSet<Id>,
}

impl Goal {
    /// Creates a goal.
    pub(super) fn new(fit: impl IntoIterator<Item = Id>, miss: impl IntoIterator<Item = Id>) -> Self {
        Self { fit: fit.into_iter().collect(), miss: miss.into_iter().collect() }
    }

    /// Adds a node that the value must fit, or must not.
    fn add(&mut self, id: Id, fits: bool) {
        if fits {
            self.fit.insert(id)
        } else {
            self.miss.insert(id)
        };
    }

    /// Returns the goal with another node that the value must fit, or must not.
    fn with(&self, id: Id, fits: bool) -> Self {
        let mut goal = self.clone();
        goal.add(id, fits);
        goal
    }

    fn ids(&self) -> impl Iterator<Item = Id> + '_ {
        self.fit.iter().chain(&self.miss).copied()
    }
}

/// What a search found.
#[derive(Debug, Clone)]
pub(super) enum Found {
    /// A value, which was judged.
    Example(Rc<Datum<'static>>),
    /// That there is no value.
    Never,
    /// Nothing: there may be a value. And why that is not known.
    Doubt(String),
}

impl Found {
    /// Returns the better of two findings about parts of one question.
    pub(super) fn or(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Example(_) => self,
            Self::Never => other(),
            Self::Doubt(why) => match other() {
                found @ Self::Example(_) => found,
                _ => Self::Doubt(why),
            },
        }
    }

    fn is_never(&self) -> bool {
        matches!(self, Self::Never)
    }
}

/// A search, with all that it has found so far.
pub(super) struct Search<'a> {
    nodes: Vec<Node>,
    patterns: &'a Patterns,
    known: HashMap<Goal, Found>,
    /// What it takes to fit a node, for arrays and for objects.
    formulas: HashMap<(Id, Kinds), Rc<Formula>>,
    /// The goals that are being searched, with their level.
    open: HashMap<Goal, usize>,
    steps: u64,
    depth: usize,
    /// The lowest level of an open goal that a finding since the begin of the innermost search rests on.
    rests_on: usize,
    /// `true` if examples have all that they may have.
    is_full: bool,
}

impl<'a> Search<'a> {
    /// Creates a search among these nodes.
    pub(super) fn new(nodes: Vec<Node>, patterns: &'a Patterns) -> Self {
        Self {
            nodes,
            patterns,
            known: HashMap::new(),
            formulas: HashMap::new(),
            open: HashMap::new(),
            steps: MAX_STEPS,
            depth: 0,
            rests_on: usize::MAX,
            is_full: false,
        }
    }

    /// Lets objects have the properties that they may have, and arrays an item.
    pub(super) fn with_all(self) -> Self {
        Self { is_full: true, ..self }
    }

    /// Searches a value.
    pub(super) fn find(&mut self, goal: &Goal) -> Found {
        if goal.fit.intersection(&goal.miss).next().is_some() {
            return Found::Never;
        }
        if let Some(found) = self.known.get(goal) {
            return found.clone();
        }
        if let Some(level) = self.open.get(goal) {
            self.rests_on = self.rests_on.min(*level);
            return Found::Never;
        }
        if !self.step(1) || self.depth >= MAX_DEPTH {
            return Found::Doubt(TOO_COMPLEX.to_owned());
        }
        let level = self.depth;
        let outer = std::mem::replace(&mut self.rests_on, usize::MAX);
        self.open.insert(goal.clone(), level);
        self.depth += 1;
        let found = self.find_kinds(goal);
        self.depth -= 1;
        self.open.remove(goal);
        // That nothing was found may rest on a search that is still going on. What rests on this one alone is certain.
        let is_certain = self.rests_on >= level || matches!(found, Found::Example(_));
        self.rests_on = outer.min(if self.rests_on < level { self.rests_on } else { usize::MAX });
        if is_certain && self.steps > 0 {
            self.known.insert(goal.clone(), found.clone());
        }
        found
    }

    /// Returns `true` if nothing that fits these nodes is found, and if that rests on no search that is still going on.
    fn is_never(&mut self, goal: &Goal) -> bool {
        let outer = std::mem::replace(&mut self.rests_on, usize::MAX);
        let found = self.find(goal);
        let is_certain = self.rests_on == usize::MAX;
        self.rests_on = self.rests_on.min(outer);
        found.is_never() && is_certain
    }

    fn find_kinds(&mut self, goal: &Goal) -> Found {
        let kinds = self.kinds(goal);
        let mut found = Found::Never;
        if kinds.meets(Kinds::TEXT) {
            found = found.or(|| self.find_text(goal, &[], &BTreeSet::new()));
        }
        if kinds.meets(Kinds::NUMBER) {
            found = found.or(|| self.find_number(goal));
        }
        if kinds.meets(Kinds::BOOL) {
            found = found.or(|| self.find_among(goal, [Datum::Bool(true), Datum::Bool(false)]));
        }
        if kinds.meets(Kinds::NULL) {
            found = found.or(|| self.find_among(goal, [Datum::Null]));
        }
        if kinds.meets(Kinds::OBJECT) {
            found = found.or(|| self.find_object(goal));
        }
        if kinds.meets(Kinds::LIST) {
            found = found.or(|| self.find_list(goal));
        }
        // No value of JSON shows a difference. One of CBOR may.
        found.or(|| self.find_foreign(goal, kinds))
    }

    /// Returns the kinds of values that may fit.
    fn kinds(&self, goal: &Goal) -> Kinds {
        let mut kinds = Kinds::ALL;
        for id in self.alongside(goal.fit.iter().copied(), |node| node.logic.all.clone()) {
            kinds = kinds & self.nodes[id].kinds;
        }
        kinds
    }

    /// Returns these nodes and all that they lead to.
    fn alongside(&self, ids: impl Iterator<Item = Id>, next: impl Fn(&Node) -> Vec<Id>) -> BTreeSet<Id> {
        let mut all = BTreeSet::new();
        let mut due: Vec<Id> = ids.collect();
        while let Some(id) = due.pop() {
            if all.insert(id) {
                due.extend(next(&self.nodes[id]));
            }
        }
        all
    }

    /// Returns all nodes that a value of this goal is held against.
    fn in_place(&self, goal: &Goal) -> BTreeSet<Id> {
        self.alongside(goal.ids(), |node| node.in_place().collect())
    }

    /// Holds a value against a goal.
    fn hits(&mut self, goal: &Goal, datum: &Datum<'_>) -> (Truth, Option<String>) {
        let mut judge = Judge::new(&self.nodes, self.patterns).within(self.steps);
        let truth = hold(&mut judge, goal, datum);
        let (steps, doubt) = (judge.steps(), judge.doubt);
        self.step(steps);
        (truth, doubt)
    }

    /// Judges values one by one.
    fn find_among(&mut self, goal: &Goal, values: impl IntoIterator<Item = Datum<'static>>) -> Found {
        let mut doubt = None;
        for value in values {
            match self.hits(goal, &value) {
                (Truth::Yes, _) => return Found::Example(Rc::new(value)),
                (Truth::Unknown, why) => doubt = doubt.or(why),
                (Truth::No, _) => {}
            }
            if self.steps == 0 {
                return Found::Doubt(TOO_COMPLEX.to_owned());
            }
        }
        doubt.map_or(Found::Never, Found::Doubt)
    }

    fn find_foreign(&mut self, goal: &Goal, kinds: Kinds) -> Found {
        for (kind, name) in Kinds::FOREIGN {
            if kinds.meets(kind) && self.hits(goal, &Datum::Foreign(kind, Vec::new())).0 != Truth::No {
                return Found::Doubt(format!("{name}, which JSON does not have"));
            }
        }
        Found::Never
    }

    /// Judges all values of a kind that the nodes of a goal list.
    fn find_listed(&mut self, goal: &Goal, kind: Kinds) -> Found {
        let values = self.listed(goal);
        self.find_among(goal, values.into_iter().filter(|value| value.kind().meets(kind)))
    }

    /// Returns all values that the nodes of a goal list.
    fn listed(&self, goal: &Goal) -> BTreeSet<Datum<'static>> {
        let listed = |id: Id| self.nodes[id].values.iter().flatten().cloned();
        self.in_place(goal).into_iter().flat_map(listed).collect()
    }

    /// Counts steps. Returns `false` if none is left.
    fn step(&mut self, steps: u64) -> bool {
        self.steps = self.steps.saturating_sub(steps);
        self.steps > 0
    }
}

/// Holds a value against a goal.
fn hold(judge: &mut Judge<'_>, goal: &Goal, datum: &Datum<'_>) -> Truth {
    let mut truth = Truth::Yes;
    for id in &goal.fit {
        judge.heeds_hints = true;
        truth = truth.and(judge.judge(*id, datum));
        judge.heeds_hints = false;
        if truth == Truth::No {
            return truth;
        }
    }
    for id in &goal.miss {
        truth = truth.and(judge.judge(*id, datum).not());
        if truth == Truth::No {
            return truth;
        }
    }
    truth
}
