//! New plugins in Rust.

use super::template::{Project, Sources, Template};

/// Names that cannot be those of a task: words of the language, and names of crates and functions of the templates.
pub(super) const RESERVED: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "load",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "pcluster_abi",
    "pcluster_macros",
    "pcluster_sdk",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "serde",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "word",
    "words",
    "yield",
];

/// Returns the sources of a plugin.
pub(super) fn sources(project: &Project, template: Template) -> Sources {
    let source = match template {
        Template::Map => include_str!("rust/map.rs"),
        Template::Filter => include_str!("rust/filter.rs"),
        Template::Generator => include_str!("rust/generator.rs"),
        Template::Stateful => include_str!("rust/stateful.rs"),
    };
    let manifest = include_str!("rust/Cargo.toml.txt");
    let manifest = project.named(manifest).replace("sdk-version", env!("CARGO_PKG_VERSION"));
    Sources {
        files: vec![("Cargo.toml".to_owned(), manifest), ("src/lib.rs".to_owned(), project.named(source))],
        ignored: "/target\n# The path of the SDK on this machine.\n/.cargo/config.toml\n",
        test: "cargo test",
        main: "src/lib.rs",
    }
}
