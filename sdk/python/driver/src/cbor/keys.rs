//! Keys of maps that were met before, so that an item of the usual form creates no texts for them.

use crate::python::{Object, Raised, text_of};

/// The number of places. A power of two.
const PLACES: usize = 64;

/// Short texts by a hash of their bytes.
pub struct Keys {
    places: [Option<(u64, Object)>; PLACES],
    /// Later keys are not kept: the snapshot has been made, and a kept key would write to one more page.
    is_closed: bool,
}

impl Keys {
    /// Creates an empty table.
    pub const fn new() -> Self {
        Self { places: [const { None }; PLACES], is_closed: false }
    }

    /// Keeps no other key from here on.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// Returns the text with these bytes.
    pub fn text(&mut self, bytes: &[u8]) -> Result<Object, Raised> {
        let hash = hash(bytes);
        let Some(place) = self.places.get_mut((hash ^ (hash >> 32)) as usize % PLACES) else {
            return Object::text(bytes);
        };
        if let Some((kept, text)) = place
            && *kept == hash
            && unsafe { text_of(text.as_ptr()) }? == bytes
        {
            return Ok(Object::share(text.as_ptr()));
        }
        let text = Object::text(bytes)?;
        if !self.is_closed {
            *place = Some((hash, Object::share(text.as_ptr())));
        }
        Ok(text)
    }
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ bytes.len() as u64;
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
