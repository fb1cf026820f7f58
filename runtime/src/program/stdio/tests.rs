//! What goes in and comes out, without a process.

use std::io::Cursor;

use super::*;
use crate::frame::cbor::value;
use crate::frame::format::to_cbor;
use crate::frame::large::Hasher;
use crate::program::spool::MEMORY;

fn read(format: Format, text: &[u8]) -> Result<Vec<String>, String> {
    let from = Written::Any(Box::new(Cursor::new(text.to_vec())));
    let mut outputs = Outputs { format: Some(format), from: Some(from), large: 0, lines: 0, count: 0 };
    let mut all = Vec::new();
    while let Some(item) = outputs.next().map_err(|error| error.to_string())? {
        let item = item.into_whole().expect("in memory");
        all.push(json::to_json(&value(&item).expect("an item")));
    }
    Ok(all)
}

/// Returns the outputs in content that is written through a spool.
fn spooled(form: Form, content: &[u8], large: u64) -> Result<ItemBytes, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let format = if form == Form::Text { Format::Text } else { Format::Bytes };
    let mut spool = Spool::of(folder.path(), form);
    spool.append(content).expect("written");
    let mut outputs = Outputs::new(Some(format), spool, large).expect("outputs");
    let item = outputs.next().map_err(|error| error.to_string())?.expect("an output");
    assert_eq!(outputs.next().map_err(|error| error.to_string())?, None);
    Ok(item)
}

fn file(content: &[u8], form: Form) -> ItemFile {
    let mut file = tempfile::tempfile().expect("a file");
    std::io::Write::write_all(&mut file, content).expect("written");
    let mut hasher = Hasher::default();
    hasher.update(content);
    ItemFile::new(file, content.len() as u64, &hasher.digest(), form)
}

async fn fed(format: Format, item: &ItemBytes) -> Result<Vec<u8>, String> {
    let Input { head, file } = input(format, item).await.map_err(|failure| failure.reason)?;
    let mut all = head.to_vec();
    if let Some(file) = file {
        file.reader().read_to_end(&mut all).expect("read");
    }
    Ok(all)
}

#[tokio::test]
async fn an_item_is_written_as_the_stage_says() {
    let item: ItemBytes = to_cbor(&serde_json::json!({"a": "ü", "b": [1, 2.5]})).into();
    let cbor = item.clone().into_whole().expect("in memory");
    assert_eq!(fed(Format::Json, &item).await.as_deref(), Ok("{\"a\":\"ü\",\"b\":[1,2.5]}".as_bytes()));
    assert_eq!(fed(Format::Ndjson, &item).await.as_deref(), Ok("{\"a\":\"ü\",\"b\":[1,2.5]}\n".as_bytes()));
    assert_eq!(fed(Format::Cbor, &item).await.as_deref(), Ok(&cbor[..]));
    assert!(fed(Format::Text, &item).await.is_err() && fed(Format::Bytes, &item).await.is_err());
    assert_eq!(fed(Format::Text, &to_cbor(&"a\n").into()).await.as_deref(), Ok(&b"a\n"[..]));
    let bytes = to_cbor(&Value::Bytes(vec![0, 255])).into();
    assert_eq!(fed(Format::Bytes, &bytes).await.as_deref(), Ok(&[0, 255][..]));
}

#[tokio::test]
async fn an_item_in_a_file_is_written_as_one_in_memory() {
    let map = to_cbor(&serde_json::json!({"a": 1}));
    for (content, form) in [(&b"a\xc3\xa4"[..], Form::Text), (b"a\xff", Form::Bytes), (&map, Form::Cbor)] {
        let in_file = ItemBytes::File(file(content, form));
        let in_memory = ItemBytes::Whole(in_file.clone().into_whole().expect("read"));
        for format in [Format::Cbor, Format::Json, Format::Ndjson, Format::Text, Format::Bytes] {
            let expected = fed(format, &in_memory).await;
            assert_eq!(fed(format, &in_file).await, expected, "{form:?} {format:?}");
        }
    }
}

#[tokio::test]
async fn what_must_be_read_whole_has_a_limit() {
    let sparse = tempfile::tempfile().expect("a file");
    sparse.set_len(MAX_WHOLE + 1).expect("set");
    let item = ItemBytes::File(ItemFile::new(sparse, MAX_WHOLE + 1, "SHA-256=", Form::Bytes));
    assert!(input(Format::Bytes, &item).await.is_ok() && input(Format::Cbor, &item).await.is_ok());
    let failure = input(Format::Json, &item).await.expect_err("too large");
    assert!(
        failure.fatal
            && failure.reason.starts_with("the item has 64.0 MiB, and as JSON, a program takes at most 64.0 MiB")
    );
    // Its file has become shorter than it was.
    let gone = ItemBytes::File(ItemFile::new(tempfile::tempfile().expect("a file"), 9, "SHA-256=", Form::Bytes));
    let failure = input(Format::Json, &gone).await.expect_err("it is gone");
    assert_eq!((failure.kind, failure.fatal), (FailureKind::Node, false));
}

#[test]
fn each_line_is_an_output_and_an_empty_one_is_nothing() {
    for (text, expected) in [
        (&b""[..], vec![]),
        (b"\n \r\n", vec![]),
        (b"1\n2", vec!["1", "2"]),
        (b"{\"a\": 1}\r\n\n[1]\n", vec!["{\"a\":1}", "[1]"]),
    ] {
        assert_eq!(read(Format::Ndjson, text).expect("outputs"), expected);
    }
    for (text, place) in [(&b"1\n2\nx\n"[..], "line 3"), (b"1\n\xff\n", "line 2"), (b"1 2\n", "line 1")] {
        let told = read(Format::Ndjson, text).expect_err("wrong");
        assert!(told.starts_with("standard output: ") && told.contains(place), "{told}");
    }
}

#[test]
fn an_output_that_is_too_large_is_told_with_its_size() {
    let long = || std::io::repeat(b'x').take(TEXT_MAX + (1 << 20));
    for (format, start, place) in [(Format::Ndjson, &b"1\n"[..], "line 2: "), (Format::Json, b"", "")] {
        let from = Written::Any(Box::new(io::BufReader::new(start.chain(long()).chain(&b"\n2"[..]))));
        let mut outputs = Outputs { format: Some(format), from: Some(from), large: 0, lines: 0, count: 0 };
        let told = loop {
            match outputs.next() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it is too large"),
                Err(error) => break error.to_string(),
            }
        };
        let expected = format!("standard output: {place}an output of 129.0 MiB; at most 128.0 MiB are one output");
        assert!(told.starts_with(&expected), "{told}");
    }
    let most = usize::try_from(MAX_WHOLE).expect("a size");
    assert!(within(vec![0; most].into(), String::new).is_ok());
    assert!(within(vec![0; most + 1].into(), String::new).is_err());
}

#[test]
fn all_of_it_is_one_output_in_the_other_formats() {
    assert_eq!(read(Format::Json, b" {\n\"a\": 1\n}\n"), Ok(vec!["{\"a\":1}".to_owned()]));
    assert_eq!(read(Format::Text, b"a\nb\n"), Ok(vec!["\"a\\nb\\n\"".to_owned()]));
    assert_eq!(read(Format::Text, b""), Ok(vec!["\"\"".to_owned()]));
    assert_eq!(read(Format::Bytes, b"\x00"), Ok(vec!["\"AA==\"".to_owned()]));
    assert_eq!(read(Format::Cbor, b"\x01"), Ok(vec!["1".to_owned()]));
    for format in [Format::Json, Format::Cbor] {
        assert!(read(format, b"").expect_err("nothing").starts_with("the program wrote nothing"));
    }
    assert!(read(Format::Json, b"{").is_err() && read(Format::Text, b"\xff").is_err());
}

#[test]
fn a_large_output_stays_in_its_file_and_is_what_it_would_be_in_memory() {
    let text = [&b"\xef\xbb\xbf"[..], "ä".repeat(MEMORY).as_bytes()].concat();
    for (form, format) in [(Form::Text, Format::Text), (Form::Bytes, Format::Bytes)] {
        let expected = format.items(&text.clone().into()).expect("an item").remove(0);
        let size = expected.len() as u64;
        for (large, is_file) in [(0, true), (size, false)] {
            let item = spooled(form, &text, large).expect("an output");
            assert_eq!((matches!(item, ItemBytes::File(_)), item.size()), (is_file, size));
            assert!(item.into_whole().expect("read") == expected, "{form:?}");
        }
        // So little is in memory.
        assert!(matches!(spooled(form, b"a", 0), Ok(ItemBytes::Whole(_))));
    }
    for (start, told) in [(&b"\x1f\x8b"[..], "it is compressed with gzip"), (b"a\xff", "not UTF-8 after byte 1")] {
        let content = [start, &vec![b'a'; 2 * MEMORY]].concat();
        assert_eq!(spooled(Form::Text, &content, 0), Err(format!("standard output: {told}")));
    }
}
