//! Items on the command line.

use bytes::Bytes;
use ciborium::Value;

use super::{InputFormat, Reading, guess};
use crate::cli::exit::Usage;
use crate::frame::format::to_cbor;
use crate::frame::json::error::JsonError;
use crate::frame::json::read::document;

/// Returns the items that arguments stand for. An argument that begins like JSON must be JSON.
pub fn items(arguments: &[String], reading: Reading) -> Result<Vec<Bytes>, Usage> {
    let is_of_files =
        |format: &InputFormat| matches!(format, InputFormat::Csv | InputFormat::Cbor | InputFormat::Bytes);
    if let Some(format) = reading.format.filter(is_of_files) {
        let message = "cannot be used with items on the command line; json (must be JSON) and text (is text) can";
        return Err(Usage(format!("--format {} {message}", format.name())));
    }
    if reading.delimiter.is_some() {
        return Err(Usage("--delimiter cannot be used with items on the command line".to_owned()));
    }
    let item = |(number, text): (usize, &String)| {
        item(text, reading.format).map_err(|error| {
            let which = if arguments.len() == 1 { "the item".to_owned() } else { format!("item {number}") };
            Usage(format!("{which} is not JSON: {error}; if it is plain text, {}", reading.as_text()))
        })
    };
    (1..).zip(arguments).map(item).collect()
}

fn item(text: &str, format: Option<InputFormat>) -> Result<Bytes, JsonError> {
    let is_json = match format {
        None => text.trim_start().starts_with(['{', '[']) || guess::is_scalar(text.as_bytes()),
        Some(format) => !matches!(format, InputFormat::Lines | InputFormat::Text),
    };
    if is_json { document(text.as_bytes(), 1) } else { Ok(to_cbor(&Value::from(text))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, format: Option<InputFormat>) -> Result<Value, String> {
        let items =
            items(&[text.to_owned()], Reading { format, ..Reading::default() }).map_err(|error| error.to_string())?;
        Ok(ciborium::from_reader(&items[0][..]).expect("made by us"))
    }

    #[test]
    fn an_argument_is_json_if_it_begins_so_and_text_if_not() {
        assert_eq!(read("17", None), Ok(17.into()));
        assert_eq!(read("-5", None), Ok((-5).into()));
        assert_eq!(read("\"a\"", None), Ok("a".into()));
        assert_eq!(read("plain text", None), Ok("plain text".into()));
        assert_eq!(read("007", None), Ok("007".into()));
        assert_eq!(read("[1]", None), Ok(Value::Array(vec![1.into()])));
        let said = read("{\"a\":", None).expect_err("cut off");
        assert_eq!(
            said,
            "the item is not JSON: EOF while parsing a value at line 1 column 5; if it is plain text, add --format lines"
        );
        assert!(read("[INFO] ready", None).is_err() && read("1e400", None).is_err());
    }

    #[test]
    fn a_format_decides_what_an_argument_is() {
        assert_eq!(read("[INFO] ready", Some(InputFormat::Lines)), Ok("[INFO] ready".into()));
        assert_eq!(read("17", Some(InputFormat::Lines)), Ok("17".into()));
        assert!(read("plain", Some(InputFormat::Json)).is_err());
        assert!(read("17", Some(InputFormat::Csv)).is_err());
    }
}
