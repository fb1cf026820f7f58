//! New plugins in Go.

use super::template::{Project, Sources, Template};

/// Returns the sources of a plugin.
pub(super) fn sources(project: &Project, template: Template) -> Sources {
    let (source, test) = match template {
        Template::Map => (include_str!("go/map.go"), include_str!("go/map_test.go")),
        Template::Filter => (include_str!("go/filter.go"), include_str!("go/filter_test.go")),
        Template::Generator => (include_str!("go/generator.go"), include_str!("go/generator_test.go")),
        Template::Stateful => (include_str!("go/stateful.go"), include_str!("go/stateful_test.go")),
    };
    Sources {
        files: vec![
            ("go.mod".to_owned(), project.named(include_str!("go/go.mod.txt"))),
            ("main.go".to_owned(), project.named(source)),
            ("main_test.go".to_owned(), test.to_owned()),
        ],
        ignored: "# The SDK on this machine.\n/.pcluster/\n",
        test: "go test ./...",
        main: "main.go",
    }
}
