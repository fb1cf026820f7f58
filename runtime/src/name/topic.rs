//! Topics: what an item and all that comes of it belong to.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The most characters of a topic.
pub const MAX_TOPIC_LEN: usize = 128;
/// The most characters of a wrong topic that an error shows.
const SHOWN: usize = 40;
/// The allowed characters, in words.
const ALLOWED: &str = "A-Z, a-z, 0-9, - and _";

/// A topic. It goes with an item and all that comes of it.
///
/// A topic is 1 to 128 characters of `A-Z`, `a-z`, `0-9`, `-` and `_`, because it is one token of a subject. Cheap to clone.
///
/// ```
/// let topic: pcluster::name::Topic = "campaign-7".parse()?;
/// assert_eq!(topic.as_str(), "campaign-7");
/// assert!("campaign 7".parse::<pcluster::name::Topic>().is_err());
/// # Ok::<_, pcluster::name::TopicError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Topic(Arc<str>);

/// Why a text is not a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The text is empty.
    #[error("a topic must not be empty; write 1 to {MAX_TOPIC_LEN} characters of {ALLOWED}")]
    Empty,
    /// A character is not allowed.
    #[error("the topic `{start}` has the character {found:?}; write 1 to {MAX_TOPIC_LEN} characters of {ALLOWED}")]
    Character {
        /// The beginning of the text.
        start: String,
        /// The first character that is not allowed.
        found: char,
    },
    /// The text is too long.
    #[error("the topic `{start}` has {len} characters; write at most {MAX_TOPIC_LEN} characters of {ALLOWED}")]
    TooLong {
        /// The beginning of the text.
        start: String,
        /// Its length in characters.
        len: usize,
    },
}

impl Topic {
    /// Returns the topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        let start = || match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.to_owned(),
        };
        if text.is_empty() {
            return Err(TopicError::Empty);
        }
        let is_allowed = |found: &char| found.is_ascii_alphanumeric() || matches!(found, '-' | '_');
        if let Some(found) = text.chars().find(|found| !is_allowed(found)) {
            return Err(TopicError::Character { start: start(), found });
        }
        if text.len() > MAX_TOPIC_LEN {
            return Err(TopicError::TooLong { start: start(), len: text.len() });
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Topic {
    type Error = TopicError;

    fn try_from(text: String) -> Result<Self, TopicError> {
        text.parse()
    }
}

impl From<Topic> for String {
    fn from(topic: Topic) -> Self {
        topic.as_str().to_owned()
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_one_token_of_a_subject() {
        let longest = "a".repeat(MAX_TOPIC_LEN);
        for topic in ["a", "A-1_b", "0", "-", longest.as_str()] {
            assert_eq!(topic.parse::<Topic>().map(|topic| topic.to_string()).as_deref(), Ok(topic));
        }
        let endless = "a".repeat(10_000);
        for wrong in ["", ".", "a.b", "a b", "*", ">", "a*", "ä", "a\n", "a\0", "$x", "a/b", &endless] {
            assert!(wrong.parse::<Topic>().is_err(), "{wrong:?}");
        }
        let error = |text: &str| text.parse::<Topic>().expect_err("no topic").to_string();
        assert_eq!(
            error("a.b"),
            "the topic `a.b` has the character '.'; write 1 to 128 characters of A-Z, a-z, 0-9, - and _"
        );
        assert!(error(&endless).len() < 200, "a long text is cut");
        assert!(error(&endless).contains("has 10000 characters; write at most 128"));
    }
}
