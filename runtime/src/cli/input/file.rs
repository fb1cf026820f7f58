//! How far a file is read.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A file that is read, and how many of its bytes are left.
pub struct Counted {
    file: File,
    left: Arc<AtomicU64>,
}

/// The bytes of a file, while it is read.
#[derive(Debug, Clone)]
pub struct Bytes {
    /// How many there were at the start.
    pub all: u64,
    left: Arc<AtomicU64>,
}

impl Bytes {
    /// How many are not read yet.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left.load(Relaxed)
    }
}

impl Counted {
    /// Counts what is read of a file. The bytes are `None` if they are not known, as of a pipe.
    pub fn new(file: File) -> (Self, Option<Bytes>) {
        let all = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
        let left = Arc::new(AtomicU64::new(all.unwrap_or_default()));
        let bytes = all.filter(|all| *all > 0).map(|all| Bytes { all, left: Arc::clone(&left) });
        (Self { file, left }, bytes)
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        // A file may grow while it is read.
        self.left.store(self.left.load(Relaxed).saturating_sub(read as u64), Relaxed);
        Ok(read)
    }
}
