//! Writes what cases give into their files, as what they expect.
//!
//! Only what differs is written: the text of a file is taken as it is, and values in it are replaced where they stand. So comments,
//! order and form of all else stay, and a second update changes nothing.

mod edits;
mod folder;
mod items;
mod letters;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use toml_edit::{ImDocument, Item, TableLike};

use super::case::Case;
use super::compare::{compare, is_list_equal};
use super::file::tables::{Notes, Section};
use super::outcome::Outcome;
use edits::Edits;

/// A case whose file was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changed {
    /// The name of the case.
    pub(crate) name: String,
    /// Its file or folder.
    pub(crate) file: PathBuf,
    /// What was written, as in `results`.
    pub(crate) keys: Vec<String>,
}

/// Why a file of cases was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpdateError {
    /// The file cannot be read or written.
    #[error("cannot update `{}`: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error.
        error: std::io::Error,
    },
    /// The file was changed since its cases were read.
    #[error("cannot update `{}`: it has changed since the case `{case}` was read; run the command again", path.display())]
    Moved {
        /// The file.
        path: PathBuf,
        /// The case.
        case: String,
    },
    /// What would be written cannot be read.
    #[error("cannot update `{}`: the text would not be TOML: {problem}; write the expectation by hand", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        problem: String,
    },
}

/// Writes what cases give into their files. Returns those that were changed.
///
/// # Errors
///
/// If a file cannot be read or written. Files before it are written then.
pub(crate) fn update(cases: &[(&Case, &Outcome)]) -> Result<Vec<Changed>, UpdateError> {
    let mut changed = Vec::new();
    let mut files: BTreeMap<&Path, Vec<(&Case, &Outcome)>> = BTreeMap::new();
    for (case, outcome) in cases {
        if !case.expect.is_empty() && compare(case, outcome).is_empty() {
            continue;
        }
        if case.replayed.is_some() {
            folder::write(&case.file, outcome)?;
            let keys = vec!["outputs".to_owned()];
            changed.push(Changed { name: case.name.clone(), file: case.file.clone(), keys });
        } else {
            files.entry(&case.file).or_default().push((case, outcome));
        }
    }
    for (path, cases) in files {
        let io = |error| UpdateError::Io { path: path.to_owned(), error };
        let text = crate::file::read_text(path).map_err(io)?;
        let (updated, own) = updated(path, &text, &cases)?;
        if updated != text {
            replace(path, updated.as_bytes()).map_err(io)?;
            changed.extend(own);
        }
    }
    Ok(changed)
}

/// Returns the text of a file with what its cases give.
fn updated(path: &Path, text: &str, cases: &[(&Case, &Outcome)]) -> Result<(String, Vec<Changed>), UpdateError> {
    let broken = |problem: String| UpdateError::Broken { path: path.to_owned(), problem };
    let document = ImDocument::parse(text).map_err(|error| broken(error.message().to_owned()))?;
    let root = Section { table: document.as_table(), span: 0..0, is_inline: false };
    let sections = Notes::default().sections(&root, "case", "");
    let mut edits = Edits::of(text);
    let mut changed = Vec::new();
    for (case, outcome) in cases {
        let section = sections.get(case.position);
        let section = section.filter(|section| section.get("name").and_then(Item::as_str) == Some(case.name.as_str()));
        let section = section.ok_or_else(|| UpdateError::Moved { path: path.to_owned(), case: case.name.clone() })?;
        let keys = write(&mut edits, section, case, outcome);
        if !keys.is_empty() {
            changed.push(Changed { name: case.name.clone(), file: path.to_owned(), keys });
        }
    }
    let updated = edits.apply();
    ImDocument::parse(updated.as_str()).map_err(|error| broken(error.message().to_owned()))?;
    Ok((updated, changed))
}

/// Writes what a case gives. Returns the names of what was written.
fn write(edits: &mut Edits<'_>, section: &Section<'_>, case: &Case, outcome: &Outcome) -> Vec<String> {
    let expect = &case.expect;
    let mut keys = Vec::new();
    let own = section.get("expect").and_then(Item::as_table_like);
    if let Some(own) = own {
        for (stage, expected) in &expect.stages {
            let got = outcome.stages.get(stage).map_or(&[][..], Vec::as_slice);
            let item = own.get("stage").and_then(Item::as_table_like).and_then(|stages| stages.get(stage.as_str()));
            if !is_list_equal(expected, got, expect)
                && let Some(value) = item.and_then(Item::as_value)
            {
                items::write(edits, value, expected, got, expect);
                keys.push(format!("stage.{stage}"));
            }
        }
        if let (Some(expected), Some(value)) = (&expect.results, own.get("results").and_then(Item::as_value))
            && !is_list_equal(expected, &outcome.results, expect)
        {
            items::write(edits, value, expected, &outcome.results, expect);
            keys.push("results".to_owned());
        }
    }
    let expected = expect.dead.as_deref().unwrap_or_default();
    let letters = letters::Plan::of(expected, &outcome.dead);
    if letters.differs
        && let Some(item) = own.and_then(|own| own.get("dead"))
    {
        let is_last = expect.results.is_none() && expect.stages.is_empty();
        letters.write(edits, section, item, is_last);
        keys.push("dead".to_owned());
    }
    let mut new = Vec::new();
    if expect.is_empty() {
        new.push(("results", items::fresh(&outcome.results, edits.line_break)));
    }
    if expect.dead.is_none() && !outcome.dead.is_empty() {
        new.push(("dead", letters.in_one_line()));
    }
    if !new.is_empty() {
        keys.extend(new.iter().map(|(key, _)| (*key).to_owned()));
        add(edits, section, own, &new, &letters);
    }
    keys
}

/// Adds keys to the expectation of a case.
fn add(
    edits: &mut Edits<'_>,
    section: &Section<'_>,
    own: Option<&dyn TableLike>,
    new: &[(&str, String)],
    letters: &letters::Plan<'_>,
) {
    let all = |separator: &str| -> String {
        new.iter().map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(separator)
    };
    let line_break = edits.line_break;
    let item = section.get("expect");
    let is_inline_case = section.is_inline;
    match (item, own) {
        // `expect = { … }`
        (Some(Item::Value(value)), Some(own)) => {
            edits.add_inline(value.span().unwrap_or_default(), own.is_empty(), &all(", "));
        }
        (None, _) if is_inline_case => {
            edits.add_inline(section.span.clone(), false, &format!("expect = {{ {} }}", all(", ")));
        }
        // `expect.results = …` below `[[case]]`
        (Some(Item::Table(table)), _) if table.is_dotted() => {
            let lines: String = new.iter().map(|(key, value)| format!("{line_break}expect.{key} = {value}")).collect();
            edits.insert(edits.line_end(edits::end_of(&Item::Table(table.clone()))), &lines);
        }
        // `[case.expect]` without keys
        (Some(Item::Table(table)), Some(own)) if own.is_empty() && !table.is_implicit() => {
            let at = edits.line_end(table.span().unwrap_or_default().start);
            let lines: String = new.iter().map(|(key, value)| format!("{line_break}{key} = {value}")).collect();
            edits.insert(at, &lines);
        }
        _ => {
            let at = edits.line_end(edits::end_of_section(section));
            let mut text = String::new();
            if let (None, Some((key, value))) = (item, new.iter().find(|(key, _)| *key == "results")) {
                text = format!("{line_break}{line_break}[case.expect]{line_break}{key} = {value}");
            }
            if new.iter().any(|(key, _)| *key == "dead") {
                text.push_str(&letters.blocks(line_break));
            }
            edits.insert(at, &text);
        }
    }
}

/// Replaces the content of a file at once. A link stays one.
fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let path = path.canonicalize()?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".case").tempfile_in(folder)?;
    file.write_all(content)?;
    file.as_file().set_permissions(std::fs::metadata(&path)?.permissions())?;
    file.persist(&path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests;
