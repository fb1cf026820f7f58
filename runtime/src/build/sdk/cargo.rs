//! How cargo finds the SDK for Rust: by a file of its configuration that git ignores, so that `cargo test` works by hand.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::RUST;
use crate::build::error::BuildError;

/// The package of the SDK, below its folder.
const PACKAGE: &str = "sdk";
/// The name of the package.
pub(crate) const NAME: &str = "pcluster-sdk";
/// The configuration of cargo in the folder of a project.
pub(crate) const CONFIG: &str = ".cargo/config.toml";
/// The first line of a configuration that pcluster has written.
const MARK: &str = "# Written by pcluster for this machine, and ignored by git. `pcluster build` writes it anew.";

/// Unpacks the sources below a folder of data, unless they are there. Returns the folder of the package.
pub(crate) fn unpack(data: &Path) -> Result<PathBuf, BuildError> {
    Ok(RUST.unpack(data)?.join(PACKAGE))
}

/// Returns the setting of cargo that leads to the package, as on its command line.
pub(in crate::build) fn patch(package: &Path) -> String {
    format!("patch.crates-io.{NAME}.path={}", quoted(package))
}

/// Returns the configuration of a project that leads cargo to the package.
pub(crate) fn configuration(package: &Path) -> String {
    format!("{MARK}\n[patch.crates-io]\n{NAME} = {{ path = {} }}\n", quoted(package))
}

/// Writes the configuration that leads cargo to the package into a project, unless its author wrote one.
pub(in crate::build) fn configure(project: &Path, package: &Path) -> io::Result<()> {
    let path = project.join(CONFIG);
    let text = configuration(package);
    match fs::read_to_string(&path) {
        Ok(before) if before == text || !is_ours(&before) => return Ok(()),
        _ => {}
    }
    fs::create_dir_all(path.parent().unwrap_or(project))?;
    fs::write(path, text)
}

/// Returns `true` if pcluster has written a configuration.
pub(in crate::build) fn is_ours(text: &str) -> bool {
    text.starts_with(MARK)
}

/// Returns a path as a text of TOML.
fn quoted(path: &Path) -> String {
    // A text of JSON is one of TOML, too.
    serde_json::Value::from(path.display().to_string()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_is_unpacked_once_and_whole() {
        let data = tempfile::tempdir().expect("a folder");
        let package = unpack(data.path()).expect("unpacked");
        let root = package.parent().expect("a folder");
        let read =
            |name: &str| -> toml::Table { fs::read_to_string(root.join(name)).expect("a file").parse().expect("TOML") };
        let workspace = read("Cargo.toml");
        let members: Vec<_> = workspace["workspace"]["members"].as_array().into_iter().flatten().collect();
        assert_eq!(members.len(), 3, "{workspace:?}");
        for member in members {
            assert!(root.join(member.as_str().expect("a text")).join("src/lib.rs").is_file(), "{member:?}");
        }
        assert!(!workspace.contains_key("profile"));
        assert_eq!(read("sdk/Cargo.toml")["package"]["name"].as_str(), Some(NAME));
        fs::write(package.join("mine"), "").expect("written");
        assert_eq!(unpack(data.path()).expect("there"), package);
        assert!(package.join("mine").is_file(), "it was not unpacked again");
    }

    #[test]
    fn a_project_is_led_to_the_sdk_unless_its_author_wrote_a_configuration() {
        let project = tempfile::tempdir().expect("a folder");
        let path = project.path().join(CONFIG);
        let patched = |text: &str| -> toml::Table { text.parse().expect("TOML") };
        for package in ["/a/größe \"x\"/sdk", "/b/sdk"] {
            configure(project.path(), Path::new(package)).expect("written");
            let text = fs::read_to_string(&path).expect("a file");
            assert_eq!(patched(&text)["patch"]["crates-io"][NAME]["path"].as_str(), Some(package));
            let on_command_line = patched(&patch(Path::new(package)));
            assert_eq!(on_command_line["patch"]["crates-io"][NAME]["path"].as_str(), Some(package));
        }
        fs::write(&path, "[build]\n").expect("written");
        configure(project.path(), Path::new("/c")).expect("left alone");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "[build]\n");
    }
}
