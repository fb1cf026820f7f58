//! Takes the bytes of an object: writes and hashes them away from the tasks that wait for messages.

use std::fs::File;
use std::io::Write as _;

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;

use super::LargeError;

/// How many bytes are written and hashed at once.
const PIECE: usize = 1 << 20;

/// Where the bytes go.
#[derive(Debug)]
enum Target {
    File(File),
    Memory(BytesMut),
}

#[derive(Debug)]
struct Written {
    target: Target,
    hash: Sha256,
}

/// Takes bytes in order.
#[derive(Debug)]
pub(super) struct Sink {
    /// `None` while bytes are written.
    written: Option<Written>,
    writing: Option<JoinHandle<std::io::Result<Written>>>,
    waiting: Vec<Bytes>,
    waits: usize,
    /// The number of bytes.
    pub(super) size: u64,
}

impl Sink {
    fn new(target: Target) -> Self {
        let written = Some(Written { target, hash: Sha256::new() });
        Self { written, writing: None, waiting: Vec::new(), waits: 0, size: 0 }
    }

    /// Creates a sink that writes to a file, from its position on.
    pub(super) fn to_file(file: &File) -> Result<Self, LargeError> {
        Ok(Self::new(Target::File(file.try_clone().map_err(LargeError::file("write a large item to a file"))?)))
    }

    /// Creates a sink that keeps the bytes.
    pub(super) fn to_memory(size: u64) -> Self {
        Self::new(Target::Memory(BytesMut::with_capacity(usize::try_from(size).unwrap_or_default())))
    }

    /// Takes more bytes. Waits while two pieces are yet to be written.
    pub(super) async fn push(&mut self, bytes: Bytes) -> Result<(), LargeError> {
        (self.size, self.waits) = (self.size + bytes.len() as u64, self.waits + bytes.len());
        self.waiting.push(bytes);
        if self.waits >= PIECE { self.write().await } else { Ok(()) }
    }

    /// Returns the hash of all bytes, and the bytes if they were kept.
    pub(super) async fn finish(mut self) -> Result<(Vec<u8>, Bytes), LargeError> {
        self.write().await?;
        self.settle().await?;
        let Some(Written { target, hash }) = self.written else { return Ok(<_>::default()) };
        let bytes = match target {
            Target::File(_) => Bytes::new(),
            Target::Memory(bytes) => bytes.freeze(),
        };
        Ok((hash.finalize().to_vec(), bytes))
    }

    /// Begins to write what waits.
    async fn write(&mut self) -> Result<(), LargeError> {
        self.settle().await?;
        let pieces = std::mem::take(&mut self.waiting);
        if pieces.is_empty() {
            return Ok(());
        }
        let Some(mut written) = self.written.take() else { return Ok(()) };
        self.waits = 0;
        self.writing = Some(tokio::task::spawn_blocking(move || {
            for piece in pieces {
                written.hash.update(&piece);
                match &mut written.target {
                    Target::File(file) => file.write_all(&piece)?,
                    Target::Memory(bytes) => bytes.extend_from_slice(&piece),
                }
            }
            Ok(written)
        }));
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), LargeError> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        let failed = LargeError::file("write a large item to a file");
        match writing.await {
            Ok(Ok(written)) => self.written = Some(written),
            Ok(Err(error)) => return Err(failed(error)),
            Err(error) => return Err(failed(std::io::Error::other(error))),
        }
        Ok(())
    }
}
