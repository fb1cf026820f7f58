use std::path::PathBuf;

use bytes::Bytes;
use ciborium::Value;

use super::*;
use crate::cases::case::ExpectedDead;
use crate::cases::outcome::Died;
use crate::cases::random::Random;
use crate::dead::FailureKind;
use crate::frame::format::to_cbor;
use crate::frame::json::read::document;

fn items(lines: &[&str]) -> Vec<Bytes> {
    lines.iter().map(|line| document(line.as_bytes(), 1).expect("JSON")).collect()
}

fn case(expect: Expect) -> Case {
    Case {
        name: "a".to_owned(),
        file: PathBuf::from("a.toml"),
        line: 1,
        position: 0,
        items: Vec::new(),
        topic: None,
        config: std::collections::BTreeMap::new(),
        calls: Vec::new(),
        programs: Vec::new(),
        expect,
        replayed: None,
    }
}

/// Returns how results differ.
fn differences(expected: &[&str], got: &[&str], unordered: bool, tolerance: f64) -> Vec<String> {
    let expect = Expect { results: Some(items(expected)), unordered, tolerance, ..Expect::default() };
    let outcome = Outcome { results: items(got), ..Outcome::default() };
    compare(&case(expect), &outcome).iter().map(Difference::to_string).collect()
}

#[test]
fn what_differs_is_told_by_its_path() {
    for (expected, got, told) in [
        (r#"{"lines":[2,3]}"#, r#"{"lines":[3,3]}"#, vec!["results[0]/lines/0: expected 2, got 3"]),
        (r#"{"a":1,"b":2}"#, r#"{"b":2.0,"a":1}"#, vec![]),
        (r#"{"a":1}"#, r#"{"b":1}"#, vec!["results[0]/a: missing; expected 1", "results[0]/b: not expected; got 1"]),
        ("[1,2,3]", "[1,3]", vec!["results[0]/1: missing; expected 2"]),
        ("[1,3]", "[1,2,3]", vec!["results[0]/1: not expected; got 2"]),
        (r#""5""#, "5", vec![r#"results[0]: expected "5", got 5"#]),
        (
            "18446744073709551616",
            "18446744073709551617",
            vec!["results[0]: expected 18446744073709551616, got 18446744073709551617"],
        ),
        (r#"{"a/b":null}"#, r#"{"a/b":false}"#, vec!["results[0]/a~1b: expected null, got false"]),
    ] {
        assert_eq!(differences(&[expected], &[got], false, 0.0), told, "{expected} {got}");
    }
}

#[test]
fn lists_are_told_by_what_is_missing_and_what_is_too_much() {
    assert_eq!(
        differences(&["1", "2", "3"], &["1", "3"], false, 0.0),
        ["results: expected 3 items, got 2 items", "results[1]: missing; expected 2"]
    );
    assert_eq!(
        differences(&["1"], &["0", "1"], false, 0.0),
        ["results: expected 1 item, got 2 items", "results[0]: not expected; got 0"]
    );
    assert_eq!(differences(&["1", "2"], &["2", "1"], true, 0.0), Vec::<String>::new());
    assert_eq!(
        differences(
            &[r#"{"id":1,"n":1}"#, r#"{"id":2,"n":5}"#],
            &[r#"{"id":2,"n":6}"#, r#"{"id":1,"n":1}"#],
            true,
            0.0
        ),
        ["results[1]/n: expected 5, got 6 (nearest: item 0 of those that came)"]
    );
    let many = differences(&["1"; 50], &["2"; 50], false, 0.0);
    assert_eq!((many.len(), many[20].as_str()), (21, "…: 30 more differences"));
}

#[test]
fn floats_are_equal_within_the_tolerance() {
    assert_eq!(differences(&["0.3"], &["0.30000000000000004"], false, 0.0).len(), 1);
    for (expected, got, is_equal) in [
        ("0.3", "0.30000000000000004", true),
        ("1e12", "1000000000000.5", true),
        ("1", "2", false),
        ("1.0", "1.1", false),
    ] {
        assert_eq!(differences(&[expected], &[got], false, 1e-9).is_empty(), is_equal, "{expected} {got}");
    }
    // Each has a partner, though the first that fits takes the other's.
    assert_eq!(differences(&["1.5", "1.0"], &["1.3", "1.9"], true, 0.25), Vec::<String>::new());
    let nan = to_cbor(&Value::Float(f64::NAN));
    assert!(is_equal(&nan, &nan.clone(), 0.0) && !is_equal(&nan, &to_cbor(&Value::Float(1.0)), 1.0));
}

#[test]
fn what_json_lacks_is_shown_and_long_values_are_cut() {
    let show = |value: Value| show::shown(&value);
    assert_eq!(show(Value::Bytes(vec![1, 255])), "h'01ff'");
    assert_eq!(show(Value::Tag(0, Box::new("2026-01-01".into()))), "0(\"2026-01-01\")");
    assert_eq!(
        show(Value::Map(vec![(1.into(), Value::Float(f64::NAN)), ("a".into(), Value::Float(2.0))])),
        "{1: NaN, \"a\": 2.0}"
    );
    let long = show(Value::Array(vec![Value::from("x".repeat(1_000_000)); 100]));
    assert!(long.chars().count() < 200 && long.ends_with('…'), "{long}");
    let texts = |end: &str| format!("\"{}{end}\"", "a".repeat(500));
    let told = differences(&[&texts("b")], &[&texts("c")], false, 0.0);
    assert_eq!(told, [format!("results[0]: expected …\"{0}b\", got …\"{0}c\"", "a".repeat(20))]);
}

#[test]
fn dead_letters_must_all_be_expected() {
    let stage = |name: &str| name.parse().expect("a name");
    let died = |name: &str, reason: &str| Died {
        stage: stage(name),
        kind: FailureKind::Error,
        reason: reason.to_owned(),
        attempts: 3,
        item: Bytes::new(),
    };
    let expected = |name: &str, reason: Option<&str>, attempts| ExpectedDead {
        stage: stage(name),
        kind: None,
        reason: reason.map(str::to_owned),
        attempts,
    };
    let told = |dead: Option<Vec<ExpectedDead>>, came: Vec<Died>| -> Vec<String> {
        let outcome = Outcome { dead: came, ..Outcome::default() };
        compare(&case(Expect { dead, ..Expect::default() }), &outcome).iter().map(Difference::to_string).collect()
    };
    assert_eq!(
        told(None, vec![died("sum", "negative")]),
        ["dead: not expected; stage `sum` failed after 3 attempts: error: negative"]
    );
    assert!(
        told(
            Some(vec![expected("sum", None, None), expected("sum", Some("neg"), Some(3))]),
            vec![died("sum", "negative"), died("sum", "other")]
        )
        .is_empty()
    );
    assert_eq!(
        told(Some(vec![expected("sum", Some("zero"), Some(1))]), vec![died("sum", "negative")]),
        ["dead[0]/reason: expected to contain \"zero\", got \"negative\"", "dead[0]/attempts: expected 1, got 3"]
    );
    assert_eq!(
        told(Some(vec![expected("sum", None, None)]), Vec::new()),
        ["dead[0]: missing; expected one of stage `sum`"]
    );
}

#[test]
fn random_values_are_equal_to_themselves_and_told_from_others() {
    let mut random = Random::new(7);
    let values: Vec<Value> = (0..300).map(|_| random.value(3)).collect();
    for (at, one) in values.iter().enumerate() {
        assert!(Tolerance(0.0).is_equal(one, one), "{one:?}");
        let other = &values[(at * 7 + 1) % values.len()];
        let mut found = Differences::default();
        Walk { tolerance: Tolerance(0.0), found: &mut found }.value("", one, other);
        assert_eq!(found.found.is_empty(), Tolerance(0.0).is_equal(one, other), "{one:?} {other:?}");
    }
}
