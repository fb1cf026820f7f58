//! What the calls of an attempt have sent under their keys, so that the next attempt can tell whether it sends the same.

use std::collections::BTreeMap;

use crate::calls::key::digest_of;
use crate::dead::calls::{CallRecord, Called};

/// The most keys that are noted.
const KEYS_MAX: usize = 64;

/// Digests of what was sent, by digests of the keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent(BTreeMap<String, String>);

impl Sent {
    /// Returns the digest of what was sent under this key. `None` if that is unknown.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(&digest_of(key.as_bytes())).map(String::as_str)
    }

    /// Notes what the calls of an attempt have sent.
    pub(crate) fn of(record: &CallRecord) -> Self {
        // By digests of keys: one that an author has given may be any text.
        let pair = |called: &Called| Some((digest_of(called.key.as_ref()?.as_bytes()), called.body.clone()?));
        Self(record.calls.iter().filter_map(pair).take(KEYS_MAX).collect())
    }

    /// Writes the value of the header. `None` if no call had a key.
    pub(crate) fn to_header(&self) -> Option<String> {
        let pairs: Vec<String> = self.0.iter().map(|(key, body)| format!("{key}:{body}")).collect();
        (!pairs.is_empty()).then(|| pairs.join(","))
    }

    /// Reads the value of the header.
    pub(crate) fn from_header(header: &str) -> Self {
        let pair = |text: &str| text.split_once(':').map(|(key, body)| (key.to_owned(), body.to_owned()));
        Self(header.split(',').take(KEYS_MAX).filter_map(pair).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_survives_its_header() {
        let record = r#"{"calls":[{"call":"http","target":"POST http://a/","outcome":"200","ms":1,"safety":"keyed","key":"any, key:\u00e9","request":"00","body":"b1"}]}"#;
        let sent = Sent::of(&CallRecord::from_header(record).expect("a record"));
        let read = Sent::from_header(&sent.to_header().expect("a key"));
        assert_eq!((read.get("any, key:\u{e9}"), read.get("other"), &read), (Some("b1"), None, &sent));
        assert_eq!(Sent::default().to_header(), None);
    }
}
