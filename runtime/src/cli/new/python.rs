//! New plugins in Python.

use super::template::{Project, Sources, Template};

/// Returns the sources of a plugin.
pub(super) fn sources(project: &Project, template: Template) -> Sources {
    let (source, test) = match template {
        Template::Map => (include_str!("python/map.py"), include_str!("python/test_map.py")),
        Template::Filter => (include_str!("python/filter.py"), include_str!("python/test_filter.py")),
        Template::Generator => (include_str!("python/generator.py"), include_str!("python/test_generator.py")),
        Template::Stateful => (include_str!("python/stateful.py"), include_str!("python/test_stateful.py")),
    };
    Sources {
        files: vec![("tasks.py".to_owned(), project.named(source)), ("test_tasks.py".to_owned(), project.named(test))],
        ignored: "__pycache__/\n/.venv/\n/build/\n",
        test: "python3 -m unittest",
        main: "tasks.py",
    }
}
