//! The JSON Schema of manifests, for the completion of editors.

/// The schema of `chain.toml`.
pub(crate) const MANIFEST: &str = include_str!("manifest.schema.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::chain::manifest::Manifest;
    use crate::contract::Schema;

    /// Keys that a deploy writes.
    const NOT_WRITTEN: &str = "wire";

    /// Returns a manifest with a value at a path of keys. `[]` stands for the only element of a list.
    fn with(path: &[String], value: Value) -> Value {
        let mut manifest = json!({ "name": "a", "version": "1", "stage": [{ "name": "s" }] });
        let mut at = &mut manifest;
        for key in path {
            at = if key == "[]" { &mut at[0] } else { &mut at[key] };
            if at.is_null() {
                *at = json!({});
            }
        }
        *at = value;
        manifest
    }

    fn read(manifest: Value) -> Result<Manifest, String> {
        serde_json::from_value(manifest).map_err(|error| error.to_string())
    }

    /// Returns the keys that the reader knows in the table at a path.
    fn known(path: &[String]) -> BTreeSet<String> {
        let path: Vec<String> = path.iter().cloned().chain(["zzz".to_owned()]).collect();
        let error = read(with(&path, json!(1))).expect_err("an unknown key");
        let names = error.split('`').skip(3).step_by(2).filter(|name| *name != NOT_WRITTEN);
        names.map(str::to_owned).collect()
    }

    /// Returns a value of a type that a schema names first.
    fn sample(schema: &Value) -> Value {
        if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
            return first.clone();
        }
        match schema["type"].as_str().or(schema["type"][0].as_str()) {
            Some("string") => json!("a"),
            Some("integer") => json!(1),
            Some("boolean") => json!(true),
            Some("array") => json!([sample(&schema["items"])]),
            Some("object") if schema["additionalProperties"].is_object() => {
                json!({ "a": sample(&schema["additionalProperties"]) })
            }
            _ => json!({}),
        }
    }

    /// Holds a table of the schema against the reader, and the tables in it.
    fn hold(path: &[String], schema: &Value) {
        let properties = schema["properties"].as_object().expect("a table");
        assert_eq!(properties.keys().cloned().collect::<BTreeSet<_>>(), known(path), "at {path:?}");
        assert_eq!(schema["additionalProperties"], false, "at {path:?}");
        for (key, schema) in properties {
            let path: Vec<String> = path.iter().cloned().chain([key.clone()]).collect();
            assert!(schema["description"].is_string(), "{path:?} is not described");
            if schema["properties"].is_object() {
                hold(&path, schema);
            } else if key == "stage" {
                hold(&[path, vec!["[]".to_owned()]].concat(), &schema["items"]);
            } else {
                assert_eq!(read(with(&path, sample(schema))).map(drop), Ok(()), "{path:?}");
                let wrong = if schema["type"] == "object" { json!(1) } else { json!({ "a": {} }) };
                let takes_any = key == "config" || schema["type"][2] == "boolean";
                assert_eq!(read(with(&path, wrong)).is_err(), !takes_any, "{path:?}");
            }
        }
    }

    #[test]
    fn the_schema_has_the_keys_and_types_of_the_reader() {
        let schema: Value = serde_json::from_str(MANIFEST).expect("JSON");
        hold(&[], &schema);
        assert!(Schema::parse(MANIFEST.as_bytes()).is_ok());
    }
}
