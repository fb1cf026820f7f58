//! Reads the cases of a chain: the files `cases/*.toml` beside its manifest, and the folders there that a replay wrote.

mod answer;
mod expect;
mod given;
mod keys;
mod parse;
mod reading;
pub(super) mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::case::Case;
use super::replayed;
use crate::chain::Chain;
use crate::diagnostic::{Diagnostic, Document, Source};
use crate::file::read_text;

pub(super) use answer::example as answer_example;

/// The folder beside a manifest that has its cases.
pub(crate) const FOLDER: &str = "cases";
/// The file of a folder that a replay wrote.
pub(crate) const REPLAYED: &str = "case.toml";
/// How deep folders of cases are looked through.
const DEPTH_MAX: u32 = 8;

/// What a case must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Must {
    /// An expectation.
    Expect,
    /// None, since what it gives becomes its expectation.
    Feed,
}

/// The mistakes in files of cases.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    files: Vec<(Source, Vec<Diagnostic>)>,
}

impl Faults {
    /// Returns the number of mistakes.
    pub(crate) fn count(&self) -> usize {
        self.files.iter().map(|(_, mistakes)| mistakes.len()).sum()
    }

    /// Returns each mistake as people read it, with its line.
    pub(crate) fn told(&self, is_colored: bool) -> Vec<String> {
        let of_file = |(source, mistakes): &(Source, Vec<Diagnostic>)| -> Vec<String> {
            mistakes.iter().map(|mistake| source.told(mistake, is_colored)).collect()
        };
        self.files.iter().flat_map(of_file).collect()
    }

    /// Returns each mistake as editors read it.
    pub(crate) fn documents(&self) -> impl Iterator<Item = Document<'_>> {
        self.files.iter().flat_map(|(source, mistakes)| mistakes.iter().map(|mistake| source.document(mistake)))
    }

    fn add(&mut self, file: &Path, text: &str, mut mistakes: Vec<Diagnostic>) {
        mistakes.sort_by_key(|mistake| (mistake.span.start, mistake.span.end));
        if !mistakes.is_empty() {
            self.files.push((Source::new(file.display().to_string(), text), mistakes));
        }
    }

    /// Adds a file that cannot be read.
    fn unreadable(&mut self, file: &Path, error: &anyhow::Error) {
        self.add(file, "", vec![Diagnostic::error("unreadable", 0..0, format!("cannot read the file: {error:#}"))]);
    }
}

/// Where the cases of a chain are.
#[derive(Debug, Default)]
struct Found {
    /// The folders that were looked through, without links.
    folders: BTreeSet<PathBuf>,
    files: Vec<PathBuf>,
    /// Folders that a replay wrote.
    replayed: Vec<PathBuf>,
}

/// A case, and the bytes of its name.
pub(super) struct Read {
    /// The case.
    pub(super) case: Case,
    /// The bytes of its name in the text of the file.
    pub(super) name: Range<usize>,
}

/// Reads all cases of a chain. `folder` is that of its manifest. The cases come in the order of their files.
///
/// # Errors
///
/// All mistakes of all files.
pub(crate) fn read(folder: &Path, chain: &Chain, must: Must) -> Result<Vec<Case>, Faults> {
    let mut faults = Faults::default();
    let mut found = Found::default();
    look(&folder.join(FOLDER), 0, &mut found, &mut faults);
    let mut cases = Vec::new();
    let mut names = BTreeMap::new();
    for file in &found.files {
        let text = match read_text(file) {
            Ok(text) => text,
            Err(error) => {
                faults.unreadable(file, &error.into());
                continue;
            }
        };
        let (read, mut mistakes) = parse::cases(&text, file, chain, must);
        for Read { case, name } in read {
            mistakes.extend(twice(&mut names, &case, name));
            cases.push(case);
        }
        faults.add(file, &text, mistakes);
    }
    for folder in &found.replayed {
        match replayed::read(folder, chain) {
            Ok(Read { case, name }) => {
                let file = folder.join(REPLAYED);
                let mistakes = Vec::from_iter(twice(&mut names, &case, name));
                faults.add(&file, &read_text(&file).unwrap_or_default(), mistakes);
                cases.push(case);
            }
            Err((file, text, mistakes)) => faults.add(&file, &text, mistakes),
        }
    }
    if faults.files.is_empty() { Ok(cases) } else { Err(faults) }
}

/// Returns what is wrong with the text of a file of cases.
#[cfg(test)]
pub(crate) fn mistakes(text: &str, path: &Path, chain: &Chain) -> Vec<Diagnostic> {
    parse::cases(text, path, chain, Must::Expect).1
}

/// Returns the mistake of a case whose name another has.
fn twice(names: &mut BTreeMap<String, String>, case: &Case, span: Range<usize>) -> Option<Diagnostic> {
    let place = format!("{}:{}", case.file.display(), case.line);
    if let Some(other) = names.get(&case.name) {
        let message = format!("another case has the name `{}`: {other}; give each case a name of its own", case.name);
        return Some(Diagnostic::error("duplicate-name", span, message));
    }
    names.insert(case.name.clone(), place);
    None
}

/// Looks for files and folders, in the order of their names. Hidden ones are left out.
fn look(folder: &Path, depth: u32, found: &mut Found, faults: &mut Faults) {
    // A link may lead back.
    if std::fs::canonicalize(folder).is_ok_and(|real| !found.folders.insert(real)) {
        return;
    }
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && depth == 0 => return,
        Err(error) => return faults.unreadable(folder, &error.into()),
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_hidden {
            continue;
        }
        if path.is_dir() {
            if path.join(REPLAYED).is_file() {
                found.replayed.push(path);
            } else if depth < DEPTH_MAX {
                look(&path, depth + 1, found, faults);
            }
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            found.files.push(path);
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) use tests::read_text_of;
