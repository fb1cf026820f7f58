//! Tasks in Python: their package, and plugins that are built with it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{Run, repository};

/// Returns the folder of the Python package, for `PYTHONPATH`.
pub fn python_package() -> PathBuf {
    repository().join("sdk/python/src")
}

/// Returns what `PYTHONPATH` must be for the package, and for those that a file of `.make` pins. They are downloaded once.
pub fn python_packages(pinned: &str) -> String {
    format!("{}:{}", python_package().display(), installed_packages(pinned).display())
}

/// Returns the folder of the packages that a file of `.make` pins. They are downloaded once.
pub fn installed_packages(pinned: &str) -> PathBuf {
    let mut install = Command::new(repository().join(".make/python-packages"));
    install.arg(pinned);
    PathBuf::from(Run::of(install, b"").succeeded().trim_end())
}

/// Returns a command that runs Python with the package, and with its interpreter built.
pub fn python(arguments: &[&str]) -> Command {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let status = Command::new(repository().join(".make/python-engine")).status();
        assert!(status.unwrap().success(), "the interpreter for tasks in Python could not be built");
    });
    let mut command = Command::new("python3");
    command.args(arguments).env("PYTHONPATH", python_package()).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Builds the plugin of a folder of tasks in Python.
pub fn build_python(folder: &Path, plugin: &Path) -> Run {
    let [folder, plugin] = [folder, plugin].map(|path| path.to_str().unwrap());
    Run::of(python(&["-m", "pcluster.build", folder, "-o", plugin]), b"")
}
