//! The working folders of programs, each for one item and removed after it.
//!
//! A node has one folder for all of them, and holds a lock beside it as long as it runs. So another node, or the next one, can
//! tell the folders of a node that died, and removes them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The ending of a lock's name.
const LOCK: &str = "lock";

/// The working folders of a node.
#[derive(Debug)]
pub(crate) struct Folders {
    root: PathBuf,
    next: AtomicU64,
    /// Held as long as the node runs.
    _lock: File,
}

/// A working folder. Dropping it does not remove it: its program may still end.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folders {
    /// Creates the folders of the node with this name, which no other has, below `all`. Removes those of nodes that died.
    ///
    /// `end` ends what such a node has left running, by its name.
    pub(crate) fn new(all: &Path, name: &str, end: impl Fn(&str) -> io::Result<()>) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(all)?;
        let data = fs::symlink_metadata(all)?;
        if !data.is_dir() || data.uid() != rustix::process::geteuid().as_raw() || data.mode() & 0o022 != 0 {
            let problem = format!("`{}` is not a folder that this user alone can write to", all.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
        }
        remove_left(all, end)?;
        let lock = lock(&all.join(format!("{name}.{LOCK}")))?;
        let root = all.join(name);
        fs::DirBuilder::new().mode(0o700).create(&root)?;
        Ok(Self { root, next: AtomicU64::new(0), _lock: lock })
    }

    /// Returns the folder that holds all of them.
    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// Creates an empty working folder.
    pub(crate) fn create(&self) -> io::Result<Folder> {
        let path = self.root.join(self.next.fetch_add(1, Relaxed).to_string());
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Folder { path })
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        let is_removed = remove(&self.root).is_ok();
        if is_removed {
            let _ = fs::remove_file(self.root.with_added_extension(LOCK));
        }
    }
}

impl Folder {
    /// Returns its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the folder, whatever it holds.
    pub(crate) fn remove(self) -> io::Result<()> {
        remove(&self.path)
    }
}

/// Creates a file that this process alone holds a lock of.
fn lock(path: &Path) -> io::Result<File> {
    loop {
        let lock = File::create(path)?;
        lock.lock()?;
        // Another node may have removed it before it was locked.
        if fs::metadata(path).is_ok_and(|there| lock.metadata().is_ok_and(|own| own.ino() == there.ino())) {
            return Ok(lock);
        }
    }
}

/// Removes what nodes have left that died.
fn remove_left(all: &Path, end: impl Fn(&str) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(all)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != LOCK) {
            continue;
        }
        let Ok(lock) = File::open(&path) else { continue };
        if lock.try_lock().is_err() {
            continue;
        }
        let folder = path.with_extension("");
        let name = folder.file_name().and_then(OsStr::to_str).unwrap_or_default();
        // What cannot be ended or removed now is left to the next node.
        if end(name).and_then(|()| remove(&folder)).is_ok()
            && let Err(error) = fs::remove_file(&path)
            // Another node that starts may have done it.
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
    }
    Ok(())
}

/// Removes a folder with all that it holds, whatever rights it has. Follows no link.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

/// Lets this process change all folders below a folder.
fn make_writable(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_leaves_is_removed_whatever_its_rights_and_links() {
        let all = tempfile::tempdir().expect("a folder");
        let outside = tempfile::tempdir().expect("a folder");
        fs::write(outside.path().join("kept"), "").expect("written");
        let folders = Folders::new(all.path(), "a", |_| Ok(())).expect("folders");
        let folder = folders.create().expect("a folder");
        let below = folder.path().join("one/two");
        fs::create_dir_all(&below).expect("made");
        fs::write(below.join("file"), "").expect("written");
        std::os::unix::fs::symlink(outside.path(), below.join("link")).expect("a link");
        for path in [below.as_path(), &folder.path().join("one"), folder.path()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o000)).expect("set");
        }
        let path = folder.path().to_owned();
        folder.remove().expect("removed");
        assert!(!path.exists());
        assert!(outside.path().join("kept").exists(), "no link is followed");
        drop(folders);
        assert_eq!(fs::read_dir(all.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn folders_of_a_dead_node_are_removed_and_those_of_a_living_one_stay() {
        let all = tempfile::tempdir().expect("a folder");
        let living = Folders::new(all.path(), "living", |_| Ok(())).expect("folders");
        let folder = living.create().expect("a folder");
        // As a killed node leaves them: the system has dropped its lock.
        fs::write(all.path().join("dead.lock"), "").expect("written");
        fs::create_dir_all(all.path().join("dead/0/x")).expect("made");
        let refuse = |_: &str| Err(io::ErrorKind::ResourceBusy.into());
        drop(Folders::new(all.path(), "next", refuse).expect("folders"));
        assert!(all.path().join("dead/0/x").exists(), "what runs there has its folder");
        let end = |name: &str| {
            assert_eq!(name, "dead");
            Ok(())
        };
        let _next = Folders::new(all.path(), "next", end).expect("folders");
        assert!(folder.path().exists() && !all.path().join("dead").exists() && !all.path().join("dead.lock").exists());
    }
}
