//! The records of the messages that refer to large items.
//!
//! An object lives as long as it has a record, and a record names the message that refers to the object by its place. A place is
//! known once the message is stored. Until then a record of the frame in hand, `making`, keeps the objects that it makes, and the
//! records of the frame's own message keep those that it came with. So the order is: store, record, acknowledge, and only then take
//! the older records back.
//!
//! Another run may have stored a message and stopped before its record. A run that finds the key taken therefore reads what is
//! stored, and records that. If the stored message is gone, it was handled, and whoever handled it had written its own records
//! before it acknowledged.

use bytes::Bytes;
use ulid::Ulid;

use super::outbox::Outbox;
use super::receipt::{Place, Receipt, StreamKind};
use crate::broker::publish::{PublishError, Published};
use crate::frame::large::{has_references, names_in};
use crate::frame::outgoing::Outgoing;
use crate::frame::{Headers, header};
use crate::node::route::Route;

/// The messages that were stored before the last of a commit: what their keys are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Before {
    commit: Ulid,
    count: usize,
}

impl Before {
    /// Names the `count` messages before the last of a commit.
    pub(super) const fn new(commit: Ulid, count: usize) -> Self {
        Self { commit, count }
    }

    /// Returns the value of the header.
    pub(super) fn to_header(self) -> String {
        format!("{}.{}", self.commit, self.count)
    }

    fn parse(header: &str) -> Option<Self> {
        let (commit, count) = header.split_once('.')?;
        Some(Self { commit: commit.parse().ok()?, count: count.parse().ok()? })
    }
}

/// Records who refers to the large items of messages that were stored, or of those that another run has stored in their place.
///
/// `decides`: the key of the last decides about a frame, so the other run may have left something else behind.
pub(crate) async fn record(
    outbox: &impl Outbox,
    (route, source): (&Route, u64),
    messages: &[Outgoing],
    receipt: &Receipt,
    decides: bool,
) -> Result<(), PublishError> {
    let Some(last) = messages.last() else { return Ok(()) };
    let has_references = messages.iter().any(|message| has_references(&message.headers));
    if receipt.published == Published::Duplicate {
        let Some(place) = receipt.last().filter(|_| has_references || decides) else { return Ok(()) };
        return Box::pin(record_stored(outbox, (route, source), &last.subject, place)).await;
    }
    if !has_references {
        return Ok(());
    }
    let count = messages.len();
    let holding = messages.iter().enumerate().filter_map(|(number, message)| {
        let place = StreamKind::of_message(message).at(receipt.place(number, count)?);
        Some(hold_all(outbox, &message.headers, &message.payload, place))
    });
    Box::pin(futures_util::future::try_join_all(holding)).await.map(drop)
}

/// Records who refers to the large items of a message that another run has stored under this subject, and of those before it.
pub(super) async fn record_stored(
    outbox: &impl Outbox,
    (route, source): (&Route, u64),
    subject: &str,
    sequence: u64,
) -> Result<(), PublishError> {
    let kind = StreamKind::of(subject);
    let Some((headers, payload)) = outbox.message(kind.at(sequence)).await? else { return Ok(()) };
    hold_all(outbox, &headers, &payload, kind.at(sequence)).await?;
    let Some(Before { commit, count }) = headers.get(header::COMMIT).and_then(Before::parse) else { return Ok(()) };
    for number in 0..count {
        let key = route.part_id(source, commit, number);
        let Some(sequence) = outbox.find(subject, &key).await? else { continue };
        if let Some((headers, payload)) = outbox.message(kind.at(sequence)).await? {
            hold_all(outbox, &headers, &payload, kind.at(sequence)).await?;
        }
    }
    Ok(())
}

async fn hold_all(outbox: &impl Outbox, headers: &Headers, payload: &Bytes, place: Place) -> Result<(), PublishError> {
    let names = names_in(headers, payload);
    let holding = names.iter().map(|name| outbox.hold(name, place));
    futures_util::future::try_join_all(holding).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_before_the_last_survive_their_header() {
        let before = Before::new(Ulid::generate(), 7);
        assert_eq!(Before::parse(&before.to_header()), Some(before));
        assert_eq!(Before::parse("x.1"), None);
    }
}
