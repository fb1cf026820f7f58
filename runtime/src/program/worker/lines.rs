//! The lines that a worker writes.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::program::process::PART;

/// A buffer that has become larger than this is given back once it is empty.
const KEPT: usize = 1 << 20;

/// The lines that come from a pipe.
pub(super) struct Lines {
    from: pipe::Receiver,
    buffer: BytesMut,
    /// How much of the buffer has no end of a line.
    scanned: usize,
    /// The most bytes of a line.
    max: usize,
}

impl Lines {
    /// Creates the lines of at most this many bytes.
    pub(super) fn new(from: pipe::Receiver, max: usize) -> Self {
        Self { from, buffer: BytesMut::new(), scanned: 0, max }
    }

    /// Reads what has come. Returns `false` at the end. Nothing is lost if it is dropped.
    pub(super) async fn read(&mut self) -> io::Result<bool> {
        self.buffer.reserve(PART);
        Ok(self.from.read_buf(&mut self.buffer).await? > 0)
    }

    /// Hands each whole line to `take`, or that a line is too long.
    pub(super) fn each<E>(&mut self, mut take: impl FnMut(Result<&[u8], usize>) -> Result<(), E>) -> Result<(), E> {
        while let Some(end) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
            let end = self.scanned + end;
            self.scanned = 0;
            let taken = take(Ok(&self.buffer[..end]));
            self.buffer.advance(end + 1);
            taken?;
        }
        self.scanned = self.buffer.len();
        if self.buffer.len() > self.max {
            return take(Err(self.max));
        }
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }
}
