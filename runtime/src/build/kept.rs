//! The plugins that were built, each kept under the digest of its inputs.
//!
//! A tool tells only once it has run which files outside of the folder it has read. So a build has two names: that of its *base*,
//! which is all that is known before, and its *full* name, which counts those files too. The list of them is kept under the base.
//! A file is written under another name and then renamed, so there is no half a plugin.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use super::error::BuildError;
use super::inputs::{Inputs, relative};
use crate::file;
use crate::name::Digest;

/// How long a plugin is kept that nothing asks for.
const KEEP: Duration = Duration::from_hours(30 * 24);
/// The extension of lists of files.
const LIST: &str = "files";
/// The extension of locks.
const LOCK: &str = "lock";

/// A folder of plugins that were built.
pub(super) struct Kept {
    folder: PathBuf,
}

/// A plugin that was built.
pub(super) struct Plugin {
    /// Its file.
    pub(super) file: PathBuf,
    /// The digest of its inputs.
    pub(super) inputs: Digest,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// What its tools have read besides the base, relative to the folder.
    pub(super) read: Vec<PathBuf>,
}

impl Kept {
    /// Opens a folder of plugins. Makes the folder if it is missing, and removes what nothing has asked for in a long time.
    pub(super) fn open(folder: PathBuf) -> Result<Self, BuildError> {
        fs::create_dir_all(&folder).map_err(BuildError::file("make the folder", &folder))?;
        remove_unread(&folder);
        Ok(Self { folder })
    }

    /// Returns the plugin of these inputs. `None` if it is not kept.
    pub(super) fn get(&self, folder: &Path, base: &Inputs) -> Result<Option<Plugin>, BuildError> {
        let list = self.path(&base.digest(), LIST);
        let Ok(text) = fs::read_to_string(&list) else { return Ok(None) };
        let Ok(files) = serde_json::from_str::<Vec<PathBuf>>(&text) else { return Ok(None) };
        let inputs = full(folder, base, &files)?;
        let path = self.path(&inputs, "wasm");
        let Ok(bytes) = file::read(&path, file::PLUGIN_MAX) else { return Ok(None) };
        touch(&list);
        touch(&path);
        Ok(Some(Plugin { file: path, inputs, bytes, read: files }))
    }

    /// Keeps a plugin of these inputs. `read` are the files and folders that its tools have read, relative to the folder.
    pub(super) fn put(
        &self,
        base: &Inputs,
        inputs: Digest,
        read: &[PathBuf],
        bytes: Vec<u8>,
    ) -> Result<Plugin, BuildError> {
        let file = self.path(&inputs, "wasm");
        let list = self.path(&base.digest(), LIST);
        self.write(&file, &bytes).map_err(BuildError::file("write", &file))?;
        let text = serde_json::to_vec(read).map_err(io::Error::from);
        text.and_then(|text| self.write(&list, &text)).map_err(BuildError::file("write", &list))?;
        Ok(Plugin { file, inputs, bytes, read: read.to_vec() })
    }

    fn path(&self, digest: &Digest, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", digest.as_hex()))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(bytes)?;
        file.persist(path)?;
        Ok(())
    }

    /// Waits until nothing else builds from this base, and keeps it so until the lock is dropped.
    pub(super) async fn lock(&self, base: &Inputs) -> Result<Lock, BuildError> {
        Lock::take(self.path(&base.digest(), LOCK)).await
    }
}

/// The right to do something that one process may do at a time.
pub(super) struct Lock(#[expect(dead_code, reason = "held until it is dropped")] File);

impl Lock {
    /// Waits for the lock of a file, which is made if it is missing.
    pub(super) async fn take(path: PathBuf) -> Result<Self, BuildError> {
        let shown = path.clone();
        let take = move || -> io::Result<File> {
            let file = File::options().create(true).append(true).open(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        let taken = tokio::task::spawn_blocking(take).await.map_err(io::Error::other);
        taken.flatten().map(Self).map_err(BuildError::file("lock", shown))
    }
}

/// Returns the digest of all inputs.
pub(super) fn full(folder: &Path, base: &Inputs, read: &[PathBuf]) -> Result<Digest, BuildError> {
    let mut inputs = base.clone();
    for path in read {
        inputs.add_path(&path.to_string_lossy(), &folder.join(path))?;
    }
    Ok(inputs.digest())
}

/// Returns those of the files and folders that a tool has read which the base does not count, relative to the folder.
pub(super) fn not_counted(folder: &Path, base: &Inputs, read: &[PathBuf]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        read.iter().filter(|path| !base.has(path)).map(|path| relative(folder, path)).collect();
    files.sort();
    files.dedup();
    files
}

/// Marks the time at which a file was last asked for.
fn touch(path: &Path) {
    let _ = File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
}

/// Removes what nothing has asked for in a long time. Another process may do the same.
fn remove_unread(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age > KEEP) {
            let removed = fs::remove_file(entry.path());
            tracing::debug!(path = %entry.path().display(), ?removed, "a build that was not asked for in a long time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_found_until_a_file_changes_that_it_was_built_from() {
        let at = tempfile::tempdir().expect("a folder");
        let (folder, outside) = (at.path().join("plugin"), at.path().join("shared.rs"));
        fs::create_dir(&folder).expect("made");
        fs::write(folder.join("lib.rs"), "1").expect("written");
        fs::write(&outside, "1").expect("written");
        let kept = Kept::open(at.path().join("kept")).expect("opened");
        let base = || {
            let mut inputs = Inputs::new();
            inputs.add_folder(&folder, |_| false).expect("read");
            inputs
        };
        assert!(kept.get(&folder, &base()).expect("read").is_none());
        let read = not_counted(&folder, &base(), &[folder.join("lib.rs"), outside.clone()]);
        assert_eq!(read, [Path::new("../shared.rs")]);
        let inputs = full(&folder, &base(), &read).expect("read");
        let put = kept.put(&base(), inputs, &read, b"wasm".to_vec()).expect("kept");
        let got = kept.get(&folder, &base()).expect("read").expect("kept");
        assert_eq!((got.bytes, got.file, got.inputs), (put.bytes, put.file, put.inputs));
        for path in [&outside, &folder.join("lib.rs")] {
            let before = fs::read(path).expect("read");
            fs::write(path, "2").expect("written");
            assert!(kept.get(&folder, &base()).expect("read").is_none(), "{}", path.display());
            fs::write(path, before).expect("written");
            assert!(kept.get(&folder, &base()).expect("read").is_some());
        }
    }

    #[test]
    fn what_nothing_asks_for_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let long_ago = SystemTime::now() - KEEP - Duration::from_mins(1);
        for (name, time) in [("old.wasm", long_ago), ("new.wasm", SystemTime::now())] {
            let file = File::create(folder.path().join(name)).expect("made");
            file.set_modified(time).expect("a time");
        }
        Kept::open(folder.path().to_owned()).expect("opened");
        let left: Vec<_> = fs::read_dir(&folder).expect("read").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["new.wasm"]);
    }
}
