//! Chooses which rules an array or object breaks, and which of several schemas it fits.

use std::rc::Rc;

use super::fact::{Fact, Part};
use super::formula::Formula;
use super::state::State;
use super::{Found, Goal, MAX_DEPTH, Search, TOO_COMPLEX};
use crate::contract::datum::Datum;
use crate::contract::judge::Truth;
use crate::contract::kinds::Kinds;
use crate::contract::node::Id;

/// Formulas of which at least one must hold.
type Clause = Vec<(Formula, bool)>;

impl Search<'_> {
    /// Searches an array or object that no node lists.
    pub(super) fn solve_kind(&mut self, kind: Kinds, goal: &Goal) -> Found {
        let is = |id: Id, fits: bool| (Formula::Is(Part { id, fits }), true);
        let due = goal.miss.iter().map(|id| is(*id, false)).chain(goal.fit.iter().map(|id| is(*id, true))).collect();
        self.solve(kind, goal, State::default(), due, Vec::new())
    }

    /// Returns what it takes to fit a node.
    pub(super) fn formula(&mut self, id: Id, kind: Kinds) -> Rc<Formula> {
        let nodes = &self.nodes;
        let formula = self.formulas.entry((id, kind)).or_insert_with(|| Rc::new(Formula::of(&nodes[id], kind)));
        Rc::clone(formula)
    }

    fn solve(
        &mut self,
        kind: Kinds,
        goal: &Goal,
        mut state: State,
        mut due: Vec<(Formula, bool)>,
        mut clauses: Vec<Clause>,
    ) -> Found {
        if !self.step(1) || self.depth >= MAX_DEPTH {
            return Found::Doubt(TOO_COMPLEX.to_owned());
        }
        loop {
            if !self.decide_all(kind, &mut state, &mut due, &mut clauses) {
                return Found::Never;
            }
            if !self.simplify(kind, &state, &mut clauses) {
                return Found::Never;
            }
            let (certain, open): (Vec<Clause>, Vec<Clause>) = clauses.into_iter().partition(|clause| clause.len() == 1);
            clauses = open;
            if certain.is_empty() {
                break;
            }
            due.extend(certain.into_iter().flatten());
        }
        let Some(smallest) = (0..clauses.len()).min_by_key(|at| clauses[*at].len()) else {
            return self.build(kind, goal, &state);
        };
        let chosen = clauses.swap_remove(smallest);
        self.depth += 1;
        let mut found = Found::Never;
        for part in chosen {
            found = found.or(|| self.solve(kind, goal, state.clone(), vec![part], clauses.clone()));
            if matches!(found, Found::Example(_)) || self.steps == 0 {
                break;
            }
        }
        self.depth -= 1;
        found
    }

    /// Decides all that is due. Returns `false` if it cannot hold.
    fn decide_all(
        &mut self,
        kind: Kinds,
        state: &mut State,
        due: &mut Vec<(Formula, bool)>,
        clauses: &mut Vec<Clause>,
    ) -> bool {
        while let Some((formula, holds)) = due.pop() {
            if !self.step(1) {
                state.doubt.get_or_insert(TOO_COMPLEX.to_owned());
                return true;
            }
            match formula {
                Formula::Fact(fact) => {
                    let fact = if holds { Some(fact) } else { fact.not() };
                    if !fact.is_some_and(|fact| state.decide(fact)) {
                        return false;
                    }
                }
                Formula::Is(part) => {
                    let fits = part.fits == holds;
                    match state.nodes.insert(part.id, fits) {
                        Some(known) if known != fits => return false,
                        Some(_) => {}
                        None => due.push((self.formula(part.id, kind).as_ref().clone(), fits)),
                    }
                }
                Formula::All(parts) if holds => due.extend(parts.into_iter().rev().map(|part| (part, true))),
                Formula::Any(parts) if !holds => due.extend(parts.into_iter().rev().map(|part| (part, false))),
                Formula::All(parts) | Formula::Any(parts) => {
                    clauses.push(parts.into_iter().map(|part| (part, holds)).collect());
                }
                Formula::Unknown(why) => drop(state.doubt.get_or_insert(why)),
            }
        }
        true
    }

    /// Drops what holds already from clauses, and from each what cannot hold. Returns `false` if nothing is left of one.
    fn simplify(&mut self, kind: Kinds, state: &State, clauses: &mut Vec<Clause>) -> bool {
        let mut open = Vec::with_capacity(clauses.len());
        for clause in std::mem::take(clauses) {
            let mut left = Vec::with_capacity(clause.len());
            let mut holds_already = false;
            for (formula, holds) in clause {
                match self.status(kind, state, &formula, holds, 0) {
                    Truth::Yes => {
                        holds_already = true;
                        break;
                    }
                    Truth::No => {}
                    Truth::Unknown => left.push((formula, holds)),
                }
            }
            if holds_already {
                continue;
            }
            if left.is_empty() {
                return false;
            }
            open.push(left);
        }
        *clauses = open;
        true
    }

    /// Makes a value of what is decided.
    fn build(&mut self, kind: Kinds, goal: &Goal, state: &State) -> Found {
        let made = if kind == Kinds::LIST { self.build_list(state) } else { self.build_object(state) };
        let Found::Example(value) = made else { return made };
        if self.listed(goal).contains(value.as_ref()) {
            return self.build_larger(kind, goal, state, &value);
        }
        self.judged(goal, state, value)
    }

    /// Makes a larger value than one that nodes list, which was judged already.
    fn build_larger(&mut self, kind: Kinds, goal: &Goal, state: &State, value: &Datum<'static>) -> Found {
        let size = match value {
            Datum::List(items) => items.len() as u64,
            Datum::Object(entries) => entries.len() as u64,
            _ => 0,
        };
        let mut larger = state.clone();
        let found = if self.step(1) && larger.decide(Fact::Least(size + 1)) {
            self.build(kind, goal, &larger)
        } else {
            Found::Never
        };
        // Of empty values there is but one.
        if found.is_never() && size > 0 { Found::Doubt("values that schemas list".to_owned()) } else { found }
    }

    /// Returns a value that was made if it is what was searched.
    fn judged(&mut self, goal: &Goal, state: &State, value: Rc<Datum<'static>>) -> Found {
        match self.hits(goal, &value) {
            (Truth::Yes, _) => Found::Example(value),
            (_, why) => {
                let why = state.doubt.clone().or(why);
                Found::Doubt(why.unwrap_or_else(|| "schemas that are not understood together".to_owned()))
            }
        }
    }
}
