//! Why a plugin was not built, and what to do.

use std::io;
use std::path::PathBuf;

use super::language::{self, Language};
use crate::engine::inspect::InspectError;

/// A plugin was not built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// The folder does not exist.
    #[error("there is no folder `{}`", .0.display())]
    NoFolder(PathBuf),
    /// The folder holds nothing that can be built.
    #[error("the folder `{}` holds no plugin; one has {}", .0.display(), language::marks())]
    NoPlugin(PathBuf),
    /// A tool is missing, or cannot be used.
    #[error("{tool} is missing, with which `{}` is built: {remedy}", folder.display())]
    NoTool {
        /// The folder.
        folder: PathBuf,
        /// The tool.
        tool: String,
        /// What to do.
        remedy: String,
    },
    /// The tools of the language refused the folder.
    #[error("`{}` was not built: {said}", folder.display())]
    Failed {
        /// The folder.
        folder: PathBuf,
        /// What the tool said.
        said: String,
    },
    /// What was built is no plugin.
    #[error("`{}` was built, but cannot be run: {}", folder.display(), plugin(*language, error))]
    Plugin {
        /// The folder.
        folder: PathBuf,
        /// The language.
        language: Language,
        /// The fault in the plugin.
        error: InspectError,
    },
    /// The folder changes all the time.
    #[error("`{}` changed whenever it was built; build it again once nothing writes into it", .0.display())]
    Changing(PathBuf),
    /// A file cannot be read, written or run.
    #[error("cannot {what} `{}`: {error}", path.display())]
    File {
        /// The attempt.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        error: io::Error,
    },
}

impl BuildError {
    /// Returns what makes an error of a file.
    pub(super) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::File { what, path, error }
    }
}

/// Returns the fault of a plugin in the words of its language.
fn plugin(language: Language, error: &InspectError) -> String {
    match error {
        InspectError::NoTask => format!("it has no task; {}", language.how_to_mark()),
        error => error.to_string(),
    }
}
