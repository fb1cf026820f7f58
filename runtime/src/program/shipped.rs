//! The files that come with a stage, unpacked once for all its programs on this node.
//!
//! Nobody may write to a copy, but its owner may let itself, and the programs have the same user. So each start looks whether the
//! files are the ones that were unpacked: a system that no one has the rights of root on changes the time of a file's last change
//! whenever anything about it changes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::folder::{Folder, Folders};
use crate::archive::unpack::{Unpacked, unpack};
use crate::archive::{ArchiveError, Kind};

/// The most files of a copy that are looked at before a start. Looking at one takes a microsecond.
const LOOKED_AT_MAX: usize = 256;

/// Writes an archive to a file.
pub(crate) type Fetch = Box<dyn Fn(File) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The files that come with a stage.
pub(crate) struct Shipped {
    fetch: Fetch,
    folders: Arc<Folders>,
    copy: Mutex<Option<Arc<Copy>>>,
}

/// An unpacked copy of the files. Removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Copy {
    /// `None` once it is dropped.
    folder: Option<Folder>,
    path: PathBuf,
    entries: Vec<Unpacked>,
    marks: Vec<(PathBuf, Mark)>,
}

/// What differs once a file has changed.
type Mark = (u64, u64, u64, (i64, i64), (i64, i64));

impl std::fmt::Debug for Shipped {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shipped").finish_non_exhaustive()
    }
}

impl Shipped {
    /// Takes a function that fetches the archive. Nothing is fetched before the files are asked for.
    pub(crate) fn new(fetch: Fetch, folders: Arc<Folders>) -> Self {
        Self { fetch, folders, copy: Mutex::new(None) }
    }

    /// Returns the copy. Makes one if there is none, or if it has changed.
    ///
    /// # Errors
    ///
    /// Why this node has none, in words.
    pub(crate) async fn copy(&self) -> Result<Arc<Copy>, String> {
        let mut kept = self.copy.lock().await;
        if let Some(copy) = kept.take_if(|copy| !copy.is_unchanged()) {
            let path = copy.path.display();
            tracing::warn!(
                "files of a stage have changed in `{path}`, where no program may change them; unpacking anew"
            );
        }
        if let Some(copy) = &*kept {
            return Ok(Arc::clone(copy));
        }
        Ok(Arc::clone(kept.insert(Arc::new(self.unpack().await?))))
    }

    async fn unpack(&self) -> Result<Copy, String> {
        let problem = |error: &dyn std::fmt::Display| format!("its files cannot be unpacked: {error}");
        let archive = self.folders.create_file().map_err(|error| problem(&error))?;
        let to = archive.try_clone().map_err(|error| problem(&error))?;
        (self.fetch)(to).await.map_err(|error| problem(&error))?;
        let folders = Arc::clone(&self.folders);
        let unpacked = tokio::task::spawn_blocking(move || Copy::new(archive, &folders)).await;
        unpacked.map_err(|error| problem(&error))?.map_err(|error| problem(&error))
    }
}

impl Copy {
    fn new(mut archive: File, folders: &Folders) -> Result<Self, ArchiveError> {
        io::Seek::rewind(&mut archive)?;
        let folder = folders.create()?;
        let path = folder.path().to_owned();
        // From here on, it is removed whatever happens.
        let mut copy = Self { folder: Some(folder), path, entries: Vec::new(), marks: Vec::new() };
        copy.entries = unpack(archive, &copy.path)?;
        let mut files: Vec<_> = copy.entries.iter().filter(|entry| entry.kind != Kind::Folder).collect();
        files.sort_by_key(|entry| {
            let is_program = matches!(entry.kind, Kind::File { is_executable: true, .. });
            (!is_program, entry.path.components().count())
        });
        let mark = |entry: &&Unpacked| Ok((entry.path.clone(), mark(&copy.path.join(&entry.path))?));
        copy.marks = files.iter().take(LOOKED_AT_MAX).map(mark).collect::<io::Result<_>>()?;
        Ok(copy)
    }

    /// Returns the path of the copy.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the top entries appear in a folder.
    pub(crate) fn link_into(&self, folder: &Path) -> io::Result<()> {
        let top = self.entries.iter().filter(|entry| entry.path.parent() == Some(Path::new("")));
        top.map(|entry| &entry.path).try_for_each(|path| symlink(self.path.join(path), folder.join(path)))
    }

    /// Returns `true` if the files that are looked at are the ones that were unpacked.
    fn is_unchanged(&self) -> bool {
        self.marks.iter().all(|(path, before)| mark(&self.path.join(path)).is_ok_and(|now| now == *before))
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let Some(folder) = self.folder.take() else { return };
        let remove = move || {
            if let Err(error) = folder.remove() {
                tracing::warn!(%error, "the files of a stage cannot be removed");
            }
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

fn mark(path: &Path) -> io::Result<Mark> {
    let data = fs::symlink_metadata(path)?;
    let (modified, changed) = ((data.mtime(), data.mtime_nsec()), (data.ctime(), data.ctime_nsec()));
    Ok((data.dev(), data.ino(), data.len(), modified, changed))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;
    use crate::archive::{write_entry, write_head};

    fn archive() -> Vec<u8> {
        let mut bytes = Vec::new();
        write_head(&mut bytes).expect("written");
        write_entry(&mut bytes, b"sim", &Kind::File { is_executable: true, size: 3 }).expect("written");
        bytes.extend(b"one");
        write_entry(&mut bytes, b"tables", &Kind::Folder).expect("written");
        write_entry(&mut bytes, b"tables/x", &Kind::Link(b"../sim".to_vec())).expect("written");
        bytes
    }

    #[tokio::test]
    async fn a_copy_serves_until_it_changes_and_goes_with_its_last_user() {
        let all = tempfile::tempdir().expect("a folder");
        let folders = Arc::new(Folders::new(all.path(), "a", |_| Ok(())).expect("folders"));
        let fetched = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&fetched);
        let fetch: Fetch = Box::new(move |mut to| {
            // The first one is damaged.
            let most = if counted.fetch_add(1, Relaxed) == 0 { 30 } else { usize::MAX };
            Box::pin(async move {
                let archive = archive();
                to.write_all(&archive[..archive.len().min(most)]).map_err(|error| error.to_string())
            })
        });
        let shipped = Shipped::new(fetch, Arc::clone(&folders));
        let problem = shipped.copy().await.expect_err("damaged");
        assert_eq!(problem, "its files cannot be unpacked: it is no archive of files: it ends too early");
        let copy = shipped.copy().await.expect("a copy");
        assert_eq!(fs::read(copy.path().join("tables/x")).expect("there"), b"one");
        let working = tempfile::tempdir().expect("a folder");
        copy.link_into(working.path()).expect("linked");
        assert_eq!(fs::read(working.path().join("tables/x")).expect("there"), b"one");
        assert_eq!(fs::read_dir(working.path()).expect("a folder").count(), 2);
        let spoil: [fn(&Path); 3] = [
            |path| {
                // Only the time of its last change, which no program can set, differs afterwards.
                let (file, data) = (path.join("sim"), fs::metadata(path.join("sim")).expect("there"));
                fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("set");
                fs::write(&file, "two").expect("written");
                let times = fs::FileTimes::new().set_modified(data.modified().expect("known"));
                File::options().write(true).open(&file).expect("there").set_times(times).expect("set");
                fs::set_permissions(&file, data.permissions()).expect("set");
            },
            |path| {
                fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("set");
                fs::remove_file(path.join("sim")).expect("removed");
            },
            |path| {
                fs::set_permissions(path.join("tables"), fs::Permissions::from_mode(0o755)).expect("set");
                fs::remove_file(path.join("tables/x")).expect("removed");
                symlink("/etc/passwd", path.join("tables/x")).expect("a link");
            },
        ];
        let mut copy = copy;
        for spoil in spoil {
            spoil(copy.path());
            let next = shipped.copy().await.expect("another copy");
            assert_ne!(next.path(), copy.path());
            assert_eq!(fs::read(next.path().join("tables/x")).expect("there"), b"one");
            let same = shipped.copy().await.expect("a copy");
            assert_eq!(same.path(), next.path());
            copy = next;
        }
        assert_eq!(fetched.load(Relaxed), 5);
        let path = copy.path().to_owned();
        drop(shipped);
        assert!(path.exists(), "a program still uses it");
        drop(copy);
        while path.exists() {
            tokio::task::yield_now().await;
        }
    }
}
