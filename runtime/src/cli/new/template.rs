//! What the templates of all languages have in common.

use super::reserved;
use crate::build::language::Language;
use crate::name::{ChainName, MAX_NAME_LEN};

/// What the task of a new plugin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Template {
    /// Makes an item of another
    Map,
    /// Keeps an item, or drops it
    Filter,
    /// Makes many items of one
    Generator,
    /// Uses a state that is made once
    Stateful,
}

/// The sources of a plugin.
pub(super) struct Sources {
    /// The files: paths and texts.
    pub(super) files: Vec<(String, String)>,
    /// What git ignores.
    pub(super) ignored: &'static str,
    /// The command that runs the unit tests.
    pub(super) test: &'static str,
    /// The file with the task.
    pub(super) main: &'static str,
}

/// The names in a new folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Project {
    /// The name of the chain and the package.
    pub(super) name: String,
    /// The name of the task.
    pub(super) task: String,
}

impl Project {
    /// Creates the names of a project. Returns what is wrong with a name that cannot be one.
    pub(super) fn new(name: &str, language: Language) -> Result<Self, String> {
        let starts_well = name.starts_with(|first: char| first.is_ascii_lowercase());
        if name.parse::<ChainName>().is_err() || !starts_well {
            return Err(format!(
                "`{name}` cannot name a chain and a task: such a name starts with a letter, and has at most {MAX_NAME_LEN} of a-z, \
                 0-9, `-` and `_`"
            ));
        }
        let task = name.replace('-', "_");
        let reserved = match language {
            Language::Rust => reserved::RUST,
            Language::Python => reserved::PYTHON,
            Language::TypeScript | Language::JavaScript => reserved::JAVASCRIPT,
            // There, functions have names of their own.
            Language::Go | Language::C | Language::Cpp | Language::Zig | Language::AssemblyScript => &[],
        };
        if reserved.contains(&task.as_str()) {
            return Err(format!("`{name}` means something else in {}, and cannot name a task", language.title()));
        }
        Ok(Self { name: name.to_owned(), task })
    }

    /// Returns the text of a template with the names of the project.
    pub(super) fn named(&self, text: &str) -> String {
        text.replace("project-name", &self.name).replace("task_name", &self.task)
    }
}

impl Template {
    /// The tasks of a new chain, with their templates.
    pub(super) const CHAIN: [(&'static str, Self); 3] =
        [("split", Self::Generator), ("keep", Self::Filter), ("measure", Self::Map)];

    /// Returns an item that the task takes.
    pub(super) fn example(self) -> &'static str {
        match self {
            Self::Map | Self::Filter => r#"{"word": "example"}"#,
            Self::Generator => r#"{"text": "an example of a text"}"#,
            Self::Stateful => r#"{"word": "eg"}"#,
        }
    }

    /// Returns the `config` of the stage, as a line of its manifest.
    fn config(self) -> &'static str {
        match self {
            Self::Map => "# The most letters of a word.\nconfig = { most = 30 }\n",
            Self::Filter => "# Words with fewer letters are dropped.\nconfig = { least = 3 }\n",
            Self::Generator => "",
            Self::Stateful => "config = { meanings = { ca = \"about\", eg = \"for example\" } }\n",
        }
    }

    /// Returns the stage that runs a task of a plugin.
    pub(super) fn stage(self, name: &str, plugin: &str, task: &str) -> String {
        let config = self.config();
        let task = if name == task { String::new() } else { format!("task = \"{task}\"\n") };
        format!("[[stage]]\nname = \"{name}\"\nplugin = \"{plugin}\"\n{task}{config}")
    }
}

/// The head of a file of cases.
const CASES: &str = "# `pcluster test` runs these cases on this machine, without a server.\n";

/// Returns the cases of a chain whose only stage has this name.
pub(super) fn cases(template: Template, stage: &str) -> String {
    let cases = match template {
        Template::Map => format!(
            "[[case]]\nname = \"letters are counted\"\nitems = [{{ word = \"example\" }}]\n\n[case.expect]\n\
             results = [{{ word = \"example\", letters = 7 }}]\n\n\
             [[case]]\nname = \"a word that is too long becomes a dead letter\"\nitems = [{{ word = \"example\" }}]\n\
             config.{stage}.most = 5\n\n[[case.expect.dead]]\nstage = \"{stage}\"\nreason = \"is too long\"\n"
        ),
        Template::Filter => "[[case]]\nname = \"short words are dropped\"\n\
             items = [{ word = \"example\" }, { word = \"an\" }]\n\n[case.expect]\nresults = [{ word = \"example\" }]\n"
            .to_owned(),
        Template::Generator => {
            "[[case]]\nname = \"a text is split into its words\"\nitems = [{ text = \"An example\" }]\n\n\
             [case.expect]\nresults = [{ word = \"an\" }, { word = \"example\" }]\n"
                .to_owned()
        }
        Template::Stateful => "[[case]]\nname = \"a word is explained\"\nitems = [{ word = \"eg\" }]\n\n\
             [case.expect]\nresults = [{ word = \"eg\", meaning = \"for example\" }]\n"
            .to_owned(),
    };
    format!("{CASES}{cases}")
}

/// Returns the cases of a chain of three.
pub(super) fn cases_of_chain() -> String {
    format!(
        "{CASES}[[case]]\nname = \"the words of a text are measured\"\nitems = [{{ text = \"An example of it\" }}]\n\n\
         [case.expect]\nresults = [{{ word = \"example\", letters = 7 }}]\n\
         stage.split = [{{ word = \"an\" }}, {{ word = \"example\" }}, {{ word = \"of\" }}, {{ word = \"it\" }}]\n"
    )
}

/// Returns the head of a manifest.
pub(super) fn head(name: &str, example: &str) -> String {
    format!(
        "# `pcluster dev` builds and runs it on this machine, `pcluster deploy` on a cluster.\n\
         name = \"{name}\"\nversion = \"0.1.0\"\n\n\
         # The format of fed messages without a Content-Type, as in {example}.\n[input]\nformat = \"json\"\n"
    )
}

/// Returns the commands of a README.
pub(super) fn commands(name: &str, test: &str, example: &str) -> String {
    format!(
        "```sh\n{test}\npcluster test\npcluster dev --feed '{example}' --until-empty\npcluster deploy\npcluster feed {name} '{example}'\n\
         pcluster pull {name} -n 1\n```\n\n`test` runs `cases/first.toml`. `test` and `dev` need nothing else; the commands after them need a server and a node \
         (`pcluster node`).\n"
    )
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::chain::Chain;
    use crate::chain::manifest::Manifest;

    #[test]
    fn a_name_serves_as_chain_and_task() {
        let of = |name: &str, language| Project::new(name, language).map(|project| project.task);
        for &language in Language::value_variants() {
            assert_eq!(of("clean-orders2", language).as_deref(), Ok("clean_orders2"));
            for name in ["", "2a", "größe", "a b", "Clean", "a.b", "-a", &"a".repeat(65)] {
                assert!(of(name, language).is_err(), "{name}");
            }
            let names_functions = matches!(language, Language::Rust | Language::Python);
            let names_exports = matches!(language, Language::TypeScript | Language::JavaScript);
            for (name, is_reserved) in [("match", names_functions), ("return", names_functions || names_exports)] {
                assert_eq!(of(name, language).is_err(), is_reserved, "{name} in {}", language.title());
            }
        }
        assert!(of("import", Language::Python).is_err());
        let refused = of("fn", Language::Rust).expect_err("a word of Rust");
        assert_eq!(refused, "`fn` means something else in Rust, and cannot name a task");
    }

    #[test]
    fn every_manifest_is_valid() {
        let project = Project::new("greet", Language::Rust).expect("a name");
        for &language in Language::value_variants() {
            let plugins = Template::value_variants().iter();
            let all = plugins.map(|template| super::super::plugin(&project, language, *template));
            for files in all.chain([super::super::chain(&project, language)]) {
                let (_, text) = files.iter().find(|(name, _)| name == "chain.toml").expect("a manifest");
                let manifest = Manifest::from_toml(text).expect("the right shape");
                let chain = Chain::new(&manifest).expect("a chain");
                assert_eq!(chain.name.as_str(), "greet");
                let (name, cases) = files.iter().find(|(name, _)| name == super::super::CASES).expect("cases");
                assert_eq!(crate::cases::file::mistakes(cases, name.as_ref(), &chain), []);
                for (name, text) in &files {
                    assert!(!text.contains("task_name") && text.ends_with('\n'), "{name}: {text}");
                    let lines = text.lines().count();
                    assert!(!name.ends_with("README.md") || lines <= 14, "{name} has {lines} lines");
                }
            }
        }
    }
}
