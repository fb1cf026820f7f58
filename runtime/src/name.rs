//! Validated names. A value of these types has been checked once, and is safe in subjects, stream names and keys.

mod topic;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use topic::{MAX_TOPIC_LEN, Topic, TopicError};

/// The most characters of the name of a chain or stage. It keeps every subject far below the server's limits.
pub const MAX_NAME_LEN: usize = 64;

/// Why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The text is empty.
    #[error("a {kind} must not be empty")]
    Empty {
        /// The kind of the name.
        kind: &'static str,
    },
    /// The text is too long.
    #[error("the {kind} `{name}` has {len} characters; {MAX_NAME_LEN} is the most")]
    TooLong {
        /// The kind of the name.
        kind: &'static str,
        /// The text.
        name: String,
        /// Its length in characters.
        len: usize,
    },
    /// A character is not allowed.
    #[error("the {kind} `{name}` has the character {found:?}; allowed are {allowed}")]
    Character {
        /// The kind of the name.
        kind: &'static str,
        /// The text.
        name: String,
        /// The first character that is not allowed.
        found: char,
        /// The allowed characters, in words.
        allowed: &'static str,
    },
}

fn check(
    kind: &'static str,
    name: &str,
    allowed: &'static str,
    allows: impl Fn(char) -> bool,
) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { kind });
    }
    if let Some(found) = name.chars().find(|&character| !allows(character)) {
        return Err(NameError::Character { kind, name: name.to_owned(), found, allowed });
    }
    let len = name.chars().count();
    if len > MAX_NAME_LEN {
        return Err(NameError::TooLong { kind, name: name.to_owned(), len });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $allowed:literal, $allows:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Box<str>);

        impl $type {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check($kind, text, $allowed, $allows)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0.into()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&self.0)
            }
        }
    };
}

name!(
    /// The name of a chain: lower-case letters, digits, `-` and `_`.
    ///
    /// Lower case keeps the streams of a chain (`PCLUSTER_<chain>`, `PCLUSTER_<chain>_OUT`) apart from those of other chains and
    /// from pcluster's own.
    ///
    /// ```
    /// # use pcluster::name::ChainName;
    /// assert!("orders-2".parse::<ChainName>().is_ok());
    /// assert!("Orders".parse::<ChainName>().is_err());
    /// ```
    ChainName, "chain name", "lower-case letters, digits, `-` and `_`",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_'
);

name!(
    /// The name of a stage: letters, digits, `-` and `_`. Unique in its chain.
    StageName, "stage name", "letters, digits, `-` and `_`",
    |c| c.is_ascii_alphanumeric() || c == '-' || c == '_'
);

name!(
    /// The author's label of a manifest, as in `1.0`: letters, digits, `.`, `-`, `_` and `+`.
    Version, "version", "letters, digits, `.`, `-`, `_` and `+`",
    |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+')
);

/// What stands between the version of a manifest and the digits of its content, in the version of a try.
const DEV: &str = "-dev.";
/// How many digits of its content the version of a try has.
const DEV_DIGITS: usize = 8;

impl Version {
    /// Returns the version of a try of this version, as in `1.0-dev.1a2b3c4d`. Each content has its own.
    pub(crate) fn of_try(&self, content: &Digest) -> Self {
        let longest = MAX_NAME_LEN - DEV.len() - DEV_DIGITS;
        let digits = &content.as_hex()[..DEV_DIGITS];
        let version = self.as_str();
        Self(format!("{}{DEV}{digits}", &version[..version.len().min(longest)]).into())
    }
}

/// The number that a deploy gives to a manifest: r1, r2, … in each chain. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(u64);

impl Revision {
    /// Returns the revision with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number of the revision.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Returns the next revision.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "r{}", self.0)
    }
}

/// The sha-256 of some bytes, written as 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(Box<str>);

/// The prefix of a digest in manifests and messages.
pub const DIGEST_PREFIX: &str = "sha256:";

/// The text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest; one is `sha256:` and 64 hexadecimal digits")]
pub struct DigestError(String);

impl Digest {
    /// Returns the digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self::from_sha256(sha2::Sha256::digest(bytes).as_slice())
    }

    /// Takes the 32 bytes of a sha-256.
    pub(crate) fn from_sha256(bytes: &[u8]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
    }

    /// Returns the 64 digits.
    pub fn as_hex(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text.strip_prefix(DIGEST_PREFIX).unwrap_or(text);
        let digits = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if hex.len() == 64 && hex.chars().all(digits) {
            Ok(Self(hex.into()))
        } else {
            Err(DigestError(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{DIGEST_PREFIX}{}", self.0)
    }
}

/// Returns the known name nearest to a mistyped one. `None` if no name is near: changing at most a third of the letters must give
/// the known name, or one name must begin with the other.
pub(crate) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// The least length of a beginning that counts.
    const BEGINNING: usize = 3;
    let typed = typed.to_lowercase();
    let distance = |name: &str| {
        let name = name.to_lowercase();
        let (shorter, longer) = if typed.len() < name.len() { (&typed, &name) } else { (&name, &typed) };
        let distance = strsim::damerau_levenshtein(&typed, &name);
        let is_near = distance <= (longer.chars().count() / 3).max(1);
        (is_near || (shorter.len() >= BEGINNING && longer.starts_with(shorter.as_str()))).then_some(distance)
    };
    known.into_iter().filter_map(|name| Some((distance(name)?, name))).min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_has_a_version_of_its_content() {
        let content = Digest::of(b"a");
        let version: Version = "1.0".parse().expect("valid");
        assert_eq!(version.of_try(&content).as_str(), "1.0-dev.ca978112");
        assert_ne!(version.of_try(&content), version.of_try(&Digest::of(b"b")));
        let longest: Version = "1".repeat(MAX_NAME_LEN).parse().expect("valid");
        let tried = longest.of_try(&content);
        assert_eq!(tried.as_str().parse(), Ok(tried));
    }

    #[test]
    fn a_name_that_could_break_a_subject_is_refused() {
        for text in ["", "a.b", "a b", "a>", "*", "ä", "a/b", &"x".repeat(65)] {
            assert!(text.parse::<ChainName>().is_err(), "{text:?}");
            assert!(text.parse::<StageName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_error_names_the_character() {
        let error = "my chain".parse::<ChainName>().expect_err("has a space");
        assert_eq!(
            error.to_string(),
            "the chain name `my chain` has the character ' '; allowed are lower-case letters, digits, `-` and `_`"
        );
    }

    #[test]
    fn a_digest_survives_its_text() {
        let digest = Digest::of(b"plugin");
        assert_eq!(digest.to_string().parse(), Ok(digest.clone()));
        assert_eq!(digest.as_hex().parse(), Ok(digest));
        assert!("sha256:12".parse::<Digest>().is_err());
    }

    #[test]
    fn the_nearest_name_is_suggested_only_when_near() {
        let known = ["text", "example", "parse", "orders-2026", "stop", "reset"];
        for (typed, near) in [
            ("exmaple", Some("example")),
            ("PRASE", Some("parse")),
            ("orders", Some("orders-2026")),
            ("zzz", None),
            ("history", None),
            ("delete", None),
        ] {
            assert_eq!(nearest(typed, known), near, "{typed}");
        }
    }
}
