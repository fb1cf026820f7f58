//! JSON Schemas of what a task takes and gives.
//!
//! A type without a schema is no mistake: other packages of a build may have asked for the feature. So `Of` finds out by the
//! way in which methods are looked up whether a type has one.

use std::marker::PhantomData;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::start;
use crate::WithTopic;

/// A type of which the schema is wanted.
pub struct Of<T>(PhantomData<T>);

impl<T> Of<T> {
    /// Names the type.
    #[expect(clippy::new_without_default, reason = "only `#[task]` calls it")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

/// The schema of a type that has one. Its methods are found before those of [`OfAny`].
pub trait OfSchema {
    /// Returns the schema of what is read as this type.
    fn input(&self) -> Option<Schema>;
    /// Returns the schema of what is written of this type.
    fn output(&self) -> Option<Schema>;
}

impl<T: JsonSchema> OfSchema for Of<T> {
    fn input(&self) -> Option<Schema> {
        let mut schema = SchemaSettings::draft2020_12().for_deserialize().into_generator().into_root_schema_for::<T>();
        admit_bytes(schema.ensure_object());
        Some(schema)
    }

    fn output(&self) -> Option<Schema> {
        Some(SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>())
    }
}

/// The schema of any other type: none.
pub trait OfAny {
    /// Returns `None`.
    fn input(&self) -> Option<Schema> {
        None
    }
    /// Returns `None`.
    fn output(&self) -> Option<Schema> {
        None
    }
}

impl<T> OfAny for &Of<T> {}

impl<T: JsonSchema> JsonSchema for WithTopic<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Lets lists of bytes be byte strings, which are read as such lists too. Goes to all schemas in this one.
fn admit_bytes(schema: &mut Map<String, Value>) {
    for part in schema.values_mut() {
        admit_bytes_in(part);
    }
    let is_byte = |items: &Value| items["type"] == "integer" && items["format"] == "uint8";
    if schema.get("type").is_some_and(|kind| kind == "array") && schema.get("items").is_some_and(is_byte) {
        let note = |key: &String| matches!(key.as_str(), "$schema" | "$defs" | "title" | "description" | "default");
        let (notes, list): (Map<_, _>, Map<_, _>) = std::mem::take(schema).into_iter().partition(|(key, _)| note(key));
        *schema = notes;
        schema.insert("anyOf".to_owned(), json!([list, { "type": "string", "contentEncoding": "base64" }]));
    }
}

fn admit_bytes_in(value: &mut Value) {
    match value {
        Value::Object(schema) => admit_bytes(schema),
        Value::Array(list) => list.iter_mut().for_each(admit_bytes_in),
        _ => {}
    }
}

/// Prepares the instance.
pub fn begin() {
    start();
}

/// Returns where the schemas are in memory, as JSON: the pointer, and the length in the upper half. 0 if there are none.
pub fn tell(input: Option<Schema>, output: Option<Schema>) -> u64 {
    let schemas: Map<String, Value> = [("input", input), ("output", output)]
        .into_iter()
        .filter_map(|(key, schema)| Some((key.to_owned(), schema?.to_value())))
        .collect();
    if schemas.is_empty() {
        return 0;
    }
    let text = Value::Object(schemas).to_string().leak();
    ((text.len() as u64) << 32) | (text.as_ptr() as usize as u64)
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Order {
        #[serde(default)]
        id: u32,
        parts: Vec<u8>,
        note: Option<String>,
    }

    struct Untold;

    fn input<T: JsonSchema>() -> Value {
        OfSchema::input(&Of::<T>::new()).expect("a schema").to_value()
    }

    #[expect(clippy::needless_borrow, reason = "as `#[task]` asks, which does not know the type")]
    #[test]
    fn a_type_without_a_schema_is_no_mistake() {
        assert!((&Of::<Untold>::new()).input().is_none());
        assert!((&Of::<Vec<Untold>>::new()).output().is_none());
        assert!((&Of::<Order>::new()).input().is_some());
        assert!((&Of::<Vec<&str>>::new()).output().is_some());
        assert_eq!(tell(None, None), 0);
    }

    #[expect(clippy::needless_lifetimes, reason = "so that the output names it")]
    #[crate::task]
    fn named<'a>(order: Order, cx: &'a crate::Context) -> &'a str {
        if order.id == 0 { cx.id() } else { cx.stage() }
    }

    #[test]
    fn a_task_has_an_export_whatever_lifetimes_its_types_have() {
        assert_eq!(named(Order { id: 0, parts: vec![], note: None }, &crate::Context::default()), "test");
    }

    #[test]
    fn what_is_taken_may_lack_what_is_always_given() {
        let given = OfSchema::output(&Of::<Order>::new()).expect("a schema").to_value();
        assert_eq!(given["required"], json!(["id", "parts", "note"]));
        assert_eq!(input::<Order>()["required"], json!(["parts"]));
        assert_eq!(given["properties"]["parts"]["type"], "array");
    }

    #[test]
    fn bytes_may_come_as_a_byte_string() {
        let bytes = json!({ "type": "string", "contentEncoding": "base64" });
        assert_eq!(input::<Order>()["properties"]["parts"]["anyOf"][1], bytes);
        let alone = input::<Vec<u8>>();
        assert_eq!((&alone["anyOf"][1], &alone["title"]), (&bytes, &json!("Array_of_uint8")));
        assert_eq!(input::<Vec<u16>>()["type"], "array");
    }

    #[test]
    fn an_output_with_a_topic_has_the_schema_of_the_output() {
        let plain = OfSchema::output(&Of::<Order>::new());
        assert_eq!(OfSchema::output(&Of::<WithTopic<Order>>::new()), plain);
    }
}
