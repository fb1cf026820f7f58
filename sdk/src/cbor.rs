//! Reads and writes items as CBOR, with the rules of JSON.
//!
//! An item may be fed as JSON, and its result may be shown as JSON. In JSON, `2` is a valid `f64`, and an IP address is a text.
//! Plain ciborium refuses the first and writes bytes for the second. So [`read`] and [`write`] stand between ciborium and the
//! author's types.

pub(crate) mod fields;
mod read;
mod write;

use std::cell::RefCell;
use std::fmt;

use ciborium::de::{self, from_reader_with_buffer};
use ciborium::ser;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest key that can be read, in bytes. It is ciborium's own limit.
const SCRATCH: usize = 4096;

/// Reads one item that takes up all of `bytes`. The error describes the fault.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    thread_local! {
        /// The buffer for keys. On the stack it would be cleared, and so touched, for each item.
        static BUFFER: RefCell<[u8; SCRATCH]> = const { RefCell::new([0; SCRATCH]) };
    }
    BUFFER.with_borrow_mut(|scratch| decode_within(bytes, scratch))
}

/// Reads one item with a buffer for the keys. Can be called while [`decode`] reads.
pub(crate) fn decode_within<T: DeserializeOwned>(mut bytes: &[u8], scratch: &mut [u8]) -> Result<T, String> {
    let read::Item(item) = from_reader_with_buffer(&mut bytes, scratch).map_err(decode_message)?;
    if bytes.is_empty() { Ok(item) } else { Err(format!("{} bytes follow it", bytes.len())) }
}

/// Appends one item to `buffer`. The error describes why the item cannot be written.
pub(crate) fn encode(item: &impl Serialize, buffer: &mut Vec<u8>) -> Result<(), String> {
    ciborium::into_writer(&write::Item(item), buffer).map_err(encode_message)
}

/// Returns the message of an error, because ciborium's `Display` is its `Debug`. The type `E` depends on whether another crate
/// enables ciborium's `std`. When reading from memory, it always means the end of the data.
fn decode_message<E>(error: de::Error<E>) -> String {
    match error {
        de::Error::Io(_) => "the data ends too early".to_owned(),
        de::Error::Syntax(offset) => format!("not valid CBOR at byte {offset}"),
        de::Error::Semantic(_, message) => message,
        de::Error::RecursionLimitExceeded => "nested too deeply".to_owned(),
    }
}

fn encode_message<E: fmt::Debug>(error: ser::Error<E>) -> String {
    match error {
        ser::Error::Io(error) => format!("{error:?}"),
        ser::Error::Value(message) => message,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use serde::Deserialize;

    use super::*;
    use crate::Value;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Point,
        Circle(f64),
        Line(f64, f64),
        Square { side: Option<f64> },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Everything {
        text: String,
        letter: char,
        float: f64,
        small: f32,
        big: u128,
        negative: i64,
        yes: bool,
        nothing: (),
        maybe: Option<Box<Everything>>,
        list: Vec<f64>,
        pair: (u8, f64),
        map: BTreeMap<u64, Vec<f64>>,
        shapes: Vec<Shape>,
        address: IpAddr,
        #[serde(flatten)]
        rest: BTreeMap<String, Value>,
    }

    fn everything(maybe: Option<Box<Everything>>) -> Everything {
        Everything {
            text: "größe".repeat(2000),
            letter: 'ß',
            float: 2.0,
            small: 0.5,
            big: u128::MAX,
            negative: -5,
            yes: true,
            nothing: (),
            maybe,
            list: vec![1.0, 2.5],
            pair: (7, 8.0),
            map: BTreeMap::from([(9, vec![10.0])]),
            shapes: vec![Shape::Point, Shape::Circle(1.0), Shape::Line(0.0, 1.0), Shape::Square { side: Some(2.0) }],
            address: IpAddr::from([127, 0, 0, 1]),
            rest: BTreeMap::from([("more".to_owned(), Value::Array(vec![Value::Null]))]),
        }
    }

    fn encoded(item: &impl Serialize) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(item, &mut bytes).expect("an encodable item");
        bytes
    }

    /// Changes floats without a fraction to integers, as JSON would.
    fn without_points(value: Value) -> Value {
        match value {
            #[expect(clippy::cast_possible_truncation, reason = "the numbers of the test are small")]
            Value::Float(float) if float.fract() == 0.0 => Value::Integer((float as i64).into()),
            Value::Array(values) => Value::Array(values.into_iter().map(without_points).collect()),
            Value::Map(pairs) => {
                Value::Map(pairs.into_iter().map(|(key, value)| (key, without_points(value))).collect())
            }
            other => other,
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let item = everything(Some(Box::new(everything(None))));
        assert_eq!(decode::<Everything>(&encoded(&item)), Ok(item));
    }

    #[test]
    fn an_integer_is_a_float_wherever_it_stands() {
        let item = everything(Some(Box::new(everything(None))));
        let value = without_points(decode(&encoded(&item)).expect("a value"));
        assert_eq!(decode::<Everything>(&encoded(&value)), Ok(item));
        assert_eq!(decode::<f64>(&encoded(&2)), Ok(2.0));
    }

    #[test]
    fn types_with_a_form_for_people_use_it() {
        let address = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(decode(&encoded(&address)), Ok("127.0.0.1".to_owned()));
        assert_eq!(decode(&encoded(&"127.0.0.1")), Ok(address));
    }

    #[test]
    fn a_value_comes_through_unchanged() {
        let date = Value::Tag(0, Box::new(Value::Text("2013-03-21T20:04:00Z".to_owned())));
        let value = Value::Map(vec![(Value::Integer(1.into()), Value::Bytes(vec![0; 5000])), (Value::Null, date)]);
        assert_eq!(decode(&encoded(&value)), Ok(value));
    }

    #[test]
    fn a_text_in_pieces_is_a_text() {
        assert_eq!(decode(b"\x7f\x65hello\x61!\xff"), Ok("hello!".to_owned()));
        assert_eq!(decode::<IpAddr>(b"\x7f\x64127.\x650.0.1\xff"), Ok(IpAddr::from([127, 0, 0, 1])));
    }

    #[test]
    fn a_message_says_what_is_wrong() {
        let message = |bytes: &[u8]| decode::<Shape>(bytes).expect_err("an error");
        assert_eq!(message(b"\x65Poi"), "the data ends too early");
        assert_eq!(message(b"\x65Point\x00"), "1 bytes follow it");
        assert_eq!(message(b"\x1c"), "not valid CBOR at byte 0");
        assert_eq!(
            message(b"\x65Piont"),
            "unknown variant `Piont`, expected one of `Point`, `Circle`, `Line`, `Square`"
        );
        assert_eq!(decode::<Value>(&[0x81; 1000]).expect_err("an error"), "nested too deeply");
    }
}
