//! Compiled code on disk, so that a node starts fast.
//!
//! The name of a file holds the digest under which the code is kept, and a hash of all that the code depends on: the engine's
//! version and settings and the processor's features. A file is written under another name and then renamed, so nodes that share
//! the folder never read half a file. A file starts with the sha-256 of the rest, so a damaged file is compiled again and never
//! run. Then follows the digest of the module: a changed module under the same name replaces the older one. Files that no node
//! has read for a month are removed.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use wasmtime::{Engine, Module};

use super::EngineError;
use crate::name::Digest;

/// The length of a sha-256 in bytes.
const CHECKSUM: usize = 32;

/// The extension of files with code.
const EXTENSION: &str = "cwasm";
/// The mode of a new folder: only its owner may use it.
const OWN: u32 = 0o700;
/// The bits of a mode that let other users write.
const OTHERS_WRITE: u32 = 0o022;
/// How long code is kept that no node reads.
const KEEP: Duration = Duration::from_hours(30 * 24);

/// A folder of compiled code.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    compatibility: u64,
}

impl Cache {
    /// Opens a folder of compiled code. Makes the folder if it is missing, checks that no other user can write to it and that
    /// this process can, and removes code that was not read for long.
    pub fn open(folder: PathBuf, engine: &Engine) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(OWN).create(&folder)?;
        check_owner(&folder)?;
        tempfile::NamedTempFile::new_in(&folder)?;
        remove_unread(&folder);
        let mut hasher = std::hash::DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { folder, compatibility: hasher.finish() })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{}-{:016x}.{EXTENSION}", digest.as_hex(), self.compatibility))
    }

    /// Returns the module with the digest `content`. Compiles it if the folder does not have it. The folder keeps it under `key`.
    /// Errors of the folder are logged, and the module is returned anyway.
    pub fn get_or_compile(
        &self,
        engine: &Engine,
        key: &Digest,
        content: &Digest,
        compile: impl FnOnce() -> Result<Module, EngineError>,
    ) -> Result<Module, EngineError> {
        let path = self.path(key);
        if let Some(module) = read(engine, &path, content) {
            return Ok(module);
        }
        let module = compile()?;
        if let Err(error) = self.write(&path, content, &module) {
            tracing::warn!(%error, path = %path.display(), "compiled code was not kept");
        }
        Ok(module)
    }

    fn write(&self, path: &Path, content: &Digest, module: &Module) -> io::Result<()> {
        let code = module.serialize().map_err(io::Error::other)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(&Sha256::new().chain_update(content.as_hex()).chain_update(&code).finalize())?;
        file.write_all(content.as_hex().as_bytes())?;
        file.write_all(&code)?;
        file.persist(path)?;
        Ok(())
    }
}

/// Refuses a folder that other users can write to. Its files run as native code, outside any sandbox.
fn check_owner(folder: &Path) -> io::Result<()> {
    let metadata = fs::metadata(folder)?;
    let me = rustix::process::geteuid().as_raw();
    let refused = |reason: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    if metadata.uid() != me {
        return refused(format!("it belongs to the user with the id {}, not to {me}, who runs this", metadata.uid()));
    }
    if metadata.mode() & OTHERS_WRITE != 0 {
        let mode = metadata.mode() & 0o777;
        return refused(format!("others can write to it (mode {mode:o}) and code is run from it; `chmod go-w` it"));
    }
    Ok(())
}

/// Removes code that was not read for long: code of former plugins and of other engine versions. Another node may do the same at
/// the same time.
fn remove_unread(folder: &Path) {
    let is_unread = |entry: &fs::DirEntry| -> io::Result<bool> {
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        Ok(entry.path().extension().is_some_and(|extension| extension == EXTENSION) && age > KEEP)
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_unread(&entry).unwrap_or(false) {
            let removed = fs::remove_file(entry.path());
            tracing::debug!(path = %entry.path().display(), ?removed, "compiled code that was not read for long");
        }
    }
}

fn read(engine: &Engine, path: &Path, content: &Digest) -> Option<Module> {
    let bytes = fs::read(path).ok()?;
    // Marks the time of the read, because not every file system does.
    let _ = fs::File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    let (checksum, rest) = bytes.split_at_checked(CHECKSUM)?;
    if Sha256::digest(rest).as_slice() != checksum {
        tracing::warn!(path = %path.display(), "compiled code is damaged; compiling anew");
        return None;
    }
    let code = rest.strip_prefix(content.as_hex().as_bytes())?;
    match from_code(engine, code) {
        Ok(module) => Some(module),
        Err(error) => {
            tracing::debug!(%error, path = %path.display(), "compiled code is not for this engine");
            None
        }
    }
}

/// Returns the module of this code. The code must come from [`Cache`] or from a compiler process.
pub(super) fn from_code(engine: &Engine, code: &[u8]) -> wasmtime::Result<Module> {
    #[expect(unsafe_code, reason = "the only way to read compiled code back")]
    // SAFETY: wasmtime's compiler made the bytes. Either a process of this program has just returned them, or they match the
    // checksum that was written with them, into a folder that belongs to the user who runs the node. The engine refuses code of
    // another version or other settings.
    unsafe {
        Module::deserialize(engine, code)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = |path: &Path| Cache::open(path.to_owned(), &Engine::default());
        let made = folder.path().join("a/b");
        open(&made).expect("a cache");
        assert_eq!(fs::metadata(&made).expect("it was made").mode() & 0o777, OWN);
        for (mode, is_refused) in [(0o755, false), (0o775, true), (0o702, true), (0o1777, true)] {
            fs::set_permissions(&made, fs::Permissions::from_mode(mode)).expect("permissions");
            assert_eq!(open(&made).is_err(), is_refused, "{mode:o}");
        }
    }

    #[test]
    fn code_that_was_not_read_for_long_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let long_ago = SystemTime::now() - KEEP - Duration::from_mins(1);
        for (name, time) in [("old.cwasm", long_ago), ("new.cwasm", SystemTime::now()), ("other.txt", long_ago)] {
            let file = fs::File::create(folder.path().join(name)).expect("a file");
            file.set_modified(time).expect("a time");
        }
        Cache::open(folder.path().to_owned(), &Engine::default()).expect("a cache");
        let mut left: Vec<_> =
            fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        left.sort();
        assert_eq!(left, ["new.cwasm", "other.txt"]);
    }
}
