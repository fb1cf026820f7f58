//! How the plugin of a folder is made, for each language.

mod python;
mod rust;

use std::path::PathBuf;

use super::error::BuildError;
use super::inputs::Inputs;
use super::language::Language;
use super::{Folder, Settings};
use python::Python;
use rust::Rust;

/// The tools of a language, found and ready to build one folder.
pub(super) enum Recipe {
    Rust(Rust),
    Python(Python),
}

/// What tools have made of a folder.
pub(super) struct Made {
    /// The plugin.
    pub(super) bytes: Vec<u8>,
    /// The files and folders that the tools have read, as absolute paths. They may leave out files of the folder.
    pub(super) read: Vec<PathBuf>,
}

impl Recipe {
    /// Finds the tools of a language. Installs what is missing, if it can.
    pub(super) async fn of(language: Language, folder: &Folder, settings: &Settings) -> Result<Self, BuildError> {
        match language {
            Language::Rust => Rust::find(folder, settings).await.map(Self::Rust),
            Language::Python => Python::find(folder, settings).await.map(Self::Python),
        }
    }

    /// Collects all inputs that are known before the tools run.
    pub(super) fn inputs(&self, folder: &Folder) -> Result<Inputs, BuildError> {
        let mut inputs = Inputs::new();
        match self {
            Self::Rust(rust) => rust.add_inputs(folder, &mut inputs)?,
            Self::Python(python) => python.add_inputs(folder, &mut inputs)?,
        }
        Ok(inputs)
    }

    /// Builds the plugin.
    pub(super) async fn build(&self, folder: &Folder, settings: &Settings) -> Result<Made, BuildError> {
        match self {
            Self::Rust(rust) => rust.build(folder, settings).await,
            Self::Python(python) => python.build(folder, settings).await,
        }
    }
}
