//! New plugins in `TypeScript`.

use super::template::{Project, Sources, Template};

/// Returns the sources of a plugin.
pub(super) fn sources(project: &Project, template: Template) -> Sources {
    let (source, test) = match template {
        Template::Map => (include_str!("typescript/map.ts"), include_str!("javascript/map.test.js")),
        Template::Filter => (include_str!("typescript/filter.ts"), include_str!("javascript/filter.test.js")),
        Template::Generator => (include_str!("typescript/generator.ts"), include_str!("javascript/generator.test.js")),
        Template::Stateful => (include_str!("typescript/stateful.ts"), include_str!("javascript/stateful.test.js")),
    };
    // What is tested needs no types of its own.
    let test = project.named(test).replace("./tasks.js", "./tasks.ts");
    Sources {
        files: vec![
            ("package.json".to_owned(), project.named(include_str!("typescript/package.json"))),
            ("tasks.test.ts".to_owned(), test),
            ("tasks.ts".to_owned(), project.named(source)),
            ("tsconfig.json".to_owned(), include_str!("typescript/tsconfig.json").to_owned()),
        ],
        ignored: "/node_modules/\n",
        test: "node --import pcluster/register --test tasks.test.ts",
        main: "tasks.ts",
    }
}
