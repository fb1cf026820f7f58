//! Reads numbers and strings.

use std::io::Read;

use super::{JsonError, JsonReader};
use crate::frame::format::to_cbor;
use crate::frame::json::integer;
use crate::frame::text::Text;

impl JsonReader {
    pub(super) fn number<R: Read>(&mut self, text: &mut Text<R>) -> Result<(), JsonError> {
        let is_negative = text.peek()? == Some(b'-');
        self.string.clear();
        if is_negative {
            self.take(text);
        }
        let integer = self.digits(text)?;
        let mut is_integer = true;
        if integer == 0 || integer > 1 && self.string[usize::from(is_negative)] == b'0' {
            return Err(JsonError::invalid("invalid number", text));
        }
        if text.peek()? == Some(b'.') {
            is_integer = false;
            self.take(text);
            if self.digits(text)? == 0 {
                return Err(JsonError::invalid("invalid number", text));
            }
        }
        if matches!(text.peek()?, Some(b'e' | b'E')) {
            is_integer = false;
            self.take(text);
            if matches!(text.peek()?, Some(b'+' | b'-')) {
                self.take(text);
            }
            if self.digits(text)? == 0 {
                return Err(JsonError::invalid("invalid number", text));
            }
        }
        let digits = &self.string[usize::from(is_negative)..];
        // -0 is a float, because there is no such integer.
        if is_integer && !(is_negative && digits == b"0") {
            if digits.len() > integer::MAX_DIGITS {
                let what = format!("an integer of more than {} digits", integer::MAX_DIGITS);
                return Err(JsonError::Number { what, place: text.place() });
            }
            integer::write(is_negative, digits, &mut self.out);
            return Ok(());
        }
        let float = std::str::from_utf8(&self.string).ok().and_then(|text| text.parse::<f64>().ok());
        match float.filter(|float| float.is_finite()) {
            Some(float) => self.out.extend_from_slice(&to_cbor(&float)),
            None => return Err(JsonError::Number { what: "number out of range".to_owned(), place: text.place() }),
        }
        Ok(())
    }

    /// Takes the next byte as part of a number.
    fn take<R: Read>(&mut self, text: &mut Text<R>) {
        if let Ok(Some(byte)) = text.peek() {
            self.string.push(byte);
            text.pass(1);
        }
    }

    /// Takes digits and returns how many.
    fn digits<R: Read>(&mut self, text: &mut Text<R>) -> Result<usize, JsonError> {
        let before = self.string.len();
        while let Some(b'0'..=b'9') = text.peek()? {
            self.take(text);
            self.check_size(text)?;
        }
        Ok(self.string.len() - before)
    }

    /// Reads a text into `string`.
    pub(super) fn string<R: Read>(&mut self, text: &mut Text<R>) -> Result<(), JsonError> {
        text.pass(1);
        self.string.clear();
        loop {
            let rest = text.rest()?;
            let is_plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | ..0x20);
            let plain = rest.iter().position(|byte| !is_plain(byte)).unwrap_or(rest.len());
            self.string.extend_from_slice(&rest[..plain]);
            text.pass(plain);
            self.check_size(text)?;
            match text.peek()? {
                Some(b'"') => break,
                Some(b'\\') => {
                    text.pass(1);
                    self.escape(text)?;
                }
                None => return Err(self.cut_off_in("string", text)),
                Some(b'\n') if self.lines => return Err(self.cut_off_in("string", text)),
                Some(..0x20) => return Err(JsonError::invalid("control character in a string", text)),
                Some(_) => {}
            }
        }
        if std::str::from_utf8(&self.string).is_err() {
            return Err(JsonError::invalid("the string that ends here is not UTF-8", text));
        }
        text.pass(1);
        Ok(())
    }

    fn escape<R: Read>(&mut self, text: &mut Text<R>) -> Result<(), JsonError> {
        let byte = text.peek()?.ok_or_else(|| self.cut_off_in("string", text))?;
        let character = match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                text.pass(1);
                return self.unicode(text);
            }
            _ => return Err(JsonError::invalid("invalid escape", text)),
        };
        text.pass(1);
        self.push(character);
        Ok(())
    }

    fn push(&mut self, character: char) {
        self.string.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }

    /// Reads a character by its number or its UTF-16 halves.
    fn unicode<R: Read>(&mut self, text: &mut Text<R>) -> Result<(), JsonError> {
        let first = four_digits(text)?;
        let number = match first {
            0xd800..0xdc00 => {
                for expected in *b"\\u" {
                    if text.peek()? != Some(expected) {
                        return Err(JsonError::invalid("half of a surrogate pair", text));
                    }
                    text.pass(1);
                }
                let second = four_digits(text)?;
                if !(0xdc00..0xe000).contains(&second) {
                    return Err(JsonError::invalid("half of a surrogate pair", text));
                }
                0x1_0000 + ((first - 0xd800) << 10 | (second - 0xdc00))
            }
            number => number,
        };
        let character = char::from_u32(number).ok_or_else(|| JsonError::invalid("half of a surrogate pair", text))?;
        self.push(character);
        Ok(())
    }
}

/// Returns the number that four hexadecimal digits stand for.
fn four_digits<R: Read>(text: &mut Text<R>) -> Result<u32, JsonError> {
    let mut number = 0;
    for _ in 0..4 {
        let digit = text.peek()?.and_then(|byte| char::from(byte).to_digit(16));
        number = number << 4 | digit.ok_or_else(|| JsonError::invalid("invalid escape", text))?;
        text.pass(1);
    }
    Ok(number)
}
