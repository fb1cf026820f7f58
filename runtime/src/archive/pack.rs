//! Packs the files of a stage.

use std::collections::BTreeMap;
use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{CONTENT_MAX, ENTRIES_MAX, Kind, check_link, check_name, write_entry, write_head};
use crate::kind::ErrorKind;
use crate::name::Digest;

/// The right of a file's owner to execute it.
const EXECUTABLE: u32 = 0o100;

/// An archive, in a file without a name.
#[derive(Debug)]
pub(crate) struct Packed {
    /// The file.
    pub(crate) file: File,
    /// Its digest.
    pub(crate) digest: Digest,
}

/// Why files cannot be shipped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// A file does not exist.
    #[error("there is no file `{}`; build it first, or mend its path, which is relative to the manifest", .0.display())]
    Missing(PathBuf),
    /// A file cannot be read.
    #[error("cannot read `{}`: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        error: io::Error,
    },
    /// A file is neither a file nor a folder nor a link.
    #[error("`{}` is a {kind}; only files, folders and links can come with a stage", path.display())]
    Special {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A name or a link cannot come with a stage.
    #[error("`{}`: {problem}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// There is too much.
    #[error(
        "there are more than {}; put large data where the nodes can reach it, and let the program read it there",
        if *.is_many { format!("{ENTRIES_MAX} files and folders") } else { format!("{} of files", bytesize::ByteSize(CONTENT_MAX)) }
    )]
    Large {
        /// `true` if there are too many files, not too large ones.
        is_many: bool,
    },
    /// A file has changed meanwhile.
    #[error("`{}` has changed while it was read; deploy again", .0.display())]
    Changed(PathBuf),
    /// The program is not among the files.
    #[error("`{0}` is not among the files; name it in `files`")]
    NoProgram(String),
    /// The program cannot be executed.
    #[error("`{}` is not executable; let its owner execute it, as with `chmod +x`", .0.display())]
    NotExecutable(PathBuf),
    /// The archive cannot be written.
    #[error("the archive cannot be written to the folder for temporary files: {0}")]
    Write(#[source] io::Error),
}

impl FilesError {
    /// Returns the kind of failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing(_) => ErrorKind::NotFound,
            Self::Write(_) => ErrorKind::Other,
            _ => ErrorKind::InvalidManifest,
        }
    }
}

/// Packs files and folders, each under its last name. What a path itself names is packed also where it is a link.
///
/// # Errors
///
/// If something cannot be shipped.
pub(crate) fn pack(base: &Path, paths: &[PathBuf]) -> Result<Packed, FilesError> {
    let mut entries = BTreeMap::new();
    for path in paths {
        let path = base.join(path);
        let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
        let file = fs::canonicalize(&path).map_err(|error| unread(&path, error))?;
        collect(&mut entries, name, file)?;
    }
    let file = tempfile::tempfile().map_err(FilesError::Write)?;
    let mut to = Writer { to: BufWriter::new(&file), digest: Sha256::new() };
    write_head(&mut to).map_err(FilesError::Write)?;
    let mut left = CONTENT_MAX;
    for (name, path) in &entries {
        check_name(name).map_err(|problem| FilesError::Entry { path: path.clone(), problem })?;
        append(&mut to, name, path, &mut left)?;
    }
    to.flush().map_err(FilesError::Write)?;
    let digest = to.digest.clone().finalize();
    drop(to);
    Ok(Packed { file, digest: Digest::from_sha256(&digest) })
}

/// Checks that a program, as in `./bin/sim`, is an executable file among the files.
pub(crate) fn check_program(base: &Path, paths: &[PathBuf], program: &str) -> Result<(), FilesError> {
    let below = Path::new(program).strip_prefix(".").unwrap_or(Path::new(program));
    let mut parts = below.components();
    let top = parts.next().map(|part| part.as_os_str().to_owned()).unwrap_or_default();
    let Some(path) = paths.iter().find(|path| path.file_name() == Some(&top)) else {
        return Err(FilesError::NoProgram(program.to_owned()));
    };
    let file = base.join(path).join(parts.as_path());
    let file = if parts.as_path().as_os_str().is_empty() { base.join(path) } else { file };
    let data = fs::metadata(&file).map_err(|error| unread(&file, error))?;
    if data.is_file() && data.mode() & EXECUTABLE != 0 { Ok(()) } else { Err(FilesError::NotExecutable(file)) }
}

/// Adds a file, or a folder with all that it holds.
fn collect(entries: &mut BTreeMap<Vec<u8>, PathBuf>, name: Vec<u8>, path: PathBuf) -> Result<(), FilesError> {
    let mut next = vec![(name, path)];
    while let Some((name, path)) = next.pop() {
        let data = fs::symlink_metadata(&path).map_err(|error| unread(&path, error))?;
        if data.is_dir() {
            for entry in fs::read_dir(&path).map_err(|error| unread(&path, error))? {
                let entry = entry.map_err(|error| unread(&path, error))?;
                let name = [&name[..], b"/", entry.file_name().as_bytes()].concat();
                next.push((name, entry.path()));
            }
        }
        entries.insert(name, path);
        if entries.len() + next.len() > ENTRIES_MAX {
            return Err(FilesError::Large { is_many: true });
        }
    }
    Ok(())
}

/// Appends an entry. `left` is how many more bytes of content there may be.
fn append(to: &mut Writer<'_>, name: &[u8], path: &Path, left: &mut u64) -> Result<(), FilesError> {
    let data = fs::symlink_metadata(path).map_err(|error| gone(path, error))?;
    if data.is_dir() {
        return write_entry(to, name, &Kind::Folder).map_err(FilesError::Write);
    }
    if data.is_symlink() {
        let target = fs::read_link(path).map_err(|error| gone(path, error))?.into_os_string().into_vec();
        check_link(name, &target).map_err(|problem| FilesError::Entry { path: path.to_owned(), problem })?;
        return write_entry(to, name, &Kind::Link(target)).map_err(FilesError::Write);
    }
    if let Some(kind) = special(data.file_type()) {
        return Err(FilesError::Special { path: path.to_owned(), kind });
    }
    // Neither follows a link nor waits for the other end of a pipe that has just taken the place of the file.
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let mut file = file.map_err(|error| gone(path, error))?;
    let look = |file: &File| file.metadata().map_err(|error| gone(path, error));
    let before = look(&file)?;
    let (is_executable, size) = (before.mode() & EXECUTABLE != 0, before.len());
    *left = left.checked_sub(size).ok_or(FilesError::Large { is_many: false })?;
    write_entry(to, name, &Kind::File { is_executable, size }).map_err(FilesError::Write)?;
    let mut part = vec![0; 64 << 10];
    let mut missing = size;
    loop {
        let read = file.read(&mut part).map_err(|error| gone(path, error))?;
        let Some(rest) = missing.checked_sub(read as u64) else { return Err(FilesError::Changed(path.to_owned())) };
        missing = rest;
        if read == 0 {
            break;
        }
        to.write_all(&part[..read]).map_err(FilesError::Write)?;
    }
    let mark = |data: &Metadata| (data.is_file(), data.len(), data.mode(), data.mtime(), data.mtime_nsec());
    if missing > 0 || mark(&before) != mark(&look(&file)?) || !before.is_file() {
        return Err(FilesError::Changed(path.to_owned()));
    }
    Ok(())
}

/// Returns what a file is that cannot be shipped.
fn special(kind: FileType) -> Option<&'static str> {
    match () {
        () if kind.is_fifo() => Some("named pipe"),
        () if kind.is_socket() => Some("socket"),
        () if kind.is_block_device() || kind.is_char_device() => Some("device"),
        () => None,
    }
}

fn unread(path: &Path, error: io::Error) -> FilesError {
    match error.kind() {
        io::ErrorKind::NotFound => FilesError::Missing(path.to_owned()),
        _ => FilesError::Read { path: path.to_owned(), error },
    }
}

/// Returns the error for a file that was there a moment ago.
fn gone(path: &Path, error: io::Error) -> FilesError {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ELOOP) => FilesError::Changed(path.to_owned()),
        _ => FilesError::Read { path: path.to_owned(), error },
    }
}

/// Writes an archive and digests it.
struct Writer<'a> {
    to: BufWriter<&'a File>,
    digest: Sha256,
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write_all(bytes)?;
        self.digest.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Packed {
    /// Returns a reader of the archive from its beginning, and its size in bytes.
    pub(crate) fn reader(&self) -> io::Result<(File, u64)> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        let size = file.metadata()?.len();
        Ok((file, size))
    }
}
