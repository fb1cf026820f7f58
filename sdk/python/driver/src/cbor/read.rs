//! From CBOR to Python.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::{DEPTH, Keys, Known};
use crate::python::{
    Object, PyDict_New, PyDict_SetItem, PyFloat_FromDouble, PyList_Append, PyList_New, PyList_SetItem,
    PyLong_FromNativeBytes, PyLong_FromUnsignedLongLong, Raised, done,
};

/// Reads values one after the other.
pub struct Reader<'a> {
    rest: &'a [u8],
    known: &'a Known,
    keys: &'a mut Keys,
}

/// The major types.
mod major {
    pub const UNSIGNED: u8 = 0;
    pub const NEGATIVE: u8 = 1;
    pub const BYTES: u8 = 2;
    pub const TEXT: u8 = 3;
    pub const LIST: u8 = 4;
    pub const MAP: u8 = 5;
    pub const TAG: u8 = 6;
}

/// The additional information of a head whose value has no length.
const OPEN: u8 = 31;
/// The end of a value without a length.
const BREAK: u8 = 0xff;

/// The first bytes of a value.
struct Head {
    major: u8,
    info: u8,
    number: u64,
}

impl Head {
    /// Returns the length. `None` if the value ends with a break.
    fn length(&self) -> Option<u64> {
        (self.info != OPEN).then_some(self.number)
    }
}

impl<'a> Reader<'a> {
    /// Creates a reader of these bytes.
    pub fn new(bytes: &'a [u8], known: &'a Known, keys: &'a mut Keys) -> Self {
        Self { rest: bytes, known, keys }
    }

    /// Reads the one item that takes up all bytes.
    pub fn item(mut self) -> Result<Object, Raised> {
        if self.rest.is_empty() {
            return self.known.refuse(c"there is no data");
        }
        let item = self.value(0)?;
        if self.rest.is_empty() { Ok(item) } else { self.known.refuse(c"bytes follow it") }
    }

    fn value(&mut self, depth: u32) -> Result<Object, Raised> {
        if depth > DEPTH {
            return self.known.refuse(c"nested too deeply");
        }
        let head = self.head()?;
        match head.major {
            major::BYTES => Object::bytes(&self.string(&head)?),
            major::TEXT => Object::text(&self.string(&head)?),
            major::LIST => self.list(head.length(), depth),
            major::MAP => self.map(head.length(), depth),
            _ if head.info == OPEN => self.invalid(),
            major::UNSIGNED => Object::own(unsafe { PyLong_FromUnsignedLongLong(head.number) }),
            major::NEGATIVE => negative(head.number),
            major::TAG => self.tag(head.number, depth),
            _ => self.simple(&head),
        }
    }

    fn invalid<T>(&self) -> Result<T, Raised> {
        self.known.refuse(c"not valid CBOR")
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Raised> {
        // A length of 2^32 and more must not be cut to a small one.
        let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let Some((taken, rest)) = split else { return self.known.refuse(c"the data ends too early") };
        self.rest = rest;
        Ok(taken)
    }

    fn head(&mut self) -> Result<Head, Raised> {
        let first = self.take(1)?.first().copied().unwrap_or_default();
        let (major, info) = (first >> 5, first & 31);
        let more = match info {
            0..=23 | OPEN => return Ok(Head { major, info, number: if info == OPEN { 0 } else { info.into() } }),
            24..=27 => 1 << (info - 24),
            _ => return self.invalid(),
        };
        let number = self.take(more)?.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte));
        Ok(Head { major, info, number })
    }

    /// Returns `true` once at the end of a value without a length.
    fn is_over(&mut self) -> bool {
        let is_over = self.rest.first() == Some(&BREAK);
        if is_over {
            self.rest = &self.rest[1..];
        }
        is_over
    }

    fn string(&mut self, head: &Head) -> Result<Cow<'a, [u8]>, Raised> {
        if let Some(length) = head.length() {
            return self.take(length).map(Cow::Borrowed);
        }
        let mut all = Vec::new();
        while !self.is_over() {
            let piece = self.head()?;
            match piece.length() {
                Some(length) if piece.major == head.major => all.extend_from_slice(self.take(length)?),
                _ => return self.invalid(),
            }
        }
        Ok(Cow::Owned(all))
    }

    fn list(&mut self, length: Option<u64>, depth: u32) -> Result<Object, Raised> {
        let Some(length) = length else {
            let list = Object::own(unsafe { PyList_New(0) })?;
            while !self.is_over() {
                let value = self.value(depth + 1)?;
                done(unsafe { PyList_Append(list.as_ptr(), value.as_ptr()) })?;
            }
            return Ok(list);
        };
        self.claim(length)?;
        let list = Object::own(unsafe { PyList_New(length as isize) })?;
        for index in 0..length as isize {
            let value = self.value(depth + 1)?;
            done(unsafe { PyList_SetItem(list.as_ptr(), index, value.into_ptr()) })?;
        }
        Ok(list)
    }

    /// Refuses a length for which there are too few bytes, before memory is set aside for it.
    fn claim(&self, length: u64) -> Result<(), Raised> {
        if length > self.rest.len() as u64 { self.known.refuse(c"the data ends too early") } else { Ok(()) }
    }

    fn map(&mut self, length: Option<u64>, depth: u32) -> Result<Object, Raised> {
        self.claim(length.unwrap_or_default())?;
        let dict = Object::own(unsafe { PyDict_New() })?;
        let mut left = length.unwrap_or_default();
        loop {
            match length {
                None if self.is_over() => return Ok(dict),
                Some(_) if left == 0 => return Ok(dict),
                _ => left = left.wrapping_sub(1),
            }
            let key = self.key(depth + 1)?;
            let value = self.value(depth + 1)?;
            done(unsafe { PyDict_SetItem(dict.as_ptr(), key.as_ptr(), value.as_ptr()) })?;
        }
    }

    fn key(&mut self, depth: u32) -> Result<Object, Raised> {
        match self.rest {
            // A text of up to 23 bytes.
            [first @ 0x60..=0x77, rest @ ..] => {
                self.rest = rest;
                let bytes = self.take(u64::from(first - 0x60))?;
                self.keys.text(bytes)
            }
            _ => self.value(depth),
        }
    }

    fn tag(&mut self, number: u64, depth: u32) -> Result<Object, Raised> {
        let value = self.value(depth + 1)?;
        let number = Object::own(unsafe { PyLong_FromUnsignedLongLong(number) })?;
        self.known.tag.call(&[number.as_ptr(), value.as_ptr()])
    }

    fn simple(&self, head: &Head) -> Result<Object, Raised> {
        let number = match head.info {
            20 => return Ok(Object::share(self.known.no.as_ptr())),
            21 => return Ok(Object::share(self.known.yes.as_ptr())),
            // Null, and undefined.
            22 | 23 => return Ok(Object::share(self.known.none.as_ptr())),
            25 => half(head.number as u16),
            26 => f64::from(f32::from_bits(head.number as u32)),
            27 => f64::from_bits(head.number),
            _ => return self.known.refuse(c"a simple value that Python does not have"),
        };
        Object::own(unsafe { PyFloat_FromDouble(number) })
    }
}

/// Returns `-1 - number`.
fn negative(number: u64) -> Result<Object, Raised> {
    /// `Py_ASNATIVEBYTES_LITTLE_ENDIAN`. The number is signed.
    const LITTLE_ENDIAN: i32 = 1;
    if let Ok(number) = i64::try_from(number) {
        return Object::integer(-1 - number);
    }
    let bytes = (-1 - i128::from(number)).to_le_bytes();
    Object::own(unsafe { PyLong_FromNativeBytes(bytes.as_ptr(), bytes.len(), LITTLE_ENDIAN) })
}

/// Returns the value of a float of 16 bits.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = ((bits >> 10) & 31, f64::from(bits & 0x3ff));
    let value = match exponent {
        0 => fraction / 16_777_216.0,
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * f64::from_bits((1023 - 25 + u64::from(exponent)) << 52),
    };
    if bits >> 15 == 1 { -value } else { value }
}
