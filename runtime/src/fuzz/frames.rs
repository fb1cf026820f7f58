//! Tests that any payload or header is refused or usable. Usable items can be stored and shown.

use bytes::Bytes;
use ciborium::Value;
use serde::de::IgnoredAny;

use super::{Random, damage, rounds, try_door};
use crate::frame::cbor::{CborError, MAX_DEPTH, check_one, split, value};
use crate::frame::format::{Format, to_cbor};
use crate::frame::id::{FrameId, Index};
use crate::frame::json::to_json;
use crate::frame::large::Positions;
use crate::frame::{Frame, Headers, from_header_line, to_header_line};

/// The most bytes of JSON for each byte of an item.
const JSON_GROWTH: usize = 16;

/// Writes an item of a random kind in a random encoding.
fn write_item(random: &mut Random, depth: usize, out: &mut Vec<u8>) {
    let kinds = if depth == 0 { 5 } else { 10 };
    match random.below(kinds) {
        0 => head(random, 0, None, out),
        1 => head(random, 1, None, out),
        2 => {
            let bytes = random.bytes(5);
            string(2, &bytes, random, out);
        }
        3 => {
            let text = random.pick(&["", "a", "\"\\", "\u{0}\n", "äöü", "key"]).as_bytes();
            string(3, text, random, out);
        }
        4 => match random.below(4) {
            0 => out.push(0xf4 + u8::try_from(random.below(4)).expect("small")),
            1 => out.extend([0xf9, random.byte(), random.byte()]),
            2 => out.extend([0xfa, random.byte(), random.byte(), random.byte(), random.byte()]),
            _ => {
                out.push(0xfb);
                out.extend((0..8).map(|_| random.byte()));
            }
        },
        5 => {
            head(random, 6, None, out);
            write_item(random, depth - 1, out);
        }
        // Arrays and maps, with or without a length.
        kind => {
            let (major, count) = (4 + u8::from(kind > 7), random.below(4) as u64);
            let open = random.once_in(3);
            if open {
                out.push(major << 5 | 31);
            } else {
                head(random, major, Some(count), out);
            }
            for _ in 0..count * u64::from(major - 3) {
                write_item(random, depth - 1, out);
            }
            if open {
                out.push(0xff);
            }
        }
    }
}

/// Writes a head in one of the lengths that hold its argument.
fn head(random: &mut Random, major: u8, argument: Option<u64>, out: &mut Vec<u8>) {
    let argument = argument.unwrap_or_else(|| random.next() >> random.below(64));
    let least = [24, 1 << 8, 1 << 16, 1 << 32].iter().take_while(|end| argument >= **end).count();
    let length = least + random.below(5 - least);
    let wide = argument.to_be_bytes();
    out.push(major << 5 | if length == 0 { wide[7] } else { 23 + u8::try_from(length).expect("small") });
    if length > 0 {
        out.extend(&wide[8 - (1 << (length - 1))..]);
    }
}

/// Writes a string, whole or in chunks.
fn string(major: u8, bytes: &[u8], random: &mut Random, out: &mut Vec<u8>) {
    let mut whole = |bytes: &[u8], out: &mut Vec<u8>| {
        head(random, major, Some(bytes.len() as u64), out);
        out.extend(bytes);
    };
    if bytes.len().is_multiple_of(2) {
        return whole(bytes, out);
    }
    out.push(major << 5 | 31);
    whole(bytes, out);
    whole(b"", out);
    out.push(0xff);
}

/// Ways to nest: an array, a tag, a key, a value, and an array and a key without a length.
const NESTS: [(&[u8], &[u8]); 6] = [
    (&[0x81], &[]),
    (&[0xc1], &[]),
    (&[0xa1], &[0x00]),
    (&[0xa1, 0x00], &[]),
    (&[0x9f], &[0xff]),
    (&[0xbf], &[0x00, 0xff]),
];

/// Returns a sequence of items: valid, nested as deep as allowed, damaged, or random bytes.
fn sequence(random: &mut Random) -> Vec<u8> {
    if random.once_in(10) {
        return random.bytes(40);
    }
    let mut items: Vec<Vec<u8>> = (0..=random.below(3))
        .map(|_| {
            let mut item = Vec::new();
            let levels = if random.once_in(2) { random.below(30) } else { MAX_DEPTH - 3 + random.below(5) };
            let (open, close) = random.pick(&NESTS);
            let nest = if random.once_in(10) { levels } else { 0 };
            item.extend(open.repeat(nest));
            let depth = random.below(4);
            write_item(random, depth, &mut item);
            item.extend(close.repeat(nest));
            item
        })
        .collect();
    let others = items.clone();
    if random.once_in(2) {
        let which = random.below(items.len());
        damage(random, &mut items[which], &others);
    }
    items.concat()
}

fn decode(item: &[u8]) -> Option<Value> {
    let mut rest = item;
    let value = ciborium::from_reader(&mut rest).ok()?;
    rest.is_empty().then_some(value)
}

#[test]
fn a_sequence_is_refused_or_is_items_back_to_back_that_can_be_shown() {
    let (mut taken, mut decoded) = (0_u64, 0_u64);
    try_door(rounds(), sequence, |payload: &Vec<u8>| {
        let payload = Bytes::from(payload.clone());
        let Ok(items) = split(&payload) else {
            // A payload that a decoder reads must not be refused, except for its depth.
            let decoded = decode(&payload).is_some();
            assert!(!decoded || matches!(check_one(&payload), Err(CborError::TooDeep(_))), "a decoder reads it");
            return;
        };
        taken += 1;
        assert!(!items.is_empty());
        assert_eq!(items.concat(), payload);
        let frame = Frame {
            id: FrameId::from_fed("id"),
            index: Index::in_order(items.len()),
            items,
            large: Positions::NONE,
            inherited: Headers::new(),
        };
        assert_eq!(frame.payload(), payload);
        for item in &frame.items {
            assert_eq!(check_one(item), Ok(()));
            assert_eq!(split(item).as_deref(), Ok(&[item.clone()][..]));
            let shown = value(item);
            let Some(value) = decode(item) else { continue };
            // NaN is not equal to itself, so the texts are compared.
            assert_eq!(format!("{shown:?}"), format!("{:?}", Some(&value)));
            decoded += 1;
            // Twice, because the first run joins the chunks of a big number, and only the second sees that it is small.
            let again = to_cbor(&decode(&to_cbor(&value)).expect("our own"));
            assert_eq!(check_one(&again), Ok(()));
            assert_eq!(to_cbor(&decode(&again).expect("our own")), again);
            let json = to_json(&value);
            assert!(serde_json::from_str::<IgnoredAny>(&json).is_ok(), "no JSON: {json}");
            assert!(json.len() <= JSON_GROWTH * item.len() + JSON_GROWTH, "{} bytes of JSON", json.len());
        }
    });
    assert!(taken > rounds() / 4 && decoded > rounds() / 8, "{taken} taken and {decoded} decoded: too few to tell");
}

/// Returns a payload in one of the text formats, valid or damaged.
fn text(random: &mut Random) -> Vec<u8> {
    let corpus = [
        &br#"{"a": [1, -2.5e3, null, true, "\u00e4\ud83d\ude00\n"], "b": {"": {}}, "c": 18446744073709551616}"#[..],
        b"[[[[[]]]], 0, -0.0, 1e-400, 123456789012345678901234567890]",
        b"1\n\n{\"x\": 2}\r\n \n\"three\"\n",
        b"plain \xc3\xa4 text\0",
        b"\"\"",
    ]
    .map(<[u8]>::to_vec);
    let mut text = match random.below(12) {
        0 => random.bytes(30),
        1 => b"[".repeat(random.below(300)),
        2 => {
            let depth = random.below(300);
            [b"{\"a\":".repeat(depth), b"1".to_vec(), b"}".repeat(depth)].concat()
        }
        _ => random.pick(&corpus).clone(),
    };
    if !random.once_in(4) {
        damage(random, &mut text, &corpus);
    }
    text
}

#[test]
fn a_payload_of_any_format_is_refused_or_gives_items() {
    const ALL: [Format; 5] = [Format::Cbor, Format::Json, Format::Ndjson, Format::Text, Format::Bytes];
    let mut taken = [0; ALL.len()];
    try_door(rounds(), text, |payload: &Vec<u8>| {
        let payload = Bytes::from(payload.clone());
        for (format, taken) in ALL.into_iter().zip(&mut taken) {
            let items = match format.items(&payload) {
                Ok(items) => items,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    continue;
                }
            };
            *taken += 1;
            assert!(!items.is_empty() && items.len() <= payload.len().max(1));
            for item in &items {
                assert_eq!(check_one(item), Ok(()), "{format:?}");
                assert!(item.len() <= 9 * payload.len() + 9, "{format:?}: {} bytes", item.len());
                if format != Format::Cbor {
                    assert!(decode(item).is_some(), "{format:?}");
                }
            }
            if format == Format::Json {
                // The other reader allows less depth, and keeps the byte-order mark.
                let Ok(meant) = serde_json::from_slice::<serde_json::Value>(&payload) else {
                    assert!(payload.len() > 2 * 128 || payload.starts_with(b"\xef"), "{payload:?}");
                    continue;
                };
                let shown = to_json(&decode(&items[0]).expect("decoded before"));
                assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), meant);
            }
        }
    });
    assert!(taken.iter().all(|taken| *taken > rounds() / 100), "{taken:?} taken: too few to tell");
}

/// Returns the value of a header: an index or an id, valid or damaged, or any text.
fn header(random: &mut Random) -> String {
    let corpus = [
        "0-7",
        "4-5,5,9,7-8",
        "3x2,4-5",
        "4294967295x3",
        "4294967294-4294967295,0",
        "0x4294967295",
        "a%2E7.0.1",
        "100%25",
        "a%23#8.0.1",
    ]
    .map(|text| text.as_bytes().to_vec());
    let mut bytes = random.pick(&corpus).clone();
    match random.below(4) {
        0 => {}
        1 => bytes = random.bytes(20),
        2 => bytes = (0..random.below(12)).map(|_| *random.pick(b"0123456789x-,%2E.5+ \n\\")).collect(),
        _ => damage(random, &mut bytes, &corpus),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_header_is_refused_or_says_the_same_when_it_is_written_again() {
    let mut taken = 0_u64;
    try_door(rounds(), header, |text: &String| {
        for length in [0, 1, 2, 3, 5, 8, 1_000] {
            let Ok(index) = Index::parse(text, length) else { continue };
            taken += 1;
            assert_eq!(Index::parse(&index.to_string(), length).as_ref(), Ok(&index), "{index}");
            assert!(index.to_string().len() <= text.len().max(4) * 2, "{index}");
            let _ = (index.get(0), index.get(length), index.is_in_order());
        }
        let fed = FrameId::from_fed(text);
        assert_eq!(fed.root(), *text);
        assert_eq!(FrameId::from_header(fed.child(3, 7).child(0, 0).as_str()).root(), *text);
        let _ = FrameId::from_header(text).root();
        assert_eq!(
            from_header_line(&to_header_line(text)),
            text.replace(|character: char| character != '\n' && character.is_control(), "")
        );
        let line = to_header_line(text);
        assert!(!line.contains(char::is_control) && line.len() <= 2 * text.len());
        let mut headers = Headers::new();
        headers.push(text.clone(), text.clone());
        assert_eq!(headers.own().iter().count() + headers.inherited().iter().count(), 1);
        for most in 0..4 {
            assert!(headers.clone().cut(most).iter().all(|(_, value)| value.len() <= most));
        }
        let _ = Format::from_content_type(text);
    });
    assert!(taken > rounds() / 20, "{taken} taken: too few to tell");
}
