//! Builds plugins in Zig, with the header for C as their module `pcluster`.

use std::fs;
use std::path::{Path, PathBuf};

use super::Made;
use super::c::Compiler;
use crate::build::error::BuildError;
use crate::build::inputs::Inputs;
use crate::build::{Folder, Settings, tool};

/// The flags of the translation and of the compiler.
const TARGET: [&str; 3] = ["-target", "wasm32-wasi", "-lc"];
/// The names that the file of the tasks may have among others.
const ROOTS: [&str; 3] = ["tasks.zig", "main.zig", "root.zig"];
/// The author's own script, which builds what the author wants.
const SCRIPT: &str = "build.zig";
/// The functions that WebAssembly imports: their names begin so in the header, and the module that has them.
const IMPORTS: [(&str, &str); 2] = [("pcluster_host_", "pcluster_v1"), ("pcluster_wasi_", "wasi_snapshot_preview1")];

/// zig and the file of the tasks.
pub(in crate::build) struct Zig {
    compiler: Compiler,
    /// The name of the file.
    root: String,
}

impl Zig {
    /// Finds the compiler and the file.
    pub(super) async fn find(folder: &Folder, settings: &Settings) -> Result<Self, BuildError> {
        let root = root(&folder.path).ok_or_else(|| {
            folder.failed("of several files in Zig, the one with the tasks is named `tasks.zig` or `main.zig`")
        })?;
        Ok(Self { compiler: Compiler::find(folder, settings).await?, root })
    }

    /// Adds what a build depends on.
    pub(super) fn add_inputs(&self, folder: &Folder, inputs: &mut Inputs) -> Result<(), BuildError> {
        self.compiler.add_inputs(inputs);
        inputs.add_folder(&folder.path, |name| matches!(name, "build" | "zig-out"))
    }

    /// Builds the plugin.
    pub(super) async fn build(&self, folder: &Folder, settings: &Settings) -> Result<Made, BuildError> {
        let made = tempfile::tempdir().map_err(BuildError::file("make a folder in", std::env::temp_dir()))?;
        let module = made.path().join("pcluster.zig");
        let header = self.compiler.headers().join("pcluster.h");
        let mut translate = self.compiler.command("translate-c", &folder.path, settings);
        translate.args(TARGET).arg("-I").arg(self.compiler.headers()).arg(&header);
        let translated = folder.run(translate, told).await?;
        let text = with_imports(&tool::text(&translated.stdout));
        fs::write(&module, text).map_err(BuildError::file("write", &module))?;
        let object = made.path().join("tasks.o");
        let mut compile = self.compiler.command("build-obj", &folder.path, settings);
        compile.args(TARGET).args(["-O", "ReleaseSmall", "--dep", "pcluster"]);
        compile.arg(format!("-Mroot={}", self.root)).arg(format!("-Mpcluster={}", module.display()));
        compile.arg(format!("-femit-bin={}", object.display()));
        folder.run(compile, told).await?;
        // Linked as plugins in C are: zig builds a C library of its own for any other settings.
        let bytes = self.compiler.link("cc", &[object], folder, settings).await?;
        // A file of Zig reaches no other folder.
        Ok(Made { bytes, read: Vec::new() })
    }
}

/// Returns the file with the tasks. `None` if there are several that may be it.
fn root(folder: &Path) -> Option<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_source = |name: &String| PathBuf::from(name).extension().is_some_and(|end| end == "zig") && name != SCRIPT;
    let mut names: Vec<String> = names.filter(is_source).collect();
    match names.len() {
        1 => names.pop(),
        _ => ROOTS.iter().find(|root| names.iter().any(|name| name == *root)).map(|root| (*root).to_owned()),
    }
}

/// Names the module of each imported function, which the translation forgets.
fn with_imports(translated: &str) -> String {
    let imported = |line: &str| {
        let declared = line.strip_prefix("pub extern fn ")?.strip_suffix(';')?;
        let (prefix, module) = IMPORTS.iter().find(|(prefix, _)| declared.starts_with(prefix))?;
        let (name, rest) = declared.strip_prefix(prefix)?.split_once('(')?;
        Some(format!("pub const {prefix}{name} = struct {{ extern \"{module}\" fn {name}({rest}; }}.{name};"))
    };
    translated.lines().flat_map(|line| [imported(line).unwrap_or_else(|| line.to_owned()), "\n".to_owned()]).collect()
}

/// Returns what the compiler says.
fn told(said: &str) -> String {
    format!("\n{}", tool::first_lines(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_name_their_module() {
        let translated = "pub extern fn pcluster_host_emit(item: ?*const anyopaque, size: usize) void;\n\
                          pub extern fn malloc(size: usize) ?*anyopaque;\n\
                          pub extern fn pcluster_wasi_random_get(to: ?*anyopaque, size: usize) i32;";
        let expected = "pub const pcluster_host_emit = struct { extern \"pcluster_v1\" fn emit(item: ?*const anyopaque, size: usize) void; }.emit;\n\
                        pub extern fn malloc(size: usize) ?*anyopaque;\n\
                        pub const pcluster_wasi_random_get = struct { extern \"wasi_snapshot_preview1\" fn random_get(to: ?*anyopaque, size: usize) i32; }.random_get;\n";
        assert_eq!(with_imports(translated), expected);
    }

    #[test]
    fn the_file_with_the_tasks_is_the_only_one_or_has_its_name() {
        let at = tempfile::tempdir().expect("a folder");
        let with = |name: &str| {
            fs::write(at.path().join(name), "").expect("written");
            root(at.path())
        };
        assert_eq!(with(SCRIPT), None);
        assert_eq!(with("letters.zig").as_deref(), Some("letters.zig"));
        assert_eq!(with("words.zig"), None);
        assert_eq!(with("tasks.zig").as_deref(), Some("tasks.zig"));
    }
}
