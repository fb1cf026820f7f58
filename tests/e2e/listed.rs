//! The page of the tests lists every file of their folder. Every file of the end-to-end tests is part of their program.

use std::collections::BTreeSet;
use std::path::Path;

use support::repository;

/// Returns the paths of all files below a folder, each relative to `root`.
fn files(root: &Path, folder: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(root, &path));
        } else {
            all.insert(path.strip_prefix(root).unwrap().display().to_string());
        }
    }
    all
}

#[test]
fn the_page_of_the_tests_lists_every_file_once_and_no_other() {
    let tests = repository().join("tests");
    let page = std::fs::read_to_string(tests.join("README.md")).unwrap();
    let (_, section) = page.split_once("\n## Files\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let mut listed: Vec<String> =
        section.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned())).collect();
    listed.sort();
    assert_eq!(listed, files(&tests, &tests).into_iter().collect::<Vec<_>>());
}

#[test]
fn every_file_of_the_end_to_end_tests_is_a_module_of_their_program() {
    let folder = repository().join("tests/e2e");
    let program = std::fs::read_to_string(folder.join("main.rs")).unwrap();
    let modules: BTreeSet<String> = program
        .lines()
        .filter_map(|line| Some(format!("{}.rs", line.strip_prefix("mod ")?.strip_suffix(';')?)))
        .collect();
    let mut sources = files(&folder, &folder);
    sources.retain(|path| !path.contains('/') && path != "main.rs");
    assert_eq!(modules, sources);
}
