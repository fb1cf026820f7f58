//! Unpacks the files of a stage.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::{ArchiveError, Kind, read};

/// An entry that was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Its path below the folder.
    pub(crate) path: PathBuf,
    /// What it is.
    pub(crate) kind: Kind,
}

/// Unpacks an archive into an empty folder that no other process writes to. Returns the entries. Nobody may write to any of them.
///
/// # Errors
///
/// If it is anything but what a deploy writes, or the system refuses something. Then some entries may be there.
pub(crate) fn unpack(archive: impl Read, folder: &Path) -> Result<Vec<Unpacked>, ArchiveError> {
    let mut entries = Vec::new();
    read(BufReader::new(archive), |name, kind, content| {
        let path = PathBuf::from(OsStr::from_bytes(name));
        let to = folder.join(&path);
        match kind {
            Kind::Folder => fs::DirBuilder::new().mode(0o700).create(to)?,
            Kind::Link(target) => symlink(OsStr::from_bytes(target), to)?,
            Kind::File { is_executable, .. } => {
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
                io::copy(content, &mut file)?;
                file.set_permissions(Permissions::from_mode(if *is_executable { 0o555 } else { 0o444 }))?;
            }
        }
        entries.push(Unpacked { path, kind: kind.clone() });
        Ok(())
    })?;
    for folder in entries.iter().filter(|entry| entry.kind == Kind::Folder).map(|entry| folder.join(&entry.path)) {
        fs::set_permissions(folder, Permissions::from_mode(0o555))?;
    }
    fs::set_permissions(folder, Permissions::from_mode(0o555))?;
    Ok(entries)
}
