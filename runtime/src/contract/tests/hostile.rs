//! Schemas that are made to take long, or to fill the stack. Each comparison and each judgment must end.

use serde_json::{Map, Value as Json, json};

use super::value;
use crate::contract::{Fit, Schema, compare};

fn schema(json: &Json) -> Schema {
    Schema::parse(json.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

/// Compares each of two schemas with the other, and holds an item against both.
fn ends(one: &Json, other: &Json, item: &str) {
    let (one, other) = (schema(one), schema(other));
    for (gives, takes) in [(&one, &other), (&other, &one), (&one, &one)] {
        if let Fit::Misfit(misfit) = compare(gives, takes) {
            assert!(takes.validate(&misfit.example).is_err());
        }
        let _ = gives.validate(&value(item));
        let _ = gives.example();
    }
}

/// Returns a schema with definitions `d0` to `dN`, of which each is made of the one before.
fn ladder(steps: usize, first: &Json, next: impl Fn(&Json, usize) -> Json) -> Json {
    let reference = |step: usize| json!({ "$ref": format!("#/$defs/d{step}") });
    let mut defs = Map::from_iter([("d0".to_owned(), first.clone())]);
    for step in 1..=steps {
        defs.insert(format!("d{step}"), next(&reference(step - 1), step));
    }
    json!({ "$defs": defs, "$ref": format!("#/$defs/d{steps}") })
}

#[test]
fn deep_schemas_end() {
    for steps in [60, 1_000] {
        let objects = |last: Json| {
            ladder(
                steps,
                &last,
                |below, _| json!({ "properties": { "a": below }, "required": ["a"], "type": "object" }),
            )
        };
        let lists =
            |last: Json| ladder(steps, &last, |below, _| json!({ "items": below, "minItems": 1, "type": "array" }));
        let same =
            |last: Json| ladder(steps, &last, |below, step| json!({ "allOf": [below], "maximum": 1_000_000 - step }));
        for make in [&objects as &dyn Fn(Json) -> Json, &lists, &same] {
            ends(
                &make(json!({ "type": "string" })),
                &make(json!({ "type": "integer" })),
                &("[".repeat(200) + &"]".repeat(200)),
            );
        }
    }
    let nested = (0..60).fold(json!({}), |below, _| json!({ "not": { "anyOf": [below] } }));
    ends(&nested, &json!({ "type": "string" }), "1");
    let tree = json!({ "type": "array", "items": { "anyOf": [{ "$ref": "#" }, { "type": "null" }] } });
    ends(&tree, &json!({ "type": "array", "items": { "$ref": "#" } }), &("[".repeat(250) + &"]".repeat(250)));
}

#[test]
fn schemas_that_double_at_each_step_end() {
    let doubled = |keyword: &'static str| {
        ladder(
            60,
            &json!({ "type": "object", "required": ["a"] }),
            move |below, step| json!({ keyword: [{ "allOf": [below], "minProperties": step }, { "allOf": [below], "maxProperties": 90 - step }] }),
        )
    };
    for keyword in ["allOf", "anyOf", "oneOf"] {
        ends(&doubled(keyword), &json!({ "type": "object", "properties": { "a": { "type": "null" } } }), r#"{"a": 1}"#);
    }
    let choice = |name: String, kind: &str| json!({ "properties": { name: { "type": kind } } });
    let choices: Vec<Json> = (0..40)
        .map(|at| json!({ "anyOf": [choice(format!("k{at}"), "string"), choice(format!("k{}", at + 1), "null"), choice(format!("k{}", at + 2), "array")] }))
        .collect();
    ends(&json!({ "allOf": choices }), &json!({ "type": "object", "minProperties": 3 }), r#"{"k1": 1, "k2": 2}"#);
    let exclusive: Vec<Json> = (0..400).map(|at| json!({ "required": [format!("k{at}")] })).collect();
    ends(&json!({ "oneOf": exclusive }), &json!({ "type": "object", "maxProperties": 1 }), r#"{"k1": 1, "k2": 2}"#);
}

#[test]
fn large_schemas_end() {
    let numbers: Vec<Json> = (0..5_000).map(|number| json!(number)).collect();
    ends(&json!({ "enum": numbers[1..] }), &json!({ "enum": numbers }), "4999");
    let keys: Vec<String> = (0..300).map(|key| format!("key{key}")).collect();
    let typed = |kind: &str| keys.iter().map(|key| (key.clone(), json!({ "type": kind }))).collect::<Map<_, _>>();
    let record = |kind: &str| json!({ "type": "object", "properties": typed(kind), "required": keys });
    ends(&record("integer"), &record("number"), "{}");
    let huge = json!({ "minItems": 1_000_000_000_000_000_000_u64, "minLength": 1_000_000_000_000_000_000_u64, "multipleOf": 1e-300 });
    ends(&huge, &json!({ "type": ["array", "string", "number"], "uniqueItems": true, "maximum": 1e300 }), "1");
    ends(
        &json!({ "type": "array", "items": { "type": "boolean" }, "minItems": 3, "uniqueItems": true }),
        &json!(false),
        "[true, false, true]",
    );
}

#[test]
fn patterns_that_take_long_elsewhere_end() {
    let text = format!("\"{}!\"", "a".repeat(50_000));
    for pattern in ["^(a+)+$", "(a|a)*b", "^(((((a{50}){50}){50}){50}){50})$", "(?:a?){200}a{200}"] {
        ends(&json!({ "type": "string", "pattern": pattern }), &json!({ "type": "string", "pattern": "^b" }), &text);
    }
    let many: Vec<Json> = (0..30).map(|at| json!({ "pattern": format!("a{at}") })).collect();
    ends(&json!({ "type": "string", "allOf": many }), &json!({ "anyOf": many }), &text);
}
