//! The languages that plugins are built from, and the folders that show them.

use std::fs;
use std::path::Path;

/// A language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Language {
    /// Rust
    Rust,
    /// Python
    Python,
    /// `TypeScript`
    #[value(name = "typescript", help = "TypeScript")]
    TypeScript,
    /// `JavaScript`
    #[value(name = "javascript", help = "JavaScript")]
    JavaScript,
    /// Go
    Go,
    /// C
    C,
    /// C++
    Cpp,
    /// Zig
    Zig,
    /// `AssemblyScript`
    #[value(name = "assemblyscript", help = "AssemblyScript")]
    AssemblyScript,
}

/// What shows the language of a folder.
enum Mark {
    /// A file of this name.
    Name(&'static str),
    /// Any file with this extension.
    Extension(&'static str),
}

/// The marks, in the order in which they decide: a project's file outranks a lone source.
const MARKS: [(Mark, Language); 16] = [
    (Mark::Name("Cargo.toml"), Language::Rust),
    (Mark::Name("pyproject.toml"), Language::Python),
    (Mark::Name("go.mod"), Language::Go),
    (Mark::Name("asconfig.json"), Language::AssemblyScript),
    (Mark::Name("tsconfig.json"), Language::TypeScript),
    (Mark::Extension("py"), Language::Python),
    (Mark::Extension("ts"), Language::TypeScript),
    (Mark::Extension("mts"), Language::TypeScript),
    (Mark::Name("package.json"), Language::JavaScript),
    (Mark::Extension("js"), Language::JavaScript),
    (Mark::Extension("mjs"), Language::JavaScript),
    (Mark::Extension("zig"), Language::Zig),
    (Mark::Extension("cpp"), Language::Cpp),
    (Mark::Extension("cc"), Language::Cpp),
    (Mark::Extension("cxx"), Language::Cpp),
    (Mark::Extension("c"), Language::C),
];

impl Language {
    /// Returns the language of a folder. `None` if the folder shows none.
    pub(crate) fn of(folder: &Path) -> Option<Self> {
        let names: Vec<_> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.file_name()).collect();
        let has = |mark: &Mark| match mark {
            Mark::Name(name) => names.iter().any(|each| each == *name),
            Mark::Extension(extension) => {
                names.iter().any(|each| Path::new(each).extension().is_some_and(|each| each == *extension))
            }
        };
        MARKS.iter().find(|(mark, _)| has(mark)).map(|(_, language)| *language)
    }

    /// Returns the language of a source. `None` if it is no source.
    pub(crate) fn of_file(file: &Path) -> Option<Self> {
        let found = file.extension()?;
        let is = |mark: &Mark| matches!(mark, Mark::Extension(extension) if found == *extension);
        MARKS.iter().find(|(mark, _)| is(mark)).map(|(_, language)| *language)
    }

    /// Returns the name of the language as its users write it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
            Self::TypeScript => "TypeScript",
            Self::JavaScript => "JavaScript",
            Self::Go => "Go",
            Self::C => "C",
            Self::Cpp => "C++",
            Self::Zig => "Zig",
            Self::AssemblyScript => "AssemblyScript",
        }
    }

    /// Returns how a function is marked as a task.
    pub(crate) fn how_to_mark(self) -> &'static str {
        match self {
            Self::Rust => "mark a function with `#[task]`",
            Self::Python => "mark a function with `@task`, imported with `from pcluster import task`",
            Self::TypeScript | Self::JavaScript => "export one, as in `export const NAME = task((item) => item)`",
            Self::Go => "register a function in main, as in `pcluster.Map(\"name\", function)`",
            Self::C | Self::Cpp => "make a function one with `PCLUSTER_TASK(name, function)`",
            Self::Zig | Self::AssemblyScript => "export a function as `pcluster_task_NAME`",
        }
    }
}

/// Returns the marks of all languages in words.
pub(super) fn marks() -> String {
    let words = MARKS.map(|(mark, language)| match mark {
        Mark::Name(name) => format!("a `{name}` ({})", language.title()),
        Mark::Extension(extension) => format!("a `.{extension}` file ({})", language.title()),
    });
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_outranks_a_lone_source() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = |name: &str| {
            fs::write(folder.path().join(name), "").expect("written");
            Language::of(folder.path())
        };
        assert_eq!(of("README.md"), None);
        assert_eq!(of("tool.c"), Some(Language::C));
        assert_eq!(of("tool.cc"), Some(Language::Cpp));
        assert_eq!(of("tool.js"), Some(Language::JavaScript));
        assert_eq!(of("tool.ts"), Some(Language::TypeScript));
        assert_eq!(of("tool.py"), Some(Language::Python));
        assert_eq!(of("go.mod"), Some(Language::Go));
        assert_eq!(of("Cargo.toml"), Some(Language::Rust));
        assert_eq!(Language::of(&folder.path().join("none")), None);
    }
}
