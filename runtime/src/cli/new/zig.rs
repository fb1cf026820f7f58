//! New plugins in Zig.

use super::template::{Project, Sources, Template};

/// Returns the sources of a plugin.
pub(super) fn sources(project: &Project, template: Template) -> Sources {
    let source = match template {
        Template::Map => include_str!("zig/map.zig"),
        Template::Filter => include_str!("zig/filter.zig"),
        Template::Generator => include_str!("zig/generator.zig"),
        Template::Stateful => include_str!("zig/stateful.zig"),
    };
    Sources {
        files: vec![
            ("Makefile".to_owned(), include_str!("zig/Makefile.txt").to_owned()),
            ("tasks.zig".to_owned(), project.named(source)),
        ],
        ignored: "# The headers of the SDK on this machine, and what tests need.\n/.pcluster/\n/.zig-cache/\n",
        test: "make test",
        main: "tasks.zig",
    }
}
