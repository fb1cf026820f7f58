//! New plugins in C++.

use super::c::{FORMAT, IGNORED};
use super::template::{Project, Sources, Template};

/// Returns the sources of a plugin.
pub(super) fn sources(project: &Project, template: Template) -> Sources {
    let (source, test) = match template {
        Template::Map => (include_str!("cpp/map.cpp"), include_str!("cpp/map_test.cpp")),
        Template::Filter => (include_str!("cpp/filter.cpp"), include_str!("cpp/filter_test.cpp")),
        Template::Generator => (include_str!("cpp/generator.cpp"), include_str!("cpp/generator_test.cpp")),
        Template::Stateful => (include_str!("cpp/stateful.cpp"), include_str!("cpp/stateful_test.cpp")),
    };
    Sources {
        files: vec![
            (".clang-format".to_owned(), FORMAT.to_owned()),
            ("compile_flags.txt".to_owned(), include_str!("cpp/compile_flags.txt").to_owned()),
            ("tasks.cpp".to_owned(), project.named(source)),
            ("tasks_test.cpp".to_owned(), project.named(test)),
        ],
        ignored: IGNORED,
        test: "c++ @compile_flags.txt tasks_test.cpp -o .pcluster/test && .pcluster/test",
        main: "tasks.cpp",
    }
}
