//! Builds plugins with cargo, for the target wasm32-wasip1.
//!
//! All plugins share one folder of cargo's, so that what they depend on is compiled once. Cargo gives modules of equal names one
//! file there. So one plugin is built at a time, and a module of another folder is removed first. What else it makes of packages with
//! equal names, such as their build scripts, is kept apart by a wrapper of the compiler for each workspace.
//!
//! Cargo runs outside of the author's folder: it would obey the configuration of all folders above. The compiler is that of the
//! folder nevertheless, as a `rust-toolchain.toml` chooses it.

mod cargo;
mod manifest;

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::Made;
use crate::build::error::BuildError;
use crate::build::inputs::{Inputs, relative};
use crate::build::kept::Lock;
use crate::build::{Folder, Settings, sdk, tool};
use crate::file;
use crate::name::Digest;

/// The target that plugins are compiled for.
const TARGET: &str = "wasm32-wasip1";
/// What is missing without a library.
const NO_LIBRARY: &str = "it has no library; a plugin is one, in `src/lib.rs`";
/// A wrapper of the compiler, which does nothing else. Only its path matters.
const WRAPPER: &[u8] = b"#!/bin/sh\nexec \"$@\"\n";

/// Cargo and what it must know of a folder.
pub(in crate::build) struct Rust {
    cargo: PathBuf,
    compiler: PathBuf,
    /// The compiler's description of itself.
    version: String,
    /// The folder of the workspace. The package's own if it is in none.
    root: PathBuf,
    /// The name of the library, as the compiler has it.
    library: String,
    /// The folder of the SDK that comes with this program. `None` if the package takes another.
    sdk: Option<PathBuf>,
    /// The author's own configuration of cargo.
    config: Option<PathBuf>,
}

impl Rust {
    /// Finds cargo and the target, which rustup adds if it is missing.
    pub(super) async fn find(folder: &Folder, settings: &Settings) -> Result<Self, BuildError> {
        let sysroot = PathBuf::from(ask(folder, settings, Path::new("rustc"), &["--print", "sysroot"]).await?);
        // Rustup's own programs would choose a toolchain by the folder in which they run.
        let own = |name: &str| Some(sysroot.join("bin").join(name)).filter(|path| path.is_file());
        let compiler = own("rustc").unwrap_or_else(|| "rustc".into());
        let cargo = own("cargo").unwrap_or_else(|| "cargo".into());
        let version = ask(folder, settings, &compiler, &["-vV"]).await?;
        provide_target(folder, &sysroot, settings).await?;
        let path = folder.path.join("Cargo.toml");
        let located = ["locate-project", "--workspace", "--message-format", "plain", "--manifest-path"];
        let mut locate = tool::command(&cargo, settings.run_folder()?);
        locate.args(located).arg(&path).env("RUSTC", &compiler);
        let root_manifest = PathBuf::from(tool::text(&succeeded(folder, "cargo", locate).await?.stdout));
        let root = root_manifest.parent().unwrap_or(&folder.path).to_owned();
        let (package, workspace) = (read(folder, &path)?, read(folder, &root_manifest)?);
        let library = manifest::library(&package).ok_or_else(|| {
            folder.failed("its `Cargo.toml` has no `[package]`; name the folder of a package of the workspace")
        })?;
        let sdk = manifest::wants_sdk(&package, &workspace).then(|| sdk::cargo::unpack(&settings.data)).transpose()?;
        if let Some(sdk) = &sdk {
            // Only for cargo by hand: a folder that cannot be written to can be built.
            let _ = sdk::cargo::configure(&folder.path, sdk);
        }
        let config = folder.path.join(sdk::cargo::CONFIG);
        let is_author_s = fs::read_to_string(&config).is_ok_and(|text| !sdk::cargo::is_ours(&text));
        let config = is_author_s.then_some(config);
        let rust = Self { cargo, compiler, version, root, library, sdk, config };
        rust.lock_dependencies(folder, settings).await?;
        Ok(rust)
    }

    /// Makes the wrapper of this workspace. Returns the setting that names it.
    ///
    /// Cargo knows packages of workspaces by their names and the times of their files. It would run the build script of another
    /// folder, and link another folder's crates. Packages that other wrappers compile are others to it.
    fn wrapper(&self, target: &Path) -> Result<String, BuildError> {
        let folder = target.join("wrappers");
        let path = folder.join(Digest::of(self.root.as_os_str().as_bytes()).as_hex());
        if !path.is_file() {
            fs::create_dir_all(&folder).map_err(BuildError::file("make the folder", &folder))?;
            let write = || -> io::Result<()> {
                let mut file =
                    tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempfile_in(&folder)?;
                file.write_all(WRAPPER)?;
                file.persist(&path)?;
                Ok(())
            };
            write().map_err(BuildError::file("write", &path))?;
        }
        // A text of JSON is one of TOML.
        let path = serde_json::Value::from(path.display().to_string());
        Ok(format!("build.rustc-workspace-wrapper={path}"))
    }

    /// Adds what a build depends on.
    pub(super) fn add_inputs(&self, folder: &Folder, inputs: &mut Inputs) -> Result<(), BuildError> {
        inputs.add("rust", self.version.as_bytes());
        let sdk = self.sdk.as_ref().map(|_| sdk::RUST.digest());
        inputs.add("sdk", sdk.as_ref().map_or(&[], |digest| digest.as_hex().as_bytes()));
        inputs.add_folder(&folder.path, |name| name == "target")?;
        for path in self.config.iter().cloned().chain(cargo_home_config()) {
            inputs.add_file("config", &path)?;
        }
        for name in ["Cargo.toml", "Cargo.lock"] {
            let path = self.root.join(name);
            if !inputs.has(&path) {
                inputs.add_file(&relative(&folder.path, &path).to_string_lossy(), &path)?;
            }
        }
        Ok(())
    }

    /// Builds the plugin.
    pub(super) async fn build(&self, folder: &Folder, settings: &Settings) -> Result<Made, BuildError> {
        let target = settings.cache.join("cargo");
        fs::create_dir_all(&target).map_err(BuildError::file("make the folder", &target))?;
        let _lock = Lock::take(target.join("pcluster.lock")).await?;
        self.claim_module(folder, &target)?;
        let mut command = self.command("rustc", folder, settings)?;
        command.args(["--lib", "--crate-type", "cdylib", "--release", "--locked", "--target", TARGET]);
        command.args(["--message-format", "json", "--target-dir"]).arg(&target);
        command.arg("--config").arg(self.wrapper(&target)?);
        let ended = tool::output(command).await.map_err(BuildError::file("run", &self.cargo))?;
        if !ended.status.success() {
            return Err(folder.failed(explained(folder, settings, &cargo::errors(&ended.stdout, &ended.stderr))));
        }
        let module = cargo::module(&ended.stdout).ok_or_else(|| folder.failed(NO_LIBRARY))?;
        let bytes = file::read(&module, file::PLUGIN_MAX).map_err(BuildError::file("read", &module))?;
        let list = fs::read_to_string(module.with_extension("d")).unwrap_or_default();
        // What cargo itself has made follows from the rest.
        let known: Vec<&Path> = self.sdk.as_deref().and_then(Path::parent).into_iter().chain([&*target]).collect();
        Ok(Made { bytes, read: cargo::with_manifests(cargo::read_files(&list), &known) })
    }

    /// Resolves the dependencies of a package that has no lock file.
    async fn lock_dependencies(&self, folder: &Folder, settings: &Settings) -> Result<(), BuildError> {
        if self.root.join("Cargo.lock").is_file() {
            return Ok(());
        }
        let ended = tool::output(self.command("generate-lockfile", folder, settings)?).await;
        let ended = ended.map_err(BuildError::file("run", &self.cargo))?;
        if ended.status.success() {
            return Ok(());
        }
        Err(folder.failed(explained(folder, settings, &cargo::errors(&ended.stdout, &ended.stderr))))
    }

    /// Returns cargo's command, which sees no configuration but that of the user and of the folder itself.
    fn command(&self, name: &str, folder: &Folder, settings: &Settings) -> Result<Command, BuildError> {
        let mut command = tool::command(&self.cargo, settings.run_folder()?);
        command.env("RUSTC", &self.compiler).env("CARGO_TERM_COLOR", "never");
        command.args([name, "--manifest-path"]).arg(folder.path.join("Cargo.toml"));
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        if let Some(sdk) = &self.sdk {
            command.args(["--config", &sdk::cargo::patch(sdk)]);
        }
        if settings.is_offline {
            command.arg("--offline");
        }
        Ok(command)
    }

    /// Removes the module of another folder whose library has the same name: cargo would take it for this folder's.
    fn claim_module(&self, folder: &Folder, target: &Path) -> Result<(), BuildError> {
        let owners = target.join("owners");
        let owner = owners.join(&self.library);
        let me = folder.path.display().to_string();
        if fs::read_to_string(&owner).is_ok_and(|before| before == me) {
            return Ok(());
        }
        let module = target.join(TARGET).join("release/deps").join(format!("{}.wasm", self.library));
        if module.exists() {
            fs::remove_file(&module).map_err(BuildError::file("remove", &module))?;
        }
        let written = fs::create_dir_all(&owners).and_then(|()| fs::write(&owner, me));
        written.map_err(BuildError::file("write", &owner))
    }
}

/// Adds what to do to an error of cargo.
fn explained(folder: &Folder, settings: &Settings, said: &str) -> String {
    let shown = folder.shown.display();
    if said.contains("no library targets found") {
        return NO_LIBRARY.to_owned();
    }
    if said.contains("--locked was passed") || said.contains("because --locked") {
        return format!(
            "`Cargo.lock` does not fit `Cargo.toml`, and a build keeps to it; `cargo update --workspace` in `{shown}` \
             mends it"
        );
    }
    if said.contains("--offline") {
        return format!("{said}\n\nWithout --offline, `pcluster build` would download what is missing.");
    }
    if ["Could not resolve host", "Could not connect", "spurious network error"].iter().any(|text| said.contains(text))
    {
        return format!(
            "{said}\n\nThe registry of packages cannot be reached; what was downloaded before is enough with --offline."
        );
    }
    // A linker that has mapped its output is killed so, and says no more.
    if ["[Bus error]", "signal: 7, SIGBUS"].iter().any(|text| said.contains(text)) {
        return format!(
            "{said}\n\nA linker ends so on a full disk (No space left on device); make room for `{}`, or name another \
             folder with PCLUSTER_CACHE.",
            settings.cache.display()
        );
    }
    if let Some(task) = twice(said) {
        return format!("two tasks are named `{task}`; rename one\n{said}");
    }
    said.to_owned()
}

/// Returns the name that two tasks have, if that is the error.
fn twice(said: &str) -> Option<&str> {
    let (_, symbol) = said.split_once("symbol `pcluster_")?;
    let (symbol, rest) = symbol.split_once('`')?;
    rest.starts_with(" is already defined").then_some(symbol.split_once(':')?.1)
}

/// Returns the user's configuration of cargo.
fn cargo_home_config() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")))?;
    ["config.toml", "config"].map(|name| home.join(name)).into_iter().find(|path| path.is_file())
}

fn read(folder: &Folder, path: &Path) -> Result<toml::Table, BuildError> {
    let text = file::read_text(path).map_err(BuildError::file("read", path))?;
    text.parse().map_err(|error: toml::de::Error| folder.failed(format!("`Cargo.toml`: {}", error.message())))
}

/// Runs a program of Rust's in the folder, and returns what it prints.
async fn ask(folder: &Folder, settings: &Settings, program: &Path, arguments: &[&str]) -> Result<String, BuildError> {
    let mut command = tool::command(program, &folder.path);
    command.args(arguments);
    if settings.is_offline {
        // Rustup would fetch a toolchain that the folder names.
        command.env("RUSTUP_AUTO_INSTALL", "0");
    }
    Ok(tool::text(&succeeded(folder, "rustc", command).await?.stdout))
}

/// Runs a program of Rust's, which must succeed.
async fn succeeded(folder: &Folder, name: &str, command: Command) -> Result<std::process::Output, BuildError> {
    match tool::output(command).await {
        Ok(ended) if ended.status.success() => Ok(ended),
        Ok(ended) => Err(folder.failed(explained_workspace(&cargo::errors(b"", &ended.stderr)))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(folder.no_tool("Rust", "install it from https://rustup.rs, and open a new shell"))
        }
        Err(error) => Err(BuildError::file("run", name)(error)),
    }
}

/// Adds what to do if a package lies below a workspace of others.
fn explained_workspace(said: &str) -> String {
    if said.contains("believes it's in a workspace when it's not") {
        return "it lies below the workspace of others; write an empty `[workspace]` into its `Cargo.toml`, and it stands \
                alone"
            .to_owned();
    }
    said.to_owned()
}

/// Adds the target to the toolchain of the folder if it is missing.
async fn provide_target(folder: &Folder, sysroot: &Path, settings: &Settings) -> Result<(), BuildError> {
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    let is_there = || {
        let mut files = fs::read_dir(&libraries).into_iter().flatten().flatten();
        files.any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
    };
    if is_there() {
        return Ok(());
    }
    let missing = |remedy: String| folder.no_tool(format!("Rust's target {TARGET}"), remedy);
    let line = format!("`rustup target add {TARGET}`");
    if settings.is_offline {
        return Err(missing(format!("with a network, {line} adds it")));
    }
    let Some(rustup) = tool::on_path("rustup") else {
        return Err(missing("install your distribution's package for it (Debian: libstd-rust-dev-wasm32)".to_owned()));
    };
    (settings.say)(&format!("adding the target {TARGET} to Rust with rustup (about 20 MB)"));
    let mut command = tool::command(rustup, &folder.path);
    command.args(["target", "add", TARGET]);
    let ended = tool::output(command).await.map_err(BuildError::file("run", "rustup"))?;
    if is_there() {
        return Ok(());
    }
    Err(missing(format!("{line} failed: {}", cargo::errors(b"", &ended.stderr))))
}
