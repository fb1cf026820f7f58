//! New plugins in C.

use super::template::{Project, Sources, Template};

/// How the formatter of C and C++ lays out the files.
pub(super) const FORMAT: &str = include_str!("clang-format.txt");
/// What git ignores in a folder of C or C++.
pub(super) const IGNORED: &str = "# The headers of the SDK on this machine, and the built tests.\n/.pcluster/\n";

/// Returns the sources of a plugin.
pub(super) fn sources(project: &Project, template: Template) -> Sources {
    let (source, test) = match template {
        Template::Map => (include_str!("c/map.c"), include_str!("c/map_test.c")),
        Template::Filter => (include_str!("c/filter.c"), include_str!("c/filter_test.c")),
        Template::Generator => (include_str!("c/generator.c"), include_str!("c/generator_test.c")),
        Template::Stateful => (include_str!("c/stateful.c"), include_str!("c/stateful_test.c")),
    };
    Sources {
        files: vec![
            (".clang-format".to_owned(), FORMAT.to_owned()),
            ("compile_flags.txt".to_owned(), include_str!("c/compile_flags.txt").to_owned()),
            ("tasks.c".to_owned(), project.named(source)),
            ("tasks_test.c".to_owned(), project.named(test)),
        ],
        ignored: IGNORED,
        test: "cc @compile_flags.txt tasks_test.c -o .pcluster/test && .pcluster/test",
        main: "tasks.c",
    }
}
