//! Finds all mistakes of a manifest at once, by the rules of a deploy.
//!
//! The rules stop at the first mistake. So what is wrong is noted and taken out, and the rest is read again, until nothing is wrong.
//! A mistake that only follows from another is left out.

use std::collections::BTreeSet;
use std::ops::Range;

use toml_edit::{Array, Table, Value};

use super::bounds::STAGES_MAX;
use super::manifest::Manifest;
use super::tree::{self, Fault, Step, of_stage};
use super::{Chain, ChainError};
use crate::diagnostic::Diagnostic;
use crate::name::{ChainName, StageName, Version, nearest};

/// The most mistakes that are told of one manifest.
pub(crate) const MOST: usize = 200;

/// Keys whose value is judged by another's. If that was wrong, nothing is known of them.
const FOLLOWING: [(&str, &str); 6] = [
    ("allow.secrets", "http"),
    ("allow.limits.body", "received"),
    ("duplicate_window", "ack_wait"),
    ("max_age", "ack_wait"),
    ("reuse", "isolation"),
    ("exec", "files"),
];

/// Keys by which the plugin or the files of a stage are judged.
const OF_PLUGIN: [&str; 7] = ["name", "plugin", "task", "exec", "files", "memory", "allow"];

/// A manifest as far as it is right, and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Review {
    /// The mistakes, in the order of the text.
    pub(crate) mistakes: Vec<Diagnostic>,
    /// The manifest and its chain without the mistakes. `None` if hardly anything is right.
    pub(crate) sound: Option<(Manifest, Chain)>,
    /// The positions of stages whose plugin or files cannot be judged.
    pub(crate) wrong: BTreeSet<usize>,
    table: Table,
}

impl Review {
    /// Reviews the text of a manifest.
    pub(crate) fn of(text: &str) -> Self {
        let mut review = Self { mistakes: Vec::new(), sound: None, wrong: BTreeSet::new(), table: Table::new() };
        match tree::parse(text) {
            Ok(table) => {
                review.table = table.clone();
                Mending { table, review: &mut review, taken: Vec::new(), names: Vec::new() }.run();
            }
            Err(Fault { code, span, message, .. }) => review.mistakes.push(Diagnostic::error(code, span, message)),
        }
        review.mistakes.sort_by_key(|mistake| (mistake.span.start, mistake.span.end));
        review
    }

    /// Returns the bytes of the first of these keys that a stage has, or of the part of its value that a message quotes. If it has
    /// none of them, those of the stage's first line.
    pub(crate) fn span(&self, stage: usize, keys: &[&str], message: &str) -> Range<usize> {
        let mut paths = keys.iter().map(|key| of_stage(stage, &[key]));
        let path = paths.find(|path| tree::has(&self.table, path)).unwrap_or_else(|| of_stage(stage, &[]));
        tree::span_of(&self.table, &tree::quoted(&self.table, &path, message))
    }
}

impl Review {
    /// Returns the bytes of the schema of what is fed.
    pub(crate) fn input(&self) -> Range<usize> {
        tree::span_of(&self.table, &["input", "schema"].map(|key| Step::Key(key.to_owned())))
    }
}

/// A manifest of which what is wrong is taken out.
struct Mending<'a> {
    table: Table,
    review: &'a mut Review,
    /// The paths of what was taken out.
    taken: Vec<Vec<Step>>,
    /// Names that stand in for wrong ones, with these. `None` if there was none.
    names: Vec<(String, Option<String>)>,
}

impl Mending<'_> {
    fn run(&mut self) {
        for _ in 0..MOST {
            let goes_on = match Manifest::from_table(&self.table) {
                Err(fault) => self.shape(fault),
                Ok(manifest) => match Chain::new(&manifest) {
                    Err(error) => self.rule(&manifest, &error),
                    Ok(chain) => {
                        self.review.sound = Some((manifest, chain));
                        return;
                    }
                },
            };
            if !goes_on {
                return;
            }
        }
    }

    fn note(&mut self, code: &'static str, span: Range<usize>, mut message: String) {
        for (stand_in, name) in &self.names {
            message = match name {
                Some(name) => message.replace(&format!("`{stand_in}`"), &format!("`{name}`")),
                None => message.replace(&format!("stage `{stand_in}`: "), ""),
            };
        }
        self.review.mistakes.push(Diagnostic::error(code, span, message));
    }

    /// Returns `true` if a key is missing because it is mistyped.
    fn is_mistyped(&self, table: &[Step], key: &str) -> bool {
        self.taken.iter().filter_map(|path| path.split_last()).any(|(last, around)| {
            around == table && last.key().is_some_and(|typed| typed != key && nearest(typed, [key]).is_some())
        })
    }

    /// Notes a mistake in the shape. Returns `true` if the rest can be read.
    fn shape(&mut self, fault: Fault) -> bool {
        let Fault { code, mut span, mut path, message } = fault;
        let missing = message.strip_prefix("the key `").and_then(|rest| rest.strip_suffix("` is missing"));
        if let ("missing-key", Some(key)) = (code, missing) {
            let is_mistyped = self.is_mistyped(&path, key);
            path.push(Step::Key(key.to_owned()));
            if is_mistyped {
                return self.take_out(code, path);
            }
            span = tree::span_of(&self.table, &path);
        }
        self.note(code, span, message);
        self.take_out(code, path)
    }

    /// Notes a mistake against a rule. Returns `true` if the rest can be judged.
    fn rule(&mut self, manifest: &Manifest, error: &ChainError) -> bool {
        let (code, path) = match place(manifest, error) {
            // The manifest has no stage because of what was taken out of it.
            _ if *error == ChainError::NoStage && !self.taken.is_empty() => return false,
            Some(found) => found,
            None => {
                self.note("invalid-value", 0..0, error.to_string());
                return false;
            }
        };
        let path = self.within(path);
        let path = match error {
            ChainError::Value { problem, .. } => tree::quoted(&self.table, &path, problem),
            _ => path,
        };
        if !self.follows(error) {
            let span = tree::span_of(&self.table, &path);
            self.note(code, span, error.to_string());
        }
        self.take_out(code, path)
    }

    /// Returns the path to a key that stands in a table of its stage, as `attempts` stands in `retry`.
    fn within(&self, mut path: Vec<Step>) -> Vec<Step> {
        let is_of_retry = matches!(path.last().and_then(Step::key), Some("attempts" | "backoff"));
        if is_of_retry && !tree::has(&self.table, &path) {
            path.insert(path.len() - 1, Step::Key("retry".to_owned()));
        }
        path
    }

    /// Returns `true` if a mistake may only follow from another.
    fn follows(&self, error: &ChainError) -> bool {
        let ChainError::Value { key, .. } = error else { return false };
        let is_taken = |cause: &str| self.taken.iter().flatten().any(|step| step.key() == Some(cause));
        FOLLOWING.iter().any(|(follower, cause)| follower == key && is_taken(cause))
    }

    /// Takes out what stands at a path, or puts in what must be there. Returns `true` if that was possible.
    fn take_out(&mut self, code: &str, mut path: Vec<Step>) -> bool {
        if let [Step::Key(stage), Step::Index(index), Step::Key(key), ..] = &*path
            && stage == "stage"
            && OF_PLUGIN.contains(&&**key)
        {
            self.review.wrong.insert(*index);
        }
        let position = path.iter().position(|step| matches!(step.key(), Some("exec" | "plugin" | "name" | "version")));
        let is_needed = code != "unknown-key"
            && position.is_some_and(|position| position == 0 || position == 2)
            && !(path.last().and_then(Step::key) == Some("plugin") && self.has_program(&path));
        let done = match position.filter(|_| is_needed) {
            Some(position) => {
                path.truncate(position + 1);
                let value = self.stand_in(&path);
                tree::put(&mut self.table, &path, value)
            }
            None if code == "too-many-stages" || code == "no-stage" => false,
            None => tree::remove(&mut self.table, &path),
        };
        self.taken.push(path);
        done
    }

    /// Returns `true` if the stage of a path runs a program.
    fn has_program(&self, path: &[Step]) -> bool {
        let stage: Vec<Step> = path.iter().take(2).cloned().chain([Step::Key("exec".to_owned())]).collect();
        tree::has(&self.table, &stage)
    }

    /// Returns a value that no rule refuses.
    fn stand_in(&mut self, path: &[Step]) -> Value {
        match path.last().and_then(Step::key) {
            Some("exec") => Value::Array(Array::from_iter(["true"])),
            Some("plugin") => "stand-in.wasm".into(),
            Some("version") => "0".into(),
            _ => {
                let name = format!("stand-in-{}", self.taken.len());
                self.names.push((name.clone(), tree::text_at(&self.table, path)));
                name.into()
            }
        }
    }
}

/// Returns the code of an error, and the path to what is wrong.
fn place(manifest: &Manifest, error: &ChainError) -> Option<(&'static str, Vec<Step>)> {
    let key = |key: &str| vec![Step::Key(key.to_owned())];
    let stage = |name: &str| manifest.stages.iter().position(|stage| stage.name == name);
    Some(match error {
        ChainError::Name(_) if manifest.name.parse::<ChainName>().is_err() => ("invalid-name", key("name")),
        ChainError::Name(_) if manifest.version.parse::<Version>().is_err() => ("invalid-name", key("version")),
        ChainError::Name(_) => {
            let wrong = manifest.stages.iter().position(|stage| stage.name.parse::<StageName>().is_err())?;
            ("invalid-name", of_stage(wrong, &["name"]))
        }
        ChainError::Digest { stage: name, .. } => ("invalid-value", of_stage(stage(name.as_str())?, &["plugin"])),
        ChainError::NoStage => ("no-stage", Vec::new()),
        ChainError::TooManyStages(_) => ("too-many-stages", of_stage(STAGES_MAX, &["name"])),
        ChainError::DuplicateStage(name) => {
            let second = manifest.stages.iter().rposition(|stage| stage.name == name.as_str())?;
            ("duplicate-stage", of_stage(second, &["name"]))
        }
        ChainError::Value { place, key: name, .. } => {
            let keys: Vec<&str> = name.split('.').collect();
            let table = place.strip_prefix('[').and_then(|rest| rest.split(']').next());
            let named = place.strip_prefix("stage `").and_then(|rest| rest.strip_suffix("`: "));
            let path = match (table, named) {
                (Some(table), _) => [table].iter().chain(&keys).flat_map(|name| key(name)).collect(),
                (None, Some(name)) => of_stage(stage(name)?, &keys),
                (None, None) => keys.iter().flat_map(|name| key(name)).collect(),
            };
            ("invalid-value", path)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Source;

    fn told(text: &str) -> Vec<String> {
        let source = Source::new("a", text);
        let line = |mistake: &Diagnostic| {
            let place = source.place(mistake.span.start);
            format!("{}:{} {}", place.line, place.column, mistake.message)
        };
        Review::of(text).mistakes.iter().map(line).collect()
    }

    const MANY: &str = r#"nmae = "a"
version = 1

[queue]
limit = 0
ack_wait = "soon"
duplicate_window = "1s"

[[stage]]
name = "a b"
plugin = "p.wasm"
timeout = "never"
retry = { attempts = 0, backoff = ["1s", "late", "later"] }
env = { "A=B" = "x", "C=D" = "y" }

[[stage]]
name = "s"
exec = "true"
concurency = 3
config = { ratio = nan }

[[stage]]
name = "s"

[stage.allow]
http = ["api.example.com", "https://*"]
secrets = { key = "https://api.example.com" }
"#;

    #[test]
    fn all_mistakes_are_told_at_once_with_their_places() {
        assert_eq!(
            told(MANY),
            [
                "1:1 unknown key `nmae`",
                "2:11 `version`: invalid type: integer `1`, expected a string",
                "5:9 [queue] `limit`: must be at least 1",
                "6:12 [queue] `ack_wait`: `soon` is not a duration",
                "10:8 the stage name `a b` has the character ' '",
                "12:11 stage `a b`: `timeout`: `never` is not a duration",
                "13:22 stage `a b`: `attempts`: must be at least 1",
                "13:42 stage `a b`: `backoff`: `late` is not a duration",
                "13:50 stage `a b`: `backoff`: `later` is not a duration",
                "14:17 stage `a b`: `env`: `A=B` cannot be the name of a variable",
                "14:30 stage `a b`: `env`: `C=D` cannot be the name of a variable",
                "18:8 `exec`: invalid type: string \"true\", expected a sequence",
                "19:1 unknown key `concurency`",
                "20:10 stage `s`: `config.ratio` is NaN, which no item can hold",
                "22:1 stage `s`: `plugin`: a stage needs a task or a program: name a `plugin`, or a program with `exec`",
                "23:8 two stages are named `s`",
                "26:9 stage `s`: `allow.http`: `api.example.com` has no scheme",
            ]
        );
    }

    #[test]
    fn what_is_not_toml_is_told_with_its_place() {
        assert_eq!(told("name = \"a\"\n[[stage\n").len(), 1);
        assert_eq!(told(""), ["1:1 the key `name` is missing", "1:1 the key `version` is missing"]);
    }

    #[test]
    fn a_right_manifest_has_no_mistakes() {
        let review = Review::of("name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"s\"\nplugin = \"p.wasm\"\n");
        assert!(review.mistakes.is_empty() && review.wrong.is_empty());
        assert_eq!(review.sound.expect("sound").1.stages.len(), 1);
        assert_eq!(review.table.len(), 3);
    }
}
