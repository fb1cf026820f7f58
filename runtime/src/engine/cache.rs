//! Compiled code on disk, so that a node starts fast.
//!
//! The name of a file holds the digest under which the code is kept, and a hash of all that the code depends on: the engine's
//! version and settings and the processor's features. A file is written under another name and then renamed, so nodes that share
//! the folder never read half a file. A file starts with the sha-256 of the rest, so a damaged file is compiled again and never
//! run. Then follows the digest of the module: a changed module under the same name replaces the older one. Files that no node
//! has read for a month are removed, and images of memory already when there are many.

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
/// The extension of files about plugins whose code and image are in other files.
const PLUGIN: &str = "plugin";
/// The extension of files with images of memory, which are large and quickly made.
const IMAGE: &str = "image";
/// The extension of files with compiled functions of modules that are edited.
const FUNCTIONS: &str = "functions";
/// The name of the file with compiled functions.
const EDITED: &str = "edited";
/// The most bytes of images together. Those that were read last stay.
const IMAGES_MAX: u64 = 1 << 30;
/// The mode of a new folder: only its owner may use it.
const OWN: u32 = 0o700;
/// The bits of a mode that let other users write.
const OTHERS_WRITE: u32 = 0o022;
/// The start of the names of files that are being written.
const UNFINISHED: &str = ".tmp";
/// After this time, who wrote a file has ended before it was whole.
const UNFINISHED_KEEP: Duration = Duration::from_hours(1);
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

    fn path(&self, digest: &Digest, extension: &str) -> PathBuf {
        self.folder.join(format!("{}-{:016x}.{extension}", digest.as_hex(), self.compatibility))
    }

    /// Returns the file with compiled functions of modules that are edited.
    pub(super) fn functions(&self) -> PathBuf {
        self.folder.join(EDITED).with_extension(FUNCTIONS)
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
        if let Some(module) = self.code(engine, key, content) {
            return Ok(module);
        }
        let module = compile()?;
        self.keep_module(&self.path(key, EXTENSION), content, &module);
        Ok(module)
    }

    /// Returns the compiled code of the module with the digest `content`. `None` if the folder does not have it under `key`.
    pub fn code(&self, engine: &Engine, key: &Digest, content: &Digest) -> Option<Module> {
        read_module(engine, &self.path(key, EXTENSION), content)
    }

    /// Returns the image that was kept under `key` for `content`.
    pub fn image(&self, engine: &Engine, key: &Digest, content: &Digest) -> Option<Module> {
        read_module(engine, &self.path(key, IMAGE), content)
    }

    /// Keeps the image of what has the digest `content` under `key`. Errors are logged.
    pub fn keep_image(&self, key: &Digest, content: &Digest, image: &Module) {
        self.keep_module(&self.path(key, IMAGE), content, image);
        bound_images(&self.folder, IMAGES_MAX);
    }

    /// Returns the bytes that were kept under `key` for `content`.
    pub fn bytes(&self, key: &Digest, content: &Digest) -> Option<Vec<u8>> {
        let bytes = read(&self.path(key, PLUGIN))?;
        payload(&bytes, content).map(<[u8]>::to_vec)
    }

    /// Keeps bytes of what has the digest `content` under `key`. Errors are logged.
    pub fn keep_bytes(&self, key: &Digest, content: &Digest, bytes: &[u8]) {
        let path = self.path(key, PLUGIN);
        not_kept(&path, self.write(&path, content, bytes));
    }

    fn keep_module(&self, path: &Path, content: &Digest, module: &Module) {
        let code = module.serialize().map_err(io::Error::other);
        not_kept(path, code.and_then(|code| self.write(path, content, &code)));
    }

    fn write(&self, path: &Path, content: &Digest, code: &[u8]) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.folder)?;
        file.write_all(&Sha256::new().chain_update(content.as_hex()).chain_update(code).finalize())?;
        file.write_all(content.as_hex().as_bytes())?;
        file.write_all(code)?;
        file.persist(path)?;
        Ok(())
    }
}

fn not_kept(path: &Path, written: io::Result<()>) {
    if let Err(error) = written {
        tracing::warn!(%error, path = %path.display(), "compiled code was not kept");
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

/// Removes code that was not read for long: code of former plugins and of other engine versions. Removes what nodes have left
/// unfinished as well. Another node may do the same at the same time.
fn remove_unread(folder: &Path) {
    let is_unread = |entry: &fs::DirEntry| -> io::Result<bool> {
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        let is_unfinished = entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes());
        Ok(is_kept(&entry.path()) && age > KEEP || is_unfinished && age > UNFINISHED_KEEP)
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_unread(&entry).unwrap_or(false) {
            remove(&entry.path());
        }
    }
}

fn is_kept(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| [EXTENSION, PLUGIN, IMAGE, FUNCTIONS].iter().any(|kept| extension == *kept))
}

/// Removes the images that were not read for longest, until the rest has at most this many bytes.
fn bound_images(folder: &Path, most: u64) {
    let image = |entry: fs::DirEntry| -> Option<(SystemTime, u64, PathBuf)> {
        let (path, metadata) = (entry.path(), entry.metadata().ok()?);
        let is_image = path.extension().is_some_and(|extension| extension == IMAGE);
        is_image.then_some((metadata.modified().ok()?, metadata.len(), path))
    };
    let mut images: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().filter_map(image).collect();
    images.sort_unstable_by(|one, other| other.cmp(one));
    let mut bytes = 0;
    for (_, size, path) in images {
        bytes += size;
        if bytes > most {
            remove(&path);
        }
    }
}

fn remove(path: &Path) {
    let removed = fs::remove_file(path);
    tracing::debug!(path = %path.display(), ?removed, "compiled code that was not read for long");
}

/// Returns the content of a file and marks the time, because not every file system does.
fn read(path: &Path) -> Option<Vec<u8>> {
    let bytes = fs::read(path).ok()?;
    let _ = fs::File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    if bytes.split_at_checked(CHECKSUM).is_none_or(|(checksum, rest)| Sha256::digest(rest).as_slice() != checksum) {
        tracing::warn!(path = %path.display(), "compiled code is damaged; compiling anew");
        return None;
    }
    Some(bytes)
}

/// Returns what a file holds of the thing with the digest `content`. `None` if it is about another.
fn payload<'a>(bytes: &'a [u8], content: &Digest) -> Option<&'a [u8]> {
    bytes.get(CHECKSUM..)?.strip_prefix(content.as_hex().as_bytes())
}

fn read_module(engine: &Engine, path: &Path, content: &Digest) -> Option<Module> {
    let bytes = read(path)?;
    match from_code(engine, payload(&bytes, content)?) {
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
        for (name, time) in [
            ("old.cwasm", long_ago),
            ("new.cwasm", SystemTime::now()),
            ("other.txt", long_ago),
            (".tmpAb3dE6", SystemTime::now() - UNFINISHED_KEEP * 2),
            (".tmpBc4eF7", SystemTime::now()),
        ] {
            let file = fs::File::create(folder.path().join(name)).expect("a file");
            file.set_modified(time).expect("a time");
        }
        Cache::open(folder.path().to_owned(), &Engine::default()).expect("a cache");
        let mut left: Vec<_> =
            fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        left.sort();
        assert_eq!(left, [".tmpBc4eF7", "new.cwasm", "other.txt"]);
    }

    #[test]
    fn of_many_images_those_that_were_read_last_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, age) in [("first.image", 4), ("second.image", 3), ("third.image", 2), ("old.cwasm", 9)] {
            let path = folder.path().join(name);
            fs::write(&path, [0; 100]).expect("a file");
            let time = SystemTime::now() - Duration::from_mins(age);
            fs::File::options().append(true).open(&path).and_then(|file| file.set_modified(time)).expect("a time");
        }
        bound_images(folder.path(), 250);
        let left =
            ["first.image", "second.image", "third.image", "old.cwasm"].map(|name| folder.path().join(name).exists());
        assert_eq!(left, [false, true, true, true]);
    }

    #[test]
    fn bytes_of_other_content_or_damaged_ones_are_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path().to_owned(), &Engine::default()).expect("a cache");
        let [key, one, other] = ["key", "one", "other"].map(|text| Digest::of(text.as_bytes()));
        cache.keep_bytes(&key, &one, b"kept");
        assert_eq!(cache.bytes(&key, &one).as_deref(), Some(b"kept".as_slice()));
        assert_eq!(cache.bytes(&key, &other), None);
        let path = cache.path(&key, PLUGIN);
        let mut bytes = fs::read(&path).expect("a file");
        *bytes.last_mut().expect("bytes") ^= 1;
        fs::write(&path, bytes).expect("written");
        assert_eq!(cache.bytes(&key, &one), None);
    }
}
