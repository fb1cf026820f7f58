//! The digest of what a plugin is built from.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use super::error::BuildError;
use crate::name::Digest;

/// The version of the digest. A change makes all builds new.
const VERSION: &[u8] = b"pcluster build 1";
/// The manifest of a chain in the folder of a plugin. It names the plugin, and is no part of it.
const MANIFEST: &str = "chain.toml";
/// The folders of tools, in whatever folder a tool has read as a whole.
const TOOLS: [&str; 2] = ["__pycache__", "target"];

/// Collects inputs into one digest.
#[derive(Clone)]
pub(super) struct Inputs {
    sha: Sha256,
    /// The files of the folder that are in the digest.
    files: BTreeSet<PathBuf>,
}

impl Inputs {
    /// Creates a digest of no inputs.
    pub(super) fn new() -> Self {
        let mut inputs = Self { sha: Sha256::new(), files: BTreeSet::new() };
        inputs.add("version", VERSION);
        inputs
    }

    /// Adds a named value.
    pub(super) fn add(&mut self, name: &str, value: &[u8]) {
        // With their lengths, no two lists of values look alike.
        for part in [name.as_bytes(), value] {
            self.sha.update((part.len() as u64).to_le_bytes());
            self.sha.update(part);
        }
    }

    /// Adds a file under a name. A file that is not there counts as such.
    pub(super) fn add_file(&mut self, name: &str, path: &Path) -> Result<(), BuildError> {
        match fs::read(path) {
            Ok(bytes) => self.add(name, &bytes),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                self.add(name, b"");
                self.add("absent", b"");
            }
            Err(error) => return Err(BuildError::file("read", path)(error)),
        }
        Ok(())
    }

    /// Adds a file, or all files of a folder but hidden ones and those of tools, under a name.
    pub(super) fn add_path(&mut self, name: &str, path: &Path) -> Result<(), BuildError> {
        if !path.is_dir() {
            return self.add_file(name, path);
        }
        let found = files(path)?;
        self.add(name, &(found.len() as u64).to_le_bytes());
        self.add("folder", b"");
        for file in &found {
            self.add_file(&relative(path, file).to_string_lossy(), file)?;
        }
        Ok(())
    }

    /// Adds all files of a folder, but hidden ones, its manifest, and what `is_left_out` names.
    pub(super) fn add_folder(&mut self, folder: &Path, is_left_out: fn(&str) -> bool) -> Result<(), BuildError> {
        let mut found = BTreeSet::new();
        walk(folder, is_left_out, &mut found)?;
        found.remove(&folder.join(MANIFEST));
        for path in &found {
            self.add_file(&relative(folder, path).to_string_lossy(), path)?;
        }
        self.files.extend(found);
        Ok(())
    }

    /// Returns `true` if a file of the folder is in the digest.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.files.contains(path)
    }

    /// Returns the digest of what was added.
    pub(super) fn digest(&self) -> Digest {
        Digest::from_sha256(&self.sha.clone().finalize())
    }
}

/// Returns the files of a folder that a tool has read, but hidden ones and those of tools.
pub(super) fn files(folder: &Path) -> Result<BTreeSet<PathBuf>, BuildError> {
    let mut found = BTreeSet::new();
    walk(folder, |name| TOOLS.contains(&name), &mut found)?;
    Ok(found)
}

/// Returns `true` if any of the files and folders, relative to `folder`, has changed since a time. One that is not there has.
pub(super) fn is_any_newer(folder: &Path, paths: &[PathBuf], since: SystemTime) -> bool {
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
    // Not the time of the content, which a file keeps that is moved or unpacked.
    let changed = |path: &Path| fs::metadata(path).ok().map(|data| (data.ctime(), data.ctime_nsec()));
    let since = (since.as_secs().cast_signed(), i64::from(since.subsec_nanos()));
    let is_newer = |path: &Path| changed(path).is_none_or(|changed| changed > since);
    paths.iter().map(|path| folder.join(path)).any(|path| {
        is_newer(&path) || (path.is_dir() && files(&path).is_ok_and(|files| files.iter().any(|file| is_newer(file))))
    })
}

fn walk(folder: &Path, is_left_out: fn(&str) -> bool, found: &mut BTreeSet<PathBuf>) -> Result<(), BuildError> {
    for entry in fs::read_dir(folder).map_err(BuildError::file("read", folder))? {
        let entry = entry.map_err(BuildError::file("read", folder))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') || is_left_out(&name) {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().map_err(BuildError::file("read", &path))?;
        // A link may lead in a circle; a tool that follows one to a folder names the files that it read there.
        if kind.is_dir() {
            walk(&path, is_left_out, found)?;
        } else if path.is_file() {
            found.insert(path);
        }
    }
    Ok(())
}

/// Returns a path relative to a folder. Both are absolute.
pub(super) fn relative(folder: &Path, path: &Path) -> PathBuf {
    let (from, to): (Vec<_>, Vec<_>) = (folder.components().collect(), path.components().collect());
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n(Component::ParentDir, from.len() - common);
    up.chain(to[common..].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use super::*;

    fn of(folder: &Path) -> Digest {
        let mut inputs = Inputs::new();
        inputs.add_folder(folder, |name| name == "target").expect("read");
        inputs.digest()
    }

    #[test]
    fn what_is_built_from_counts_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        write("src/a", "1");
        let first = of(folder.path());
        for name in ["target/x", ".git/x", "chain.toml", "src/.swp"] {
            write(name, "x");
            assert_eq!(of(folder.path()), first, "{name}");
        }
        let mut seen = BTreeSet::from([first]);
        for (name, text) in [("src/a", "2"), ("src/b", ""), ("src/größe und maß", "x"), ("src/chain.toml", "x")] {
            write(name, text);
            assert!(seen.insert(of(folder.path())), "{name}");
        }
        std::os::unix::fs::symlink(folder.path(), folder.path().join("src/circle")).expect("linked");
        assert!(!seen.insert(of(folder.path())), "a link to a folder is not followed");
    }

    #[test]
    fn a_file_that_is_not_there_differs_from_an_empty_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let of = || {
            let mut inputs = Inputs::new();
            inputs.add_file("lock", &path).expect("read");
            inputs.digest()
        };
        let absent = of();
        fs::write(&path, "").expect("written");
        assert_ne!(of(), absent);
    }

    #[test]
    fn a_folder_that_a_tool_has_read_counts_with_all_its_files() {
        let at = tempfile::tempdir().expect("a folder");
        let of = || {
            let mut inputs = Inputs::new();
            inputs.add_path("texts", at.path()).expect("read");
            inputs.digest()
        };
        let mut seen = BTreeSet::from([of()]);
        for name in ["a", "below/b"] {
            for text in ["1", "2"] {
                let path = at.path().join(name);
                fs::create_dir_all(path.parent().expect("a folder")).expect("made");
                fs::write(path, text).expect("written");
                assert!(seen.insert(of()), "{name}");
            }
        }
        fs::create_dir(at.path().join("target")).expect("made");
        fs::write(at.path().join("target/x"), "x").expect("written");
        assert!(!seen.insert(of()));
    }

    #[test]
    fn what_changes_while_a_tool_runs_is_newer() {
        let at = tempfile::tempdir().expect("a folder");
        let (file, folder) = (at.path().join("file"), at.path().join("folder"));
        fs::create_dir(&folder).expect("made");
        let before = SystemTime::now() - Duration::from_hours(1);
        let after = SystemTime::now() + Duration::from_hours(1);
        for path in [&file, &folder.join("x")] {
            fs::write(path, "").expect("written");
        }
        // A file that was moved here keeps the time of its content.
        File::options().append(true).open(&file).and_then(|file| file.set_modified(UNIX_EPOCH)).expect("a time");
        for path in ["file", "folder"] {
            assert!(is_any_newer(at.path(), &[path.into()], before), "{path}");
            assert!(!is_any_newer(at.path(), &[path.into()], after), "{path}");
        }
        assert!(is_any_newer(at.path(), &["none".into()], after));
    }

    #[test]
    fn paths_outside_are_relative_too() {
        for (path, shown) in [("/a/b/c/d", "d"), ("/a/x/y", "../../x/y"), ("/a/b", "..")] {
            assert_eq!(relative(Path::new("/a/b/c"), Path::new(path)), Path::new(shown));
        }
    }
}
