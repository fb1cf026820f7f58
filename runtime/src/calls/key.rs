//! Idempotency keys: the same at each attempt and on each node, unique in the world, telling nothing.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

/// Which item calls. It is the same at each attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The chain.
    pub(crate) chain: String,
    /// The stage.
    pub(crate) stage: String,
    /// The place of the fed message in the world.
    pub(crate) fed: String,
    /// The id of the item.
    pub(crate) item: String,
}

/// Numbers the calls of an item that are equal.
#[derive(Debug, Default)]
pub(crate) struct Keys(HashMap<[u8; 16], u64>);

impl Keys {
    /// Returns the key of the next call of this caller with this method and target.
    ///
    /// It has 32 hexadecimal digits: the first half of a SHA-256 digest of all that it is made of. The target stays out of memory,
    /// so many long ones take little of it.
    pub(crate) fn next(&mut self, caller: &Caller, method: &str, target: &str) -> String {
        let call = digest(&[method.as_bytes(), target.as_bytes()]);
        let number = self.0.entry(call).or_insert(0);
        *number += 1;
        let Caller { chain, stage, fed, item } = caller;
        let parts = [chain, stage, fed, item].map(String::as_bytes);
        hex(&digest(&[parts.as_slice(), &[&call, &number.to_be_bytes()]].concat()))
    }
}

/// Returns a digest of bytes, by which to tell them from others.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    hex(&digest(&[bytes])[..8])
}

/// Returns the first half of the SHA-256 digest of parts. The length before each keeps two lists of parts apart.
fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let mut half = [0; 16];
    half.copy_from_slice(&hasher.finalize()[..16]);
    half
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn caller(fed: &str, item: &str) -> Caller {
        Caller { chain: "c".to_owned(), stage: "s".to_owned(), fed: fed.to_owned(), item: item.to_owned() }
    }

    #[test]
    fn keys_are_the_same_at_each_attempt_and_else_all_different() {
        let all = || {
            let mut all = Vec::new();
            for who in [caller("k.1", "a"), caller("k.1", "a#1"), caller("k.2", "a"), caller("k.", "1a")] {
                let mut keys = Keys::default();
                for (method, target) in
                    [("POST", "http://a/"), ("POST", "http://a/"), ("PUT", "http://a/"), ("POST", "http://a/b")]
                {
                    all.push(keys.next(&who, method, target));
                }
            }
            all
        };
        let keys = all();
        assert_eq!(keys, all());
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
        assert!(keys.iter().all(|key| key.len() == 32));
    }
}
