//! The JSON Schemas that a manifest names by their files.

use std::io;
use std::path::Path;

use serde_json::Value;

use super::read;
use crate::chain::manifest::Manifest;
use crate::client::ClientError;

/// Writes schemas in place of the paths of their files, which are relative to this folder.
pub(super) fn read_schemas(manifest: &mut Manifest, base: &Path) -> Result<(), ClientError> {
    let of_stages = manifest.stages.iter_mut().filter_map(|stage| stage.schema.as_mut());
    let of_stages = of_stages.flat_map(|schema| [&mut schema.input, &mut schema.output]);
    for schema in of_stages.chain([&mut manifest.input.schema]).flatten() {
        if let Value::String(path) = schema {
            *schema = read_schema(&base.join(path))?;
        }
    }
    Ok(())
}

fn read_schema(path: &Path) -> Result<Value, ClientError> {
    let text = read::read_text(path, ClientError::NoSchemaFile)?;
    // Some editors begin a file with a mark of its encoding.
    serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| {
        let reason = format!("the schema is not JSON: {error}");
        ClientError::Read { path: path.to_owned(), error: io::Error::new(io::ErrorKind::InvalidData, reason) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_of_the_encoding_is_no_part_of_a_schema() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.json");
        std::fs::write(&path, "\u{feff}{\"type\": \"string\"}\n").expect("written");
        assert_eq!(read_schema(&path).expect("a schema"), serde_json::json!({ "type": "string" }));
    }
}
