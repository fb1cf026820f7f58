//! New plugins in Python.

use super::template::{Project, Sources, Template};

/// Names that cannot be those of a task: words of the language, and names of the templates.
pub(super) const RESERVED: &[&str] = &[
    "and",
    "as",
    "assert",
    "async",
    "await",
    "break",
    "class",
    "context",
    "continue",
    "dataclass",
    "def",
    "del",
    "elif",
    "else",
    "except",
    "finally",
    "for",
    "from",
    "global",
    "if",
    "import",
    "in",
    "is",
    "lambda",
    "len",
    "load",
    "log",
    "match",
    "nonlocal",
    "not",
    "or",
    "pass",
    "raise",
    "return",
    "task",
    "tasks",
    "try",
    "unittest",
    "while",
    "with",
    "yield",
];

/// Returns the sources of a plugin.
pub(super) fn sources(project: &Project, template: Template) -> Sources {
    let (source, test) = match template {
        Template::Map => (include_str!("python/map.py"), include_str!("python/test_map.py")),
        Template::Filter => (include_str!("python/filter.py"), include_str!("python/test_filter.py")),
        Template::Generator => (include_str!("python/generator.py"), include_str!("python/test_generator.py")),
        Template::Stateful => (include_str!("python/stateful.py"), include_str!("python/test_stateful.py")),
    };
    let named = |text: &str| text.replace("task_name", &project.task);
    Sources {
        files: vec![("tasks.py".to_owned(), named(source)), ("test_tasks.py".to_owned(), named(test))],
        ignored: "__pycache__/\n/.venv/\n/build/\n",
        test: "python3 -m unittest",
        main: "tasks.py",
    }
}
