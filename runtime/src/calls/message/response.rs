//! Writes responses in CBOR.

use bytes::Bytes;

/// A map that is written: a response, or a part of one.
#[derive(Debug, Default)]
pub(crate) struct Response {
    bytes: Vec<u8>,
    entries: u64,
}

impl Response {
    /// Creates an empty map.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a text.
    pub(crate) fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        self.item(3, text.as_bytes());
    }

    /// Adds bytes.
    pub(crate) fn bytes(&mut self, key: &str, bytes: &[u8]) {
        self.key(key);
        self.item(2, bytes);
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        head(&mut self.bytes, 0, number);
    }

    /// Adds true or false.
    pub(crate) fn flag(&mut self, key: &str, flag: bool) {
        self.key(key);
        self.bytes.push(if flag { 0xf5 } else { 0xf4 });
    }

    /// Adds a list of texts.
    pub(crate) fn texts<'a>(&mut self, key: &str, texts: impl ExactSizeIterator<Item = &'a str>) {
        self.key(key);
        head(&mut self.bytes, 4, texts.len() as u64);
        for text in texts {
            self.item(3, text.as_bytes());
        }
    }

    /// Adds a list of pairs of a text and bytes.
    pub(crate) fn pairs<'a>(&mut self, key: &str, pairs: impl ExactSizeIterator<Item = (&'a str, &'a [u8])>) {
        self.key(key);
        head(&mut self.bytes, 4, pairs.len() as u64);
        for (name, value) in pairs {
            head(&mut self.bytes, 4, 2);
            self.item(3, name.as_bytes());
            self.item(2, value);
        }
    }

    /// Adds a list of maps.
    pub(crate) fn maps(&mut self, key: &str, maps: impl ExactSizeIterator<Item = Self>) {
        self.key(key);
        head(&mut self.bytes, 4, maps.len() as u64);
        for map in maps {
            self.bytes.extend_from_slice(&map.finish());
        }
    }

    /// Returns the map in CBOR.
    pub(crate) fn finish(self) -> Bytes {
        let mut map = Vec::with_capacity(self.bytes.len() + 9);
        head(&mut map, 5, self.entries);
        map.extend_from_slice(&self.bytes);
        map.into()
    }

    fn key(&mut self, key: &str) {
        self.entries += 1;
        self.item(3, key.as_bytes());
    }

    fn item(&mut self, major: u8, bytes: &[u8]) {
        head(&mut self.bytes, major, bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "each number is known to fit")]
fn head(to: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    match argument {
        0..=23 => to.push(major | argument as u8),
        24..=0xff => to.extend([major | 0x18, argument as u8]),
        0x100..=0xffff => {
            to.push(major | 0x19);
            to.extend((argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            to.push(major | 0x1a);
            to.extend((argument as u32).to_be_bytes());
        }
        _ => {
            to.push(major | 0x1b);
            to.extend(argument.to_be_bytes());
        }
    }
}
