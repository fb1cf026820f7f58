//! From Python to CBOR.

use alloc::vec;
use alloc::vec::Vec;

use super::{DEPTH, Known};
use crate::python::{
    Object, Ptr, PyDict_Next, PyDict_Size, PyFloat_AsDouble, PyList_GetItem, PyList_Size, PyLong_AsLongLongAndOverflow,
    PyLong_AsNativeBytes, PyLong_AsUnsignedLongLong, PyTuple_GetItem, PyTuple_Size, Raised, bytes_of, kind, text_of,
};

/// Writes values into a buffer.
pub struct Writer<'a> {
    known: &'a Known,
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Creates a writer that clears the buffer.
    pub fn new(known: &'a Known, out: &'a mut Vec<u8>) -> Self {
        out.clear();
        Self { known, out }
    }

    /// Writes one item.
    pub fn item(&mut self, object: Ptr) -> Result<(), Raised> {
        self.value(object, 0)
    }

    fn value(&mut self, object: Ptr, depth: u32) -> Result<(), Raised> {
        if depth > DEPTH {
            return self.known.refuse(c"nested too deeply");
        }
        let (known, kind) = (self.known, kind(object));
        if kind == known.text.as_ptr() {
            let text = unsafe { text_of(object) }?;
            self.string(3, text);
        } else if kind == known.int.as_ptr() {
            return self.integer(object);
        } else if kind == known.float.as_ptr() {
            self.float(unsafe { PyFloat_AsDouble(object) });
        } else if object == known.none.as_ptr() {
            self.out.push(0xf6);
        } else if object == known.yes.as_ptr() {
            self.out.push(0xf5);
        } else if object == known.no.as_ptr() {
            self.out.push(0xf4);
        } else if kind == known.dict.as_ptr() {
            return self.map(object, depth);
        } else if kind == known.list.as_ptr() {
            return self.list(object, depth, PyList_Size, PyList_GetItem);
        } else if kind == known.tuple.as_ptr() {
            return self.list(object, depth, PyTuple_Size, PyTuple_GetItem);
        } else if kind == known.bytes.as_ptr() {
            let bytes = unsafe { bytes_of(object) }?;
            self.string(2, bytes);
        } else {
            return self.other(object, depth);
        }
        Ok(())
    }

    fn head(&mut self, major: u8, number: u64) {
        let major = major << 5;
        match number {
            0..=23 => self.out.push(major | number as u8),
            24..=0xff => self.out.extend_from_slice(&[major | 24, number as u8]),
            0x100..=0xffff => {
                self.out.push(major | 25);
                self.out.extend_from_slice(&(number as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.out.push(major | 26);
                self.out.extend_from_slice(&(number as u32).to_be_bytes());
            }
            _ => {
                self.out.push(major | 27);
                self.out.extend_from_slice(&number.to_be_bytes());
            }
        }
    }

    fn string(&mut self, major: u8, bytes: &[u8]) {
        self.head(major, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn float(&mut self, number: f64) {
        // One form for all that are not a number: which one the processor makes is not the task's business.
        let number = if number.is_nan() { f64::from_bits(0x7ff8 << 48) } else { number };
        self.out.push(0xfb);
        self.out.extend_from_slice(&number.to_be_bytes());
    }

    fn integer(&mut self, object: Ptr) -> Result<(), Raised> {
        let mut overflow = 0;
        let value = unsafe { PyLong_AsLongLongAndOverflow(object, &mut overflow) };
        match (overflow, u64::try_from(value)) {
            (0, Ok(value)) => self.head(0, value),
            (0, Err(_)) => self.head(1, !value.cast_unsigned()),
            _ => return self.large_integer(object, overflow < 0),
        }
        Ok(())
    }

    fn large_integer(&mut self, object: Ptr, is_negative: bool) -> Result<(), Raised> {
        /// Big-endian and signed.
        const FLAGS: i32 = 0;
        let size = unsafe { PyLong_AsNativeBytes(object, core::ptr::null_mut(), 0, FLAGS) };
        let mut bytes = vec![0_u8; usize::try_from(size).map_err(|_| Raised)?];
        unsafe { PyLong_AsNativeBytes(object, bytes.as_mut_ptr(), size, FLAGS) };
        if is_negative {
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
        }
        let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
        let bytes = bytes.get(start..).unwrap_or_default();
        if bytes.len() <= 8 {
            self.head(u8::from(is_negative), bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)));
        } else {
            self.head(6, if is_negative { 3 } else { 2 });
            self.string(2, bytes);
        }
        Ok(())
    }

    fn list(
        &mut self,
        object: Ptr,
        depth: u32,
        size: unsafe extern "C" fn(Ptr) -> isize,
        get: unsafe extern "C" fn(Ptr, isize) -> Ptr,
    ) -> Result<(), Raised> {
        let size = unsafe { size(object) };
        self.head(4, size as u64);
        for index in 0..size {
            // Kept meanwhile: writing an object may run code of the author, which may change the list.
            let value = unsafe { get(object, index) };
            let value = if value.is_null() { return Err(Raised) } else { Object::share(value) };
            self.value(value.as_ptr(), depth + 1)?;
        }
        Ok(())
    }

    fn map(&mut self, object: Ptr, depth: u32) -> Result<(), Raised> {
        self.head(5, unsafe { PyDict_Size(object) } as u64);
        let (mut position, mut key, mut value) = (0, core::ptr::null_mut(), core::ptr::null_mut());
        while unsafe { PyDict_Next(object, &mut position, &mut key, &mut value) } != 0 {
            let (key, value) = (Object::share(key), Object::share(value));
            self.value(key.as_ptr(), depth + 1)?;
            self.value(value.as_ptr(), depth + 1)?;
        }
        Ok(())
    }

    fn other(&mut self, object: Ptr, depth: u32) -> Result<(), Raised> {
        let stands = self.known.other.call(&[object])?;
        let stands = stands.as_ptr();
        if kind(stands) == self.known.tuple.as_ptr() {
            let (tag, value) = unsafe { (PyTuple_GetItem(stands, 0), PyTuple_GetItem(stands, 1)) };
            self.head(6, unsafe { PyLong_AsUnsignedLongLong(tag) });
            return self.value(value, depth + 1);
        }
        self.value(unsafe { PyList_GetItem(stands, 0) }, depth + 1)
    }
}
