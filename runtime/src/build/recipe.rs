//! How the plugin of a folder is made, for each language.

mod assemblyscript;
mod c;
mod go;
mod javascript;
mod python;
mod rust;
mod zig;

use std::path::PathBuf;

use super::error::BuildError;
use super::inputs::Inputs;
use super::language::Language;
use super::{Folder, Settings};
use assemblyscript::AssemblyScript;
use c::C;
use go::Go;
use javascript::JavaScript;
use python::Python;
use rust::Rust;
use zig::Zig;

/// The tools of a language, found and ready to build one folder.
pub(super) enum Recipe {
    Rust(Rust),
    Python(Python),
    JavaScript(JavaScript),
    Go(Go),
    C(C),
    Zig(Zig),
    AssemblyScript(AssemblyScript),
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
            Language::TypeScript | Language::JavaScript => {
                JavaScript::find(folder, settings).await.map(Self::JavaScript)
            }
            Language::Go => Go::find(folder, settings).await.map(Self::Go),
            Language::C | Language::Cpp => C::find(folder, settings).await.map(Self::C),
            Language::Zig => Zig::find(folder, settings).await.map(Self::Zig),
            Language::AssemblyScript => AssemblyScript::find(folder, settings).await.map(Self::AssemblyScript),
        }
    }

    /// Collects all inputs that are known before the tools run.
    pub(super) fn inputs(&self, folder: &Folder) -> Result<Inputs, BuildError> {
        let mut inputs = Inputs::new();
        match self {
            Self::Rust(rust) => rust.add_inputs(folder, &mut inputs)?,
            Self::Python(python) => python.add_inputs(folder, &mut inputs)?,
            Self::JavaScript(javascript) => javascript.add_inputs(folder, &mut inputs)?,
            Self::Go(go) => go.add_inputs(folder, &mut inputs)?,
            Self::C(c) => c.add_inputs(folder, &mut inputs)?,
            Self::Zig(zig) => zig.add_inputs(folder, &mut inputs)?,
            Self::AssemblyScript(asc) => asc.add_inputs(folder, &mut inputs)?,
        }
        Ok(inputs)
    }

    /// Builds the plugin.
    pub(super) async fn build(&self, folder: &Folder, settings: &Settings) -> Result<Made, BuildError> {
        match self {
            Self::Rust(rust) => rust.build(folder, settings).await,
            Self::Python(python) => python.build(folder, settings).await,
            Self::JavaScript(javascript) => javascript.build(folder, settings).await,
            Self::Go(go) => go.build(folder, settings).await,
            Self::C(c) => c.build(folder, settings).await,
            Self::Zig(zig) => zig.build(folder, settings).await,
            Self::AssemblyScript(asc) => asc.build(folder).await,
        }
    }
}
