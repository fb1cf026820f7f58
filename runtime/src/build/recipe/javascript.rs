//! Builds plugins with the npm package `pcluster`, which brings the interpreter that all plugins share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::Made;
use super::python::is_of;
use crate::build::error::BuildError;
use crate::build::inputs::Inputs;
use crate::build::sdk::javascript::{BUILD, lead, nearest};
use crate::build::toolchain::{self, Tool};
use crate::build::{Folder, Settings, tool};
use crate::file;

/// The exit status of a build that needs esbuild, and finds none.
const NO_ESBUILD: i32 = 3;
/// Folders of an author that are no part of a plugin, unless a module of it imports something there.
const LEFT_OUT: [&str; 5] = ["build", "coverage", "dist", "node_modules", "target"];
/// How to get the package.
const REMEDY: &str = "`npm install PATH/sdk/js` in the folder, with the path of a clone of pcluster after `make javascript`, installs it, \
                      or name its folder with PCLUSTER_JAVASCRIPT";

/// Node.js and the package `pcluster`.
pub(in crate::build) struct JavaScript {
    node: Tool,
    /// The folder of the package.
    package: PathBuf,
}

impl JavaScript {
    /// Finds the package and Node.js. Leads the folder to a package that the user names.
    pub(super) async fn find(folder: &Folder, settings: &Settings) -> Result<Self, BuildError> {
        let package = package(folder, settings)?;
        if settings.javascript.is_some() {
            lead(&folder.path, &package).map_err(BuildError::file("link the package into", &folder.path))?;
        }
        let node = toolchain::NODE.find(&[], folder, settings).await?;
        Ok(Self { node, package })
    }

    /// Adds what a build depends on.
    pub(super) fn add_inputs(&self, folder: &Folder, inputs: &mut Inputs) -> Result<(), BuildError> {
        inputs.add("node", self.node.version.as_bytes());
        inputs.add_folder(&self.package.join("src"), |_| false)?;
        inputs.add_file("engine", &self.package.join("engine.wasm"))?;
        inputs.add("folder", folder.entry.as_ref().map_or(b"", |entry| entry.as_encoded_bytes()));
        inputs.add_folder(&folder.path, is_left_out)
    }

    /// Builds the plugin. Provides esbuild if the folder needs it and has none.
    pub(super) async fn build(&self, folder: &Folder, settings: &Settings) -> Result<Made, BuildError> {
        let made = tempfile::tempdir().map_err(BuildError::file("make a folder in", std::env::temp_dir()))?;
        let (plugin, list) = (made.path().join("plugin.wasm"), made.path().join("files.json"));
        let mut ended = self.run(folder, &plugin, &list, settings).await?;
        if ended.status.code() == Some(NO_ESBUILD) {
            toolchain::provide_esbuild(folder, settings).await?;
            ended = self.run(folder, &plugin, &list, settings).await?;
        }
        if !ended.status.success() {
            let said = tool::text(&ended.stderr);
            return Err(folder.failed(tool::first_lines(said.strip_prefix("error: ").unwrap_or(&said))));
        }
        let bytes = file::read(&plugin, file::PLUGIN_MAX).map_err(BuildError::file("read", &plugin))?;
        let text = fs::read(&list).map_err(BuildError::file("read", &list))?;
        let read = serde_json::from_slice(&text).map_err(|error| BuildError::file("read", &list)(error.into()))?;
        Ok(Made { bytes, read })
    }

    /// Runs the script of the package, which finds the esbuild of the folder, or else one that was downloaded.
    async fn run(
        &self,
        folder: &Folder,
        plugin: &Path,
        list: &Path,
        settings: &Settings,
    ) -> Result<Output, BuildError> {
        let mut command = self.node.command(settings.run_folder()?);
        command.env("NODE_PATH", toolchain::esbuild_packages(settings));
        command.arg(self.package.join(BUILD)).arg(folder.source()).arg("-o").arg(plugin).arg("--list").arg(list);
        tool::output(command).await.map_err(BuildError::file("run", self.node.program()))
    }
}

/// Returns `true` for a file or folder that is a part of the plugin only if a module imports it.
fn is_left_out(name: &str) -> bool {
    let is_plugin = Path::new(name).extension().is_some_and(|extension| extension == "wasm");
    LEFT_OUT.contains(&name) || name.contains(".test.") || is_plugin
}

/// Returns the folder of the package: the one that the user names, else that of the nearest `node_modules`.
fn package(folder: &Folder, settings: &Settings) -> Result<PathBuf, BuildError> {
    let missing = |which: &str| folder.no_tool(format!("the package `pcluster` for JavaScript{which}"), REMEDY);
    let me = rustix::process::geteuid().as_raw();
    let found = match &settings.javascript {
        Some(named) if named.join(BUILD).is_file() => named.clone(),
        Some(named) => return Err(missing(&format!(" (`{}` does not hold it)", named.display()))),
        None => nearest(&folder.path, |package| is_of(package, me)).ok_or_else(|| missing(""))?,
    };
    // What npm installs of a folder is a link to it.
    found.canonicalize().map_err(BuildError::file("read", &found))
}
