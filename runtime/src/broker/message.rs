//! A message that a stream holds.

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::get::Stored;
use super::queue::Delivery;
use crate::frame::outgoing::BATCH_MAX;
use crate::frame::{Headers, header};

/// A message that a stream holds.
#[derive(Debug, Clone)]
pub struct StreamMessage {
    /// Its sequence number in the stream.
    pub sequence: u64,
    /// When it was stored, as RFC 3339 in UTC.
    pub stored: String,
    /// Its headers.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
}

impl From<&Delivery> for StreamMessage {
    fn from(delivery: &Delivery) -> Self {
        let stored = OffsetDateTime::from_unix_timestamp_nanos(i128::from(delivery.stored_millis) * 1_000_000);
        Self {
            sequence: delivery.sequence,
            stored: stored.ok().and_then(|stored| stored.format(&Rfc3339).ok()).unwrap_or_default(),
            headers: delivery.headers(),
            payload: delivery.payload.clone(),
        }
    }
}

impl StreamMessage {
    /// Returns when it was stored, in milliseconds since the Unix epoch.
    pub(crate) fn stored_millis(&self) -> u64 {
        let stored = OffsetDateTime::parse(&self.stored, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp_nanos);
        u64::try_from(stored / 1_000_000).unwrap_or(0)
    }

    /// Returns how many messages before a dead letter hold its item.
    pub(super) fn item_parts(&self) -> u64 {
        item_parts(self.headers.get(header::ITEM_PARTS))
    }

    /// Returns `true` if it is part of the item of a later dead letter.
    pub fn is_item_part(&self) -> bool {
        self.headers.get(header::ITEM_PART).is_some()
    }

    pub(super) fn of(stored: Stored) -> Self {
        let headers = stored.headers();
        Self { sequence: stored.sequence, headers, stored: stored.time, payload: stored.payload.into() }
    }
}

/// Returns how many messages before a dead letter hold its item, by its header.
pub(super) fn item_parts(header: Option<&str>) -> u64 {
    let parts = header.and_then(|parts| parts.parse().ok()).unwrap_or(0);
    // A batch has no more messages.
    if parts < BATCH_MAX as u64 { parts } else { 0 }
}
