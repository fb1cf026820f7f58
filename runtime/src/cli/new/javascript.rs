//! New plugins in `JavaScript`.

use super::template::{Project, Sources, Template};

/// Returns the sources of a plugin.
pub(super) fn sources(project: &Project, template: Template) -> Sources {
    let (source, test) = match template {
        Template::Map => (include_str!("javascript/map.js"), include_str!("javascript/map.test.js")),
        Template::Filter => (include_str!("javascript/filter.js"), include_str!("javascript/filter.test.js")),
        Template::Generator => (include_str!("javascript/generator.js"), include_str!("javascript/generator.test.js")),
        Template::Stateful => (include_str!("javascript/stateful.js"), include_str!("javascript/stateful.test.js")),
    };
    Sources {
        files: vec![
            ("package.json".to_owned(), project.named(include_str!("javascript/package.json"))),
            ("tasks.js".to_owned(), project.named(source)),
            ("tasks.test.js".to_owned(), project.named(test)),
        ],
        ignored: "/node_modules/\n",
        test: "node --import pcluster/register --test tasks.test.js",
        main: "tasks.js",
    }
}
