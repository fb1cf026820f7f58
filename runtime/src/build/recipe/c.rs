//! Builds plugins in C and C++ with `zig cc`, which brings the C library for WebAssembly.

use std::fs;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::Made;
use crate::build::error::BuildError;
use crate::build::inputs::Inputs;
use crate::build::sdk::{self, Link};
use crate::build::toolchain::{self, Tool};
use crate::build::{Folder, Settings, language::Language};
use crate::file;

/// The flags of every command. zig builds a C library for each set of flags.
const TARGET: [&str; 4] = ["-target", "wasm32-wasi", "-mexec-model=reactor", "-O2"];
/// The flags for C.
const C11: [&str; 2] = ["-std=c11", "-Wall"];
/// The flags for C++. The C++ library for WebAssembly has no exceptions.
const CPP20: [&str; 3] = ["-std=c++20", "-Wall", "-fno-exceptions"];
/// The flags of the linker. zig puts the stack below the data, so that one that is exhausted is a trap.
const LINK: &str = "-Wl,--strip-debug,-z,stack-size=1048576";
/// The extensions of sources in C++.
const CPP_EXTENSIONS: [&str; 3] = ["cpp", "cc", "cxx"];
/// Folders that hold no sources of a plugin.
const LEFT_OUT: [&str; 4] = ["build", "target", "test", "tests"];

/// zig with the headers of the SDK.
pub(super) struct Compiler {
    zig: Tool,
    /// The folder of the headers.
    headers: PathBuf,
}

impl Compiler {
    /// Finds zig, and leads the folder to the headers.
    pub(super) async fn find(folder: &Folder, settings: &Settings) -> Result<Self, BuildError> {
        let zig = toolchain::ZIG.find(&[], folder, settings).await?;
        let headers = sdk::C.unpack(&settings.data)?;
        if let Some(link) = Link::of(Language::C) {
            // Only for tests by hand: a folder that cannot be written to can be built.
            let _ = link.make(&folder.path, &headers);
        }
        Ok(Self { zig, headers })
    }

    /// Adds what a build depends on.
    pub(super) fn add_inputs(&self, inputs: &mut Inputs) {
        inputs.add("zig", self.zig.version.as_bytes());
        inputs.add("sdk", sdk::C.digest().as_hex().as_bytes());
        for flag in TARGET.iter().chain(&C11).chain(&CPP20).chain([&LINK]) {
            inputs.add("flag", flag.as_bytes());
        }
    }

    /// Returns a command of zig, which runs in the folder: its messages name files as their author does.
    pub(super) fn command(&self, name: &str, folder: &Path, settings: &Settings) -> Command {
        let mut command = self.zig.command(folder);
        let cache = settings.cache.join("zig");
        // One of the user's own may have the C library, which takes zig half a minute.
        if std::env::var_os("ZIG_GLOBAL_CACHE_DIR").is_none() {
            command.env("ZIG_GLOBAL_CACHE_DIR", &cache);
        }
        command.env("ZIG_LOCAL_CACHE_DIR", &cache).arg(name);
        command
    }

    /// Returns the folder of the headers.
    pub(super) fn headers(&self) -> &Path {
        &self.headers
    }

    /// Links a plugin. Returns its bytes.
    pub(super) async fn link(
        &self,
        name: &str,
        objects: &[PathBuf],
        folder: &Folder,
        settings: &Settings,
    ) -> Result<Vec<u8>, BuildError> {
        let made = tempfile::tempdir().map_err(BuildError::file("make a folder in", std::env::temp_dir()))?;
        let plugin = made.path().join("plugin.wasm");
        let mut command = self.command(name, &folder.path, settings);
        command.args(TARGET).arg(LINK).arg("-Wl,--export-dynamic").args(objects).arg("-o").arg(&plugin);
        folder.run(command, told).await?;
        file::read(&plugin, file::PLUGIN_MAX).map_err(BuildError::file("read", &plugin))
    }

    /// Returns those of the files that neither zig nor the SDK has brought.
    fn authors(&self, folder: &Folder, files: Vec<PathBuf>) -> Vec<PathBuf> {
        let program = self.zig.program();
        let program = program.canonicalize().unwrap_or_else(|_| program.to_owned());
        let zig = program.parent().unwrap_or(&program).to_owned();
        let is_author_s = |path: &PathBuf| !path.starts_with(&self.headers) && !path.starts_with(&zig);
        files.into_iter().map(|path| folder.path.join(path)).filter(is_author_s).collect()
    }
}

/// A folder of sources in C and C++.
pub(in crate::build) struct C(Compiler);

impl C {
    /// Finds the compiler.
    pub(super) async fn find(folder: &Folder, settings: &Settings) -> Result<Self, BuildError> {
        Ok(Self(Compiler::find(folder, settings).await?))
    }

    /// Adds what a build depends on.
    pub(super) fn add_inputs(&self, folder: &Folder, inputs: &mut Inputs) -> Result<(), BuildError> {
        self.0.add_inputs(inputs);
        inputs.add_folder(&folder.path, |name| name == "build" || is_test(Path::new(name)))
    }

    /// Builds the plugin.
    pub(super) async fn build(&self, folder: &Folder, settings: &Settings) -> Result<Made, BuildError> {
        let made = tempfile::tempdir().map_err(BuildError::file("make a folder in", std::env::temp_dir()))?;
        let mut sources = Vec::new();
        find_sources(&folder.path, Path::new(""), &mut sources)?;
        sources.sort();
        let (mut objects, mut read) = (Vec::new(), Vec::new());
        for (number, source) in sources.iter().enumerate() {
            let (object, list) = (made.path().join(format!("{number}.o")), made.path().join(format!("{number}.d")));
            let mut command = self.0.command(if is_cpp(source) { "c++" } else { "cc" }, &folder.path, settings);
            command.args(TARGET).args(if is_cpp(source) { &CPP20[..] } else { &C11[..] });
            command.arg("-I").arg(self.0.headers()).args(["-MD", "-MF"]).arg(&list);
            command.arg("-c").arg(source).arg("-o").arg(&object);
            folder.run(command, told).await?;
            read.extend(read_files(&fs::read_to_string(&list).unwrap_or_default()));
            objects.push(object);
        }
        let linker = if sources.iter().any(|source| is_cpp(source)) { "c++" } else { "cc" };
        let bytes = self.0.link(linker, &objects, folder, settings).await?;
        Ok(Made { bytes, read: self.0.authors(folder, read) })
    }
}

/// Collects the sources of a plugin, relative to its folder.
fn find_sources(folder: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<(), BuildError> {
    let path = folder.join(below);
    for entry in fs::read_dir(&path).map_err(BuildError::file("read", &path))?.flatten() {
        let name = entry.file_name();
        let file = below.join(&name);
        let name = name.to_string_lossy();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if !name.starts_with('.') && !LEFT_OUT.contains(&&*name) {
                find_sources(folder, &file, found)?;
            }
        } else if (is_cpp(&file) || has_extension(&file, "c")) && !is_test(&file) && !name.starts_with('.') {
            found.push(file);
        }
    }
    Ok(())
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|each| each == extension)
}

fn is_cpp(path: &Path) -> bool {
    CPP_EXTENSIONS.iter().any(|extension| has_extension(path, extension))
}

/// Returns `true` if a file has unit tests, which are no part of a plugin.
fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("_test"))
}

/// Returns what the compiler says, and what to do.
pub(super) fn told(said: &str) -> String {
    let shown = crate::build::tool::first_lines(said);
    match twice(said) {
        Some(task) => format!("two tasks are named `{task}`; rename one\n{shown}"),
        None => format!("\n{shown}"),
    }
}

/// Returns the name that two tasks have, if that is the error.
fn twice(said: &str) -> Option<&str> {
    const EXPORT: &str = "pcluster_task_";
    let line = said.lines().find(|line| {
        (line.contains("redefinition of") || line.contains("duplicate symbol")) && line.contains(EXPORT)
    })?;
    let (_, name) = line.split_once(EXPORT)?;
    let end = name.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(name.len());
    name.get(..end)
}

/// Returns the files in a list that the compiler leaves for `make`.
fn read_files(list: &str) -> Vec<PathBuf> {
    let joined = list.replace("\\\n", " ");
    let Some((_, files)) = joined.split_once(": ") else { return Vec::new() };
    let (mut names, mut name) = (Vec::new(), String::new());
    let mut letters = files.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if letters.peek().is_some_and(|next| matches!(next, ' ' | '#' | '\\')) => name.extend(letters.next()),
            '$' if letters.peek() == Some(&'$') => name.extend(letters.next()),
            letter if letter.is_whitespace() => names.push(std::mem::take(&mut name)),
            letter => name.push(letter),
        }
    }
    names.push(name);
    names.into_iter().filter(|name| !name.is_empty()).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_list_are_read_whatever_their_names() {
        let list = "/t/0.o: tasks.c ../a\\ b/größe.h \\\n  /x/$$1.h\n";
        assert_eq!(read_files(list), ["tasks.c", "../a b/größe.h", "/x/$1.h"].map(PathBuf::from));
        assert!(read_files("").is_empty());
    }

    #[test]
    fn sources_are_those_of_the_folder_but_for_tests() {
        let at = tempfile::tempdir().expect("a folder");
        for name in ["b.c", "a.cpp", "a_test.c", "c.h", ".d.c", "more/e.cc", "tests/f.c", "build/g.c", "notes.md"] {
            let path = at.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, "").expect("written");
        }
        let mut found = Vec::new();
        find_sources(at.path(), Path::new(""), &mut found).expect("read");
        found.sort();
        assert_eq!(found, ["a.cpp", "b.c", "more/e.cc"].map(PathBuf::from));
    }

    #[test]
    fn two_tasks_of_one_name_are_told() {
        for said in [
            "tasks.c:9:1: error: redefinition of 'pcluster_task_clean'",
            "error: wasm-ld: duplicate symbol: pcluster_task_clean\n  >>> defined in 0.o",
        ] {
            assert!(told(said).starts_with("two tasks are named `clean`; rename one\n"), "{}", told(said));
        }
        assert_eq!(told("tasks.c:1:1: error: redefinition of 'run'"), "\ntasks.c:1:1: error: redefinition of 'run'");
    }
}
