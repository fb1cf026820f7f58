//! Shows values in messages, in the notation of RFC 8949 (section 8): bytes are `h'01ff'`, tags `0("2026-01-01")`.

use std::fmt::Write;

use ciborium::Value;

use crate::frame::json::integer::big_digits;

/// The most characters of a value.
const MOST: usize = 160;
/// How many characters before the first difference of two texts are shown.
const BEFORE: usize = 20;
/// From this many equal characters on, two texts are shown from their difference on.
const LONG: usize = 60;

/// Returns a value as text. A long one is cut.
pub(super) fn shown(value: &Value) -> String {
    let mut text = String::new();
    // A string takes all.
    let is_whole = write(value, &mut text);
    cut(text, is_whole)
}

fn cut(mut text: String, is_whole: bool) -> String {
    if is_whole && text.chars().count() <= MOST {
        return text;
    }
    if let Some((end, _)) = text.char_indices().nth(MOST) {
        text.truncate(end);
    }
    text.push('…');
    text
}

/// Returns two values as text. Long texts begin shortly before they differ.
pub(super) fn shown_beside(expected: &Value, got: &Value) -> (String, String) {
    let (Value::Text(due), Value::Text(came)) = (expected, got) else { return (shown(expected), shown(got)) };
    let same = due.chars().zip(came.chars()).take_while(|(due, came)| due == came).count();
    if same < LONG {
        return (shown(expected), shown(got));
    }
    let rest = |text: &str| {
        let rest: String = text.chars().skip(same - BEFORE).take(MOST + 1).collect();
        format!("…{}", shown(&Value::from(rest)))
    };
    (rest(due), rest(came))
}

/// Returns a key as a part of a path.
pub(super) fn key(key: &Value) -> String {
    match key {
        Value::Text(text) => text.replace('~', "~0").replace('/', "~1"),
        _ => shown(key),
    }
}

/// Writes a value. Returns `false` if there was no room for all of it.
fn write(value: &Value, out: &mut String) -> bool {
    if out.len() > MOST * 4 {
        return false;
    }
    match value {
        Value::Integer(number) => push(out, &i128::from(*number).to_string()),
        Value::Float(number) if number.is_nan() => push(out, "NaN"),
        Value::Float(number) if number.is_infinite() => push(out, if *number > 0.0 { "Infinity" } else { "-Infinity" }),
        Value::Float(number) => push(out, &format!("{number:?}")),
        Value::Text(text) => quote(text, out),
        Value::Bool(value) => push(out, if *value { "true" } else { "false" }),
        Value::Bytes(bytes) => {
            let digits = bytes.iter().take(MOST).fold(String::new(), |mut digits, byte| {
                let _ = write!(digits, "{byte:02x}");
                digits
            });
            push(out, &format!("h'{digits}'")) && bytes.len() <= MOST
        }
        Value::Tag(tag, inner) => match inner.as_bytes().and_then(|bytes| big_digits(*tag, bytes)) {
            Some(digits) => push(out, &digits),
            None => push(out, &format!("{tag}(")) && write(inner, out) && push(out, ")"),
        },
        Value::Array(values) => {
            let mut values = values.iter().enumerate();
            push(out, "[")
                && values.all(|(at, value)| push(out, if at > 0 { ", " } else { "" }) && write(value, out))
                && push(out, "]")
        }
        Value::Map(entries) => {
            let mut entries = entries.iter().enumerate();
            push(out, "{")
                && entries.all(|(at, (key, value))| {
                    push(out, if at > 0 { ", " } else { "" }) && write(key, out) && push(out, ": ") && write(value, out)
                })
                && push(out, "}")
        }
        _ => push(out, "null"),
    }
}

fn quote(text: &str, out: &mut String) -> bool {
    let brief: String = text.chars().take(MOST + 1).collect();
    push(out, &serde_json::Value::from(brief.as_str()).to_string()) && brief.len() == text.len()
}

fn push(out: &mut String, text: &str) -> bool {
    out.push_str(text);
    true
}
