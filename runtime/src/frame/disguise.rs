//! Detects payloads that are not UTF-8 text by their first bytes: text in another encoding, and compressed data.

use std::fmt;

/// The true format of a payload or file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disguise {
    /// Text in UTF-16 or UTF-32, with the name of the encoding.
    Encoding(&'static str),
    /// Data that the first program has compressed. The second program decompresses it to standard output.
    Compressed(&'static str, &'static str),
}

/// The result of a look at the first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The format is known.
    Yes(Disguise),
    /// More bytes are needed.
    NotYet,
    /// The bytes match no known format.
    No,
}

/// The first bytes of each format. A longer mark comes before its own prefix. [`ANY_DIGIT`] stands for any digit.
const MARKS: [(&[u8], Disguise); 10] = [
    (b"\xff\xfe\0\0", Disguise::Encoding("UTF-32LE")),
    (b"\0\0\xfe\xff", Disguise::Encoding("UTF-32BE")),
    (b"\xff\xfe", Disguise::Encoding("UTF-16LE")),
    (b"\xfe\xff", Disguise::Encoding("UTF-16BE")),
    (b"\x1f\x8b", Disguise::Compressed("gzip", "zcat")),
    (b"\x28\xb5\x2f\xfd", Disguise::Compressed("zstd", "zstdcat")),
    (b"\xfd7zXZ\0", Disguise::Compressed("xz", "xzcat")),
    (b"\x04\x22\x4d\x18", Disguise::Compressed("lz4", "lz4cat")),
    (b"PK\x03\x04", Disguise::Compressed("zip", "unzip -p")),
    // Without the mark of its first block, the text could be a plain one.
    (b"BZh*1AY&SY", Disguise::Compressed("bzip2", "bzcat")),
];
const ANY_DIGIT: u8 = b'*';

impl fmt::Display for Disguise {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding(encoding) => write!(formatter, "the text is {encoding} and not UTF-8"),
            Self::Compressed(program, _) => write!(formatter, "it is compressed with {program}"),
        }
    }
}

impl Disguise {
    /// Returns the format of bytes that begin like this.
    pub fn of(start: &[u8]) -> Known {
        let mut known = Known::No;
        for (mark, disguise) in MARKS {
            let fits = |(mark, byte): (&u8, &u8)| mark == byte || *mark == ANY_DIGIT && byte.is_ascii_digit();
            if mark.iter().zip(start).all(fits) {
                if start.len() >= mark.len() {
                    // A longer mark that begins with this one must be ruled out first.
                    return if known == Known::NotYet { known } else { Known::Yes(disguise) };
                }
                known = Known::NotYet;
            }
        }
        known
    }

    /// Returns the format of a whole payload. `None` if it is none of these.
    pub fn of_payload(payload: &[u8]) -> Option<Self> {
        match Self::of(payload) {
            Known::Yes(disguise) => Some(disguise),
            Known::NotYet | Known::No => Self::without_mark(payload),
        }
    }

    /// Returns the encoding of a text without a byte-order mark. Its first character must be ASCII.
    pub fn without_mark(start: &[u8]) -> Option<Self> {
        match start {
            [b'\t'..=b'~', 0, ..] => Some(Self::Encoding("UTF-16LE")),
            [0, b'\t'..=b'~', ..] => Some(Self::Encoding("UTF-16BE")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disguise_is_known_by_its_first_bytes_and_by_no_fewer() {
        for (mark, disguise) in MARKS {
            let mark: Vec<u8> = mark.iter().map(|byte| if *byte == ANY_DIGIT { b'9' } else { *byte }).collect();
            assert_eq!(Disguise::of(&[&mark[..], b"x"].concat()), Known::Yes(disguise));
            assert_eq!(Disguise::of(&mark[..1]), Known::NotYet);
        }
        for text in [&b"{"[..], b"BZhou", b"PKW", b"plain", b"\xef\xbb\xbf{", b"\xc3\xa4"] {
            assert_eq!(Disguise::of(text), Known::No, "{text:?}");
        }
        assert_eq!(Disguise::of_payload(b"{\0}\0"), Some(Disguise::Encoding("UTF-16LE")));
        assert_eq!(Disguise::of_payload(b"\0{\0}"), Some(Disguise::Encoding("UTF-16BE")));
        assert_eq!(Disguise::of_payload(b"{}"), None);
        assert_eq!(Disguise::of_payload(b"\0\x01"), None);
    }
}
