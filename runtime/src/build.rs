//! Builds plugins from the folders of their authors, with the tools of their languages.
//!
//! A build is named by the digest of its inputs: the files of the folder, those outside of it that the tools read, the tools, the
//! SDK and the settings. It is not named by its bytes, which no tool keeps equal. What was built from the same inputs before is
//! not built again. A build sees neither the settings of the shell nor a workspace that only lies around its folder.
//!
//! | module | what |
//! |---|---|
//! | `language` | the languages, and how a folder shows its own |
//! | `recipe` | for each language, its tools and what they read |
//! | `inputs` | the digest of inputs |
//! | `kept` | the plugins that were built, each under the digest of its inputs |
//! | `tool` | runs a tool without the settings of the shell |
//! | `toolchain` | compilers: the user's own, or downloaded from a package registry |
//! | `sdk` | the SDKs for Rust, C and Go, which come with this program, and where the package for JavaScript is |
//!
//! Another language is a row of marks in `language`, a recipe, and a file of templates for `pcluster new`.

mod error;
mod inputs;
mod kept;
pub(crate) mod language;
mod recipe;
pub(crate) mod sdk;
mod tool;
mod toolchain;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant, SystemTime};

pub(crate) use error::BuildError;
use kept::{Kept, Plugin};
use language::Language;
use recipe::{Made, Recipe};
use tokio::process::Command;

use crate::engine::inspect::{Inspection, inspect};
use crate::engine::schemas;
use crate::name::Digest;

/// How often a folder is built that changes meanwhile.
const ROUNDS: u32 = 3;
/// The folder of what was built, below the cache.
const BUILDS: &str = "builds";
/// The mode of a new cache: only its owner may use it.
const OWN: u32 = 0o700;

/// What builds share.
pub(crate) struct Settings {
    /// The folder for what can be made again.
    pub(crate) cache: PathBuf,
    /// The folder for the SDK and for tools.
    pub(crate) data: PathBuf,
    /// The Python that has the package `pcluster`. `None` to look for it.
    pub(crate) python: Option<PathBuf>,
    /// The folder of the package `pcluster` for JavaScript. `None` to look for it.
    pub(crate) javascript: Option<PathBuf>,
    /// `true` if the network must not be used.
    pub(crate) is_offline: bool,
    /// `true` if the user is told of a build before it begins.
    pub(crate) is_announced: bool,
    /// Tells the user what takes time.
    pub(crate) say: Box<dyn Fn(&str) + Send + Sync>,
}

impl Settings {
    /// Returns the folder of the cache, which is there. Tools run in it that must not see the author's files.
    fn run_folder(&self) -> Result<&Path, BuildError> {
        // Nodes run code from it, and refuse one that others can write to.
        let made = fs::DirBuilder::new().recursive(true).mode(OWN).create(&self.cache);
        made.map_err(BuildError::file("make the folder", &self.cache))?;
        Ok(&self.cache)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Settings").field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// The folder of a plugin, or a single file in it.
#[derive(Debug, Clone)]
struct Folder {
    /// Its absolute path, without links.
    path: PathBuf,
    /// The file with the tasks. `None` if the language tells it.
    entry: Option<OsString>,
    /// Its path as the user wrote it.
    shown: PathBuf,
}

impl Folder {
    fn open(shown: &Path) -> Result<Self, BuildError> {
        let none = || BuildError::NoFolder(shown.to_owned());
        let path = shown.canonicalize().map_err(|_| none())?;
        let shown = shown.to_owned();
        if path.is_dir() {
            return Ok(Self { path, entry: None, shown });
        }
        let (folder, entry) = path.parent().zip(path.file_name()).ok_or_else(none)?;
        Ok(Self { path: folder.to_owned(), entry: Some(entry.to_owned()), shown })
    }

    /// Returns the language of the plugin.
    fn language(&self) -> Result<Language, BuildError> {
        let Some(entry) = &self.entry else {
            return Language::of(&self.path).ok_or_else(|| BuildError::NoPlugin(self.shown.clone()));
        };
        if let Some(language @ (Language::TypeScript | Language::JavaScript)) = Language::of_file(Path::new(entry)) {
            return Ok(language);
        }
        let folder = self.shown.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).display();
        Err(self.failed(format!("such a plugin is made of its whole folder; name that: `pcluster build {folder}`")))
    }

    /// Returns the path of what the plugin is made of.
    fn source(&self) -> PathBuf {
        self.entry.as_ref().map_or_else(|| self.path.clone(), |entry| self.path.join(entry))
    }

    /// Returns the error of a missing tool.
    fn no_tool(&self, tool: impl Into<String>, remedy: impl Into<String>) -> BuildError {
        BuildError::NoTool { folder: self.shown.clone(), tool: tool.into(), remedy: remedy.into() }
    }

    /// Runs a command to its end, which must succeed. Else the build fails with what `told` makes of its standard error.
    async fn run(&self, command: Command, told: impl Fn(&str) -> String) -> Result<Output, BuildError> {
        let program = PathBuf::from(command.as_std().get_program());
        let ended = tool::output(command).await.map_err(BuildError::file("run", program))?;
        if ended.status.success() {
            return Ok(ended);
        }
        let said = tool::text(&ended.stderr);
        Err(self.failed(told(if said.is_empty() { "the compiler ended without a word" } else { &said })))
    }

    /// Returns the error of a tool that refused the folder.
    fn failed(&self, said: impl Into<String>) -> BuildError {
        BuildError::Failed { folder: self.shown.clone(), said: said.into() }
    }
}

/// A plugin that was built.
#[derive(Debug)]
pub(crate) struct Built {
    /// Its folder, as the user wrote it.
    pub(crate) folder: PathBuf,
    /// Its language.
    pub(crate) language: Language,
    /// The file that keeps it.
    pub(crate) file: PathBuf,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// The digest of its inputs.
    pub(crate) inputs: Digest,
    /// Its contents.
    pub(crate) inspection: Inspection,
    /// How long it took. `None` if it was built before.
    pub(crate) took: Option<Duration>,
    /// The files and folders that its tools have read besides the sources in its folder, as absolute paths.
    pub(crate) read: Vec<PathBuf>,
}

/// Returns the files of a folder that its plugin may be made of. What tools leave in it is not among them.
pub(crate) fn sources(folder: &Path) -> Result<BTreeSet<PathBuf>, BuildError> {
    inputs::files(folder)
}

/// Builds the plugin of a folder, or of a single file with JavaScript, unless it was built from the same inputs before.
pub(crate) async fn build(settings: &Settings, folder: &Path) -> Result<Built, BuildError> {
    let folder = Folder::open(folder)?;
    let language = folder.language()?;
    settings.run_folder()?;
    let recipe = Recipe::of(language, &folder, settings).await?;
    let kept = Kept::open(settings.cache.join(BUILDS))?;
    let refused = |error| BuildError::Plugin { folder: folder.shown.clone(), language, error };
    let mut known: Option<Vec<PathBuf>> = None;
    for _ in 0..ROUNDS {
        let base = recipe.inputs(&folder)?;
        let _lock = kept.lock(&base).await?;
        // One that is damaged is built anew.
        if let Some(plugin) = kept.get(&folder.path, &base)?
            && let Ok(inspection) = inspect(&plugin.bytes)
        {
            return Ok(built(folder, language, plugin, inspection, None));
        }
        if known.is_none() && settings.is_announced {
            (settings.say)(&format!("building `{}` ({})", folder.shown.display(), language.title()));
        }
        let before = known.map(|read| kept::full(&folder.path, &base, &read)).transpose()?;
        let (since, started) = (SystemTime::now(), Instant::now());
        let Made { bytes, read } = recipe.build(&folder, settings).await?;
        let (bytes, inspection) = schemas::kept(bytes).map_err(refused)?;
        let read = kept::not_counted(&folder.path, &base, &read);
        let inputs = kept::full(&folder.path, &base, &read)?;
        // Which files outside of the folder are read is known only now. One that is newer may have been read as it was before,
        // unless the next round finds it as this one has left it.
        let is_same = before.as_ref() == Some(&inputs) || !inputs::is_any_newer(&folder.path, &read, since);
        if is_same && recipe.inputs(&folder)?.digest() == base.digest() {
            let plugin = kept.put(&base, inputs, &read, bytes)?;
            return Ok(built(folder, language, plugin, inspection, Some(started.elapsed())));
        }
        known = Some(read);
    }
    Err(BuildError::Changing(folder.shown))
}

fn built(folder: Folder, language: Language, plugin: Plugin, inspection: Inspection, took: Option<Duration>) -> Built {
    let Plugin { file, inputs, bytes, read } = plugin;
    let read = read.iter().map(|path| folder.path.join(path)).collect();
    Built { folder: folder.shown, language, file, bytes, inputs, inspection, took, read }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_cache_is_its_owners_alone() {
        let at = tempfile::tempdir().expect("a folder");
        let cache = at.path().join("cache/pcluster");
        let (data, say) = (at.path().to_owned(), Box::new(|_: &str| {}));
        let settings = Settings {
            cache: cache.clone(),
            data,
            python: None,
            javascript: None,
            is_offline: true,
            is_announced: true,
            say,
        };
        for _ in 0..2 {
            assert_eq!(settings.run_folder().expect("made"), cache);
            assert_eq!(fs::metadata(&cache).expect("there").permissions().mode() & 0o777, OWN);
        }
    }
}
