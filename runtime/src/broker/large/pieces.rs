//! Reads the bytes of an upload in pieces, ahead of their use, and hashes them once.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;

use super::LargeError;

/// How much is read and hashed at once.
pub(super) const PIECE: u64 = 1 << 20;

/// The bytes of an upload.
#[derive(Debug, Clone)]
pub(crate) enum Content<'a> {
    /// Bytes in memory.
    Bytes(Bytes),
    /// The first bytes of a file. Nothing changes them meanwhile.
    File {
        /// The file. Its position neither matters nor changes.
        file: &'a File,
        /// The number of bytes.
        size: u64,
    },
}

#[derive(Debug, Clone)]
enum Source {
    Bytes(Bytes),
    File(Arc<File>),
}

/// Reads pieces in order.
#[derive(Debug)]
pub(super) struct Pieces {
    source: Source,
    size: u64,
    /// The hash of the first bytes, and their number. `None` while a piece is hashed.
    hash: Option<(Sha256, u64)>,
    ahead: Option<(u64, JoinHandle<Read>)>,
}

/// A piece, and the hash that goes on with it.
type Read = Result<(Bytes, (Sha256, u64)), std::io::Error>;

impl Content<'_> {
    /// Returns the number of bytes.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
        }
    }
}

impl Source {
    fn read(&self, place: u64, size: usize) -> std::io::Result<Bytes> {
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(place).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(start..(start + size).min(bytes.len())))
            }
            Self::File(file) => {
                let mut piece = vec![0; size];
                file.read_exact_at(&mut piece, place)?;
                Ok(piece.into())
            }
        }
    }
}

impl Pieces {
    /// Returns the pieces of a content.
    pub(super) fn of(content: &Content<'_>) -> Result<Self, LargeError> {
        let source = match content {
            Content::Bytes(bytes) => Source::Bytes(bytes.clone()),
            Content::File { file, .. } => {
                Source::File(Arc::new(file.try_clone().map_err(LargeError::file("read the file of an item"))?))
            }
        };
        Ok(Self { source, size: content.size(), hash: Some((Sha256::new(), 0)), ahead: None })
    }

    /// Returns the number of all bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Returns the piece that begins at this place, and begins to read the next.
    pub(super) async fn at(&mut self, place: u64) -> Result<Bytes, LargeError> {
        let read = match self.ahead.take() {
            Some((ahead, read)) if ahead == place => read,
            other => {
                self.end(other).await?;
                self.begin(place)
            }
        };
        let piece = self.finish(read).await?;
        let next = place + piece.len() as u64;
        if next < self.size && !piece.is_empty() {
            self.ahead = Some((next, self.begin(next)));
        }
        Ok(piece)
    }

    /// Returns the hash of all bytes, which were all read.
    pub(super) async fn hash(mut self) -> Result<Option<Vec<u8>>, LargeError> {
        let ahead = self.ahead.take();
        self.end(ahead).await?;
        Ok(self.hash.filter(|(_, hashed)| *hashed == self.size).map(|(hash, _)| hash.finalize().to_vec()))
    }

    async fn end(&mut self, ahead: Option<(u64, JoinHandle<Read>)>) -> Result<(), LargeError> {
        if let Some((_, read)) = ahead {
            self.finish(read).await?;
        }
        Ok(())
    }

    async fn finish(&mut self, read: JoinHandle<Read>) -> Result<Bytes, LargeError> {
        let failed = LargeError::file("read the file of an item");
        match read.await {
            Ok(Ok((piece, hash))) => {
                self.hash = Some(hash);
                Ok(piece)
            }
            Ok(Err(error)) => Err(failed(error)),
            Err(error) => Err(failed(std::io::Error::other(error))),
        }
    }

    fn begin(&mut self, place: u64) -> JoinHandle<Read> {
        let (source, size) = (self.source.clone(), PIECE.min(self.size.saturating_sub(place)));
        let (mut hash, mut hashed) = self.hash.take().unwrap_or_default();
        tokio::task::spawn_blocking(move || {
            let piece = source.read(place, usize::try_from(size).unwrap_or_default())?;
            // An upload that begins again has hashed the first pieces already.
            if place == hashed {
                hash.update(&piece);
                hashed += piece.len() as u64;
            }
            Ok((piece, (hash, hashed)))
        })
    }
}
