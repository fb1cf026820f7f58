//! Patterns of texts. Dialects of regular expressions differ: where they may, nothing is decided.

use std::collections::HashMap;
use std::sync::RwLock;

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind};

/// The most bytes of a compiled pattern.
const MAX_COMPILED: usize = 1 << 18;
/// The most patterns that are compiled.
const MAX_PATTERNS: usize = 500;
/// The most characters of a text that is made for a pattern.
const MAX_MADE: usize = 2_000;

/// Compiled patterns, by their text. `None` for those that are not understood.
#[derive(Debug, Default)]
pub(super) struct Patterns(RwLock<HashMap<String, Option<Regex>>>);

impl Patterns {
    /// Returns `true` if a part of the text matches the pattern. `None` if dialects may differ about it.
    pub(super) fn matches(&self, pattern: &str, text: &str) -> Option<bool> {
        // Dialects differ in what letters, digits and line breaks are.
        let is_plain = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if !is_plain && (pattern.contains(['.', '$', '\\']) || pattern.contains("(?")) {
            return None;
        }
        let known = self.0.read().ok()?.get(pattern).cloned();
        if let Some(regex) = known {
            return Some(regex?.is_match(text));
        }
        let mut all = self.0.write().ok()?;
        let regex = if all.len() < MAX_PATTERNS { compiled(pattern) } else { None };
        all.insert(pattern.to_owned(), regex.clone());
        Some(regex?.is_match(text))
    }

    /// Returns a few texts that match the pattern, most likely.
    pub(super) fn samples(&self, pattern: &str) -> Vec<String> {
        if self.matches(pattern, "").is_none() {
            return Vec::new();
        }
        let Ok(hir) = regex_syntax::parse(pattern) else { return Vec::new() };
        let mut samples: Vec<String> = (0..6)
            .filter_map(|variant| {
                let mut text = String::new();
                write(&hir, variant, &mut text).then_some(text)
            })
            .collect();
        samples.dedup();
        samples
    }
}

fn compiled(pattern: &str) -> Option<Regex> {
    // In other dialects these are plain characters.
    let is_foreign = ["[[", "&&", "--", "~~", "\\<", "\\>", "\\Z", "\\A", "\\z", "\\G", "(?x", "(?-"];
    if is_foreign.iter().any(|part| pattern.contains(part)) {
        return None;
    }
    RegexBuilder::new(pattern).size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).build().ok()
}

/// Writes a text that matches this part of a pattern. Returns `false` if it would be too long, or if there is none.
fn write(hir: &Hir, variant: usize, out: &mut String) -> bool {
    if out.len() > MAX_MADE {
        return false;
    }
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => out.push_str(&String::from_utf8_lossy(&literal.0)),
        HirKind::Class(Class::Unicode(class)) => {
            let plain = |character: char| character.is_ascii_graphic() || character == ' ';
            let all = class.ranges().iter().flat_map(|range| (range.start()..=range.end()).take(128));
            let mut plain: Vec<char> = all.filter(|character| plain(*character)).take(96).collect();
            plain.sort_by_key(|character| !character.is_ascii_alphanumeric());
            let Some(first) = class.ranges().first() else { return false };
            out.push(plain.get(variant * 7 % plain.len().max(1)).copied().unwrap_or(first.start()));
        }
        HirKind::Class(Class::Bytes(_)) => return false,
        HirKind::Repetition(repetition) => {
            let most = repetition.max.unwrap_or(u32::MAX);
            let times = repetition.min.saturating_add([1, 0, 2, 5, 3, 8][variant % 6]).min(most);
            return times <= 1_000 && (0..times).all(|_| write(&repetition.sub, variant, out));
        }
        HirKind::Capture(capture) => return write(&capture.sub, variant, out),
        HirKind::Concat(parts) => return parts.iter().all(|part| write(part, variant, out)),
        HirKind::Alternation(parts) => {
            return parts.get(variant % parts.len()).is_some_and(|part| write(part, variant, out));
        }
    }
    true
}

/// Returns a text of a format that people know. Nothing but this text is known to be of it.
pub(super) fn sample_of_format(format: &str) -> Option<&'static str> {
    Some(match format {
        "date-time" => "2026-01-31T12:00:00Z",
        "date" => "2026-01-31",
        "time" => "12:00:00Z",
        "partial-date-time" => "2026-01-31T12:00:00",
        "duration" => "P1D",
        "email" | "idn-email" => "ada@example.com",
        "hostname" | "idn-hostname" => "example.com",
        "ipv4" | "ip" | "ipvanyaddress" => "192.0.2.1",
        "ipv6" => "2001:db8::1",
        "uri" | "url" | "iri" | "uri-reference" | "iri-reference" => "https://example.com/a",
        "uuid" | "uuid4" => "4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f",
        "json-pointer" => "/a",
        "regex" => "a",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_decided_where_dialects_agree() {
        let patterns = Patterns::default();
        for (pattern, text, expected) in [
            ("^a+$", "aaa", Some(true)),
            ("b", "abc", Some(true)),
            (r"^\d+$", "12", Some(true)),
            (r"^\d+$", "١", None),
            ("^a$", "a\n", None),
            ("ä", "ä", Some(true)),
            ("(?=a)b", "b", None),
            ("(", "b", None),
            ("[[]", "[", None),
            ("(((((a{99}){99}){99}){99}){99}){99}", "a", None),
        ] {
            assert_eq!(patterns.matches(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn samples_match() {
        let patterns = Patterns::default();
        for pattern in ["^[a-f0-9]{8}-[a-z]*$", r"^(cat|dog)s?\d+$", "x", r"^\S+@\S+\.[a-z]{2,}$", "^[^a]$"] {
            let samples = patterns.samples(pattern);
            assert!(samples.len() > 1 || pattern == "x", "{pattern}: {samples:?}");
            for sample in samples {
                assert_eq!(patterns.matches(pattern, &sample), Some(true), "{pattern} on {sample}");
            }
        }
    }
}
