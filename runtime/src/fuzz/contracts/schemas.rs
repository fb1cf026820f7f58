//! Random schemas, and random values of the same few numbers, texts and keys.

use serde_json::{Map, Value as Json, json};

use crate::fuzz::Random;

/// What random schemas say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// What every comparison decides.
    Decided,
    /// Anything.
    Any,
}

const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const TEXTS: [&str; 6] = ["", "a", "b", "ab", "abc", "x1"];
const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];
const PATTERNS: [&str; 5] = ["^a", "b$", "^[a-c]*$", "x", "^(?=a)b"];

/// Returns a random value.
pub(super) fn value(random: &mut Random, depth: usize) -> Json {
    match random.below(if depth == 0 { 5 } else { 9 }) {
        0 => Json::Null,
        1 => json!(random.once_in(2)),
        2 => number(random),
        3 | 4 => json!(random.pick(&TEXTS)),
        5 | 6 => (0..random.below(4)).map(|_| value(random, depth - 1)).collect(),
        _ => {
            let entry = |random: &mut Random| ((*random.pick(&KEYS)).to_owned(), value(random, depth - 1));
            (0..random.below(4)).map(|_| entry(random)).collect::<Map<_, _>>().into()
        }
    }
}

fn number(random: &mut Random) -> Json {
    let whole = i64::try_from(random.below(9)).expect("small") - 3;
    match random.below(4) {
        0 => json!(f64::from(i32::try_from(whole).expect("small")) + 0.5),
        1 => json!(f64::from(i32::try_from(whole).expect("small"))),
        _ => json!(whole),
    }
}

/// Returns a random schema, which may refer to itself.
pub(super) fn schema(random: &mut Random, kind: Kind) -> Json {
    let mut root = part(random, 3, kind);
    if let Json::Object(root) = &mut root {
        let defs: Map<String, Json> =
            ["x", "y"].map(|name| (name.to_owned(), part(random, 2, kind))).into_iter().collect();
        root.insert("$defs".to_owned(), defs.into());
    }
    root
}

/// Returns a schema of what fits this one or another.
pub(super) fn wider(random: &mut Random, schema: &Json, kind: Kind) -> Json {
    let defs = schema.get("$defs").cloned().unwrap_or(json!({ "x": true, "y": true }));
    json!({ "$defs": defs, "anyOf": [schema, part(random, 2, kind)] })
}

/// Returns a schema with some keywords of the whole or of a part changed.
pub(super) fn changed(random: &mut Random, schema: &Json, kind: Kind) -> Json {
    let mut schema = schema.clone();
    let Json::Object(entries) = &mut schema else { return self::schema(random, kind) };
    for _ in 0..=random.below(2) {
        let keys: Vec<String> = entries.keys().filter(|key| *key != "$defs").cloned().collect();
        match random.below(4) {
            0 => drop(keys.first().map(|_| entries.remove(random.pick(&keys)))),
            1 => say(random, entries, 2, kind),
            _ => {
                let Some(Json::Object(properties)) = entries.get_mut("properties") else { continue };
                let key = (*random.pick(&KEYS)).to_owned();
                let part = properties.get(&key).cloned().unwrap_or(json!({}));
                let is_changed = part.is_object() && random.once_in(2);
                let part = if is_changed { changed(random, &part, kind) } else { self::part(random, 1, kind) };
                properties.insert(key, part);
            }
        }
    }
    schema
}

fn part(random: &mut Random, depth: usize, kind: Kind) -> Json {
    if random.once_in(12) {
        return json!(random.once_in(3));
    }
    let mut schema = Map::new();
    if !random.once_in(3) {
        let types = *random.pick(&TYPES);
        schema.insert(
            "type".to_owned(),
            if random.once_in(4) { json!([types, random.pick(&TYPES)]) } else { json!(types) },
        );
        let list = schema["type"].as_array().is_some_and(|types| types[0] == types[1]);
        if list {
            schema.insert("type".to_owned(), json!(types));
        }
    }
    for _ in 0..random.below(4) {
        say(random, &mut schema, depth, kind);
    }
    schema.into()
}

/// Adds a keyword.
fn say(random: &mut Random, schema: &mut Map<String, Json>, depth: usize, kind: Kind) {
    let count = |random: &mut Random| json!(random.below(4));
    let parts = |random: &mut Random| -> Json {
        (0..=random.below(3)).map(|_| part(random, depth.saturating_sub(1), kind)).collect()
    };
    let below = depth.saturating_sub(1);
    let scalars = if kind == Kind::Any { 17 } else { 13 };
    let (keyword, value) = match random.below(if depth == 0 { scalars } else { scalars + 16 }) {
        0 => ("enum", (0..random.below(4)).map(|_| value(random, 1)).collect()),
        1 => ("const", value(random, 1)),
        2 => ("minimum", number(random)),
        3 => ("maximum", number(random)),
        4 => ("exclusiveMinimum", number(random)),
        5 => ("multipleOf", random.pick(&[json!(2), json!(0.5), json!(3)]).clone()),
        6 => ("minLength", count(random)),
        7 => ("maxLength", count(random)),
        8 => ("minItems", count(random)),
        9 => ("maxItems", count(random)),
        10 => ("minProperties", count(random)),
        11 => ("maxProperties", count(random)),
        12 => ("required", (0..random.below(3)).map(|_| json!(random.pick(&KEYS))).collect()),
        13 if kind == Kind::Any => ("pattern", json!(random.pick(&PATTERNS))),
        14 if kind == Kind::Any => ("format", json!(random.pick(&["date", "uuid", "int8"]))),
        15 if kind == Kind::Any => ("uniqueItems", json!(true)),
        16 if kind == Kind::Any => ("unevaluatedProperties", json!(false)),
        choice => match choice - scalars {
            0..=3 => {
                let entry = |random: &mut Random| ((*random.pick(&KEYS)).to_owned(), part(random, below, kind));
                ("properties", (0..=random.below(3)).map(|_| entry(random)).collect::<Map<_, _>>().into())
            }
            4 | 5 => ("additionalProperties", part(random, below, kind)),
            6 => ("items", part(random, below, kind)),
            7 => ("prefixItems", parts(random)),
            8 => ("allOf", parts(random)),
            9 => ("anyOf", parts(random)),
            10 => ("oneOf", parts(random)),
            11 => ("not", part(random, below, kind)),
            12 => ("contains", part(random, below, kind)),
            13 => ("$ref", json!(random.pick(&["#", "#/$defs/x", "#/$defs/y"]))),
            14 => ("dependentRequired", json!({ *random.pick(&KEYS): [random.pick(&KEYS)] })),
            _ if kind == Kind::Any && random.once_in(2) => {
                ("patternProperties", json!({ *random.pick(&PATTERNS): part(random, below, kind) }))
            }
            _ if kind == Kind::Any => ("propertyNames", part(random, below, kind)),
            _ => {
                schema.insert("if".to_owned(), part(random, below, kind));
                schema.insert("then".to_owned(), part(random, below, kind));
                ("else", part(random, below, kind))
            }
        },
    };
    schema.insert(keyword.to_owned(), value);
}
