//! What a program has written so far: in memory while it is little, then in a file.
//!
//! Nothing of it is handed on before the program has ended well.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::utf8::Utf8;
use crate::frame::large::{Form, Hasher};
use crate::frame::text::without_mark;

/// The most bytes in memory.
pub(crate) const MEMORY: usize = 256 << 10;
/// The room that all spools of a node leave on a file system, or a tenth of a smaller one.
const ROOM_LEFT: u64 = 1 << 30;

/// What a program has written.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    memory: Vec<u8>,
    file: Option<File>,
    bytes: u64,
    /// What it is, if all of it is the content of one item. Then, the file holds nothing else.
    content: Option<Content>,
}

/// The content of an item that is being written.
#[derive(Debug)]
struct Content {
    form: Form,
    hasher: Hasher,
    utf8: Utf8,
    /// The bytes of the mark before a text, which is no part of it.
    mark: u64,
}

/// What a program has written, at its end.
pub(crate) enum Written {
    /// Bytes in memory, or what no item is made of as it is.
    Any(Box<dyn BufRead + Send>),
    /// The content of an item, in a file of its own.
    Content {
        /// The file.
        file: File,
        /// The bytes in it.
        size: u64,
        /// Their digest, as a reference to a large item has it.
        digest: String,
        /// What it is.
        form: Form,
        /// The bytes before the first that is no UTF-8. `None` if it is no text, or one without a mistake.
        wrong_after: Option<u64>,
    },
}

impl Spool {
    /// Creates an empty spool. Its file has no name, and is in this folder.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), memory: Vec::new(), file: None, bytes: 0, content: None }
    }

    /// Creates an empty spool, as [`Self::new`] does. All of it is the content of one item of this form.
    pub(crate) fn of(folder: &Path, form: Form) -> Self {
        let content = Content { form, hasher: Hasher::default(), utf8: Utf8::default(), mark: 0 };
        Self { content: Some(content), ..Self::new(folder) }
    }

    /// Returns the number of bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends bytes.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.memory.extend_from_slice(bytes);
        self.bytes += bytes.len() as u64;
        if self.memory.len() > MEMORY { self.write() } else { Ok(()) }
    }

    /// Writes what is in memory to the file.
    fn write(&mut self) -> io::Result<()> {
        let is_first = self.file.is_none();
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(&self.folder)?),
        };
        check_room(file)?;
        let bytes = match &mut self.content {
            Some(content) => content.add(&self.memory, is_first),
            None => &self.memory,
        };
        file.write_all(bytes)?;
        self.memory.clear();
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

    /// Returns all of it.
    pub(crate) fn finish(mut self) -> io::Result<Written> {
        if self.content.is_none() || self.file.is_none() {
            return self.into_reader().map(Written::Any);
        }
        self.write()?;
        match self {
            Self { file: Some(file), content: Some(content), bytes, .. } => Ok(content.finish(file, bytes)),
            other => other.into_reader().map(Written::Any),
        }
    }
}

impl Content {
    /// Adds a part. Returns what of it is content.
    fn add<'a>(&mut self, part: &'a [u8], is_first: bool) -> &'a [u8] {
        let mut bytes = part;
        if self.form == Form::Text {
            if is_first {
                bytes = without_mark(part);
                self.mark = (part.len() - bytes.len()) as u64;
            }
            self.utf8.add(bytes);
        }
        self.hasher.update(bytes);
        bytes
    }

    fn finish(self, file: File, written: u64) -> Written {
        let wrong_after = self.utf8.wrong_after().map(|valid| valid + self.mark);
        Written::Content { file, size: written - self.mark, digest: self.hasher.digest(), form: self.form, wrong_after }
    }
}

/// Fails if the file system of a file has little room left.
fn check_room(file: &File) -> io::Result<()> {
    let system = rustix::fs::fstatvfs(file)?;
    let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
    room(bytes(system.f_bavail), bytes(system.f_blocks))
}

/// Fails if a file system of `all` bytes has too few that are `free`.
fn room(free: u64, all: u64) -> io::Result<()> {
    let least = ROOM_LEFT.min(all / 10);
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

    #[test]
    fn some_room_is_left_to_others_and_a_folder_without_any_says_so() {
        for (free, all) in [(ROOM_LEFT, u64::MAX), (100, 1000), (0, 0)] {
            assert!(room(free, all).is_ok(), "{free} of {all}");
        }
        for (free, all) in [(ROOM_LEFT - 1, u64::MAX), (99, 1000)] {
            let full = room(free, all).expect_err("it is full");
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        }
        let full = room(0, 1 << 20).expect_err("it is full").to_string();
        let told = "the folder for temporary files has only 0 B left, and outputs in it leave 102.4 KiB free";
        assert_eq!(full, told);
        let mut spool = Spool::of(Path::new("/nowhere"), Form::Bytes);
        spool.append(&vec![0; MEMORY]).expect("in memory");
        spool.append(&[0]).expect_err("no folder");
    }

    /// Writes content in parts, and returns what it is.
    fn written(content: &[u8], form: Form) -> Written {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::of(folder.path(), form);
        content.chunks(70_001).for_each(|part| spool.append(part).expect("written"));
        spool.finish().expect("finished")
    }

    #[test]
    fn content_that_is_large_stays_in_its_file_with_its_digest() {
        let content = [&b"\xef\xbb\xbf"[..], "ä".repeat(MEMORY).as_bytes(), b"end"].concat();
        for (form, expected) in [(Form::Bytes, &content[..]), (Form::Text, &content[3..])] {
            let Written::Content { mut file, size, digest, wrong_after, .. } = written(&content, form) else {
                panic!("it is large")
            };
            let (mut read, mut hasher) = (Vec::new(), Hasher::default());
            file.seek(SeekFrom::Start(0)).expect("sought");
            file.read_to_end(&mut read).expect("read");
            hasher.update(expected);
            assert!(read == expected && size == expected.len() as u64 && digest == hasher.digest(), "{form:?}");
            assert_eq!(wrong_after, None);
        }
        assert!(matches!(written(&content[..MEMORY], Form::Bytes), Written::Any(_)));
    }

    #[test]
    fn a_large_text_says_where_it_is_none() {
        let content = [&b"\xef\xbb\xbf"[..], &vec![b'a'; MEMORY], b"\xff", &vec![b'a'; MEMORY]].concat();
        for (form, expected) in [(Form::Bytes, None), (Form::Text, Some(MEMORY as u64 + 3))] {
            let Written::Content { wrong_after, .. } = written(&content, form) else { panic!("it is large") };
            assert_eq!(wrong_after, expected);
        }
        let cut = [&vec![b'a'; MEMORY][..], b"a\xe2\x82"].concat();
        let Written::Content { wrong_after, .. } = written(&cut, Form::Text) else { panic!("it is large") };
        assert_eq!(wrong_after, Some(MEMORY as u64 + 1));
    }
}
