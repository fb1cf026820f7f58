//! Mistakes in files of users, each with its place and what to write instead.
//!
//! Whoever reads a file of a user makes a [`Source`] of its text and a [`Diagnostic`] for each mistake, with the bytes of the text
//! that are wrong. `Source::told` shows it to people, with the line itself; `Source::document` is for editors:
//!
//! ```text
//! let source = Source::new("cases/first.toml", text);
//! let mistake = Diagnostic::error("unknown-key", key.span(), "unknown key `itmes`; did you mean `items`?");
//! output.note(&source.told(&mistake, output.is_colored()));
//! ```

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use crate::text::visible;

/// The width of messages, where lines of the source are cut.
const WIDTH: usize = 140;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// It must be mended.
    Error,
    /// It is worth knowing.
    Note,
}

/// A mistake in a text, or a note on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    /// How bad it is.
    pub(crate) severity: Severity,
    /// What kind of mistake it is, as in `unknown-key`.
    pub(crate) code: &'static str,
    /// The bytes of the text that are wrong.
    pub(crate) span: Range<usize>,
    /// What is wrong.
    pub(crate) message: String,
    /// What to write instead. `None` if the message says all.
    pub(crate) help: Option<String>,
}

impl Diagnostic {
    /// Creates an error. What follows the first semicolon of the text is what to do.
    pub(crate) fn error(code: &'static str, span: Range<usize>, text: impl Into<String>) -> Self {
        let text = text.into();
        let (message, help) = match split(&text) {
            Some((message, help)) => (message.to_owned(), Some(help.to_owned())),
            None => (text, None),
        };
        Self { severity: Severity::Error, code, span, message, help }
    }

    /// Creates a note.
    pub(crate) fn note(code: &'static str, span: Range<usize>, text: impl Into<String>) -> Self {
        Self { severity: Severity::Note, ..Self::error(code, span, text) }
    }

    /// Returns the message with what to do.
    pub(crate) fn text(&self) -> String {
        let Self { message, help, .. } = self;
        help.as_ref().map_or_else(|| message.clone(), |help| format!("{message}; {help}"))
    }
}

/// Splits a text at the first semicolon that is not quoted.
fn split(text: &str) -> Option<(&str, &str)> {
    text.match_indices("; ").find_map(|(at, _)| {
        let before = &text[..at];
        let is_quoted = before.matches('`').count() % 2 == 1;
        (!is_quoted).then(|| (before, &text[at + 2..]))
    })
}

/// A text with the name of its file.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    name: String,
    text: String,
}

/// A place in a text. Both numbers count from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A diagnostic as editors read it.
#[derive(Debug, Serialize)]
pub(crate) struct Document<'a> {
    file: &'a str,
    line: usize,
    column: usize,
    /// The place after the last character.
    end: Place,
    severity: Severity,
    code: &'a str,
    message: &'a str,
    help: Option<&'a str>,
}

impl Source {
    /// Creates a source.
    pub(crate) fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// Returns the place of a byte.
    pub(crate) fn place(&self, at: usize) -> Place {
        let before = &self.text[..self.floor(at)];
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        Place { line: before.matches('\n').count() + 1, column: before[start..].chars().count() + 1 }
    }

    /// Returns the nearest boundary of a character at or before a byte.
    fn floor(&self, at: usize) -> usize {
        self.text.floor_char_boundary(at)
    }

    /// Returns the bytes of a diagnostic within the text. A span of several lines is cut to the first.
    fn within(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.floor(span.start);
        let end = self.floor(span.end).max(start);
        let line = self.text[start..end].find('\n').map_or(end, |line| start + line);
        start..line
    }

    /// Returns a diagnostic as people read it, with the line itself.
    pub(crate) fn told(&self, diagnostic: &Diagnostic, is_colored: bool) -> String {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Note => Level::NOTE,
        };
        self.render(diagnostic, Some(level), is_colored)
    }

    /// Returns a diagnostic that follows another, as [`Source::told`] does.
    pub(crate) fn also(&self, diagnostic: &Diagnostic, is_colored: bool) -> String {
        self.render(diagnostic, Some(Level::ERROR.with_name("also")), is_colored)
    }

    /// Returns the line of a diagnostic whose message has been told.
    pub(crate) fn line(&self, diagnostic: &Diagnostic, is_colored: bool) -> String {
        self.render(diagnostic, None, is_colored)
    }

    fn render(&self, diagnostic: &Diagnostic, level: Option<Level<'_>>, is_colored: bool) -> String {
        let annotation = AnnotationKind::Primary.span(self.within(&diagnostic.span));
        let snippet = Snippet::source(shown(&self.text)).path(self.name.as_str()).annotation(annotation);
        let help = diagnostic.help.as_ref().filter(|_| level.is_some());
        let group = match level {
            Some(level) => level.primary_title(visible(&diagnostic.message)).element(snippet),
            None => Group::with_level(Level::ERROR).element(snippet),
        };
        let group = match help {
            Some(help) => group.element(Level::HELP.message(visible(help))),
            None => group,
        };
        let renderer = if is_colored { Renderer::styled() } else { Renderer::plain() };
        renderer.term_width(WIDTH).render(&[group])
    }

    /// Returns a diagnostic as editors read it.
    pub(crate) fn document<'a>(&'a self, diagnostic: &'a Diagnostic) -> Document<'a> {
        let span = self.within(&diagnostic.span);
        let Place { line, column } = self.place(span.start);
        let Diagnostic { severity, code, message, help, .. } = diagnostic;
        let (file, end) = (self.name.as_str(), self.place(span.end));
        Document { file, line, column, end, severity: *severity, code, message, help: help.as_deref() }
    }
}

/// Returns a text whose control characters a terminal does not obey. Each stays one byte.
fn shown(text: &str) -> String {
    let replace = |byte: char| if byte.is_ascii_control() && !"\n\t\r".contains(byte) { '?' } else { byte };
    text.chars().map(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_told_with_its_line_and_what_to_write() {
        let source = Source::new("a.toml", "name = \"ä\"\nvresion = \"1\"\n");
        let mistake = Diagnostic::error("unknown-key", 12..19, "unknown key `vresion`; did you mean `version`?");
        assert_eq!(
            source.told(&mistake, false),
            "error: unknown key `vresion`\n --> a.toml:2:1\n  |\n2 | vresion = \"1\"\n  | ^^^^^^^\n  |\n  = help: did you mean `version`?"
        );
        let document = serde_json::to_value(source.document(&mistake)).expect("JSON");
        assert_eq!(
            document,
            serde_json::json!({
                "file": "a.toml", "line": 2, "column": 1, "end": { "line": 2, "column": 8 }, "severity": "error",
                "code": "unknown-key", "message": "unknown key `vresion`", "help": "did you mean `version`?"
            })
        );
    }

    #[test]
    fn a_place_beyond_the_text_or_within_a_character_does_no_harm() {
        let source = Source::new("a", "ä\u{1b}[2J");
        for span in [0..1, 1..2, 99..100, Range { start: 5, end: 1 }] {
            let told = source.told(&Diagnostic::error("any", span.clone(), "wrong"), false);
            assert!(!told.contains('\u{1b}') && told.starts_with("error: wrong"), "{span:?}: {told}");
        }
        assert_eq!(Source::new("", "").place(7), Place { line: 1, column: 1 });
        assert_eq!(split("`a; b` is wrong; write c; or d"), Some(("`a; b` is wrong", "write c; or d")));
    }
}
