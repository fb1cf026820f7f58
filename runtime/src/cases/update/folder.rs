//! Writes what a replayed case gives into its folder.

use std::path::Path;

use super::{UpdateError, replace};
use crate::cases::file::REPLAYED;
use crate::cases::outcome::Outcome;
use crate::cases::replayed::{EXPECTED, OUTPUTS, OUTPUTS_JSON, expected};
use crate::frame::cbor;
use crate::frame::json::to_json;

/// Writes the outputs of a case, or its failure.
pub(super) fn write(folder: &Path, outcome: &Outcome) -> Result<(), UpdateError> {
    let file = |name: &str| folder.join(name);
    let put = |name: &str, content: &[u8]| {
        replace(&file(name), content).map_err(|error| UpdateError::Io { path: file(name), error })
    };
    let path = file(REPLAYED);
    let text = crate::file::read_text(&path).map_err(|error| UpdateError::Io { path, error })?;
    let kept = text.find(EXPECTED).map_or(text.as_str(), |at| &text[..at]);
    let failed = outcome.dead.first().map(|died| (died.kind.name(), died.reason.as_str()));
    let outputs = if failed.is_some() { &[][..] } else { &outcome.results };
    let json: String = outputs.iter().filter_map(|item| Some(to_json(&cbor::value(item)?) + "\n")).collect();
    put(OUTPUTS, &outputs.concat())?;
    put(OUTPUTS_JSON, json.as_bytes())?;
    put(REPLAYED, format!("{kept}{}", expected(outputs.len(), failed)).as_bytes())
}
