//! Header blocks as they are sent: `NATS/1.0`, then a line for each header.
//!
//! The server accepts any bytes as a block. The client library parses a block while it reads from the connection, and drops the
//! connection if it cannot. [`fault`] returns why it cannot, and [`decode`] reads any block.

use super::Headers;

/// The start of the first line of a block. A status may follow.
const PROTOCOL: &str = "NATS/1.0";

/// Returns why the client library (async-nats 0.51) cannot read this block. `None` if it can.
///
/// On a carriage return within a value its connection ends for good. On any other fault it drops the connection and connects
/// again.
pub fn fault(block: &[u8]) -> Option<String> {
    if block.is_empty() {
        return None;
    }
    let Ok(text) = std::str::from_utf8(block) else { return Some("they are not UTF-8".to_owned()) };
    let mut lines = text.lines().peekable();
    let Some(first) = lines.next().and_then(|line| line.strip_prefix(PROTOCOL)) else {
        return Some(format!("their first line does not begin with `{PROTOCOL}`"));
    };
    let status = first.trim().split(' ').next().unwrap_or_default().trim();
    if !status.is_empty() && !is_status(status) {
        return Some(format!("`{}` in their first line is no status", shown(status)));
    }
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let Some((name, first)) = line.split_once(':') else {
            return Some(format!("the line `{}` has no colon", shown(line)));
        };
        let mut value = first.trim_start().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Some(format!("the name `{}` has a space or a character beyond ASCII", shown(name)));
        }
        if value.trim_end().contains('\r') {
            return Some(format!("the value of `{}` has a carriage return", shown(name)));
        }
    }
    None
}

/// Returns the beginning of a text for an error message.
fn shown(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

/// Returns `true` for three digits, of which the first is not 0.
fn is_status(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0')
}

/// Reads the headers of any block. Each of them can be sent again.
///
/// The headers of a valid block are returned as they are. Otherwise, a line that is not UTF-8 is read as Latin-1, a line without
/// a colon is skipped, an invalid character of a name becomes `-`, and a carriage return within a value becomes a space.
pub fn decode(block: &[u8]) -> Headers {
    let mut headers: Vec<(String, String)> = Vec::new();
    // A line that continues a value begins with a space. After a blank line there is no value to continue.
    let mut goes_on = false;
    for (number, line) in block.split(|byte| *byte == b'\n').enumerate() {
        let line = decode_line(line.strip_suffix(b"\r").unwrap_or(line));
        if number == 0 && line.starts_with(PROTOCOL) || line.is_empty() {
            goes_on = false;
        } else if goes_on && line.starts_with(char::is_whitespace) {
            if let Some((_, value)) = headers.last_mut() {
                value.push_str(&line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            headers.push((sound_name(name), value.trim_start().to_owned()));
            goes_on = true;
        } else {
            goes_on = false;
        }
    }
    let mut sound = Headers::new();
    for (name, value) in headers {
        sound.push(name, value.trim_end().replace('\r', " "));
    }
    sound
}

fn decode_line(line: &[u8]) -> String {
    match std::str::from_utf8(line) {
        Ok(text) => text.to_owned(),
        // Each byte of Latin-1 is the character with the same number.
        Err(_) => line.iter().map(|byte| char::from(*byte)).collect(),
    }
}

fn sound_name(name: &str) -> String {
    name.chars().map(|character| if character.is_ascii_graphic() { character } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each block with its headers.
    type Case = (&'static [u8], &'static [(&'static str, &'static str)]);

    fn decoded(block: &[u8]) -> Vec<(String, String)> {
        decode(block).iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_readable_block_gives_its_headers() {
        let cases: &[Case] = &[
            (b"", &[]),
            (b"NATS/1.0", &[]),
            (b"NATS/1.0\r\n\r\n", &[]),
            (b"NATS/1.0 404 No Messages\r\nA: b\r\n\r\n", &[("A", "b")]),
            (b"NATS/1.0\r\nA:b\r\na:  c \r\nA:\r\n\r\n", &[("A", "b"), ("a", "c"), ("A", "")]),
            (b"NATS/1.0\nA: b:c\n\nD: e", &[("A", "b:c"), ("D", "e")]),
            (b"NATS/1.0\r\nA: b\r\n c\r\n\td\r\nE: f\r\n\r\n", &[("A", "b c\td"), ("E", "f")]),
            (b"NATS/1.0\r\n: b\r\n\r\n", &[("", "b")]),
            (b"NATS/1.0\r\nA: \0\x01\r\n\r\n", &[("A", "\0\u{1}")]),
            (b"NATS/1.0\r\nA: b\r\r\n\r\n", &[("A", "b")]),
            ("NATS/1.0\r\nA: \u{e4}\r\n\r\n".as_bytes(), &[("A", "\u{e4}")]),
        ];
        for (block, expected) in cases {
            assert_eq!(fault(block), None, "{}", block.escape_ascii());
            let expected: Vec<_> =
                expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(decoded(block), expected, "{}", block.escape_ascii());
        }
    }

    #[test]
    fn of_what_the_client_library_cannot_read_as_much_is_kept_as_can_be_sent_again() {
        let cases: &[Case] = &[
            (b"NATS/1.0\r\nX: a\rb\r\n\r\n", &[("X", "a b")]),
            (b"NATS/1.0\r\nX Customer: ada\r\n\r\n", &[("X-Customer", "ada")]),
            (b"NATS/1.0\r\nX : ada\r\n\r\n", &[("X-", "ada")]),
            (b"NATS/1.0\r\nX: caf\xe9\r\nY: \xc3\xa4\r\n\r\n", &[("X", "caf\u{e9}"), ("Y", "\u{e4}")]),
            (b"NATS/1.0\r\nno colon\r\nX: a\r\n\r\n", &[("X", "a")]),
            (b"X: a\r\nY: b\r\n\r\n", &[("X", "a"), ("Y", "b")]),
            (b"HTTP/1.1\r\nX: a\r\n\r\n", &[("X", "a")]),
            (b"NATS/1.0 4\r\nX: a\r\n\r\n", &[("X", "a")]),
            (b"NATS/1.0 044\r\n\r\n", &[]),
            (b"NATS/1.0x\r\n\r\n", &[]),
            (b" \r\n", &[]),
            (b"\r\n", &[]),
            ("NATS/1.0\r\nK\u{e4}: a\r\n\r\n".as_bytes(), &[("K-", "a")]),
            (b"NATS/1.0\r\n X: a\r\n\r\n", &[("-X", "a")]),
        ];
        for (block, expected) in cases {
            assert!(fault(block).is_some(), "{}", block.escape_ascii());
            let expected: Vec<_> =
                expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(decoded(block), expected, "{}", block.escape_ascii());
        }
    }
}
