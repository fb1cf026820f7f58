//! Where stored messages are, as the server's answers tell.

use crate::broker::publish::Published;
use crate::frame::outgoing::Outgoing;

/// What the streams answer to messages that are stored together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// Whether these messages are stored, or others with their key.
    pub(crate) published: Published,
    places: Places,
}

/// The places of messages in their stream.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Places {
    Unknown,
    /// The place of the last. The others are right before it.
    Last(u64),
    /// The place of each.
    Each(Vec<u64>),
}

/// The kind of stream that a message is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum StreamKind {
    /// Queues of items that are not finished.
    Work,
    /// Results, and notes of the last hop.
    Results,
    /// Dead letters.
    Dead,
}

/// A message's place in the streams of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// The stream.
    pub(crate) kind: StreamKind,
    /// The sequence in it.
    pub(crate) sequence: u64,
}

impl Receipt {
    /// Returns the answer to nothing.
    pub(crate) const fn of_nothing() -> Self {
        Self { published: Published::Stored, places: Places::Unknown }
    }

    /// Returns the answer to messages that came one after another. `last` is the place of the last, or that of another message
    /// with its key; 0 if it is unknown.
    pub(crate) const fn of(published: Published, last: u64) -> Self {
        Self { published, places: if last == 0 { Places::Unknown } else { Places::Last(last) } }
    }

    /// Returns the answer to messages that were stored one by one at these places.
    pub(crate) const fn of_each(places: Vec<u64>) -> Self {
        Self { published: Published::Stored, places: Places::Each(places) }
    }

    /// Returns the place of the last message, or that of another message with its key. `None` if it is unknown.
    pub(crate) fn last(&self) -> Option<u64> {
        match &self.places {
            Places::Unknown => None,
            Places::Last(last) => Some(*last),
            Places::Each(places) => places.last().copied(),
        }
    }

    /// Returns the place of a message. `number` of `count` messages that were stored.
    pub(crate) fn place(&self, number: usize, count: usize) -> Option<u64> {
        match &self.places {
            Places::Unknown => None,
            Places::Last(last) => last.checked_sub((count - 1 - number) as u64),
            Places::Each(places) => places.get(number).copied(),
        }
    }
}

impl StreamKind {
    /// Returns the stream of a subject of a chain.
    pub(crate) fn of(subject: &str) -> Self {
        match subject.split('.').nth(2) {
            Some("dead") => Self::Dead,
            Some("out" | "note") => Self::Results,
            _ => Self::Work,
        }
    }

    /// Returns the stream that a message goes to.
    pub(crate) fn of_message(message: &Outgoing) -> Self {
        Self::of(&message.subject)
    }

    /// Returns the place with this sequence in the stream.
    pub(crate) const fn at(self, sequence: u64) -> Place {
        Place { kind: self, sequence }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{ChainName, Revision, StageName};
    use crate::subject;

    #[test]
    fn messages_of_a_batch_are_right_before_its_last() {
        let receipt = Receipt::of(Published::Stored, 9);
        assert_eq!([0, 1, 2].map(|number| receipt.place(number, 3)), [Some(7), Some(8), Some(9)]);
        assert_eq!((Receipt::of(Published::Duplicate, 0).last(), receipt.last()), (None, Some(9)));
        assert_eq!(Receipt::of_each(vec![3, 8]).place(0, 2), Some(3));
    }

    #[test]
    fn the_stream_of_each_subject_is_known() {
        let (chain, stage): (ChainName, StageName) = ("out".parse().expect("a name"), "dead".parse().expect("a name"));
        for (subject, kind) in [
            (subject::results(&chain), StreamKind::Results),
            (subject::notes(&chain), StreamKind::Results),
            (subject::dead(&chain, &stage), StreamKind::Dead),
            (subject::dead_item(&chain), StreamKind::Dead),
            (subject::work(&chain, Revision::new(1), &stage), StreamKind::Work),
        ] {
            assert_eq!(StreamKind::of(&subject), kind, "{subject}");
        }
    }
}
