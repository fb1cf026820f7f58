//! The working folders of programs, each for one item and removed after it.
//!
//! A node has one folder for all of them, and holds a lock beside it as long as it runs. So another node, or the next one, can
//! tell the folders of a node that died, and removes them.

mod removal;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::lock::lock;
use removal::remove;

/// The ending of a lock's name.
const LOCK: &str = "lock";

/// The working folders of a node.
#[derive(Debug)]
pub(crate) struct Folders {
    root: PathBuf,
    next: AtomicU64,
    /// Held as long as the node runs.
    lock: Mutex<File>,
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
        create_all(all)?;
        remove_left(all, end)?;
        let root = all.join(name);
        let lock = Mutex::new(create_lock(&lock_of(&root))?);
        fs::DirBuilder::new().mode(0o700).create(&root)?;
        Ok(Self { root, next: AtomicU64::new(0), lock })
    }

    /// Returns the folder that holds all of them.
    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// Creates an empty working folder.
    pub(crate) fn create(&self) -> io::Result<Folder> {
        let path = self.root.join(self.next.fetch_add(1, Relaxed).to_string());
        self.within(|| fs::DirBuilder::new().mode(0o700).create(&path))?;
        Ok(Folder { path })
    }

    /// Creates a file without a name.
    pub(crate) fn create_file(&self) -> io::Result<File> {
        self.within(|| tempfile::tempfile_in(&self.root))
    }

    /// Creates something in the folder that holds all of them. Restores the folder if that is in the way.
    fn within<T>(&self, create: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let created = create().or_else(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => self.restore().and_then(|()| create()),
            _ => Err(error),
        });
        created.map_err(|error| io::Error::new(error.kind(), format!("in `{}`: {error}", self.root.display())))
    }

    /// Makes the folder that holds all of them anew if it is gone, and lets this user write to it.
    ///
    /// A service that cleans up temporary files may have removed it, or a program its rights.
    fn restore(&self) -> io::Result<()> {
        let mut held = lock(&self.lock);
        let all = self.root.parent().unwrap_or(Path::new("/"));
        create_all(all)?;
        fs::set_permissions(all, fs::Permissions::from_mode(0o700))?;
        let path = lock_of(&self.root);
        if !path.exists() {
            *held = create_lock(&path)?;
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root)?;
        fs::set_permissions(&self.root, fs::Permissions::from_mode(0o700))
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        let is_removed = remove(&self.root).is_ok();
        if is_removed {
            let _ = fs::remove_file(lock_of(&self.root));
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
        let path = self.path;
        remove(&path).map_err(|error| io::Error::new(error.kind(), format!("`{}`: {error}", path.display())))
    }
}

/// Creates the folder of all nodes of this user, if there is none.
fn create_all(all: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(all)?;
    let data = fs::symlink_metadata(all)?;
    if !data.is_dir() || data.uid() != rustix::process::geteuid().as_raw() || data.mode() & 0o022 != 0 {
        let problem = "it is not a folder that this user alone can write to";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    Ok(())
}

/// Returns the path of the lock beside the folders of a node.
fn lock_of(root: &Path) -> PathBuf {
    root.with_added_extension(LOCK)
}

/// Creates a file that this process alone holds a lock of.
fn create_lock(path: &Path) -> io::Result<File> {
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

    #[test]
    fn folders_that_were_removed_or_have_lost_their_rights_are_made_anew() {
        let temporary = tempfile::tempdir().expect("a folder");
        let all = temporary.path().join("all");
        let folders = Folders::new(&all, "a", |_| Ok(())).expect("folders");
        fs::remove_dir_all(&all).expect("removed");
        let folder = folders.create().expect("a folder");
        assert!(folder.path().exists());
        // It holds a lock again.
        drop(Folders::new(&all, "b", |_| Ok(())).expect("folders"));
        assert!(folder.path().exists());
        for path in [folders.path(), &all] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o000)).expect("set");
        }
        folders.create().expect("a folder");
        fs::remove_dir_all(&all).expect("removed");
        folders.create_file().expect("a file");
        fs::remove_dir_all(&all).expect("removed");
        std::os::unix::fs::symlink(temporary.path(), &all).expect("a link");
        let refused = folders.create().expect_err("a link").to_string();
        assert!(refused.contains("/all/a`: it is not a folder that this user alone can write to"), "{refused}");
    }
}
