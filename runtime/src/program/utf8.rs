//! Checks whether content that comes in parts is UTF-8.

/// Content that comes in parts, as far as it is UTF-8.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    /// The bytes that are known to be UTF-8.
    valid: u64,
    /// The beginning of a character at the end of the last part.
    begun: Vec<u8>,
    is_wrong: bool,
}

impl Utf8 {
    /// Adds a part.
    pub(super) fn add(&mut self, mut part: &[u8]) {
        while !self.begun.is_empty() && !self.is_wrong {
            let Some((first, rest)) = part.split_first() else { return };
            self.begun.push(*first);
            part = rest;
            let begun = std::mem::take(&mut self.begun);
            self.check(&begun);
        }
        if !self.is_wrong {
            self.check(part);
        }
    }

    /// Returns the bytes before the first that is no UTF-8. `None` if all is.
    pub(super) fn wrong_after(&self) -> Option<u64> {
        (self.is_wrong || !self.begun.is_empty()).then_some(self.valid)
    }

    fn check(&mut self, part: &[u8]) {
        match std::str::from_utf8(part) {
            Ok(_) => self.valid += part.len() as u64,
            Err(error) => {
                let rest = &part[error.valid_up_to()..];
                self.valid += error.valid_up_to() as u64;
                self.is_wrong = error.error_len().is_some();
                if !self.is_wrong {
                    self.begun = rest.to_vec();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_as_one_text_wherever_they_end() {
        let long = "aä€😀\u{feff}\0z".repeat(3);
        for text in [
            &b""[..],
            b"a",
            long.as_bytes(),
            b"ab\xff",
            b"\xc3",
            b"a\xe2\x82",
            b"a\xe2\x82b",
            b"\xf0\x9f\x98",
            b"\xf0\x9f\x98\xff",
            b"\xed\xa0\x80",
            b"\xc0\x80",
            b"\xf4\x90\x80\x80",
            b"\x80\x80",
        ] {
            let expected = std::str::from_utf8(text).err().map(|error| error.valid_up_to() as u64);
            for size in 1..=text.len().max(1) {
                let mut utf8 = Utf8::default();
                text.chunks(size).for_each(|part| utf8.add(part));
                assert_eq!(utf8.wrong_after(), expected, "{text:?} in parts of {size}");
            }
        }
    }
}
