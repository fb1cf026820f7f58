//! Embeds the sources of SDKs. With them, `pcluster build` needs no clone of this repository.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The parts of the SDK for Rust that a build of a plugin needs, in the repository.
const RUST: [&str; 6] =
    ["sdk/Cargo.toml", "sdk/abi/Cargo.toml", "sdk/abi/src", "sdk/macros/Cargo.toml", "sdk/macros/src", "sdk/src"];
/// The headers for C.
const C: [&str; 2] = ["sdk/c/pcluster.h", "sdk/c/pcluster"];
/// The module for Go.
const GO: [&str; 1] = ["sdk/go"];

fn main() -> io::Result<()> {
    let variable = |name| env::var_os(name).map(PathBuf::from).ok_or_else(|| io::Error::other(format!("no {name}")));
    let repository = variable("CARGO_MANIFEST_DIR")?.join("..").canonicalize()?;
    let out = variable("OUT_DIR")?;
    let manifest = repository.join("Cargo.toml");
    println!("cargo::rerun-if-changed={}", manifest.display());
    let workspace = format!("    (\"Cargo.toml\", {:?}),\n", workspace(&fs::read_to_string(manifest)?));
    embed(&repository, &repository, &RUST, &workspace, &out.join("sdk-rust.rs"))?;
    embed(&repository, &repository.join("sdk/c"), &C, "", &out.join("sdk-c.rs"))?;
    embed(&repository, &repository.join("sdk/go"), &GO, "", &out.join("sdk-go.rs"))
}

/// Writes a list of files and their texts, with names relative to a folder.
fn embed(repository: &Path, folder: &Path, parts: &[&str], first: &str, to: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for part in parts {
        println!("cargo::rerun-if-changed={}", repository.join(part).display());
        collect(&repository.join(part), &mut files)?;
    }
    files.sort();
    let mut source = format!("&[\n{first}");
    for file in files {
        let name = file.strip_prefix(folder).map_err(io::Error::other)?;
        let _ =
            writeln!(source, "    ({:?}, include_str!({:?})),", name.display().to_string(), file.display().to_string());
    }
    source.push_str("]\n");
    fs::write(to, source)
}

/// Collects a file, or all files of a folder but tests of Go.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.to_string_lossy().ends_with("_test.go") {
        return Ok(());
    }
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
