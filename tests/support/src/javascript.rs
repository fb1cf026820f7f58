//! Tasks in JavaScript and TypeScript: their package, and plugins that are built with it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{Run, repository};

/// Returns the folder of the JavaScript package.
pub fn javascript_package() -> PathBuf {
    repository().join("sdk/js")
}

/// Returns a command that runs Node.js, with the interpreter built, and with esbuild and a few packages to be found.
pub fn javascript(arguments: &[&str]) -> Command {
    provide();
    let mut command = Command::new(javascript_program());
    command.args(arguments).env("NODE_PATH", repository().join(".tools/npm/node_modules"));
    command
}

/// Builds the interpreter, and downloads Node.js and packages where they are missing.
fn provide() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        for script in ["quickjs-engine", "javascript"] {
            let status = Command::new(repository().join(".make").join(script)).status();
            assert!(status.unwrap().success(), "what tasks in JavaScript need could not be provided");
        }
    });
}

/// Makes the package and esbuild those of all folders below one, as npm does, with the interpreter built.
pub fn install_javascript(folder: &Path) {
    provide();
    let packages = folder.join("node_modules");
    fs::create_dir(&packages).unwrap();
    symlink(javascript_package(), packages.join("pcluster")).unwrap();
    symlink(repository().join(".tools/npm/node_modules/esbuild"), packages.join("esbuild")).unwrap();
}

/// Returns the path of the Node.js that the tests use.
pub fn javascript_program() -> PathBuf {
    repository().join(".tools/bin/node")
}

/// Builds the plugin of a folder, or of a file, of tasks in JavaScript or TypeScript.
pub fn build_javascript(source: &Path, plugin: &Path) -> Run {
    let script = javascript_package().join("src/build.mjs");
    let [script, source, plugin] = [&script, source, plugin].map(|path| path.to_str().unwrap());
    Run::of(javascript(&[script, source, "-o", plugin]), b"")
}
