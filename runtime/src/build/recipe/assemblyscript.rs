//! Builds plugins in `AssemblyScript` with `asc`, as the folder's `asconfig.json` says.

use std::path::Path;

use super::Made;
use crate::build::error::BuildError;
use crate::build::inputs::Inputs;
use crate::build::toolchain::{self, Tool};
use crate::build::{Folder, Settings, tool};
use crate::file;

/// The compiler.
pub(in crate::build) struct AssemblyScript(Tool);

impl AssemblyScript {
    /// Finds the compiler: that of the folder's own packages, if it has one.
    pub(super) async fn find(folder: &Folder, settings: &Settings) -> Result<Self, BuildError> {
        let own = folder.path.join("node_modules/.bin/asc");
        Ok(Self(toolchain::ASC.find(&[own], folder, settings).await?))
    }

    /// Adds what a build depends on.
    pub(super) fn add_inputs(&self, folder: &Folder, inputs: &mut Inputs) -> Result<(), BuildError> {
        inputs.add("asc", self.0.version.as_bytes());
        inputs.add_folder(&folder.path, |name| {
            name == "build" || Path::new(name).extension().is_some_and(|end| end == "wasm")
        })
    }

    /// Builds the plugin.
    pub(super) async fn build(&self, folder: &Folder) -> Result<Made, BuildError> {
        let made = tempfile::tempdir().map_err(BuildError::file("make a folder in", std::env::temp_dir()))?;
        let plugin = made.path().join("plugin.wasm");
        let mut command = self.0.command(&folder.path);
        command.args(["--config", "asconfig.json", "--noColors", "--outFile"]).arg(&plugin);
        folder.run(command, |said| format!("\n{}", tool::first_lines(said))).await?;
        if !plugin.is_file() {
            return Err(folder.failed("its `asconfig.json` names no file; write `\"entries\": [\"tasks.ts\"]` into it"));
        }
        let bytes = file::read(&plugin, file::PLUGIN_MAX).map_err(BuildError::file("read", &plugin))?;
        Ok(Made { bytes, read: Vec::new() })
    }
}
