//! The SDKs that come with this program.
//!
//! Sources are unpacked into the user's folder of data, into a folder named by their digest. A project of an author finds them by a
//! file or a link that git ignores, so that its tests run by hand.

pub(crate) mod cargo;
pub(crate) mod javascript;

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::error::BuildError;
use super::inputs::Inputs;
use super::language::Language;
use crate::name::Digest;

/// The digits of the digest that name a folder.
const DIGITS: usize = 16;

/// The crates for Rust.
pub(crate) const RUST: Sdk = Sdk(include!(concat!(env!("OUT_DIR"), "/sdk-rust.rs")));
/// The headers for C, C++ and Zig.
pub(crate) const C: Sdk = Sdk(include!(concat!(env!("OUT_DIR"), "/sdk-c.rs")));
/// The module for Go.
pub(crate) const GO: Sdk = Sdk(include!(concat!(env!("OUT_DIR"), "/sdk-go.rs")));

/// The sources of an SDK, each with its path.
#[derive(Clone, Copy)]
pub(crate) struct Sdk(&'static [(&'static str, &'static str)]);

/// A link in a project that leads to an SDK on this machine.
pub(crate) struct Link {
    /// The sources that it leads to.
    pub(crate) sdk: Sdk,
    /// Its path in the project.
    pub(crate) name: &'static str,
}

impl Sdk {
    /// Returns the digest of the sources.
    pub(super) fn digest(self) -> Digest {
        let mut inputs = Inputs::new();
        for (name, text) in self.0 {
            inputs.add(name, text.as_bytes());
        }
        inputs.digest()
    }

    /// Unpacks the sources below a folder of data, unless they are there. Returns their folder.
    pub(crate) fn unpack(self, data: &Path) -> Result<PathBuf, BuildError> {
        let all = data.join("sdk");
        let folder = all.join(&self.digest().as_hex()[..DIGITS]);
        if !folder.is_dir() {
            self.write(&all, &folder).map_err(BuildError::file("write the SDK into", &folder))?;
        }
        Ok(folder)
    }

    /// Writes the sources beside their place, and moves them there in one step.
    fn write(self, all: &Path, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(all)?;
        let staged = tempfile::Builder::new().prefix(".new-").tempdir_in(all)?;
        for (name, text) in self.0 {
            let path = staged.path().join(name);
            fs::create_dir_all(path.parent().unwrap_or(all))?;
            fs::write(path, text)?;
        }
        match fs::rename(staged.path(), folder) {
            // Another process was faster.
            Err(_) if folder.is_dir() => Ok(()),
            renamed => renamed,
        }
    }
}

impl Link {
    /// Returns the link in projects of a language. `None` if they have none.
    pub(crate) fn of(language: Language) -> Option<Self> {
        match language {
            Language::C | Language::Cpp | Language::Zig => Some(Self { sdk: C, name: ".pcluster/include" }),
            Language::Go => Some(Self { sdk: GO, name: ".pcluster/go" }),
            Language::Rust
            | Language::Python
            | Language::TypeScript
            | Language::JavaScript
            | Language::AssemblyScript => None,
        }
    }

    /// Makes the link in a project, or makes it anew if it leads elsewhere.
    pub(crate) fn make(&self, project: &Path, folder: &Path) -> io::Result<()> {
        make_link(&project.join(self.name), folder)
    }
}

/// Makes a link to a folder, or makes it anew if it leads elsewhere.
fn make_link(link: &Path, folder: &Path) -> io::Result<()> {
    if fs::read_link(link).is_ok_and(|before| before == folder) {
        return Ok(());
    }
    let parent = link.parent().unwrap_or(link);
    fs::create_dir_all(parent)?;
    // In one step: another build may read through the link.
    let staged = tempfile::Builder::new().prefix(".new-").tempdir_in(parent)?;
    let fresh = staged.path().join("link");
    symlink(folder, &fresh)?;
    fs::rename(fresh, link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sdk_is_whole() {
        let data = tempfile::tempdir().expect("a folder");
        for (sdk, files) in [
            (C, &["pcluster.h", "pcluster/read.h", "pcluster/test.h"][..]),
            (GO, &["go.mod", "pcluster.go", "cmd/build/main.go", "internal/host/host.go"]),
        ] {
            let folder = sdk.unpack(data.path()).expect("unpacked");
            for file in files {
                assert!(folder.join(file).is_file(), "{file}");
            }
            assert!(!folder.join("pcluster_test.go").exists());
        }
    }

    #[test]
    fn a_link_leads_to_the_sdk_of_this_program() {
        let project = tempfile::tempdir().expect("a folder");
        let link = Link::of(Language::C).expect("a link");
        for folder in ["/a/größe", "/b", "/b"] {
            link.make(project.path(), Path::new(folder)).expect("made");
            assert_eq!(fs::read_link(project.path().join(link.name)).expect("a link"), Path::new(folder));
        }
        let left = fs::read_dir(project.path().join(".pcluster")).expect("a folder").count();
        assert_eq!(left, 1);
    }
}
