//! The only writer to standard output and standard error: data goes to the first, everything else to the second.
//!
//! Much of what is printed was written by guests and feeders. Their control characters are shown, not obeyed.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;

/// Where commands print.
#[derive(Debug, Clone)]
pub struct Output {
    json: bool,
}

/// Whether an error only says that whoever read standard output has stopped reading, as `head` does.
#[must_use]
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

impl Output {
    /// Prints data as JSON if `json`.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether data shall be JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a line of data.
    ///
    /// # Errors
    ///
    /// If standard output is closed.
    pub fn data(&self, line: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(visible(line).as_bytes())?;
        stdout.write_all(b"\n")?;
        stdout.flush()
    }

    /// Prints bytes as they are.
    ///
    /// # Errors
    ///
    /// If standard output is closed.
    pub fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    /// Prints a value as JSON: on many lines, for one document.
    ///
    /// # Errors
    ///
    /// If standard output is closed.
    pub fn document(&self, value: &impl Serialize) -> io::Result<()> {
        self.data(&serde_json::to_string_pretty(value)?)
    }

    /// Prints a value as JSON on one line.
    ///
    /// # Errors
    ///
    /// If standard output is closed.
    pub fn line(&self, value: &impl Serialize) -> io::Result<()> {
        self.data(&serde_json::to_string(value)?)
    }

    /// Prints rows in aligned columns. A column is aligned to the right if its heading starts with `>`.
    ///
    /// # Errors
    ///
    /// If standard output is closed.
    pub fn table(&self, headings: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let plain: Vec<String> = headings.iter().map(|heading| heading.trim_start_matches('>').to_owned()).collect();
        let width = |column: usize| {
            let cells = rows.iter().chain([&plain]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..headings.len()).map(width).collect();
        for row in [&plain].into_iter().chain(rows) {
            let cells = row.iter().zip(&widths).zip(headings).map(|((cell, &width), heading)| {
                if heading.starts_with('>') { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            self.data(cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }

    /// The width of the terminal that standard output is, in characters; `None` if it is none.
    #[must_use]
    pub fn width(&self) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
    }

    /// Says something to the person at the terminal.
    pub fn note(&self, message: &str) {
        // Nobody to tell is no reason to fail.
        let _ = writeln!(io::stderr().lock(), "{}", visible(message));
    }

    /// Says what went wrong.
    pub fn error(&self, error: &anyhow::Error) {
        self.note(&format!("error: {error:#}"));
    }

    /// A line that shows a count as it changes if standard error is a terminal, and nothing otherwise.
    #[must_use]
    pub fn progress(&self, what: &'static str) -> ProgressBar {
        const REDRAW: Duration = Duration::from_millis(100);
        if !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::no_length();
        let style = ProgressStyle::with_template("{spinner} {prefix} {human_pos} {rate} {msg}");
        // The library's own rate has four decimals.
        let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
            // A field that cannot be written is left out.
            let _ = write!(out, "{:.0}/s", state.per_sec());
        };
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()).with_key("rate", rate));
        bar.set_prefix(what);
        bar.enable_steady_tick(REDRAW);
        bar
    }
}

/// A text whose control characters, but for tabs and line breaks, are written as JSON escapes: they could move a terminal's
/// cursor, or worse, and within JSON the escape means the same.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    let obeyed = |character: char| character.is_control() && !matches!(character, '\t' | '\n');
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let show = |character: char| {
        if obeyed(character) { format!("\\u{:04x}", u32::from(character)) } else { character.to_string() }
    };
    Cow::Owned(text.chars().map(show).collect())
}

/// A duration in seconds, as summaries have it.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// A time as RFC 3339 has it, down to milliseconds.
#[must_use]
pub fn time(rfc3339: &str) -> &str {
    /// `2026-01-01T12:34:56.789`
    const MILLISECONDS: usize = 23;
    rfc3339.get(..MILLISECONDS).unwrap_or(rfc3339)
}

/// A number with its noun, as in `1 item` and `2 items`.
#[must_use]
pub fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A text on one line of at most this many characters.
#[must_use]
pub fn one_line(text: &str, max: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(max) {
        None => line,
        // The mark takes the place of one character.
        Some(_) => line.chars().take(max.saturating_sub(1)).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        assert_eq!(one_line("two\n  lines", 20), "two lines");
        assert_eq!(one_line("ägypten", 7), "ägypten");
        assert_eq!(one_line("ägypten!", 7), "ägypte…");
    }

    #[test]
    fn control_characters_are_shown_and_json_means_the_same() {
        assert_eq!(visible("two\tlines\nof text: äö"), "two\tlines\nof text: äö");
        assert_eq!(visible("\x1b[2J\r\u{9b}1m"), "\\u001b[2J\\u000d\\u009b1m");
        let value = "\u{7f}\u{9b}\x1b";
        let json = serde_json::to_string(value).expect("JSON");
        assert_eq!(serde_json::from_str::<String>(&visible(&json)).expect("JSON"), value);
    }
}
