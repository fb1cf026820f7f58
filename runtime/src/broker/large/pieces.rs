//! Reads the bytes of an upload in pieces, ahead of their use, and hashes them once, unless their digest is known.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;

use super::{LargeError, head};

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
    /// The first bytes of a file whose digest is known.
    Hashed {
        /// The file. Its position neither matters nor changes.
        file: &'a Arc<File>,
        /// The number of bytes.
        size: u64,
        /// Their digest, as a reference has it.
        digest: &'a str,
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
    /// The digest of all bytes, if it is known.
    known: Option<String>,
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
            Self::File { size, .. } | Self::Hashed { size, .. } => *size,
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
        let (source, known) = match content {
            Content::Bytes(bytes) => (Source::Bytes(bytes.clone()), None),
            Content::File { file, .. } => {
                let file = file.try_clone().map_err(LargeError::file("read the file of an item"))?;
                (Source::File(Arc::new(file)), None)
            }
            Content::Hashed { file, digest, .. } => (Source::File(Arc::clone(file)), Some((*digest).to_owned())),
        };
        Ok(Self { source, size: content.size(), known, hash: Some((Sha256::new(), 0)), ahead: None })
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

    /// Returns the digest of all bytes, which were all read. `None` if their number has changed.
    pub(super) async fn digest(mut self) -> Result<Option<String>, LargeError> {
        let ahead = self.ahead.take();
        self.end(ahead).await?;
        let hashed = self.hash.filter(|(_, hashed)| *hashed == self.size);
        Ok(self.known.or_else(|| hashed.map(|(hash, _)| head::digest(&hash.finalize()))))
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
        let is_known = self.known.is_some();
        let (mut hash, mut hashed) = self.hash.take().unwrap_or_default();
        tokio::task::spawn_blocking(move || {
            let piece = source.read(place, usize::try_from(size).unwrap_or_default())?;
            // An upload that begins again has hashed the first pieces already.
            if !is_known && place == hashed {
                hash.update(&piece);
                hashed += piece.len() as u64;
            }
            Ok((piece, (hash, hashed)))
        })
    }
}
