//! Tests of every format, with valid and with invalid input.

use ciborium::Value;

use super::*;
use crate::frame::json::to_json;

/// The most bytes of an item in these tests.
const MAX: usize = 1_000;

/// Returns one part for each read, like a program that writes slowly.
struct Trickle<'a>(Vec<&'a [u8]>);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(part) = self.0.first_mut() {
            if part.is_empty() {
                self.0.remove(0);
                continue;
            }
            return part.read(buffer);
        }
        Ok(0)
    }
}

/// Returns the items as JSON, the format that was found, and the error.
type Items = (Vec<String>, Option<String>, Option<String>);

fn read_from(source: impl Read, reading: Reading) -> Items {
    let (sender, mut items) = mpsc::channel(10_000);
    let (ahead, format) = (Arc::default(), Arc::new(OnceLock::new()));
    let mut sink = Sink { sender, max: MAX, ahead, format: Arc::clone(&format) };
    sink.ahead.close();
    read_all(source, reading, Some("input"), None, &mut sink);
    drop(sink);
    let (mut values, mut error) = (Vec::new(), None);
    while let Some(item) = items.blocking_recv() {
        match item {
            Ok(Content::Item(item)) => {
                values.push(to_json(&ciborium::from_reader::<Value, _>(&item[..]).expect("CBOR")));
            }
            Ok(Content::File(mut file, form)) => {
                let mut content = Vec::new();
                file.read_to_end(&mut content).expect("read");
                values.push(format!("{} of {}", form.name(), content.len()));
            }
            Err(found) => error = Some(format!("{found:#}")),
        }
    }
    (values, format.get().map(|format: &InputFormat| format.name()), error)
}

fn read(format: Option<InputFormat>, text: &[u8]) -> (Vec<String>, Option<String>) {
    let (items, _, error) = read_from(text, Reading { format, ..Reading::default() });
    (items, error)
}

fn csv(text: &str) -> (Vec<String>, Option<String>) {
    read(Some(InputFormat::Csv), text.as_bytes())
}

#[test]
fn each_format_is_read() {
    let read = |format, text: &[u8], expected: &[&str]| {
        assert_eq!(read(Some(format), text), (expected.iter().map(|item| (*item).to_owned()).collect(), None));
    };
    read(InputFormat::Ndjson, b"1\n\n\"a\"\r\n", &["1", "\"a\""]);
    read(InputFormat::Json, b" [1, \"a\"]\n", &["1", "\"a\""]);
    read(InputFormat::Json, b"1 \"a\"{}{\"b\":\n2}[3,\n[4]]", &["1", "\"a\"", "{}", "{\"b\":2}", "3", "[4]"]);
    read(InputFormat::Json, b"[]\n", &[]);
    read(InputFormat::Cbor, b"\x01\x61a", &["1", "\"a\""]);
    read(InputFormat::Lines, b"1\r\n\na", &["\"1\"", "\"\"", "\"a\""]);
    read(InputFormat::Csv, b"x,y\n1,\"b, c\"\n", &["{\"x\":\"1\",\"y\":\"b, c\"}"]);
    for format in [InputFormat::Ndjson, InputFormat::Json, InputFormat::Lines, InputFormat::Csv, InputFormat::Cbor] {
        read(format, b"", &[]);
    }
}

#[test]
fn what_a_text_begins_with_decides_what_it_is_however_it_trickles_in() {
    for (text, format, items) in [
        ("{\"a\":1}\n{\"a\":2}\n", "ndjson", &["{\"a\":1}", "{\"a\":2}"][..]),
        ("\n \r\n{\"a\": 1}\n", "ndjson", &["{\"a\":1}"]),
        ("{\n  \"a\": [\n 1,\n 2 ]\n}\n{\"b\":\n3}", "json", &["{\"a\":[1,2]}", "{\"b\":3}"]),
        ("[1,2]\n[3,\n4]\n", "ndjson", &["[1,2]", "[3,4]"]),
        ("[1,\n2]\n[3]\n", "json", &["1", "2", "3"]),
        ("[\n]", "json", &[]),
        ("[]", "ndjson", &["[]"]),
        ("{}\n[1,\n2]\n", "ndjson", &["{}", "[1,2]"]),
        ("\u{feff}{\"a\":1}", "ndjson", &["{\"a\":1}"]),
        ("1\n\"two\"\nnull\n", "ndjson", &["1", "\"two\"", "null"]),
        ("\n\nplain\n2\n", "lines", &["\"\"", "\"\"", "\"plain\"", "\"2\""]),
        ("\u{feff}plain", "lines", &["\"plain\""]),
        ("\"yes\" or \"no\"\n", "lines", &["\"\\\"yes\\\" or \\\"no\\\"\""]),
        ("\n\n", "lines", &["\"\"", "\"\""]),
        ("BZh\n", "lines", &["\"BZh\""]),
        ("", "lines", &[]),
    ] {
        let expected = (items.iter().map(|item| (*item).to_owned()).collect(), Some(format.to_owned()), None);
        let bytes = text.as_bytes();
        assert_eq!(read_from(bytes, Reading::default()), expected, "{text:?}");
        for at in 0..=bytes.len() {
            let (before, after) = bytes.split_at(at);
            assert_eq!(read_from(Trickle(vec![before, after]), Reading::default()), expected, "{text:?} at {at}");
        }
    }
}

#[test]
fn an_item_is_there_as_soon_as_it_is_complete() {
    for (format, part, item) in [
        (None, "{\"a\":1}\n", "{\"a\":1}"),
        (None, "[1]\n", "[1]"),
        (None, "plain\n", "\"plain\""),
        (None, "17\n", "17"),
        (Some(InputFormat::Json), "[1,", "1"),
        (Some(InputFormat::Csv), "x\n1\r", "{\"x\":\"1\"}"),
        (Some(InputFormat::Cbor), "\x01", "1"),
    ] {
        /// A source of one part that records, at the next read, which items were found in it.
        struct Asked<'a>(Option<&'a [u8]>, mpsc::Receiver<anyhow::Result<Content>>, Vec<Bytes>);
        impl Read for Asked<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let Some(part) = self.0.take() else {
                    while let Ok(Ok(Content::Item(item))) = self.1.try_recv() {
                        self.2.push(item);
                    }
                    return Err(io::ErrorKind::TimedOut.into());
                };
                buffer[..part.len()].copy_from_slice(part);
                Ok(part.len())
            }
        }
        let (sender, items) = mpsc::channel(10);
        let mut sink = Sink { sender, max: MAX, ahead: Arc::default(), format: Arc::default() };
        let mut asked = Asked(Some(part.as_bytes()), items, Vec::new());
        read_all(&mut asked, Reading { format, ..Reading::default() }, None, None, &mut sink);
        let items: Vec<Value> = asked.2.iter().map(|item| ciborium::from_reader(&item[..]).expect("CBOR")).collect();
        assert_eq!(items.iter().map(to_json).collect::<Vec<_>>(), [item], "{part}");
    }
}

#[test]
fn what_looks_like_json_and_is_none_is_an_error_with_its_place() {
    for (text, items, said) in [
        ("{\"a\":", 0, "line 1: not JSON: EOF while parsing a value at column 5"),
        ("[2026-01-02] started\n", 0, "line 1: not JSON: expected `,` or `]` at column 6"),
        ("[12] see above\n", 0, "line 1: not JSON: trailing characters at column 6"),
        ("\n{\"a\":1}\nplain\n", 1, "line 3: not JSON: expected value at column 1"),
        ("{\"a\":1,\n \"a\":2}", 0, "line 2: not JSON: the key `a` twice in one object at column 5"),
        ("42\nplain\n", 1, "line 2: not JSON: expected value at column 1"),
        ("\"C:\\new\"\n\"C:\\data\"\n", 1, "line 2: not JSON: invalid escape at column 5"),
        ("1e400\n", 0, "line 1: not JSON: number out of range at column 6"),
        ("[1,\n2,\noops]", 2, "line 3: not JSON: expected value at column 1"),
    ] {
        let (found, error) = read(None, text.as_bytes());
        let expected = format!("`input`: {said}; if it is plain text, add --format lines");
        assert_eq!((found.len(), error), (items, Some(expected)), "{text:?}");
    }
}

#[test]
fn what_comes_before_an_error_is_read_and_the_error_says_where() {
    for (format, text, items, said) in [
        (
            InputFormat::Ndjson,
            &b"1\n2\n{\"a\":\n"[..],
            2,
            "line 3: not JSON: the line ends while parsing a value at column 5",
        ),
        (InputFormat::Ndjson, b"1\n2 3\n", 1, "line 2: not JSON: trailing characters at column 3"),
        (InputFormat::Json, b"{}\n12abc", 1, "line 2: not JSON: trailing characters at column 3"),
        (InputFormat::Json, b"[1,2", 2, "line 1: not JSON: EOF while parsing a value at column 4"),
        (InputFormat::Json, b"[1,]", 1, "line 1: not JSON: expected value at column 4"),
        (InputFormat::Lines, b"ok\nb\xff\n", 1, "line 2: not UTF-8 after byte 1 of the line"),
        (InputFormat::Cbor, b"\x01\x82", 1, "item 2: not CBOR: the CBOR item at byte 2 is cut off"),
        (InputFormat::Cbor, b"\x01\xa2\x01\x02\x01\x03", 1, "item 2: the key 1 twice in one map"),
    ] {
        let (found, error) = read(Some(format), text);
        assert_eq!((found.len(), error), (items, Some(format!("`input`: {said}"))), "{text:?}");
    }
}

#[test]
fn csv_is_read_strictly() {
    for (text, items) in [
        ("x\n1\n\n\"\"\n", &[r#"{"x":"1"}"#, r#"{"x":""}"#, r#"{"x":""}"#][..]),
        ("\n\nx,y\r\n\r\n1,2\r3,\n", &[r#"{"x":"1","y":"2"}"#, r#"{"x":"3","y":""}"#]),
        ("x,\n\"a \"\"b\"\"\r\nc\",d", &[r#"{"x":"a \"b\"\r\nc","":"d"}"#]),
        ("\u{feff}x\nä", &[r#"{"x":"ä"}"#]),
        ("\"a;b\"\n1\n", &[r#"{"a;b":"1"}"#]),
        ("x,y\n", &[]),
    ] {
        assert_eq!(csv(text), (items.iter().map(|item| (*item).to_owned()).collect(), None), "{text:?}");
    }
    for (text, items, said) in [
        ("x,y\n1,2\n3\n", 1, "line 3: 1 fields, but the header line has 2"),
        ("x,y\n1,\"a\nb\n3,4\n", 0, "line 2: the quote that opens here is never closed"),
        ("x,y\n\"a\nb\",\"c", 0, "line 3: the quote that opens here is never closed"),
        ("x,y\n\"a\"b,2\n", 0, "line 2: text after the closing quote of a field"),
        ("x\n\"a\" \n", 0, "line 2: text after the closing quote of a field"),
        (
            "x,y\n\"1\n2\",2\n3 \"b\",4\n",
            1,
            "line 4: a quote in a field that does not begin with one; put the field in quotes and write the quote twice",
        ),
        ("x,y,x\n1,2,3\n", 0, "line 1: the header line has two columns of the name `x`"),
        (
            "\na;b\n1;2\n",
            0,
            "line 2: the header line has one column, `a;b`; add --delimiter ';' to separate columns there, or --delimiter , if it is one column",
        ),
        (
            "a\tb\n1\t2\n",
            0,
            "line 1: the header line has one column, `a\tb`; add --delimiter tab to separate columns there, or --delimiter , if it is one column",
        ),
        (
            "a;b,c;d\n1;2;3\n",
            0,
            "line 2: 1 fields, but the header line has 2; if they are separated otherwise, add --delimiter ';'",
        ),
    ] {
        assert_eq!(csv(text), (csv(text).0, Some(format!("`input`: {said}"))), "{text:?}");
        assert_eq!(csv(text).0.len(), items, "{text:?}");
    }
    let reading = |sign| Reading {
        format: Some(InputFormat::Csv),
        delimiter: Some(delimiter(sign).expect("one")),
        ..Reading::default()
    };
    let expected = vec![r#"{"a":"1,5","b":"2"}"#.to_owned()];
    for (sign, text) in [(";", "a;b\n1,5;2\n"), ("\\t", "a\tb\n1,5\t2\n"), ("|", "a|b\n1,5|2\n")] {
        assert_eq!(read_from(text.as_bytes(), reading(sign)).0, expected);
    }
    assert_eq!(read_from(&b"a;b\n1\n"[..], reading(",")).0, [r#"{"a;b":"1"}"#]);
    for sign in ["", "\"", "\n", "ab", "ä"] {
        assert!(delimiter(sign).is_err(), "{sign:?}");
    }
}

#[test]
fn what_never_ends_is_refused_at_the_limit_of_an_item() {
    use InputFormat::{Cbor, Csv, Json, Lines, Ndjson};
    for (format, begin, more) in [
        (None, "", "x"),
        (None, "\"", "x"),
        (None, "{\"", "x"),
        (None, "[", "1,"),
        (None, "7", "7"),
        (Some(Ndjson), "\"", "x"),
        (Some(Json), "[\"", "x"),
        (Some(Json), "{\"a\":[", "1,"),
        (Some(Lines), "\n", "x"),
        (Some(Csv), "x\n", "y"),
        (Some(Csv), "", "x,"),
        (Some(Csv), "x\n\"", "y\n"),
        (Some(Cbor), "\x01\x5f", "\x41x"),
        (Some(Cbor), "\x01\x7a\x7f\x7f\x7f\x7f", "x"),
    ] {
        struct Endless<'a>(std::iter::Chain<std::str::Bytes<'a>, std::iter::Cycle<std::str::Bytes<'a>>>, usize);
        impl Read for Endless<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let given = buffer.iter_mut().zip(&mut self.0).map(|(place, byte)| *place = byte).count();
                self.1 += given;
                assert!(self.1 < 1 << 20, "it is read without end");
                Ok(given)
            }
        }
        // The input is bytes, as CBOR is not text.
        let begin = begin.bytes().chain(more.bytes().cycle());
        let (_, _, error) = read_from(Endless(begin, 0), Reading { format, ..Reading::default() });
        let error = error.expect("endless");
        assert!(
            error.contains("an item of more than 1000 bytes, which is the most; --format bytes or text feeds"),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_text_is_named_with_what_to_do() {
    let disguised: [(&[u8], &str); 5] = [
        (
            b"\xff\xfe{\0}\0",
            "the text is UTF-16LE and not UTF-8; convert it, as in `iconv -f UTF-16LE -t UTF-8 input | pcluster feed …`",
        ),
        (
            b"\0{\0}",
            "the text is UTF-16BE and not UTF-8; convert it, as in `iconv -f UTF-16BE -t UTF-8 | pcluster feed …`",
        ),
        (b"\x1f\x8b\x08\0", "it is compressed with gzip; unpack it, as in `zcat input | pcluster feed …`"),
        (b"\x28\xb5\x2f\xfd\0", "it is compressed with zstd; unpack it, as in `zstdcat input | pcluster feed …`"),
        (b"PK\x03\x04\0", "it is compressed with zip; unpack it, as in `unzip -p input | pcluster feed …`"),
    ];
    for (bytes, said) in disguised {
        assert_eq!(read(None, bytes), (Vec::new(), Some(format!("`input`: {said}"))));
    }
    let (_, error) = read(Some(InputFormat::Cbor), b"\x1f\x8b\x08\0");
    assert!(
        error
            .expect("no CBOR")
            .ends_with("; it is compressed with gzip: unpack it, as in `zcat input | pcluster feed …`")
    );
    // These bytes could be text or CBOR.
    assert_eq!(read(Some(InputFormat::Cbor), b"\x42\x5a\x68").0, ["\"Wmg=\""]);
}

#[test]
fn integers_are_exact_in_every_format() {
    let numbers = "18446744073709551616\n-9223372036854775809\n-18446744073709551617\n";
    for format in [None, Some(InputFormat::Ndjson), Some(InputFormat::Json)] {
        assert_eq!(read(format, numbers.as_bytes()).0, numbers.lines().collect::<Vec<_>>());
    }
    assert_eq!(read(Some(InputFormat::Cbor), b"\xc2\x49\x01\0\0\0\0\0\0\0\0").0, ["18446744073709551616"]);
}

#[test]
fn the_extension_of_a_file_and_the_delimiter_tell_the_format() {
    let of = |path: &str, delimiter| Reading { delimiter, ..Reading::default() }.of(Some(Path::new(path)));
    let known = |path: &str| of(path, None).expect("known");
    assert_eq!(known("a.JSONL").format, Some(InputFormat::Ndjson));
    assert_eq!((known("a.tsv").format, known("a.tsv").delimiter), (Some(InputFormat::Csv), Some(b'\t')));
    assert_eq!(known("a.data").format, None);
    assert_eq!(of("a.data", Some(b';')).expect("csv").format, Some(InputFormat::Csv));
    assert!(of("a.json", Some(b';')).is_err());
}

#[test]
fn a_whole_input_is_one_item_and_goes_into_a_file_if_it_is_much() {
    let many = "ab\n".repeat(700_000);
    for (format, text, expected) in [
        (InputFormat::Text, &b"\xef\xbb\xbfa\nb\n"[..], "\"a\\nb\\n\""),
        (InputFormat::Text, b"", "\"\""),
        (InputFormat::Bytes, b"\xef\xbb\xbf\x1f\x8b", "\"77u/H4s=\""),
        (InputFormat::Bytes, b"", "\"\""),
        (InputFormat::Bytes, many.as_bytes(), "bytes of 2100000"),
        (InputFormat::Text, many.as_bytes(), "text of 2100000"),
    ] {
        assert_eq!(read(Some(format), text), (vec![expected.to_owned()], None));
        let parts = Trickle(text.chunks(1 << 19).collect());
        let name = Some(format.name());
        assert_eq!(read_from(parts, Reading { format: Some(format), ..Reading::default() }).1, name);
    }
    let (items, error) = read(Some(InputFormat::Text), b"ab\xffcd");
    assert_eq!(items.len(), 0);
    assert_eq!(error.as_deref(), Some("`input`: not UTF-8 after byte 2; feed it with --format bytes"));
    let (_, error) = read(Some(InputFormat::Text), b"\x1f\x8b\x08");
    assert!(error.is_some_and(|error| error.contains("compressed with gzip")));
}

#[test]
fn a_file_that_is_much_is_handed_on_from_its_start_without_its_mark() {
    let folder = tempfile::tempdir().expect("a folder");
    for (format, mark, length) in [
        (InputFormat::Text, "\u{feff}", 1_400_000),
        (InputFormat::Bytes, "\u{feff}", 1_400_003),
        (InputFormat::Text, "", 1_400_000),
    ] {
        let path = folder.path().join("file");
        std::fs::write(&path, format!("{mark}{}", "x\n".repeat(700_000))).expect("written");
        let reading = Reading { format: Some(format), ..Reading::default() };
        let mut input = open(Source::File(path), reading, MAX).expect("opened");
        let Some(Ok(Content::File(mut file, _))) = input.items.blocking_recv() else { panic!("no file") };
        let mut content = Vec::new();
        file.read_to_end(&mut content).expect("read");
        assert_eq!(content.len(), length, "{format:?}");
        assert!(input.items.blocking_recv().is_none());
    }
}
