//! Writes lists of items in the form that they have: as values, or as lines.

use bytes::Bytes;
use toml_edit::Value;

use super::edits::{Edits, list_of};
use crate::cases::case::Expect;
use crate::cases::compare::{is_equal, paired};
use crate::cases::value;

/// Returns a new list of items.
pub(super) fn fresh(items: &[Bytes], line_break: &str) -> String {
    let items: Vec<String> = items.iter().map(|item| value::write(item)).collect();
    list_of(&items, line_break)
}

/// Writes items in place of those that stand there. What is equal stays as it is written.
pub(super) fn write(edits: &mut Edits<'_>, value: &Value, expected: &[Bytes], got: &[Bytes], expect: &Expect) {
    let got = if expect.unordered { in_order_of(expected, got, expect.tolerance) } else { got.to_vec() };
    let is_kept = |at: usize| expected.get(at).is_some_and(|expected| is_equal(expected, &got[at], expect.tolerance));
    let line_break = edits.line_break;
    match value {
        Value::Array(array) => {
            let new: Vec<Option<String>> =
                (0..got.len()).map(|at| (!is_kept(at)).then(|| value::write(&got[at]))).collect();
            edits.list(array, &new, || fresh(&got, line_break));
        }
        Value::String(text) => {
            let written: Vec<&str> = text.value().lines().filter(|line| !line.trim().is_empty()).collect();
            let line = |at: usize| match written.get(at).filter(|line| is_kept(at) && is_literal(line)) {
                Some(line) => Some((*line).to_owned()),
                None => value::line(&got[at]),
            };
            let lines: Option<Vec<String>> = (0..got.len()).map(line).collect();
            let new = match lines.filter(|lines| !lines.is_empty()) {
                Some(lines) => format!("'''{line_break}{}{line_break}'''", lines.join(line_break)),
                // JSON cannot hold all of them.
                None => fresh(&got, line_break),
            };
            edits.replace(value.span().unwrap_or_default(), new);
        }
        _ => {}
    }
}

/// Returns `true` if a literal text of TOML can hold a line.
fn is_literal(line: &str) -> bool {
    !line.contains("'''") && !line.chars().any(|char| char.is_control() && char != '\t')
}

/// Returns items so that each that was expected stands where it was expected.
fn in_order_of(expected: &[Bytes], got: &[Bytes], tolerance: f64) -> Vec<Bytes> {
    let partners = paired(expected, got, tolerance);
    let taken: std::collections::HashSet<usize> = partners.iter().flatten().copied().collect();
    let mut left = (0..got.len()).filter(|other| !taken.contains(other));
    let kept: Vec<usize> = partners.iter().filter_map(|partner| partner.or_else(|| left.next())).collect();
    kept.into_iter().chain(left).map(|other| got[other].clone()).collect()
}
