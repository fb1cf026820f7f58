//! Searches numbers.
//!
//! The bounds and listed numbers of the rules cut the line of numbers into points and gaps. Within a gap, rules tell numbers apart
//! by what they are multiples of, and nothing else.

use std::collections::BTreeSet;

use super::{Found, Goal, Search};
use crate::contract::datum::Datum;
use crate::contract::decimal::Decimal;

/// The most different steps, of which 1 is one.
const MAX_STEPS: usize = 5;
/// How many multiples of a number are tried in a gap. Among 14 in a row, there is one that no other of four is a divisor of.
const IN_A_ROW: i128 = 16;

impl Search<'_> {
    /// Searches a number.
    pub(super) fn find_number(&mut self, goal: &Goal) -> Found {
        let (mut points, mut steps) = (BTreeSet::new(), BTreeSet::from([Decimal::of_units(1, 0).unwrap_or_default()]));
        points.insert(Decimal::default());
        for id in self.in_place(goal) {
            let node = &self.nodes[id];
            let rules = &node.number;
            points.extend(rules.least.iter().chain(&rules.most).map(|bound| bound.value.clone()));
            points.extend(rules.hinted.iter().flat_map(|(least, most)| [least.clone(), most.clone()]));
            let number = |value: &Datum<'static>| match value {
                Datum::Number(number) => Some(number.clone()),
                _ => None,
            };
            points.extend(node.values.iter().flatten().filter_map(number));
            steps.extend(rules.step.clone());
        }
        if let Some(numbers) = candidates(&points, &steps) {
            return self.find_among(goal, numbers.into_iter().map(Datum::Number));
        }
        let found = self.find_among(goal, points.into_iter().map(Datum::Number));
        found.or(|| Found::Doubt("numbers that are too large or too many to compare".to_owned()))
    }
}

/// Returns a number of each class, the simplest first. `None` if they cannot be told.
fn candidates(points: &BTreeSet<Decimal>, steps: &BTreeSet<Decimal>) -> Option<Vec<Decimal>> {
    if steps.len() > MAX_STEPS {
        return None;
    }
    // Numbers that are no multiple of any step have one more digit than all of them.
    let exponent = points.iter().chain(steps).map(Decimal::exponent).min()?.min(0) - 1;
    let in_units = |numbers: &BTreeSet<Decimal>| {
        numbers.iter().map(|number| number.in_units(exponent)).collect::<Option<Vec<i128>>>()
    };
    let (points, steps) = (in_units(points)?, in_units(steps)?);
    let mut found: BTreeSet<i128> = points.iter().copied().collect();
    let ends = points.iter().map(|point| Some(*point));
    let gaps = std::iter::once(None).chain(ends.clone()).zip(ends.chain(std::iter::once(None)));
    let gaps: Vec<_> = gaps.collect();
    for steps in subsets(&steps) {
        let step = steps.iter().try_fold(1_i128, |step, next| least_common_multiple(step, *next))?;
        for (from, to) in &gaps {
            found.extend(multiples_between(step, *from, *to)?);
        }
    }
    let mut found: Vec<i128> = found.into_iter().collect();
    let whole = 10_i128.pow(u32::try_from(-exponent).ok()?.min(37));
    found.sort_by_key(|number| (number % whole != 0, *number < 0, number.unsigned_abs()));
    found.into_iter().map(|units| Decimal::of_units(units, exponent)).collect()
}

fn subsets(numbers: &[i128]) -> impl Iterator<Item = Vec<i128>> + '_ {
    let chosen = |subset: usize| numbers.iter().enumerate().filter(move |(at, _)| subset >> at & 1 == 1);
    (0..1_usize << numbers.len()).map(move |subset| chosen(subset).map(|(_, number)| *number).collect())
}

/// Returns some multiples of a number in a gap, beginning at an end of it. `None` if they are too large.
fn multiples_between(step: i128, from: Option<i128>, to: Option<i128>) -> Option<Vec<i128>> {
    let multiple =
        |first: i128, at: i128, direction: i128| first.checked_add(direction.checked_mul(at.checked_mul(step)?)?);
    let above = |from: i128| from.div_euclid(step).checked_mul(step)?.checked_add(step);
    let below = |to: i128| (to.checked_sub(1)?).div_euclid(step).checked_mul(step);
    let (first, direction) = match (from, to) {
        (Some(from), _) => (above(from)?, 1),
        (None, Some(to)) => (below(to)?, -1),
        (None, None) => (0, 1),
    };
    let all: Option<Vec<i128>> = (0..IN_A_ROW).map(|at| multiple(first, at, direction)).collect();
    Some(all?.into_iter().filter(|number| to.is_none_or(|to| *number < to)).collect())
}

fn least_common_multiple(one: i128, other: i128) -> Option<i128> {
    let (mut divisor, mut rest) = (one, other);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    one.checked_div(divisor)?.checked_mul(other)
}
