//! Outputs that have another topic than their item.

use std::cell::RefCell;

use serde::{Serialize, Serializer};

use crate::host;

/// An output with another topic than the item that it comes of.
///
/// An item and all that comes of it have the topic that it was fed with, or none. A task returns its outputs as `WithTopic` to
/// change that. A topic is 1 to 128 characters of `A-Z`, `a-z`, `0-9`, `-` and `_`; any other fails the item for good.
///
/// This counts for whole outputs alone, not for a value within one.
///
/// ```
/// use pcluster_sdk::{Context, WithTopic, task};
///
/// /// Sends urgent texts to a topic of their own.
/// #[task]
/// fn sort(text: String, cx: &Context) -> WithTopic<String> {
///     match cx.topic() {
///         Some(topic) if text.starts_with('!') => WithTopic::new(format!("{topic}-urgent"), text),
///         topic => WithTopic::from_option(topic, text),
///     }
/// }
///
/// let context = Context::default().with_topic("ada");
/// assert_eq!(sort("!now".to_owned(), &context).topic(), Some("ada-urgent"));
/// assert_eq!(sort("soon".to_owned(), &context).topic(), Some("ada"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithTopic<T> {
    topic: String,
    output: T,
}

impl<T> WithTopic<T> {
    /// Gives an output a topic.
    pub fn new(topic: impl Into<String>, output: T) -> Self {
        Self { topic: topic.into(), output }
    }

    /// Gives an output no topic, although its item may have one.
    pub const fn none(output: T) -> Self {
        Self { topic: String::new(), output }
    }

    /// Gives an output this topic, or none.
    pub fn from_option(topic: Option<&str>, output: T) -> Self {
        Self { topic: topic.unwrap_or_default().to_owned(), output }
    }

    /// Returns the topic. `None` if the output has none.
    pub fn topic(&self) -> Option<&str> {
        Some(self.topic.as_str()).filter(|topic| !topic.is_empty())
    }

    /// Returns the output.
    pub const fn output(&self) -> &T {
        &self.output
    }

    /// Returns the output alone.
    pub fn into_output(self) -> T {
        self.output
    }
}

/// The topic of the output that is being written, and the function that emits it. Only plugins that change topics import that.
type Changed = (String, fn(&str, &[u8]));

thread_local! {
    static CHANGED: RefCell<Option<Changed>> = const { RefCell::new(None) };
}

impl<T: Serialize> Serialize for WithTopic<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        CHANGED.set(Some((self.topic.clone(), host::emit_to)));
        self.output.serialize(serializer)
    }
}

/// Emits an output that was written, with the topic that it was written with.
pub(crate) fn emit(item: &[u8]) {
    match CHANGED.take() {
        None => host::emit(item),
        Some((topic, emit)) => emit(&topic, item),
    }
}
