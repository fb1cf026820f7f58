//! The last lines of standard error of an item. Run-time libraries write there why they end the program.

/// The most bytes of lines that are kept.
const KEPT_MAX: usize = 2 << 10;

/// The last lines of standard error. Empty lines are left out.
#[derive(Debug, Default)]
pub(in crate::engine) struct LastLines(String);

impl LastLines {
    /// Adds a line. The oldest make room for it.
    pub(super) fn push(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        let kept = &mut self.0;
        kept.push('\n');
        kept.push_str(&line[..line.floor_char_boundary(KEPT_MAX - 1)]);
        let too_many = kept.len().saturating_sub(KEPT_MAX);
        if too_many > 0 {
            let from = kept.ceil_char_boundary(too_many);
            let whole = kept[from..].find('\n').map_or(kept.len(), |end| from + end);
            kept.drain(..whole);
        }
    }

    /// Forgets the lines of the item before.
    pub(in crate::engine) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns a reason with the lines behind it.
    pub(in crate::engine) fn behind(&self, reason: String) -> String {
        if self.0.is_empty() {
            return reason;
        }
        format!("{reason}; it wrote last: {}", self.0.trim_start().replace('\n', "\n    "))
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT_MAX, LastLines};

    fn told(lines: &[&str]) -> String {
        let mut last = LastLines::default();
        for line in lines {
            last.push(line.as_bytes());
        }
        last.behind("trap".to_owned())
    }

    #[test]
    fn a_reason_ends_with_the_last_lines() {
        assert_eq!(told(&[]), "trap");
        assert_eq!(told(&["", " "]), "trap");
        assert_eq!(told(&["panic: boom", "", "goroutine 1:"]), "trap; it wrote last: panic: boom\n    goroutine 1:");
        let mut last = LastLines::default();
        last.push(b"of the item before");
        last.clear();
        assert_eq!(last.behind("trap".to_owned()), "trap");
    }

    #[test]
    fn only_whole_lines_are_kept_and_not_many() {
        let lines: Vec<String> = (0..1000).map(|number| format!("line ß {number}")).collect();
        let all = told(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(all.starts_with("trap; it wrote last: line ß ") && all.ends_with("\n    line ß 999"), "{all}");
        assert!(all.len() < 2 * KEPT_MAX, "{all}");
        let long = "ß".repeat(KEPT_MAX);
        let one = told(&["first", &long, "last"]);
        assert_eq!(one, "trap; it wrote last: last");
        assert!(told(&[&long]).ends_with("ßß"));
        assert!(told(&["\u{10ffff}".repeat(KEPT_MAX).as_str()]).len() <= 2 * KEPT_MAX);
    }
}
