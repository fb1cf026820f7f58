//! Converts an item to a value, even where the decoder fails.

use ciborium::Value;

use super::{check_one, head, write_head};

/// Returns an item as a value. `None` if that is not possible, or if bytes follow the item.
///
/// An unknown simple value becomes null.
pub fn value(item: &[u8]) -> Option<Value> {
    let read = |mut item: &[u8]| ciborium::from_reader(&mut item).ok().filter(|_| item.is_empty());
    read(item).or_else(|| read(&readable(item)?))
}

/// Returns an item as a value, or why that is not possible.
pub fn value_or_reason(item: &[u8]) -> Result<Value, String> {
    value(item).ok_or_else(|| match check_one(item) {
        Err(error) => format!("the item cannot be read: {error}"),
        Ok(()) => "the item cannot be read".to_owned(),
    })
}

/// Returns an item in a form that ciborium reads. It fails on negative integers that need all of 128 bits, and on unknown simple
/// values.
fn readable(item: &[u8]) -> Option<Vec<u8>> {
    /// The tag of negative big numbers.
    const NEGATIVE: u64 = 3;
    let mut out = Vec::with_capacity(item.len() + 1);
    let (mut at, mut is_negative) = (0, false);
    while at < item.len() {
        let head = head(item, at).ok()?;
        let length = if matches!(head.major, 2 | 3) { head.argument.unwrap_or(0) } else { 0 };
        let end = head.end.checked_add(usize::try_from(length).ok()?)?;
        let bytes = item.get(at..end)?;
        if head.major == 7 && (head.info < 20 || head.info == 24) {
            out.push(0xf6);
        } else if is_negative && head.major == 2 && length == 16 {
            // With a leading zero, ciborium reads the bytes as a big number.
            write_head(2, 17, &mut out);
            out.push(0);
            out.extend_from_slice(&item[head.end..end]);
        } else {
            out.extend_from_slice(bytes);
        }
        is_negative = head.major == 6 && head.argument == Some(NEGATIVE);
        at = end;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_a_value_also_where_the_decoder_gives_up() {
        let mut bytes = vec![0x82, 0xc3, 0x50];
        bytes.extend([0xff; 16]);
        bytes.extend([0xf8, 0xff]);
        let big = Value::Tag(3, Box::new(Value::Bytes([&[0][..], &[0xff; 16]].concat())));
        assert_eq!(value(&bytes), Some(Value::Array(vec![big, Value::Null])));
        assert_eq!(value(&[0x82, 1, 0xf5]), Some(Value::Array(vec![1.into(), true.into()])));
        assert_eq!(value(&[0x82, 1]), None);
        assert_eq!(value(&[1, 2]), None, "what follows is not dropped");
        assert_eq!(value(&[0xe0, 1]), None);
        assert_eq!(value_or_reason(&[1]), Ok(1.into()));
        for (item, reason) in [(&[0x61, 0xff][..], "is not UTF-8"), (&[0x82, 1], "is cut off"), (&[], "is empty")] {
            let said = value_or_reason(item).expect_err("no item");
            assert!(said.starts_with("the item cannot be read: ") && said.contains(reason), "{said}");
        }
    }
}
