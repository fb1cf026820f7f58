//! Builds plugins with Go, by the command `build` of the package `pcluster`.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokio::process::Command;

use super::Made;
use crate::build::error::BuildError;
use crate::build::inputs::Inputs;
use crate::build::language::Language;
use crate::build::sdk::{self, Link};
use crate::build::toolchain::{self, Tool};
use crate::build::{Folder, Settings, tool};
use crate::file;

/// The command that makes a plugin.
const BUILD: &str = "pcluster/cmd/build";
/// What Go lists of a package.
const LISTED: &str = "-json=Dir,Standard,GoFiles,EmbedFiles,Module";
/// The lines of Go that say nothing about the fault.
const EMPTY: [&str; 3] = ["exit status ", "the plugin was not built: `go build`: ", "# "];
/// What Go says when it may not, or cannot, download a module.
const NO_NETWORK: [&str; 4] = ["connection refused", "no such host", "network is unreachable", "i/o timeout"];

/// Go and the SDK.
pub(in crate::build) struct Go {
    go: Tool,
    /// The folder of the SDK that comes with this program. `None` if the module takes another.
    sdk: Option<PathBuf>,
}

/// A package, as Go lists it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Package {
    dir: PathBuf,
    standard: bool,
    go_files: Vec<PathBuf>,
    embed_files: Vec<PathBuf>,
    module: Option<Module>,
}

/// A module, as Go lists it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Module {
    go_mod: Option<PathBuf>,
    #[serde(default)]
    main: bool,
    replace: Option<Box<Self>>,
    version: Option<String>,
}

impl Go {
    /// Finds the compiler, and leads the module to the SDK.
    pub(super) async fn find(folder: &Folder, settings: &Settings) -> Result<Self, BuildError> {
        let go = toolchain::GO.find(&[], folder, settings).await?;
        let manifest = folder.path.join("go.mod");
        let text = file::read_text(&manifest).map_err(BuildError::file("read", &manifest))?;
        let link = Link::of(Language::Go).filter(|link| text.contains(link.name));
        let Some(link) = link else { return Ok(Self { go, sdk: None }) };
        let sdk = sdk::GO.unpack(&settings.data)?;
        link.make(&folder.path, &sdk).map_err(BuildError::file("write", folder.path.join(link.name)))?;
        Ok(Self { go, sdk: Some(sdk) })
    }

    /// Adds what a build depends on.
    pub(super) fn add_inputs(&self, folder: &Folder, inputs: &mut Inputs) -> Result<(), BuildError> {
        inputs.add("go", self.go.version.as_bytes());
        let sdk = self.sdk.as_ref().map(|_| sdk::GO.digest());
        inputs.add("sdk", sdk.as_ref().map_or(&[], |digest| digest.as_hex().as_bytes()));
        inputs.add_folder(&folder.path, |name| name == "build" || name.ends_with("_test.go"))
    }

    /// Builds the plugin.
    pub(super) async fn build(&self, folder: &Folder, settings: &Settings) -> Result<Made, BuildError> {
        let made = tempfile::tempdir().map_err(BuildError::file("make a folder in", std::env::temp_dir()))?;
        let plugin = made.path().join("plugin.wasm");
        let told = |said: &str| explained(folder, said);
        let mut build = self.command(folder, settings);
        build.args(["run", BUILD, "-o"]).arg(&plugin);
        folder.run(build, told).await?;
        let mut list = self.command(folder, settings);
        list.args(["list", "-deps", LISTED, "-tags=pcluster_plugin"]).env("GOOS", "wasip1").env("GOARCH", "wasm");
        let listed = folder.run(list, told).await?;
        let bytes = file::read(&plugin, file::PLUGIN_MAX).map_err(BuildError::file("read", &plugin))?;
        let link = self.sdk.as_ref().map(|_| folder.path.join(".pcluster"));
        Ok(Made { bytes, read: read_files(&listed.stdout, link.as_deref()) })
    }

    /// Returns Go's command, which sees no workspace around the folder.
    fn command(&self, folder: &Folder, settings: &Settings) -> Command {
        let mut command = self.go.command(&folder.path);
        command.envs([("GOTOOLCHAIN", "local"), ("GOWORK", "off"), ("GOFLAGS", "-mod=readonly")]);
        // The command of the SDK runs `go` by its name.
        let own = self.go.program().canonicalize().unwrap_or_else(|_| self.go.program().to_owned());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = own.parent().map(Path::to_owned).into_iter().chain(std::env::split_paths(&path));
        if let Ok(path) = std::env::join_paths(folders) {
            command.env("PATH", path);
        }
        if settings.is_offline {
            command.env("GOPROXY", "off");
        }
        command
    }
}

/// Returns the files of the packages that Go lists, but those of Go itself, of modules with a version, and of the SDK.
fn read_files(listed: &[u8], sdk: Option<&Path>) -> Vec<PathBuf> {
    let packages = serde_json::Deserializer::from_slice(listed).into_iter::<Package>().map_while(Result::ok);
    let is_sdk = |package: &Package| sdk.is_some_and(|sdk| package.dir.starts_with(sdk));
    let mut files = Vec::new();
    for package in packages.filter(|package| !package.standard && !is_sdk(package)) {
        let module = package.module.as_ref().map(|module| module.replace.as_deref().unwrap_or(module));
        // The lock file names the digest of a module with a version.
        if module.is_some_and(|module| !module.main && module.version.is_some()) {
            continue;
        }
        files.extend(package.go_files.iter().chain(&package.embed_files).map(|file| package.dir.join(file)));
        files.extend(module.and_then(|module| module.go_mod.clone()));
    }
    files
}

/// Returns what Go says, and what to do.
fn explained(folder: &Folder, said: &str) -> String {
    let own = format!("{}/", folder.path.display());
    let lines: Vec<&str> = said.lines().filter(|line| !EMPTY.iter().any(|empty| line.starts_with(empty))).collect();
    let shown = tool::first_lines(&lines.join("\n").replace(&own, "").replace("./", ""));
    if shown.contains("package pcluster/cmd/build is not in std") {
        let line = "go mod edit -require=pcluster@v0.0.0 -replace=pcluster=./.pcluster/go";
        return format!("its `go.mod` does not require the module `pcluster`; `{line}` adds it");
    }
    if shown.contains("module lookup disabled by GOPROXY=off") {
        return format!("\n{shown}\n\nWithout --offline, `pcluster build` would download what is missing.");
    }
    if NO_NETWORK.iter().any(|text| shown.contains(text)) {
        return format!("\n{shown}\n\nThe proxy of Go's modules cannot be reached; build again with a network.");
    }
    format!("\n{shown}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_outside_of_go_and_of_pinned_modules_are_read() {
        let listed = r#"{"Dir": "/go/src/fmt", "Standard": true, "GoFiles": ["print.go"]}
            {"Dir": "/p/.pcluster/go/cbor", "GoFiles": ["x.go"], "Module": {"Path": "pcluster", "Version": "v0.0.0", "Replace": {"Path": "./.pcluster/go", "GoMod": "/p/.pcluster/go/go.mod"}}}
            {"Dir": "/cache/y@v1", "GoFiles": ["y.go"], "Module": {"Path": "y", "Version": "v1.0.0", "GoMod": "/cache/y.mod"}}
            {"Dir": "/shared", "GoFiles": ["z.go"], "EmbedFiles": ["a table.txt"], "Module": {"Path": "z", "Version": "v1.0.0", "Replace": {"Path": "../shared", "GoMod": "/shared/go.mod"}}}
            {"Dir": "/p", "GoFiles": ["main.go"], "Module": {"Path": "p", "Main": true, "GoMod": "/p/go.mod"}}"#;
        let read = read_files(listed.as_bytes(), Some(Path::new("/p/.pcluster")));
        let expected = ["/shared/z.go", "/shared/a table.txt", "/shared/go.mod", "/p/main.go", "/p/go.mod"];
        assert_eq!(read, expected.map(PathBuf::from));
    }

    #[test]
    fn what_go_says_is_told_with_what_to_do() {
        let folder = Folder { path: "/a b".into(), entry: None, shown: "a b".into() };
        for (said, told) in [
            (
                "# tasks\n./main.go:5:2: undefined: x\nthe plugin was not built: `go build`: exit status 1\nexit status 1",
                "\nmain.go:5:2: undefined: x",
            ),
            (
                "/a b/main.go:3:1: there is a task `a` already, at /a b/main.go:2:1",
                "\nmain.go:3:1: there is a task `a` already, at main.go:2:1",
            ),
            (
                "package pcluster/cmd/build is not in std (/go/src)",
                "its `go.mod` does not require the module `pcluster`; `go mod edit",
            ),
            (
                "main.go:1:1: module lookup disabled by GOPROXY=off",
                "\nmain.go:1:1: module lookup disabled by GOPROXY=off\n\nWithout --offline",
            ),
        ] {
            assert!(explained(&folder, said).starts_with(told), "{}", explained(&folder, said));
        }
    }
}
