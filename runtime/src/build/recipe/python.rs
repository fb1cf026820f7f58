//! Builds plugins with the Python package `pcluster`, which brings the interpreter that all plugins share.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Made;
use crate::build::error::BuildError;
use crate::build::inputs::Inputs;
use crate::build::{Folder, Settings, tool};
use crate::file;

/// The least version of Python.
const LEAST: (u32, u32) = (3, 10);
/// The id of the user root.
const ROOT: u32 = 0;
/// The name of the package.
const PACKAGE: &str = "pcluster";
/// Folders of an author that are no part of a plugin, as the package has them.
const LEFT_OUT: [&str; 8] = ["__pycache__", "build", "dist", "env", "node_modules", "target", "tests", "venv"];
/// What Python is asked: its version, and the folder of the package.
const QUESTION: &str = "\
import importlib.util, json, sys
spec = importlib.util.find_spec('pcluster')
folders = list(spec.submodule_search_locations or []) if spec else []
print(json.dumps({'version': sys.version_info[:2], 'package': folders[0] if folders else None}))
";

/// Python with its package `pcluster`.
pub(in crate::build) struct Python {
    program: PathBuf,
    /// The folder of the package.
    package: PathBuf,
    /// Its major and minor version.
    version: (u32, u32),
}

/// What Python answers.
#[derive(Debug, Deserialize)]
struct Answer {
    version: (u32, u32),
    package: Option<PathBuf>,
}

impl Python {
    /// Finds a Python that has the package.
    pub(super) async fn find(folder: &Folder, settings: &Settings) -> Result<Self, BuildError> {
        let program = program(&folder.path, settings);
        let mut command = tool::command(&program, settings.run_folder()?);
        command.args(["-c", QUESTION]);
        let ended = match tool::output(command).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let remedy = "install Python 3.10 or newer, or name one with PCLUSTER_PYTHON";
                return Err(folder.no_tool(format!("Python (`{}`)", program.display()), remedy));
            }
            ended => ended.map_err(BuildError::file("run", &program))?,
        };
        let answer: Answer = serde_json::from_slice(&ended.stdout).map_err(|_| {
            let said = tool::first_lines(&tool::text(&ended.stderr));
            folder.failed(format!("`{}` does not answer: {said}", program.display()))
        })?;
        if answer.version < LEAST {
            let (major, minor) = answer.version;
            let tool = format!("Python 3.10 or newer (`{}` is {major}.{minor})", program.display());
            return Err(folder.no_tool(tool, "name a newer one with PCLUSTER_PYTHON"));
        }
        let Some(package) = answer.package else {
            let tool = format!("the package `{PACKAGE}` for Python");
            let line = format!("`{} -m pip install {PACKAGE}`", program.display());
            let remedy = format!("{line} installs it, or name a Python that has it with PCLUSTER_PYTHON");
            return Err(folder.no_tool(tool, remedy));
        };
        Ok(Self { program, package, version: answer.version })
    }

    /// Adds what a build depends on.
    pub(super) fn add_inputs(&self, folder: &Folder, inputs: &mut Inputs) -> Result<(), BuildError> {
        inputs.add("python", format!("{:?}", self.version).as_bytes());
        inputs.add_folder(&self.package, |name| name == "__pycache__")?;
        inputs.add("folder", b"");
        inputs.add_folder(&folder.path, |name| LEFT_OUT.contains(&name))
    }

    /// Builds the plugin.
    pub(super) async fn build(&self, folder: &Folder, settings: &Settings) -> Result<Made, BuildError> {
        let made = tempfile::tempdir().map_err(BuildError::file("make a folder in", std::env::temp_dir()))?;
        let plugin = made.path().join("plugin.wasm");
        let mut command = tool::command(&self.program, settings.run_folder()?);
        // Nothing is written beside the author's sources.
        command.env("PYTHONDONTWRITEBYTECODE", "1").args(["-m", "pcluster.build"]);
        command.arg(&folder.path).arg("-o").arg(&plugin);
        if settings.is_offline {
            command.env("PIP_NO_INDEX", "1");
        }
        let ended = tool::output(command).await.map_err(BuildError::file("run", &self.program))?;
        if !ended.status.success() {
            let said = tool::text(&ended.stderr);
            return Err(folder.failed(tool::first_lines(said.strip_prefix("error: ").unwrap_or(&said))));
        }
        let bytes = file::read(&plugin, file::PLUGIN_MAX).map_err(BuildError::file("read", &plugin))?;
        Ok(Made { bytes, read: Vec::new() })
    }
}

/// Returns the Python to use: the user's choice, else that of the nearest virtual environment, else the one on the `PATH`.
fn program(folder: &Path, settings: &Settings) -> PathBuf {
    let me = rustix::process::geteuid().as_raw();
    let environments = || folder.ancestors().map(|folder| folder.join(".venv")).filter(|path| is_of(path, me));
    let own = || environments().map(|path| path.join("bin/python")).find(|path| path.is_file());
    settings.python.clone().or_else(own).unwrap_or_else(|| "python3".into())
}

/// Returns `true` if a folder belongs to a user or to root. Others can put one into a folder above, such as `/tmp`.
pub(super) fn is_of(folder: &Path, user: u32) -> bool {
    let owners = [fs::symlink_metadata(folder), fs::metadata(folder)];
    owners.iter().all(|data| data.as_ref().is_ok_and(|data| [user, ROOT].contains(&data.uid())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_virtual_environment_is_used_unless_a_python_is_named() {
        let at = tempfile::tempdir().expect("a folder");
        let plugin = at.path().join("chain/plugin");
        std::fs::create_dir_all(&plugin).expect("made");
        let mut settings = Settings {
            cache: at.path().to_owned(),
            data: at.path().to_owned(),
            python: None,
            javascript: None,
            is_offline: true,
            is_announced: true,
            say: Box::new(|_| {}),
        };
        assert_eq!(program(&plugin, &settings), Path::new("python3"));
        for folder in [at.path(), &at.path().join("chain"), &plugin] {
            let python = folder.join(".venv/bin/python");
            std::fs::create_dir_all(python.parent().expect("a folder")).expect("made");
            std::fs::write(&python, "").expect("written");
            assert_eq!(program(&plugin, &settings), python);
        }
        let me = fs::metadata(at.path()).expect("a folder").uid();
        assert!(is_of(at.path(), me) && is_of(Path::new("/"), me));
        assert!(me == ROOT || !is_of(at.path(), me + 1), "of another user");
        settings.python = Some("/opt/python".into());
        assert_eq!(program(&plugin, &settings), Path::new("/opt/python"));
    }
}
