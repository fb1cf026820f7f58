//! The names of key-value buckets (NATS ADR-8) and object stores (NATS ADR-20) that tasks are granted.

use base64::Engine as _;
use base64::prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};

/// Returns the stream of a bucket.
pub(crate) fn bucket_stream(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// Returns the subject of an entry.
pub(crate) fn entry(bucket: &str, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}

/// Returns the key of an entry's subject.
pub(crate) fn parse_entry<'a>(bucket: &str, subject: &'a str) -> Option<&'a str> {
    subject.strip_prefix("$KV.")?.strip_prefix(bucket)?.strip_prefix('.')
}

/// Returns the narrowest pattern of all entries whose keys begin with a prefix. Patterns end at dots.
pub(crate) fn entries(bucket: &str, prefix: &str) -> String {
    let whole = prefix.rfind('.').map_or("", |dot| &prefix[..=dot]);
    format!("$KV.{bucket}.{whole}>")
}

/// Returns the stream of an object store.
pub(crate) fn object_stream(store: &str) -> String {
    format!("OBJ_{store}")
}

/// Returns the subject of an object's description.
pub(crate) fn object_head(store: &str, name: &str) -> String {
    format!("$O.{store}.M.{}", BASE64_URL_SAFE.encode(name))
}

/// Returns the pattern of the descriptions of all objects.
pub(crate) fn object_heads(store: &str) -> String {
    format!("$O.{store}.M.*")
}

/// Returns the name of the object with this description.
pub(crate) fn parse_object_head(subject: &str) -> Option<String> {
    let encoded = subject.rsplit('.').next()?.trim_end_matches('=');
    String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

/// Returns the subject of the data of one upload. `None` if its id is no part of a subject.
pub(crate) fn object_chunks(store: &str, upload: &str) -> Option<String> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_id = (1..=128).contains(&upload.len()) && upload.bytes().all(is_part);
    is_id.then(|| format!("$O.{store}.C.{upload}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_formatted_can_be_parsed() {
        assert_eq!(parse_entry("cache", &entry("cache", "a.b")), Some("a.b"));
        assert_eq!(parse_entry("cache", &entry("cache2", "a.b")), None);
        for name in ["a", "ab", "größe *>.x", "\r\n"] {
            assert_eq!(parse_object_head(&object_head("models", name)).as_deref(), Some(name));
        }
        assert_eq!(parse_object_head("$O.models.M.*"), None);
    }

    #[test]
    fn a_pattern_matches_all_keys_with_the_prefix() {
        for (prefix, pattern) in [
            ("", "$KV.cache.>"),
            ("a", "$KV.cache.>"),
            ("a.", "$KV.cache.a.>"),
            ("a.b", "$KV.cache.a.>"),
            ("a.b.", "$KV.cache.a.b.>"),
        ] {
            assert_eq!(entries("cache", prefix), pattern, "{prefix}");
        }
    }

    #[test]
    fn an_upload_that_would_name_others_has_no_subject() {
        assert_eq!(object_chunks("models", "aB3-_").as_deref(), Some("$O.models.C.aB3-_"));
        for id in ["", ">", "*", "a.b", "a b", "ä", &"x".repeat(129)] {
            assert_eq!(object_chunks("models", id), None, "{id}");
        }
    }
}
