//! Embeds the sources of the SDK for Rust. With them, `pcluster build` needs no clone of this repository.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The parts of the SDK that a build of a plugin needs, in the repository.
const PARTS: [&str; 6] =
    ["sdk/Cargo.toml", "sdk/abi/Cargo.toml", "sdk/abi/src", "sdk/macros/Cargo.toml", "sdk/macros/src", "sdk/src"];

fn main() -> io::Result<()> {
    let variable = |name| env::var_os(name).map(PathBuf::from).ok_or_else(|| io::Error::other(format!("no {name}")));
    let repository = variable("CARGO_MANIFEST_DIR")?.join("..").canonicalize()?;
    let mut files = Vec::new();
    for part in PARTS {
        println!("cargo::rerun-if-changed={}", repository.join(part).display());
        collect(&repository.join(part), &mut files)?;
    }
    files.sort();
    let manifest = repository.join("Cargo.toml");
    println!("cargo::rerun-if-changed={}", manifest.display());
    let mut source = format!("&[\n    (\"Cargo.toml\", {:?}),\n", workspace(&fs::read_to_string(manifest)?));
    for file in files {
        let name = file.strip_prefix(&repository).map_err(io::Error::other)?;
        let _ =
            writeln!(source, "    ({:?}, include_str!({:?})),", name.display().to_string(), file.display().to_string());
    }
    source.push_str("]\n");
    fs::write(variable("OUT_DIR")?.join("sdk.rs"), source)
}

/// Collects a file, or all files of a folder.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}

/// Returns the repository's manifest as that of a workspace of the SDK alone.
fn workspace(manifest: &str) -> String {
    let head = manifest.split("\n[profile.").next().unwrap_or_default();
    let is_kept = |line: &&str| !["members", "exclude", "default-members", "#"].iter().any(|key| line.starts_with(key));
    let mut text: String = head.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect();
    text = text.replacen("[workspace]\n", "[workspace]\nmembers = [\"sdk\", \"sdk/abi\", \"sdk/macros\"]\n", 1);
    text
}
