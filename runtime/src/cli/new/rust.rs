//! New plugins in Rust.

use super::template::{Project, Sources, Template};

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
