//! What the calls of an attempt have sent under their keys, so that the next attempt can tell whether it sends the same.

use std::collections::BTreeMap;

use crate::dead::calls::CallRecord;

/// The most keys that are noted.
const KEYS_MAX: usize = 64;

/// Digests of what was sent, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent(BTreeMap<String, String>);

impl Sent {
    /// Returns the digest of what was sent under this key. `None` if that is unknown.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Reads the value of the header.
    pub(crate) fn from_header(header: &str) -> Self {
        let pair = |text: &str| text.split_once(':').map(|(key, body)| (key.to_owned(), body.to_owned()));
        Self(header.split(',').take(KEYS_MAX).filter_map(pair).collect())
    }
}

/// Writes the value of the header. `None` if no call had a key.
pub(crate) fn to_header(record: &CallRecord) -> Option<String> {
    // A key that an author has given may be any text.
    let plain =
        |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let pairs: Vec<String> = (record.calls.iter())
        .filter_map(|called| {
            Some(format!("{}:{}", called.key.as_deref().filter(|key| plain(key))?, called.body.as_ref()?))
        })
        .take(KEYS_MAX)
        .collect();
    (!pairs.is_empty()).then(|| pairs.join(","))
}
