//! Searches texts.
//!
//! Rules tell texts apart by their lengths, by the texts that are listed, and by patterns and formats, of which this search knows
//! nothing but their names: for each combination of them it tries to make a text.

use std::collections::{BTreeMap, BTreeSet};

use super::{Found, Goal, Search, TOO_COMPLEX, hold};
use crate::contract::datum::Datum;
use crate::contract::judge::{Judge, Sketch, Truth};
use crate::contract::pattern::sample_of_format;

/// The most patterns and formats that are combined.
const MAX_COMBINED: usize = 6;
/// The most characters of a text that is made.
const MAX_LENGTH: u64 = 10_000;

/// What the rules of a goal say of texts.
#[derive(Default)]
struct Rules {
    lengths: BTreeSet<u64>,
    listed: BTreeSet<String>,
    patterns: BTreeSet<String>,
    formats: BTreeSet<String>,
}

impl Search<'_> {
    /// Searches a text that matches some patterns and not others, and is none of those in use.
    pub(super) fn find_text(&mut self, goal: &Goal, matched: &[(String, bool)], used: &BTreeSet<String>) -> Found {
        let mut rules = self.text_rules(goal);
        rules.patterns.extend(matched.iter().map(|(pattern, _)| pattern.clone()));
        let known = |pattern: &str, text: &str| self.patterns.matches(pattern, text);
        let is_new = |text: &String| {
            !used.contains(text) && matched.iter().all(|(pattern, matches)| known(pattern, text) == Some(*matches))
        };
        let texts: Vec<String> = self.candidates(&rules, used).into_iter().filter(is_new).collect();
        let found = self.find_among(goal, texts.into_iter().map(Datum::text));
        match found {
            Found::Example(_) => found,
            _ => self.find_sketch(goal, &rules, matched, used),
        }
    }

    fn text_rules(&self, goal: &Goal) -> Rules {
        let mut rules = Rules::default();
        rules.lengths.extend([0, 1]);
        for id in self.in_place(goal) {
            let node = &self.nodes[id];
            let length = &node.text.length;
            let ends = [
                length.least.checked_sub(1),
                Some(length.least),
                length.most,
                length.most.and_then(|most| most.checked_add(1)),
            ];
            rules.lengths.extend(ends.into_iter().flatten());
            rules.patterns.extend(node.text.pattern.clone());
            rules.formats.extend(node.text.format.clone());
            let text = |value: &Datum<'static>| match value {
                Datum::Text(text) => Some(text.to_string()),
                _ => None,
            };
            rules.listed.extend(node.values.iter().flatten().filter_map(text));
        }
        rules
    }

    /// Returns texts to try.
    fn candidates(&self, rules: &Rules, used: &BTreeSet<String>) -> Vec<String> {
        let mut texts: Vec<String> =
            rules.formats.iter().filter_map(|format| sample_of_format(format)).map(str::to_owned).collect();
        texts.extend(rules.listed.iter().cloned());
        for pattern in &rules.patterns {
            texts.extend(self.patterns.samples(pattern));
        }
        let lengths = [3].iter().chain(&rules.lengths).filter(|length| **length <= MAX_LENGTH);
        texts.extend(
            lengths.filter_map(|length| new_text(*length, |text| rules.listed.contains(text) || used.contains(text))),
        );
        texts
    }

    /// Searches a class of texts of which none could be made, or none needs to be.
    fn find_sketch(
        &mut self,
        goal: &Goal,
        rules: &Rules,
        matched: &[(String, bool)],
        used: &BTreeSet<String>,
    ) -> Found {
        let names: Vec<(&String, bool)> = rules
            .patterns
            .iter()
            .map(|name| (name, true))
            .chain(rules.formats.iter().map(|name| (name, false)))
            .collect();
        if names.len() > MAX_COMBINED {
            return Found::Doubt("too many patterns".to_owned());
        }
        for length in &rules.lengths {
            // There is but one text of this length.
            if *length == 0 && (used.contains("") || rules.listed.contains("")) {
                continue;
            }
            for chosen in 0..1_u32 << names.len() {
                let holds = |wanted: bool| {
                    let of_kind = names.iter().enumerate().filter(move |(_, (_, is_pattern))| *is_pattern == wanted);
                    of_kind
                        .map(move |(at, (name, _))| ((*name).clone(), chosen >> at & 1 == 1))
                        .collect::<BTreeMap<_, _>>()
                };
                let sketch = Sketch { length: *length, patterns: holds(true), formats: holds(false) };
                let is_meant = matched.iter().all(|(pattern, matches)| sketch.patterns.get(pattern) == Some(matches));
                if is_meant && let Some(doubt) = self.judge_sketch(goal, &sketch) {
                    return Found::Doubt(doubt);
                }
                if self.steps == 0 {
                    return Found::Doubt(TOO_COMPLEX.to_owned());
                }
            }
        }
        Found::Never
    }

    /// Returns why it is not known whether a text of this class hits the goal. `None` if none does.
    fn judge_sketch(&mut self, goal: &Goal, sketch: &Sketch) -> Option<String> {
        let mut judge = Judge::new(&self.nodes, self.patterns).within(self.steps).with_sketch(sketch);
        let truth = hold(&mut judge, goal, &Datum::text(""));
        let (steps, doubt) = (judge.steps(), judge.doubt.take());
        self.step(steps);
        let named = || {
            let names = sketch.formats.keys().map(|format| format!("the format `{format}`"));
            names.chain(sketch.patterns.keys().map(|pattern| format!("the pattern `{pattern}`"))).next()
        };
        (truth != Truth::No).then(|| doubt.or_else(named).unwrap_or_else(|| "very long texts".to_owned()))
    }
}

/// Returns a text of this many characters that is not known. `None` if it is empty and known.
pub(super) fn new_text(length: u64, is_known: impl Fn(&String) -> bool) -> Option<String> {
    let mut text = "a".repeat(usize::try_from(length).ok()?);
    if !is_known(&text) {
        return Some(text);
    }
    text.pop()?;
    let last = ('b'..=char::MAX).map(|last| format!("{text}{last}"));
    last.into_iter().find(|text| !is_known(text))
}
