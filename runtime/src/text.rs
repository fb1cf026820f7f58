//! Text for a terminal. Text of guests and feeders is shown without its control characters, and cut to its room.

use std::borrow::Cow;
use std::sync::OnceLock;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The mark of a cut text.
const CUT: char = '…';

/// Returns a text with its control characters as JSON escapes. Tabs and line breaks stay. Others could move the cursor
/// of a terminal or reverse the text. Within JSON the escape has the same meaning.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |character| is_obeyed(character) && !matches!(character, '\t' | '\n'))
}

/// Returns a text on one line: as [`visible`], with tabs and line breaks escaped too.
pub fn visible_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_obeyed)
}

/// Returns a line of the log with its colors. The log has escaped the sequences of other authors already.
pub fn visible_log_line(text: &str) -> Cow<'_, str> {
    escaped(text, |character| is_obeyed(character) && character != '\x1b')
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' if is_escaped('\n') => shown.push_str("\\n"),
            '\t' if is_escaped('\t') => shown.push_str("\\t"),
            _ if is_escaped(character) => shown.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

/// Returns `true` if a terminal obeys this character instead of showing it.
fn is_obeyed(character: char) -> bool {
    let turns_around = matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    let breaks_line = matches!(character, '\u{2028}' | '\u{2029}');
    character.is_control() || turns_around || breaks_line
}

/// Returns the columns that a text takes.
pub fn columns(text: &str) -> usize {
    text.width()
}

/// Returns a text on one line of at most this many columns.
pub fn one_line(text: &str, max: usize) -> String {
    cut(&text.split_whitespace().collect::<Vec<_>>().join(" "), max)
}

/// Returns a text cut to at most this many columns.
pub fn cut(text: &str, max: usize) -> String {
    if columns(text) <= max {
        return text.to_owned();
    }
    let (mut short, mut room) = (String::new(), max.saturating_sub(1));
    for character in text.chars() {
        let width = character.width().unwrap_or(0);
        if width > room {
            break;
        }
        room -= width;
        short.push(character);
    }
    short.push(CUT);
    short
}

/// Returns a time of RFC 3339 as people read it: in their time zone, with milliseconds.
pub fn time(rfc3339: &str) -> String {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    time_in(rfc3339, ZONE.get_or_init(TimeZone::system))
}

fn time_in(rfc3339: &str, zone: &TimeZone) -> String {
    match rfc3339.parse::<Timestamp>() {
        Ok(time) => time.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string(),
        // A text that is not a time is returned as it is.
        Err(_) => rfc3339.to_owned(),
    }
}

/// Returns the current time, as [`time()`] writes it.
pub fn now() -> String {
    time(&Timestamp::now().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        for (text, max, shown) in [
            ("two\n  lines", 20, "two lines"),
            ("ägypten", 7, "ägypten"),
            ("ägypten!", 7, "ägypte…"),
            // Each of these characters takes two columns.
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            // A combining mark takes no column.
            ("e\u{301}e\u{301}", 2, "e\u{301}e\u{301}"),
        ] {
            assert_eq!(one_line(text, max), shown, "{text:?} in {max}");
        }
    }

    #[test]
    fn control_characters_are_shown_and_json_means_the_same() {
        assert_eq!(visible("two\tlines\nof text: äö"), "two\tlines\nof text: äö");
        assert_eq!(visible("\x1b[2J\r\u{9b}1m"), "\\u001b[2J\\u000d\\u009b1m");
        assert_eq!(visible("a\u{202e}b\u{2066}c\u{200f}d\u{2028}e"), "a\\u202eb\\u2066c\\u200fd\\u2028e");
        assert_eq!(visible_line("a\nb\tc\r"), "a\\nb\\tc\\u000d");
        let value = "\u{7f}\u{9b}\x1b\u{202e}";
        let json = serde_json::to_string(value).expect("JSON");
        assert_eq!(serde_json::from_str::<String>(&visible(&json)).expect("JSON"), value);
    }

    #[test]
    fn a_time_is_shown_with_its_zone() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
        for (time, shown) in [
            ("2026-01-01T12:34:56.789123456Z", "2026-01-01T13:34:56.789+01:00"),
            ("2026-07-01T12:34:56Z", "2026-07-01T14:34:56.000+02:00"),
            ("2026-07-01T12:34:56.5+05:30", "2026-07-01T09:04:56.500+02:00"),
            ("yesterday", "yesterday"),
            ("", ""),
        ] {
            assert_eq!(time_in(time, &berlin), shown);
        }
        assert_eq!(time_in("2026-01-01T12:34:56.7Z", &TimeZone::UTC), "2026-01-01T12:34:56.700+00:00");
    }
}
