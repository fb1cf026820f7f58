//! Tests of contracts as a whole.

mod hostile;

use ciborium::Value;

use super::{Fit, Schema, compare};
use crate::frame::json::to_json;

fn schema(json: &str) -> Schema {
    Schema::parse(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn value(json: &str) -> Value {
    let item = crate::frame::json::read::document(json.as_bytes(), 1).expect("JSON");
    crate::frame::cbor::value(&item).expect("an item")
}

/// Compares two schemas, and says the result in words. An example must be one.
fn fit(gives: &str, takes: &str) -> String {
    let (gives, takes) = (schema(gives), schema(takes));
    match compare(&gives, &takes) {
        Fit::Fits => "fits".to_owned(),
        Fit::Unknown(why) => format!("unknown: {why}"),
        Fit::Misfit(misfit) => {
            assert_eq!(gives.validate(&misfit.example), Ok(()), "{misfit:?}");
            assert!(takes.validate(&misfit.example).is_err(), "{misfit:?}");
            misfit.told("parse", "sum").to_string()
        }
    }
}

fn assert_fits(pairs: &[(&str, &str, &str)]) {
    for (gives, takes, expected) in pairs {
        assert_eq!(fit(gives, takes), *expected, "{gives} and {takes}");
    }
}

const ORDER: &str = r#"{"type": "object", "properties": {"total": {"type": "string"}}, "required": ["total"]}"#;

#[test]
fn a_misfit_is_told_with_its_place_and_an_example() {
    assert_fits(&[
        (
            ORDER,
            r#"{"type": "object", "properties": {"total": {"type": "number"}}}"#,
            r#"`parse` gives `/total: string`, `sum` takes `number`; for example {"total":"aaa"}"#,
        ),
        (
            r#"{"properties": {"total": {"type": "integer"}}, "type": "object"}"#,
            ORDER,
            "`parse` may leave out `/total`, `sum` needs it as `string`; for example {}",
        ),
        (
            ORDER,
            r#"{"type": "object", "properties": {"sum": true}, "additionalProperties": false}"#,
            r#"`parse` gives `/total: string`, `sum` takes no such key; for example {"total":"aaa"}"#,
        ),
        (
            r#"{"type": "string"}"#,
            r#"{"type": "number"}"#,
            r#"`parse` gives `string`, `sum` takes `number`; for example "aaa""#,
        ),
        (
            r#"{"type": "array", "items": {"type": ["integer", "null"]}}"#,
            r#"{"type": "array", "items": {"type": "integer", "maximum": 9}}"#,
            "`parse` gives `/0: null or integer`, `sum` takes `integer ≤ 9`; for example [10]",
        ),
        (
            r#"{"enum": ["a", "b", "c"]}"#,
            r#"{"anyOf": [{"const": "a"}, {"const": "b"}]}"#,
            r#"`parse` gives `"a" or "b" or "c"`, `sum` takes `"a" or "b"`; for example "c""#,
        ),
        (
            r#"{"type": "array", "items": {"type": "integer"}}"#,
            r#"{"type": "array", "uniqueItems": true}"#,
            "`parse` gives `array of integer`, `sum` takes `array`; for example [0,0]",
        ),
    ]);
}

#[test]
fn a_kind_of_a_union_that_is_not_taken_is_told() {
    let kind = |kind: &str, more: &str| {
        format!(
            r#"{{"type": "object", "properties": {{"kind": {{"const": "{kind}"}}, "x": {more}}}, "required": ["kind", "x"]}}"#
        )
    };
    let union = |kinds: &[String]| format!(r#"{{"oneOf": [{}]}}"#, kinds.join(", "));
    let (a, b, c) = (kind("a", r#"{"type": "integer"}"#), kind("b", r#"{"type": "string"}"#), kind("c", "true"));
    let wide = kind("a", r#"{"type": "number"}"#);
    assert_eq!(fit(&union(&[a.clone(), b.clone()]), &union(&[c.clone(), b.clone(), wide.clone()])), "fits");
    assert_eq!(
        fit(&union(&[a.clone(), b]), &union(&[wide.clone(), c])),
        r#"`parse` gives `/kind: "b"`, `sum` takes `"a" or "c"`; for example {"kind":"b","x":"aaa"}"#
    );
    assert_eq!(
        fit(&wide, &a),
        r#"`parse` gives `/x: number`, `sum` takes `integer`; for example {"kind":"a","x":0.1}"#
    );
}

#[test]
fn what_fits_is_not_refused() {
    let list = |item: &str, required: &str| {
        format!(
            r##"{{"$ref": "#/$defs/list", "$defs": {{"list": {{"type": "object", "properties": {{
                "value": {item}, "next": {{"anyOf": [{{"$ref": "#/$defs/list"}}, {{"type": "null"}}]}}}}, "required": {required}}}}}}}"##
        )
    };
    let (integers, numbers) =
        (list(r#"{"type": "integer"}"#, r#"["value", "next"]"#), list(r#"{"type": "number"}"#, r#"["value"]"#));
    assert_fits(&[
        // A property more, or one that may be missing, is no misfit, and nor is one that only the taker names.
        (
            ORDER,
            r#"{"additionalProperties": false, "properties": {"total": true, "note": {"type": "string"}}}"#,
            "fits",
        ),
        (
            r#"{"allOf": [{"properties": {"a": true}}, {"properties": {"b": true}}], "type": "object"}"#,
            r#"{"properties": {"a": true, "b": true}, "additionalProperties": false}"#,
            "fits",
        ),
        (
            r#"{"additionalProperties": true, "type": "object", "properties": {"a": true}}"#,
            r#"{"properties": {"a": true}, "additionalProperties": false}"#,
            r#"`parse` gives `/aaa: any value`, `sum` takes no such key; for example {"aaa":"aaa"}"#,
        ),
        (ORDER, r#"{"type": "object", "properties": {"note": {"type": "string"}}}"#, "fits"),
        (ORDER, "true", "fits"),
        ("false", ORDER, "fits"),
        (&integers, &numbers, "fits"),
        (
            &numbers,
            &integers,
            "`parse` may leave out `/next`, `sum` needs it as `object or null`; for example {\"value\":0}",
        ),
        // Lists of three of two kinds have one of a kind.
        (
            r#"{"type": "array", "items": {"enum": [1, 2]}, "minItems": 3}"#,
            r#"{"anyOf": [{"contains": {"const": 1}}, {"contains": {"const": 2}}]}"#,
            "fits",
        ),
        (
            r#"{"type": "number", "multipleOf": 0.5}"#,
            r#"{"anyOf": [{"type": "integer"}, {"multipleOf": 0.25}]}"#,
            "fits",
        ),
        (r#"{"type": "integer", "minimum": 1.5, "maximum": 2.5}"#, r#"{"const": 2.0}"#, "fits"),
        (r#"{"type": "boolean"}"#, r#"{"enum": [true, false]}"#, "fits"),
        (
            r#"{"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "string"}}"#,
            r#"{"type": "object", "properties": {"a": {"type": "string"}, "b": true}, "additionalProperties": false}"#,
            "fits",
        ),
        (
            r#"{"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": false}"#,
            r#"{"patternProperties": {"^x": {"type": "number"}}, "additionalProperties": {"type": "null"}}"#,
            "fits",
        ),
        // No value is of a type that must hold itself.
        (r##"{"properties": {"next": {"$ref": "#"}}, "required": ["next"], "type": "object"}"##, "false", "fits"),
    ]);
}

#[test]
fn formats_and_patterns_are_compared_by_name_and_by_example() {
    let date = r#"{"type": "string", "format": "date-time"}"#;
    let letters = r#"{"type": "string", "pattern": "^[a-z]+$"}"#;
    assert_fits(&[
        (date, date, "fits"),
        (r#"{"type": "string"}"#, date, "unknown: the format `date-time`"),
        (date, r#"{"type": "string"}"#, "unknown: a tagged time, which JSON does not have"),
        (letters, r#"{"allOf": [{"pattern": "^[a-z]+$"}, {"type": ["string", "null"]}]}"#, "fits"),
        (letters, r#"{"pattern": "^[a-z]*$"}"#, "unknown: the pattern `^[a-z]*$`"),
        (
            letters,
            r#"{"pattern": "^a"}"#,
            r#"`parse` gives `string like `^[a-z]+$``, `sum` takes `any value`; for example "h""#,
        ),
        // The widths of numbers are those of types of Rust, which few others have.
        (r#"{"type": "integer"}"#, r#"{"type": "integer", "format": "int64"}"#, "fits"),
        (
            r#"{"type": "integer", "format": "int32"}"#,
            r#"{"type": "integer", "maximum": 1e12}"#,
            "unknown: the format of a number",
        ),
        (r#"{"type": "integer", "format": "int32"}"#, r#"{"type": "integer", "format": "int64"}"#, "fits"),
    ]);
}

#[test]
fn what_json_lacks_is_never_a_misfit() {
    let all = r#"{"type": ["null", "boolean", "number", "string", "array", "object"]}"#;
    let bytes = r#"{"type": "string", "contentEncoding": "base64"}"#;
    assert_fits(&[
        ("{}", all, "unknown: bytes, which JSON does not have"),
        (bytes, r#"{"type": "string"}"#, "unknown: bytes, which JSON does not have"),
        (bytes, bytes, "fits"),
        (all, "{}", "fits"),
    ]);
}

#[test]
fn what_is_not_understood_is_unknown() {
    assert_fits(&[
        ("{}", r#"{"frobnicate": 1}"#, "unknown: the keyword `frobnicate`"),
        (r#"{"frobnicate": 1, "type": "string"}"#, r#"{"type": "integer"}"#, "unknown: the keyword `frobnicate`"),
        (r#"{"frobnicate": 1}"#, r#"{"frobnicate": 2}"#, "unknown: the keyword `frobnicate`"),
        (
            r##"{"not": {"$ref": "#"}}"##,
            r##"{"anyOf": [{"$ref": "#"}, {"type": "null"}]}"##,
            "unknown: a schema that refers to itself",
        ),
        // Whatever it means, the first gives nothing else.
        (r#"{"frobnicate": 1, "type": "string"}"#, r#"{"type": ["string", "null"]}"#, "fits"),
        (r#"{"type": "string"}"#, r#"{"unevaluatedItems": false, "maxContains": 2, "contains": {}}"#, "fits"),
        (
            "{}",
            r#"{"$ref": "https://example.com/order.json"}"#,
            "unknown: the reference `https://example.com/order.json`, since schemas fetch nothing",
        ),
        ("{}", r##"{"not": {"$ref": "#"}}"##, "unknown: a schema that refers to itself"),
    ]);
}

#[test]
fn an_item_is_refused_with_the_path_and_the_reason() {
    let order = schema(
        r##"{"type": "object", "required": ["lines"], "additionalProperties": false, "properties": {
            "lines": {"type": "array", "items": {"$ref": "#/definitions/line"}, "minItems": 1, "uniqueItems": true},
            "a/b": {"type": ["string", "null"], "maxLength": 3, "pattern": "^[a-z]*$"}},
        "definitions": {"line": {"type": "object", "properties": {
            "count": {"type": "integer", "minimum": 1}, "price": {"type": "number", "multipleOf": 0.01},
            "unit": {"anyOf": [{"const": "kg"}, {"const": "piece"}]}}}}}"##,
    );
    for (item, expected) in [
        (r#"{"lines": [{"count": 1.0, "price": 19.99, "unit": "kg"}], "a/b": null}"#, Ok(())),
        (r#"{"lines": [{"count": 99999999999999999999999}]}"#, Ok(())),
        ("[]", Err("the item is array, not object")),
        ("{}", Err("the item lacks `lines`")),
        (r#"{"lines": [{}], "extra": 1}"#, Err("the item has `extra`, which it must not have")),
        (r#"{"lines": []}"#, Err("`/lines` has 0 items, not at least 1 item")),
        (r#"{"lines": [{"count": 1}, {"count": 1.0}]}"#, Err("`/lines` has equal items at 0 and 1")),
        (r#"{"lines": [{}, {"count": 0}]}"#, Err("`/lines/1/count` is 0, not ≥ 1")),
        (r#"{"lines": [{"count": 1.5}]}"#, Err("`/lines/0/count` is number, not integer")),
        (r#"{"lines": [{"price": 1.999}]}"#, Err("`/lines/0/price` is 1.999, not a multiple of 0.01")),
        (r#"{"lines": [{"unit": "g"}]}"#, Err(r#"`/lines/0/unit` is "g", not "kg" or "piece""#)),
        (r#"{"lines": [{}], "a/b": "ABCD"}"#, Err("`/a~1b` has 4 characters, not at most 3 characters")),
        (r#"{"lines": [{}], "a/b": "A"}"#, Err(r#"`/a~1b` is "A", which does not match `^[a-z]*$`"#)),
        (r#"{"lines": [{}], "a/b": 7}"#, Err("`/a~1b` is integer, not null or string")),
    ] {
        let refused = order.validate(&value(item)).map_err(|refused| refused.to_string());
        assert_eq!(refused, expected.map_err(str::to_owned), "{item}");
    }
}

#[test]
fn what_json_lacks_fits_where_a_schema_says_so() {
    let tag = |tag, value| Value::Tag(tag, Box::new(value));
    let items = [
        Value::Bytes(vec![1]),
        tag(0, Value::from("2026-01-01T00:00:00Z")),
        tag(37, Value::Bytes(vec![0; 16])),
        Value::Float(f64::NAN),
        Value::Map(vec![(1.into(), 1.into())]),
        tag(2, Value::Bytes(vec![1; 20])),
        tag(4, Value::Array(vec![(-2).into(), 1999.into()])),
    ];
    for (schema, fits) in [
        ("{}", [true; 7]),
        (r#"{"minLength": 5, "minimum": 100}"#, [true, true, true, true, true, true, false]),
        (r#"{"type": "string"}"#, [false; 7]),
        (r#"{"type": "string", "contentEncoding": "base64"}"#, [true, false, false, false, false, false, false]),
        (r#"{"type": "string", "format": "binary"}"#, [true, false, false, false, false, false, false]),
        (r#"{"type": "string", "format": "date-time"}"#, [false, true, false, false, false, false, false]),
        (r#"{"type": "string", "format": "uuid"}"#, [false, false, true, false, false, false, false]),
        (r#"{"type": "number"}"#, [false, false, false, false, false, true, true]),
        (r#"{"type": "integer"}"#, [false, false, false, false, false, true, false]),
        (r#"{"type": "object"}"#, [false; 7]),
        (r#"{"const": 19.99}"#, [false, false, false, false, false, false, true]),
    ] {
        let schema = self::schema(schema);
        let found: Vec<bool> = items.iter().map(|item| schema.validate(item).is_ok()).collect();
        assert_eq!(found, fits, "{schema:?}");
    }
}

#[test]
fn an_example_has_all_that_it_may_have() {
    for (schema, expected) in [
        (ORDER, r#"{"total":"aaa"}"#),
        (
            r#"{"type": "object", "properties": {"id": {"type": "string", "format": "uuid"}, "lines": {"type": "array", "items": {"type": "object", "properties": {"count": {"type": "integer", "minimum": 1}}}}}}"#,
            r#"{"id":"4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f","lines":[{"count":1}]}"#,
        ),
        (
            r##"{"type": "object", "properties": {"value": {"enum": [7]}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}"##,
            r#"{"next":null,"value":7}"#,
        ),
        (r#"{"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$"}"#, r#""AA-00""#),
    ] {
        assert_eq!(
            self::schema(schema).example().map(|example| to_json(&example)).as_deref(),
            Some(expected),
            "{schema}"
        );
    }
    assert_eq!(schema("false").example(), None);
}

#[test]
fn a_document_that_is_no_schema_is_refused_with_its_place() {
    for (json, expected) in [
        ("{", "not JSON: EOF while parsing"),
        ("7", "at `#`: a schema is an object, `true` or `false`"),
        (
            r#"{"properties": {"a/b": {"type": "strng"}}}"#,
            "at `#/properties/a~1b`: `type` names `strng`, which is no type",
        ),
        (
            r##"{"items": {"$ref": "#/$defs/x"}}"##,
            "at `#/items`: `$ref` names `#/$defs/x`, which is not in the document",
        ),
        (r#"{"minLength": -1}"#, "at `#`: `minLength` is a whole number, and not negative"),
        (r#"{"anyOf": {}}"#, "at `#`: `anyOf` is a list of schemas"),
        (r#"{"multipleOf": 0}"#, "at `#`: `multipleOf` is a number above 0"),
        (r#"{"required": [1]}"#, "at `#`: `required` is a list of texts"),
    ] {
        let error = Schema::parse(json.as_bytes()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with(expected), "{json}: {error}");
    }
}

#[test]
fn a_type_that_says_less_than_all_is_no_misfit() {
    let keys = r#"{"type": "object", "additionalProperties": {"type": "integer"}, "x-untold": "which keys it has"}"#;
    let lax = r#"{"anyOf": [{"type": "integer"}, {"type": ["string", "boolean"], "x-untold": "pydantic"}]}"#;
    assert_fits(&[
        (r#"{"type": "object", "x-untold": "dict"}"#, ORDER, "unknown: its type says no more (dict)"),
        (r#"{"type": "object", "x-untold": "dict"}"#, r#"{"type": "object"}"#, "fits"),
        (keys, r#"{"type": "object", "additionalProperties": {"type": "number"}}"#, "fits"),
        (keys, ORDER, "unknown: its type says no more (which keys it has)"),
        (r#"{"x-untold": "Any"}"#, "{}", "fits"),
        (r#"{"type": "integer"}"#, lax, "fits"),
        (r#"{"type": "string"}"#, lax, "unknown: its type says no more (pydantic), at `/anyOf/1` of its schema"),
        (
            r#"{"type": "null"}"#,
            lax,
            "`parse` gives `null`, `sum` takes `integer or boolean or string`; for example null",
        ),
    ]);
}
