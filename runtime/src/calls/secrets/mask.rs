//! Hides secrets in what is recorded.

use std::sync::Mutex;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;

use super::Secret;
use crate::lock::lock;

/// The secrets that the calls of an item have used. It hides them in what the other side has answered.
#[derive(Debug, Default)]
pub(crate) struct Mask {
    used: Mutex<Vec<Secret>>,
}

impl Mask {
    /// Notes that a secret was used.
    pub(crate) fn add(&self, secret: &Secret) {
        let mut used = lock(&self.used);
        if !used.contains(secret) {
            used.push(secret.clone());
        }
    }

    /// Notes that a secret was used for HTTP basic authentication, as these bytes in base64.
    pub(crate) fn add_basic(&self, secret: &Secret, encoded: &[u8]) {
        self.add(secret);
        self.add(&Secret(encoded.into()));
    }

    /// Returns bytes with a `*` for each byte of a secret, also as JSON, URLs, forms and base64 write it.
    ///
    /// The size stays as it is, so that CBOR stays CBOR: a record can be answered from.
    pub(crate) fn apply(&self, bytes: &[u8]) -> Bytes {
        let used = lock(&self.used);
        let mut written: Vec<Vec<u8>> = used.iter().flat_map(|secret| forms(secret.reveal())).collect();
        drop(used);
        // A secret may be a part of another.
        written.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        written.dedup();
        let mut masked = bytes.to_vec();
        for form in written {
            masked = replaced(&masked, &form);
        }
        masked.into()
    }
}

/// Returns the ways in which an answer may write a secret.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![
        secret.to_vec(),
        BASE64_STANDARD.encode(secret).into_bytes(),
        BASE64_STANDARD_NO_PAD.encode(secret).into_bytes(),
        BASE64_URL_SAFE_NO_PAD.encode(secret).into_bytes(),
    ];
    let text = String::from_utf8_lossy(secret);
    let json = serde_json::Value::from(&*text).to_string();
    let json = json.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned();
    forms.push(json.replace('/', "\\/").into_bytes());
    forms.push(json.into_bytes());
    forms.push(url::form_urlencoded::byte_serialize(secret).collect::<String>().into_bytes());
    forms.push(percent_encoded(secret, "-_.~"));
    forms.push(percent_encoded(secret, "-_.!~*'()"));
    forms.retain(|form| !form.is_empty());
    forms
}

fn percent_encoded(secret: &[u8], plain: &str) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(secret.len());
    for byte in secret {
        if byte.is_ascii_alphanumeric() || plain.as_bytes().contains(byte) {
            encoded.push(*byte);
        } else {
            encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    encoded
}

fn replaced(bytes: &[u8], form: &[u8]) -> Vec<u8> {
    let Some(first) = form.first() else { return bytes.to_vec() };
    let mut masked = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        masked.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with(form) {
            masked.resize(masked.len() + form.len(), b'*');
            rest = &rest[form.len()..];
        } else {
            masked.push(*first);
            rest = &rest[1..];
        }
    }
    masked.extend_from_slice(rest);
    masked
}

#[cfg(test)]
mod tests {
    use super::super::value;
    use super::*;

    fn mask_of(secret: &str) -> Mask {
        let mask = Mask::default();
        mask.add(&value(secret.into()).expect("a secret"));
        mask
    }

    #[test]
    fn a_secret_is_hidden_however_it_is_written() {
        let mask = mask_of("a/b\"c d+é");
        for written in [
            "a/b\"c d+é",
            r#"a/b\"c d+é"#,
            r#"a\/b\"c d+é"#,
            "a%2Fb%22c+d%2B%C3%A9",
            "a%2Fb%22c%20d%2B%C3%A9",
            "YS9iImMgZCvDqQ==",
            "YS9iImMgZCvDqQ",
        ] {
            let masked = mask.apply(format!("<{written}> and <{written}").as_bytes());
            let stars = "*".repeat(written.len());
            assert_eq!(String::from_utf8_lossy(&masked), format!("<{stars}> and <{stars}"), "{written}");
        }
        assert_eq!(mask.apply(b"a/b"), &b"a/b"[..]);
    }

    #[test]
    fn a_user_with_a_password_is_hidden() {
        let mask = Mask::default();
        let secret = value(b"password".to_vec()).expect("a secret");
        let basic = BASE64_STANDARD.encode("ada:password");
        mask.add_basic(&secret, basic.as_bytes());
        let stars = "*".repeat(basic.len());
        assert_eq!(mask.apply(format!("Basic {basic}").as_bytes()), format!("Basic {stars}").as_bytes());
        assert_eq!(mask.apply(b"my password"), &b"my ********"[..]);
    }

    #[test]
    fn a_secret_within_another_shows_nothing_of_the_other() {
        let mask = mask_of("token");
        mask.add(&value(b"token-of-ada".to_vec()).expect("a secret"));
        assert_eq!(mask.apply(b"token-of-ada token"), &b"************ *****"[..]);
        assert_eq!(mask_of("aab").apply(b"aaab"), &b"a***"[..]);
        assert_eq!(Mask::default().apply(b"token"), &b"token"[..]);
    }
}
