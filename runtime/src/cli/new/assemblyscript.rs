//! New plugins in `AssemblyScript`.

use super::template::{Project, Sources, Template};

/// Returns the sources of a plugin.
pub(super) fn sources(project: &Project, template: Template) -> Sources {
    let (source, test) = match template {
        Template::Map => (include_str!("assemblyscript/map.ts"), include_str!("assemblyscript/map.test.mjs")),
        Template::Filter => (include_str!("assemblyscript/filter.ts"), include_str!("assemblyscript/filter.test.mjs")),
        Template::Generator => {
            (include_str!("assemblyscript/generator.ts"), include_str!("assemblyscript/generator.test.mjs"))
        }
        Template::Stateful => {
            (include_str!("assemblyscript/stateful.ts"), include_str!("assemblyscript/stateful.test.mjs"))
        }
    };
    let own = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    Sources {
        files: vec![
            own("asconfig.json", include_str!("assemblyscript/asconfig.json")),
            own("host.mjs", include_str!("assemblyscript/host.mjs")),
            own("pcluster.ts", include_str!("assemblyscript/pcluster.ts")),
            ("tasks.test.mjs".to_owned(), project.named(test)),
            ("tasks.ts".to_owned(), project.named(source)),
        ],
        ignored: "/node_modules/\n# What tests run.\n/tasks.wasm\n",
        test: "pcluster build -o tasks.wasm && node --test",
        main: "tasks.ts",
    }
}
