//! A message to publish, and the server's limits on messages.

use bytes::Bytes;

use super::{Headers, header};

/// The most messages of an atomic batch.
pub const BATCH_MAX: usize = 1_000;

/// The bytes that an item leaves for headers in its message. Every hop adds some.
pub const HEADER_ROOM: usize = 8 << 10;

/// The most bytes of a message's headers. The server stores their length in two bytes.
pub const HEADERS_MAX: usize = (64 << 10) - 1;

/// The most bytes of headers that an atomic batch adds, with the one that names the messages before the last.
const BATCH_HEADERS: usize = 192;

/// A message to publish in a stream.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The subject.
    pub subject: String,
    /// The idempotency key.
    pub message_id: String,
    /// All other headers.
    pub headers: Headers,
    /// The payload.
    pub payload: Bytes,
}

/// The server's limits on a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimits {
    /// The most bytes of headers and payload together.
    pub max_payload: usize,
}

impl MessageLimits {
    /// Returns the most bytes of an item that passes the chain. Its results and dead letters fit too.
    pub fn max_item(self) -> usize {
        self.max_payload.saturating_sub(HEADER_ROOM)
    }

    /// Returns `true` if the server accepts the message by itself.
    pub fn fits(self, message: &Outgoing) -> bool {
        self.takes(message, 0)
    }

    /// Returns `true` if the server accepts the message in a batch.
    pub fn fits_a_batch(self, message: &Outgoing) -> bool {
        self.takes(message, BATCH_HEADERS)
    }

    fn takes(self, message: &Outgoing, more: usize) -> bool {
        let own = std::iter::once((header::MESSAGE_ID, message.message_id.as_str()));
        let headers = header_size(message.headers.iter().chain(own)) + more;
        headers <= HEADERS_MAX && headers + message.payload.len() <= self.max_payload
    }
}

/// Returns the bytes of headers as they are sent.
pub fn header_size<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> usize {
    /// `NATS/1.0`, line breaks, and the separators of a header line.
    const FRAME: usize = 12;
    FRAME + headers.map(|(name, value)| name.len() + value.len() + 4).sum::<usize>()
}
