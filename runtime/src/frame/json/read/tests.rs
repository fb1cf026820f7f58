//! Tests of values that are read, and of texts that are refused.

use ciborium::Value;

use super::*;
use crate::frame::json::{integer, to_json};

fn value(json: &str) -> Result<Value, String> {
    let item = document(json.as_bytes(), 1).map_err(|error| error.to_string())?;
    Ok(ciborium::from_reader(&item[..]).expect("made by us"))
}

#[test]
fn values_of_every_kind_are_read_as_they_are() {
    for json in [
        "null",
        "true",
        "false",
        "0",
        "-1",
        "1.5",
        "-0.0",
        "\"\"",
        "[]",
        "{}",
        "[[],[{}]]",
        "[1,[2,3],{\"a\":[4]}]",
        r#"{"b":1,"a":{"a":null},"":"\u00e4\ud83d\ude00\n\"\\\/"}"#,
        "1e300",
        "0.1",
        "5e-324",
        "18446744073709551615",
    ] {
        let meant: serde_json::Value = serde_json::from_str(json).expect("JSON");
        let spaced = format!("\u{feff} \n\t{json}\r\n ");
        for text in [json, &spaced] {
            let shown = to_json(&value(text).expect(json));
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), meant, "{json}");
        }
    }
    // Heads are written after their content. This tests heads of every length.
    for length in [0, 23, 24, 255, 256, 65_535, 65_536] {
        let json = format!("[[{}],1]", vec!["7"; length].join(","));
        let expected = Value::Array(vec![Value::Array(vec![7.into(); length]), 1.into()]);
        assert_eq!(value(&json), Ok(expected));
    }
}

#[test]
fn integers_are_exact_and_floats_are_floats() {
    for number in
        ["18446744073709551616", "-9223372036854775809", "-18446744073709551617", "123456789012345678901234567890"]
    {
        assert_eq!(to_json(&value(number).expect(number)), number);
    }
    assert_eq!(value("1.0"), Ok(Value::Float(1.0)));
    assert_eq!(value("-0").map(|zero| zero.as_float().map(f64::is_sign_negative)), Ok(Some(true)));
    assert_eq!(value("1e400"), Err("number out of range at line 1 column 6".to_owned()));
    assert!(value(&"9".repeat(integer::MAX_DIGITS)).is_ok());
    assert!(value(&"9".repeat(integer::MAX_DIGITS + 1)).is_err());
}

#[test]
fn what_is_not_json_is_refused_with_its_place() {
    for (json, said) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("{\"a\":", "EOF while parsing a value at line 1 column 5"),
        ("[1, 2, oops]", "expected value at line 1 column 8"),
        ("[1,\n 2,]", "expected value at line 2 column 4"),
        ("[1 2]", "expected `,` or `]` at line 1 column 4"),
        ("{\"a\" 1}", "expected `:` at line 1 column 6"),
        ("{a: 1}", "expected key in quotes or `}` at line 1 column 2"),
        ("{\"a\":1,}", "expected key in quotes at line 1 column 8"),
        ("{\"a\":1]", "expected `,` or `}` at line 1 column 7"),
        ("1 2", "trailing characters at line 1 column 3"),
        ("01", "invalid number at line 1 column 3"),
        ("1.", "invalid number at line 1 column 3"),
        ("-", "invalid number at line 1 column 2"),
        ("+1", "expected value at line 1 column 1"),
        ("NaN", "expected value at line 1 column 1"),
        ("nul", "expected value at line 1 column 4"),
        ("\"a", "EOF while parsing a string at line 1 column 2"),
        ("\"a\nb\"", "control character in a string at line 1 column 3"),
        ("\"\\x\"", "invalid escape at line 1 column 3"),
        ("\"\\ud800\"", "half of a surrogate pair at line 1 column 8"),
        ("\"\\udc00\"", "half of a surrogate pair at line 1 column 8"),
        ("{\"a\": 1, \"\\u0061\": 2}", "the key `a` twice in one object at line 1 column 18"),
    ] {
        assert_eq!(value(json), Err(said.to_owned()), "{json}");
    }
    assert!(document(b"\"\xff\"", 1).is_err());
    let read = document(b"\xff\xfe{\0}\0", 3).expect_err("UTF-16").to_string();
    assert_eq!(read, "the text is UTF-16LE and not UTF-8 at line 3 column 1");
}

#[test]
fn a_key_twice_is_found_among_few_and_many() {
    for many in [1, FEW_KEYS, FEW_KEYS + 1, 5_000] {
        let keys: Vec<String> = (0..many).map(|key| format!("\"{key}\":{{\"0\":0}}")).collect();
        let object = keys.join(",");
        assert!(value(&format!("[{{{object}}},{{{object}}}]")).is_ok());
        for twice in [0, many - 1] {
            let said = value(&format!("{{{object},\"{twice}\":1}}")).expect_err("twice");
            assert!(said.starts_with(&format!("the key `{twice}` twice")), "{said}");
        }
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(value(&nested(MAX_DEPTH)).is_ok());
    let said = value(&nested(MAX_DEPTH + 1)).expect_err("too deep");
    assert_eq!(said, "nested deeper than 256 levels at line 1 column 257");
}

#[test]
fn what_never_ends_is_refused_at_the_limit() {
    for (begin, more) in [("\"", "x"), ("\"", "\\n"), ("1", "0"), ("[", "7,"), ("", "[")] {
        let endless = begin.bytes().chain(more.bytes().cycle());
        let mut text = Text::new(Endless(endless));
        let error = JsonReader::new(1_000).value(&mut text).expect_err("endless");
        assert!(matches!(error, JsonError::TooLarge { max: 1_000, .. }) || more == "[", "{error}");
    }
}

struct Endless<I>(I);

impl<I: Iterator<Item = u8>> Read for Endless<I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        for (place, byte) in buffer.iter_mut().take(100).zip(&mut self.0) {
            *place = byte;
            read += 1;
        }
        Ok(read)
    }
}
