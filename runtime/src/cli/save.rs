//! Saves items as files: whole or absent, and never over another file.
//!
//! A file gets its name only once all of its bytes are on the disk. Until then it has none where the system can do that, so that a
//! killed process leaves nothing behind.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::lock::lock;

/// The most bytes of a file's name.
const NAME_MAX: usize = 200;
/// The most bytes of a name before `~` and its number.
const STEM_MAX: usize = NAME_MAX - 1 - 10;
/// The hexadecimal digits that tell shortened names apart.
const DIGITS: usize = 24;
/// The access that the user's mask is taken from.
const ACCESS: u32 = 0o666;

/// A folder that items are saved in.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// The number of the next file of each stem that names more than one.
    next: Mutex<HashMap<String, u32>>,
}

/// A file that has no name yet. It is gone if it gets none.
#[derive(Debug)]
pub struct Draft(Unnamed);

#[derive(Debug)]
enum Unnamed {
    /// The system knows no name of it.
    File(File),
    /// It has a hidden name until it is finished.
    Hidden(NamedTempFile),
}

impl Folder {
    /// Opens a folder, and makes it if it is missing.
    pub fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        // Fails at once if nothing can be saved there.
        drop(Draft::within(path)?);
        Ok(Self { path: path.to_owned(), next: Mutex::default() })
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a file.
    pub fn begin(&self) -> io::Result<Draft> {
        Draft::within(&self.path)
    }

    /// Gives a file the name of an item, once its bytes are on the disk. Other files keep their names: a further file of an id
    /// is numbered.
    pub fn finish(&self, mut draft: Draft, id: &str) -> io::Result<PathBuf> {
        draft.file().sync_all()?;
        let stem = stem(id);
        let mut number = lock(&self.next).get(&stem).copied().unwrap_or(1);
        loop {
            let name = if number == 1 { stem.clone() } else { format!("{stem}~{number}") };
            let path = self.path.join(name);
            number += 1;
            match draft.named(&path) {
                Ok(()) => {
                    File::open(&self.path)?.sync_all()?;
                    lock(&self.next).insert(stem, number);
                    return Ok(path);
                }
                Err((taken, unnamed)) if taken.kind() == ErrorKind::AlreadyExists => draft = unnamed,
                Err((error, _)) => return Err(error),
            }
        }
    }
}

impl Draft {
    /// Begins a file in this folder.
    pub fn within(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(folder, flags, Mode::from_raw_mode(ACCESS)) {
            Ok(file) => Ok(Self(Unnamed::File(file.into()))),
            // Not every file system has files without a name.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
                let permissions = std::fs::Permissions::from_mode(ACCESS);
                let hidden =
                    tempfile::Builder::new().prefix(".pcluster-").permissions(permissions).tempfile_in(folder)?;
                Ok(Self(Unnamed::Hidden(hidden)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the file to write to.
    pub fn file(&mut self) -> &mut File {
        match &mut self.0 {
            Unnamed::File(file) => file,
            Unnamed::Hidden(hidden) => hidden.as_file_mut(),
        }
    }

    /// Names the file, once its bytes are on the disk. Fails if there is a file of this name.
    pub fn finish(mut self, path: &Path) -> io::Result<()> {
        self.file().sync_all()?;
        self.named(path).map_err(|(error, _)| error)
    }

    fn named(self, path: &Path) -> Result<(), (io::Error, Self)> {
        match self.0 {
            Unnamed::File(file) => {
                let open = format!("/proc/self/fd/{}", file.as_raw_fd());
                match linkat(CWD, open, CWD, path, AtFlags::SYMLINK_FOLLOW) {
                    Ok(()) => Ok(()),
                    Err(error) => Err((error.into(), Self(Unnamed::File(file)))),
                }
            }
            Unnamed::Hidden(hidden) => match hidden.persist_noclobber(path) {
                Ok(_) => Ok(()),
                Err(failed) => Err((failed.error, Self(Unnamed::Hidden(failed.file)))),
            },
        }
    }
}

/// Returns the name of the first file of an id, in characters that no shell or file system takes for others.
///
/// All but letters, digits, `_`, `-` and `.` are percent-encoded, so is a dot or `-` at the beginning. A long name is cut, and ends
/// with a digest of the id.
fn stem(id: &str) -> String {
    let mut stem = String::with_capacity(id.len());
    for byte in id.bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || byte == b'_' || matches!(byte, b'-' | b'.') && !stem.is_empty();
        if is_plain {
            stem.push(char::from(byte));
        } else {
            stem.push_str(&format!("%{byte:02X}"));
        }
    }
    if stem.is_empty() {
        return "%".to_owned();
    }
    if stem.len() > STEM_MAX {
        let digest: String = Sha256::digest(id).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut cut = STEM_MAX - 1 - DIGITS;
        // A part of an encoded byte would be another text.
        if let Some(percent) = stem[..cut].rfind('%').filter(|percent| percent + 3 > cut) {
            cut = percent;
        }
        stem.truncate(cut);
        stem.push('~');
        stem.push_str(&digest[..DIGITS]);
    }
    stem
}

#[cfg(test)]
mod tests;
