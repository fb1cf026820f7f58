//! The settings of a chain's queues.

use std::time::Duration;

use super::{ChainError, Reader, bounds, default, manifest};

/// The settings of a chain's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// The most frames in the queue of each stage.
    pub limit: u64,
    /// How soon other nodes receive the items of a dead node.
    pub ack_wait: Duration,
    /// How long the server remembers message ids. At least [`Queue::needs`].
    pub duplicate_window: Duration,
    /// The bytes from which on an item is a large one. `None`: only an item that no message takes.
    pub large: Option<u64>,
    /// The most bytes of all large items. `None` sets no limit.
    pub large_bytes: Option<u64>,
}

impl Queue {
    /// Returns how long the server must remember a frame's messages.
    ///
    /// A node may die right after it has stored them and before it acknowledges the frame. The server redelivers the frame after
    /// `ack_wait`, and the next node asks the server whether the frame is done. If that node dies before it can ask, another node
    /// asks after another `ack_wait`. The rest is time for nodes to connect again to a server that was restarted meanwhile.
    pub fn needs(ack_wait: Duration) -> Duration {
        ack_wait.saturating_mul(2).saturating_add(default::RECOVERY)
    }

    pub(super) fn new(reader: &Reader, raw: &manifest::Queue) -> Result<Self, ChainError> {
        let ack_wait = bounds::ACK_WAIT.duration(reader, raw.ack_wait.as_ref(), default::ACK_WAIT)?;
        let default = default::DUPLICATE_WINDOW.max(Self::needs(ack_wait));
        let duplicate_window = bounds::DUPLICATE_WINDOW.duration(reader, raw.duplicate_window.as_ref(), default)?;
        let why = ": the server must remember what a dead node has stored until another has its items; write more, or a shorter \
                   `ack_wait`";
        let duplicate_window = reader.outlasting("duplicate_window", duplicate_window, ack_wait, why)?;
        let size = |bounds: bounds::Bounds<u64>, text: &Option<String>| {
            text.as_ref().map(|text| bounds.size(reader, text)).transpose()
        };
        Ok(Self {
            limit: bounds::LIMIT.count(reader, raw.limit, default::QUEUE_LIMIT)?,
            ack_wait,
            duplicate_window,
            large: size(bounds::LARGE, &raw.large)?,
            large_bytes: size(bounds::LARGE_BYTES, &raw.large_bytes)?,
        })
    }
}
