//! The standard error of a program: its log, line by line, and its last words.

use std::collections::VecDeque;

/// The most bytes of a line. The rest of a longer one is dropped.
const LINE_MAX: usize = 16 << 10;
/// The lines that a failure repeats, and the most bytes of each.
const LAST: usize = 3;
const LAST_MAX: usize = 300;

/// The lines of a program's standard error.
pub(crate) struct Words<F> {
    log: F,
    line: Vec<u8>,
    last: VecDeque<String>,
}

impl<F: FnMut(String)> Words<F> {
    /// Creates a value that hands each line to `log`.
    pub(crate) fn new(log: F) -> Self {
        Self { log, line: Vec::new(), last: VecDeque::new() }
    }

    /// Takes more bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.finish();
            }
        }
    }

    /// Ends the last line.
    pub(crate) fn finish(&mut self) {
        let text = String::from_utf8_lossy(&self.line);
        let text = text.trim_end_matches(['\n', '\r']);
        if !text.is_empty() {
            if self.last.len() == LAST {
                self.last.pop_front();
            }
            self.last.push_back(crate::text::cut(text, LAST_MAX));
            (self.log)(text.to_owned());
        }
        self.line.clear();
    }

    /// Returns the last lines.
    pub(crate) fn last(&self) -> String {
        self.last.iter().map(String::as_str).collect::<Vec<_>>().join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_an_entry_whatever_its_bytes_and_length() {
        let mut lines = Vec::new();
        let mut words = Words::new(|line| lines.push(line));
        for part in [&b"one\ntw"[..], b"o\r\n\n\xff\xfe\n", "x".repeat(20_000).as_bytes(), b"y\nlast"] {
            words.add(part);
        }
        words.finish();
        let last = words.last();
        assert_eq!(lines[..3], ["one", "two", "\u{fffd}\u{fffd}"]);
        assert_eq!((lines[3].len(), lines[4].as_str()), (LINE_MAX, "last"));
        assert!(last.starts_with("\u{fffd}\u{fffd} | xxx") && last.ends_with(" | last"), "{last}");
    }
}
