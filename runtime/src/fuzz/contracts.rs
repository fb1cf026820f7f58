//! Tests that schemas mean the same to all that reads them: to the judge of an item, to the comparison of two, and to what makes
//! examples. Whatever a schema says, each of them ends.

mod schemas;

use serde_json::Value as Json;

use super::{Random, from_environment};
use crate::contract::{Fit, Schema, compare};
use schemas::{Kind, schema, value};

/// Returns how many pairs are compared. Each takes a millisecond or more.
fn pairs() -> u64 {
    from_environment("PCLUSTER_FUZZ").unwrap_or(20_000) / 10
}

fn parsed(schema: &Json) -> Schema {
    Schema::parse(schema.to_string().as_bytes()).unwrap_or_else(|error| panic!("{schema}: {error}"))
}

fn item(value: &Json) -> ciborium::Value {
    let item = crate::frame::json::read::document(value.to_string().as_bytes(), 1).expect("JSON");
    crate::frame::cbor::value(&item).expect("an item")
}

/// What no comparison decides: schemas without a meaning, and values of a size of which schemas list some.
const UNDECIDED: [&str; 2] = ["a schema that refers to itself", "values that schemas list"];

/// What a comparison said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Fits,
    Misfit,
    Unknown,
}

/// Compares two schemas. The example of a misfit must be one.
fn said(gives: &Schema, takes: &Schema) -> Said {
    match compare(gives, takes) {
        Fit::Fits => Said::Fits,
        Fit::Unknown(_) => Said::Unknown,
        Fit::Misfit(misfit) => {
            assert_eq!(gives.validate(&misfit.example), Ok(()), "{misfit:?}");
            assert!(takes.validate(&misfit.example).is_err(), "{misfit:?}");
            Said::Misfit
        }
    }
}

/// Compares random pairs of schemas, and holds random values against both. Returns how many comparisons ended in each way.
fn compare_many(kind: Kind, seed: u64) -> [u64; 3] {
    let mut counts = [0; 3];
    for round in 0..pairs() {
        let mut random = Random::new(seed.wrapping_add(round.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let gives = schema(&mut random, kind);
        // Related schemas are more telling than others.
        let takes = match random.below(4) {
            0 => schema(&mut random, kind),
            1 => schemas::wider(&mut random, &gives, kind),
            _ => schemas::changed(&mut random, &gives, kind),
        };
        let (one, other) = (parsed(&gives), parsed(&takes));
        let (said, closed) = (said(&one, &other), one.given());
        counts[said as usize] += 1;
        let shown = || format!("round {round} of {seed}: {gives} and {takes}: {said:?}");
        for _ in 0..40 {
            let value = value(&mut random, 3);
            let item = item(&value);
            if one.validate(&item).is_ok() && closed.validate(&item).is_ok() && other.validate(&item).is_err() {
                assert_ne!(said, Said::Fits, "{value} is missed in {}", shown());
            }
        }
        if kind == Kind::Decided
            && let Fit::Unknown(why) = compare(&one, &other)
        {
            assert!(UNDECIDED.contains(&why.as_str()), "{}: {why}", shown());
        }
    }
    counts
}

#[test]
fn no_misfit_is_missed_and_none_is_made_up_in_what_is_decided() {
    let counts = compare_many(Kind::Decided, 0x5eed);
    assert!(counts.iter().take(2).all(|count| *count > pairs() / 10), "{counts:?}");
}

#[test]
fn no_misfit_is_missed_whatever_schemas_say() {
    let counts = compare_many(Kind::Any, 0x5eed);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn an_example_fits() {
    let mut made = 0;
    for round in 0..pairs() {
        let mut random = Random::new(0xe7a + round);
        let schema = schema(&mut random, Kind::Any);
        let parsed = parsed(&schema);
        if let Some(example) = parsed.example() {
            made += 1;
            assert_eq!(parsed.validate(&example), Ok(()), "{schema}");
        }
    }
    assert!(made > pairs() / 2, "{made}");
}
