//! What a program has written so far: in memory while it is little, then in a file.
//!
//! Nothing of it is handed on before the program has ended well.

use std::io::{self, BufRead, BufReader, Cursor, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The most bytes in memory.
const MEMORY: usize = 256 << 10;
/// The room that all spools of a node leave on a file system, or a tenth of a smaller one.
const ROOM_LEFT: u64 = 1 << 30;

/// What a program has written.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    memory: Vec<u8>,
    file: Option<std::fs::File>,
    bytes: u64,
}

impl Spool {
    /// Creates an empty spool. Its file has no name, and is in this folder.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), memory: Vec::new(), file: None, bytes: 0 }
    }

    /// Returns the number of bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends bytes.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.memory.extend_from_slice(bytes);
        self.bytes += bytes.len() as u64;
        if self.memory.len() > MEMORY {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(tempfile::tempfile_in(&self.folder)?),
            };
            check_room(file)?;
            file.write_all(&self.memory)?;
            self.memory.clear();
        }
        Ok(())
    }

    /// Returns a reader of all of it.
    pub(crate) fn into_reader(self) -> io::Result<Box<dyn BufRead + Send>> {
        let Self { mut file, memory, .. } = self;
        Ok(match file.take() {
            None => Box::new(Cursor::new(memory)),
            Some(mut file) => {
                file.write_all(&memory)?;
                file.seek(SeekFrom::Start(0))?;
                Box::new(BufReader::with_capacity(64 << 10, file))
            }
        })
    }
}

/// Fails if the file system of a file has little room left.
fn check_room(file: &std::fs::File) -> io::Result<()> {
    let system = rustix::fs::fstatvfs(file)?;
    let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
    let (free, least) = (bytes(system.f_bavail), ROOM_LEFT.min(bytes(system.f_blocks) / 10));
    if free >= least {
        return Ok(());
    }
    let [free, least] = [free, least].map(bytesize::ByteSize);
    let problem = format!("the folder for temporary files has only {free} left, and outputs in it leave {least} free");
    Err(io::Error::new(io::ErrorKind::StorageFull, problem))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_is_written_is_read_in_order_from_memory_or_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        for parts in [0, 3, 3_000] {
            let mut spool = Spool::new(folder.path());
            let mut expected = Vec::new();
            for part in 0..parts {
                let text = format!("{part} {}\n", "x".repeat(200));
                spool.append(text.as_bytes()).expect("written");
                expected.extend_from_slice(text.as_bytes());
            }
            assert_eq!(spool.bytes(), expected.len() as u64);
            let mut read = Vec::new();
            spool.into_reader().expect("a reader").read_to_end(&mut read).expect("read");
            assert!(read == expected, "{parts}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "its file has no name");
    }
}
