//! Plugins as their authors make them: with `pcluster new` and `pcluster build`, and the compilers that the tests use.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Cluster, install_javascript, python_package, repository};

use crate::beside::{said, script};

/// A language that plugins are written in.
#[derive(Debug, Clone, Copy)]
pub struct Language {
    /// Its name for `pcluster new`.
    pub name: &'static str,
    /// Its name as its users write it.
    pub title: &'static str,
    /// The ending of its sources.
    pub ending: &'static str,
    /// The source of a new folder that has its task.
    pub main: &'static str,
    /// The scripts of `.make` that provide its tools.
    scripts: &'static [&'static str],
}

const fn language(
    name: &'static str,
    title: &'static str,
    ending: &'static str,
    main: &'static str,
    scripts: &'static [&'static str],
) -> Language {
    Language { name, title, ending, main, scripts }
}

pub const RUST: Language = language("rust", "Rust", "rs", "src/lib.rs", &["wasm-target"]);
pub const PYTHON: Language = language("python", "Python", "py", "tasks.py", &["python-engine"]);
pub const TYPESCRIPT: Language =
    language("typescript", "TypeScript", "ts", "tasks.ts", &["quickjs-engine", "javascript"]);
pub const C: Language = language("c", "C", "c", "tasks.c", &["ziglang"]);
pub const GO: Language = language("go", "Go", "go", "main.go", &["go"]);

/// All languages that `pcluster new` knows.
pub const LANGUAGES: [Language; 9] = [
    RUST,
    PYTHON,
    TYPESCRIPT,
    language("javascript", "JavaScript", "js", "tasks.js", &["quickjs-engine", "javascript"]),
    C,
    language("cpp", "C++", "cpp", "tasks.cpp", &["ziglang"]),
    language("zig", "Zig", "zig", "tasks.zig", &["ziglang"]),
    GO,
    language("assemblyscript", "AssemblyScript", "ts", "tasks.ts", &["assemblyscript"]),
];

/// The languages in which the tasks of the benchmarks are written.
pub const WITH_TASKS: [Language; 5] = [RUST, PYTHON, TYPESCRIPT, C, GO];

impl Language {
    /// Provides the tools. The error says what is missing.
    pub fn provide(&self) -> Result<(), String> {
        self.scripts.iter().try_for_each(|name| said(&mut script(&[name])).map(drop))
    }

    /// Returns the source of the three typical stages.
    pub fn w1(&self) -> PathBuf {
        match self.name {
            "rust" => repository().join("plugins/probe/src/words.rs"),
            _ => self.source("w1"),
        }
    }

    /// Returns a source of this folder.
    pub fn source(&self, name: &str) -> PathBuf {
        repository().join(format!("tests/bench/tasks/{name}.{}", self.ending))
    }
}

/// A folder in which an author has installed what plugins are built with.
pub struct Author<'a> {
    cluster: &'a Cluster,
    python: PathBuf,
}

impl<'a> Author<'a> {
    /// Makes the folder of a cluster that of an author.
    pub fn new(cluster: &'a Cluster) -> Self {
        let package = python_package().display().to_string();
        let python = cluster.file("python", format!("#!/bin/sh\nPYTHONPATH='{package}' exec python3 \"$@\"\n"));
        std::fs::set_permissions(&python, PermissionsExt::from_mode(0o755)).unwrap();
        Self { cluster, python }
    }

    /// Provides the tools of a language. The error says what is missing.
    pub fn install(&self, language: &Language) -> Result<(), String> {
        language.provide()?;
        let packages = self.cluster.path("node_modules");
        if language.scripts.contains(&"javascript") && !packages.exists() {
            install_javascript(&self.cluster.path(""));
            symlink(repository().join(".tools/npm/node_modules/zod"), packages.join("zod")).unwrap();
        }
        Ok(())
    }

    /// Returns a `pcluster` command in a folder of the author.
    pub fn command(&self, folder: &str, arguments: &[&str]) -> Command {
        let mut command = self.cluster.command(arguments);
        let own = [repository().join(".tools/bin")];
        let path = std::env::var_os("PATH").unwrap();
        command.env("PATH", std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path))).unwrap());
        // What zig builds once for all plugins, as the C library, is there.
        command.env("ZIG_GLOBAL_CACHE_DIR", repository().join(".tools/zig-cache"));
        command.env("PCLUSTER_PYTHON", &self.python);
        command.current_dir(self.cluster.path(folder));
        command
    }

    /// Builds a new folder, with this source in place of its task if there is one. Returns the plugin.
    pub fn plugin(&self, language: &Language, name: &str, source: Option<&Path>) -> Result<PathBuf, String> {
        self.install(language)?;
        said(&mut self.command("", &["new", name, "--lang", language.name]))?;
        if let Some(source) = source {
            std::fs::copy(source, self.cluster.path(name).join(language.main)).map_err(|error| error.to_string())?;
        }
        Ok(said(&mut self.command(name, &["build", "--offline"]))?.trim_end().into())
    }
}
