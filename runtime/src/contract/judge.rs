//! Holds one value against a schema.

mod list;
mod object;
mod told;

use std::collections::BTreeMap;

use super::datum::Datum;
use super::node::{Id, Node, NumberRules, TextRules};
use super::pattern::{Patterns, sample_of_format};
pub(super) use told::{Refusal, Step, Why};

/// The most steps of one judgment of a small value. Beyond them nothing is decided.
const MAX_STEPS: u64 = 200_000;
/// The steps that each part of a value may take besides.
const STEPS_OF_PART: u64 = 20;
/// The most levels of values and schemas. Beyond them nothing is decided.
const MAX_DEPTH: usize = 400;

/// Whether a value fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    /// It fits.
    Yes,
    /// It does not.
    No,
    /// Nobody knows.
    Unknown,
}

impl Truth {
    /// Returns whether both hold.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Unknown,
        }
    }

    /// Returns whether it does not hold.
    pub(super) fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// A text of which only some is known, in place of all that are alike.
#[derive(Debug, Clone, Default)]
pub(super) struct Sketch {
    /// The number of its characters.
    pub length: u64,
    /// Whether it matches these patterns.
    pub patterns: BTreeMap<String, bool>,
    /// Whether it is of these formats.
    pub formats: BTreeMap<String, bool>,
}

/// Holds values against nodes.
pub(super) struct Judge<'a> {
    nodes: &'a [Node],
    patterns: &'a Patterns,
    /// What stands in for the text that is judged.
    sketch: Option<&'a Sketch>,
    /// The steps that are left, of at most so many.
    steps: u64,
    most: u64,
    depth: usize,
    /// Where in the value the judgment is.
    path: Vec<Step>,
    /// `true` if it matters why a value does not fit.
    is_telling: bool,
    /// Why the value does not fit.
    pub refusal: Option<Refusal>,
    /// Why nothing is decided.
    pub doubt: Option<String>,
    /// `true` if the hints of numbers count: a number beyond them may not fit.
    pub heeds_hints: bool,
}

impl<'a> Judge<'a> {
    /// Creates a judge that only says whether a value fits.
    pub(super) fn new(nodes: &'a [Node], patterns: &'a Patterns) -> Self {
        Self {
            nodes,
            patterns,
            sketch: None,
            steps: MAX_STEPS,
            most: MAX_STEPS,
            depth: 0,
            path: Vec::new(),
            is_telling: false,
            refusal: None,
            doubt: None,
            heeds_hints: false,
        }
    }

    /// Creates a judge that also says why a value does not fit.
    pub(super) fn telling(nodes: &'a [Node], patterns: &'a Patterns) -> Self {
        Self { is_telling: true, ..Self::new(nodes, patterns) }
    }

    /// Bounds the steps further.
    pub(super) fn within(self, steps: u64) -> Self {
        Self { steps: steps.min(MAX_STEPS), most: steps.min(MAX_STEPS), ..self }
    }

    /// Allows as many steps as a value of this many parts may take.
    pub(super) fn for_parts(self, parts: u64) -> Self {
        let most = MAX_STEPS.saturating_add(parts.saturating_mul(STEPS_OF_PART));
        Self { steps: most, most, ..self }
    }

    /// Lets the sketch stand in for the text that is judged.
    pub(super) fn with_sketch(self, sketch: &'a Sketch) -> Self {
        Self { sketch: Some(sketch), ..self }
    }

    /// Returns how many steps were taken.
    pub(super) fn steps(&self) -> u64 {
        self.most - self.steps
    }

    /// Holds a value against a node.
    pub(super) fn judge(&mut self, id: Id, datum: &Datum<'_>) -> Truth {
        if self.steps == 0 || self.depth == MAX_DEPTH {
            return self.doubt("a schema that is too complex".to_owned());
        }
        self.steps -= 1;
        self.depth += 1;
        let truth = self.judge_node(id, &self.nodes[id], datum);
        self.depth -= 1;
        truth
    }

    fn judge_node(&mut self, id: Id, node: &'a Node, datum: &Datum<'_>) -> Truth {
        if !node.kinds.meets(datum.kind()) {
            return self.refuse(id, Why::Kind(node.kinds));
        }
        if node.values.as_ref().is_some_and(|values| self.sketch.is_some() || !values.contains(datum)) {
            return self.refuse(id, Why::Value);
        }
        let mut truth = match datum {
            Datum::Number(_) => self.judge_number(id, &node.number, datum),
            Datum::Text(text) => self.judge_text(id, &node.text, text),
            Datum::List(items) => self.judge_list(id, &node.list, items),
            Datum::Object(entries) => self.judge_object(id, &node.object, entries, datum),
            _ => Truth::Yes,
        };
        if truth != Truth::No {
            truth = truth.and(self.judge_logic(id, node, datum));
        }
        let unknown = node.unknown.iter().find(|(kinds, _)| kinds.meets(datum.kind()));
        match unknown {
            Some((_, what)) if truth == Truth::Yes => self.doubt(what.clone()),
            _ => truth,
        }
    }

    fn judge_number(&mut self, id: Id, rules: &NumberRules, datum: &Datum<'_>) -> Truth {
        let Datum::Number(number) = datum else { return Truth::Yes };
        for bound in &rules.least {
            if *number < bound.value || (bound.is_open && *number == bound.value) {
                return self.refuse(id, Why::Least(bound.clone()));
            }
        }
        for bound in &rules.most {
            if *number > bound.value || (bound.is_open && *number == bound.value) {
                return self.refuse(id, Why::Most(bound.clone()));
            }
        }
        let is_multiple = rules.step.as_ref().map_or(Some(true), |step| number.is_multiple_of(step));
        let is_hinted = rules.hinted.as_ref().is_none_or(|(least, most)| (least..=most).contains(&number));
        match is_multiple {
            Some(false) => self.refuse(id, Why::Step(rules.step.clone().unwrap_or_default())),
            None => self.doubt("a `multipleOf` with too many digits".to_owned()),
            Some(true) if !is_hinted && self.heeds_hints => self.doubt("the format of a number".to_owned()),
            Some(true) => Truth::Yes,
        }
    }

    fn judge_text(&mut self, id: Id, rules: &TextRules, text: &str) -> Truth {
        let length = || text.chars().count() as u64;
        let is_bounded = rules.length.least > 0 || rules.length.most.is_some();
        if is_bounded && !rules.length.allows(self.sketch.map_or_else(length, |sketch| sketch.length)) {
            return self.refuse(id, Why::Length(rules.length.clone()));
        }
        let mut truth = Truth::Yes;
        if let Some(pattern) = &rules.pattern {
            let matches = match self.sketch {
                Some(sketch) => sketch.patterns.get(pattern).copied(),
                None => self.patterns.matches(pattern, text),
            };
            match matches {
                Some(true) => {}
                Some(false) => return self.refuse(id, Why::Pattern(pattern.clone())),
                None => truth = self.doubt(format!("the pattern `{pattern}`")),
            }
        }
        if let Some(format) = &rules.format {
            let is_known = match self.sketch {
                Some(sketch) => sketch.formats.get(format).copied(),
                None => (sample_of_format(format) == Some(text)).then_some(true),
            };
            match is_known {
                Some(true) => {}
                Some(false) => return self.refuse(id, Why::Value),
                None => truth = self.doubt(format!("the format `{format}`")),
            }
        }
        truth
    }

    fn judge_logic(&mut self, id: Id, node: &'a Node, datum: &Datum<'_>) -> Truth {
        let logic = &node.logic;
        let mut truth = Truth::Yes;
        for each in &logic.all {
            truth = truth.and(self.judge(*each, datum));
            if truth == Truth::No {
                return truth;
            }
        }
        if let Some(any) = &logic.any {
            truth = truth.and(self.judge_any(id, any, datum));
        }
        if let Some(one) = logic.one.as_ref().filter(|_| truth != Truth::No) {
            truth = truth.and(self.judge_one(id, one, datum));
        }
        if let Some(not) = logic.not.filter(|_| truth != Truth::No) {
            let fits = self.silently(|judge| judge.judge(not, datum));
            truth = truth.and(if fits == Truth::Yes { self.refuse(id, Why::Not) } else { fits.not() });
        }
        if let Some((when, then, other)) = logic.condition.filter(|_| truth != Truth::No) {
            let branch = |judge: &mut Self, id: Option<Id>| id.map_or(Truth::Yes, |id| judge.judge(id, datum));
            truth = truth.and(match self.silently(|judge| judge.judge(when, datum)) {
                Truth::Yes => branch(self, then),
                Truth::No => branch(self, other),
                Truth::Unknown => {
                    let both = [then, other].map(|id| self.silently(|judge| branch(judge, id)));
                    if both[0] == both[1] { both[0] } else { Truth::Unknown }
                }
            });
            if truth == Truth::No && self.refusal.is_none() {
                truth = self.refuse(id, Why::Not);
            }
        }
        truth
    }

    fn judge_any(&mut self, id: Id, any: &[Id], datum: &Datum<'_>) -> Truth {
        let (mut truth, mut nearest) = (Truth::No, None::<Refusal>);
        for each in any {
            match self.judge(*each, datum) {
                Truth::Yes => {
                    self.refusal = None;
                    return Truth::Yes;
                }
                Truth::Unknown => truth = Truth::Unknown,
                Truth::No => {
                    let refusal = self.refusal.take().filter(|refusal| refusal.is_inside(&self.path));
                    nearest = refusal.map(|refusal| refusal.or(nearest.take())).or(nearest);
                }
            }
        }
        if truth == Truth::No {
            // Of several schemas, the one that the value came furthest in is most likely meant.
            self.refuse(id, Why::None);
            if nearest.is_some() {
                self.refusal = nearest;
            }
        }
        truth
    }

    fn judge_one(&mut self, id: Id, one: &[Id], datum: &Datum<'_>) -> Truth {
        let truths: Vec<Truth> = one.iter().map(|each| self.silently(|judge| judge.judge(*each, datum))).collect();
        let count = |truth: Truth| truths.iter().filter(|each| **each == truth).count();
        match (count(Truth::Yes), count(Truth::Unknown)) {
            (2.., _) => self.refuse(id, Why::Several),
            (0, 0) => self.judge_any(id, one, datum),
            (1, 0) => Truth::Yes,
            _ => Truth::Unknown,
        }
    }

    /// Judges without keeping why a value does not fit.
    fn silently<T>(&mut self, judge: impl FnOnce(&mut Self) -> T) -> T {
        let kept = (std::mem::replace(&mut self.is_telling, false), self.refusal.take());
        let result = judge(self);
        (self.is_telling, self.refusal) = kept;
        result
    }

    /// Notes why nothing is decided.
    fn doubt(&mut self, why: String) -> Truth {
        self.doubt.get_or_insert(why);
        Truth::Unknown
    }

    /// Notes why the value does not fit.
    fn refuse(&mut self, id: Id, why: Why) -> Truth {
        if self.is_telling {
            self.refusal = Some(Refusal { path: self.path.clone(), id, others: Vec::new(), why });
        }
        Truth::No
    }

    /// Judges a part of the value.
    fn judge_part(&mut self, id: Id, step: impl FnOnce() -> Step, datum: &Datum<'_>) -> Truth {
        if self.is_telling {
            self.path.push(step());
        }
        let truth = self.judge(id, datum);
        if self.is_telling {
            self.path.pop();
        }
        truth
    }
}
