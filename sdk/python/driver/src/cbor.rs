//! Items as CBOR, read into Python objects and written from them by CPython's C API.

mod keys;
mod read;
mod write;

pub use keys::Keys;
pub use read::Reader;
pub use write::Writer;

use core::ffi::CStr;

use crate::python::{Object, PyErr_SetString, Raised};

/// The most values within each other.
const DEPTH: u32 = 128;

/// The objects that tell types apart. Kept for as long as the instance.
pub struct Known {
    pub none: Object,
    pub yes: Object,
    pub no: Object,
    pub int: Object,
    pub float: Object,
    pub text: Object,
    pub bytes: Object,
    pub list: Object,
    pub tuple: Object,
    pub dict: Object,
    pub generator: Object,
    /// The class of an output with a topic of its own.
    pub topic: Object,
    /// `tag(number, value)`: what a tag stands for.
    pub tag: Object,
    /// `other(object)`: `[value]` or `(tag, value)` in place of an object of another type.
    pub other: Object,
    /// The exception of an item that cannot be read, or of an output that cannot be written.
    pub error: Object,
}

impl Known {
    /// Finds the objects as attributes of the SDK's module.
    pub fn find(sdk: &Object) -> Result<Self, Raised> {
        Ok(Self {
            none: sdk.attribute(c"NONE")?,
            yes: sdk.attribute(c"TRUE")?,
            no: sdk.attribute(c"FALSE")?,
            int: sdk.attribute(c"INT")?,
            float: sdk.attribute(c"FLOAT")?,
            text: sdk.attribute(c"STR")?,
            bytes: sdk.attribute(c"BYTES")?,
            list: sdk.attribute(c"LIST")?,
            tuple: sdk.attribute(c"TUPLE")?,
            dict: sdk.attribute(c"DICT")?,
            generator: sdk.attribute(c"GENERATOR")?,
            topic: sdk.attribute(c"TOPIC")?,
            tag: sdk.attribute(c"tag")?,
            other: sdk.attribute(c"other")?,
            error: sdk.attribute(c"ERROR")?,
        })
    }

    /// Raises the error with this text.
    fn refuse<T>(&self, text: &CStr) -> Result<T, Raised> {
        unsafe { PyErr_SetString(self.error.as_ptr(), text.as_ptr().cast()) };
        Err(Raised)
    }
}
