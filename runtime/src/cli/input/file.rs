//! Counts how far a file is read.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A file that counts the bytes that are left to read.
pub struct Counted {
    file: File,
    left: Arc<AtomicU64>,
}

/// The size of a file, and how many bytes are left to read.
#[derive(Debug, Clone)]
pub struct Bytes {
    /// The size when the file was opened.
    pub all: u64,
    left: Arc<AtomicU64>,
}

impl Bytes {
    /// Returns how many bytes are left to read.
    pub fn left(&self) -> u64 {
        self.left.load(Relaxed)
    }
}

impl Counted {
    /// Creates a counter for a file. The bytes are `None` if the size is not known, as for a pipe.
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
