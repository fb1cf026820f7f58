//! Compares dead letters. Their order does not count.

use super::Differences;
use super::pairs::matching;
use crate::cases::case::ExpectedDead;
use crate::cases::outcome::Died;

/// The most characters of a reason.
const REASON_MAX: usize = 200;

/// Returns `true` if a dead letter is as expected.
fn fits(expected: &ExpectedDead, died: &Died) -> bool {
    expected.stage == died.stage
        && expected.kind.is_none_or(|kind| kind == died.kind)
        && expected.attempts.is_none_or(|attempts| attempts == died.attempts)
        && expected.reason.as_ref().is_none_or(|reason| died.reason.contains(reason))
}

/// Returns for each expected letter the one that it fits. `None` if there is none left.
pub(in crate::cases) fn matched(expected: &[ExpectedDead], dead: &[Died]) -> Vec<Option<usize>> {
    matching(expected.len(), dead.len(), |at, other| fits(&expected[at], &dead[other]))
}

/// Compares the dead letters of a case.
pub(super) fn compare(found: &mut Differences, expected: &[ExpectedDead], dead: &[Died]) {
    let partners = matched(expected, dead);
    let mut left: Vec<usize> = (0..dead.len()).filter(|other| !partners.contains(&Some(*other))).collect();
    for (at, expected) in expected.iter().enumerate().filter(|(at, _)| partners[*at].is_none()) {
        let near = left.iter().position(|other| dead[*other].stage == expected.stage);
        match near.map(|near| left.remove(near)) {
            Some(other) => differ(found, at, expected, &dead[other]),
            None => found.add(format!("dead[{at}]"), format!("missing; expected {}", described(expected))),
        }
    }
    for other in left {
        let Died { stage, kind, reason, attempts, .. } = &dead[other];
        let tries = if *attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") };
        let what = format!("not expected; stage `{stage}` failed after {tries}: {}: {}", kind.name(), brief(reason));
        found.add("dead", what);
    }
}

/// Adds how a letter of the same stage differs.
fn differ(found: &mut Differences, at: usize, expected: &ExpectedDead, died: &Died) {
    if let Some(kind) = expected.kind.filter(|kind| *kind != died.kind) {
        found.add(format!("dead[{at}]/kind"), format!("expected {}, got {}", kind.name(), died.kind.name()));
    }
    if let Some(reason) = expected.reason.as_ref().filter(|reason| !died.reason.contains(*reason)) {
        let what = format!("expected to contain {:?}, got {:?}", brief(reason), brief(&died.reason));
        found.add(format!("dead[{at}]/reason"), what);
    }
    if let Some(attempts) = expected.attempts.filter(|attempts| *attempts != died.attempts) {
        found.add(format!("dead[{at}]/attempts"), format!("expected {attempts}, got {}", died.attempts));
    }
    if fits(expected, died) {
        let what = format!("missing; another expects the only one of stage `{}` that fits", died.stage);
        found.add(format!("dead[{at}]"), what);
    }
}

fn described(expected: &ExpectedDead) -> String {
    let ExpectedDead { stage, kind, reason, .. } = expected;
    let kind = kind.map(|kind| format!(", {}", kind.name())).unwrap_or_default();
    let reason = reason.as_ref().map(|reason| format!(", {:?}", brief(reason))).unwrap_or_default();
    format!("one of stage `{stage}`{kind}{reason}")
}

fn brief(text: &str) -> String {
    crate::text::cut(text, REASON_MAX)
}
