//! The files that a manifest is made of.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use toml::{Table, Value};

/// The default file name of a manifest.
const MANIFEST: &str = "chain.toml";
/// The keys of a stage that name its files and folders.
const NAMING: [&str; 4] = ["plugin", "files", "exec", "schema"];
/// The most files of an error that are followed.
const MENTIONED: usize = 64;
/// The prefix of what a server has.
const STORED: &str = "sha256:";

/// Returns a manifest and the files and folders that it names. What is not there yet is among them. `None` if the manifest cannot
/// be read, so that nobody knows what it names.
pub(super) fn of(manifest: &Path) -> Option<BTreeSet<PathBuf>> {
    let file = file_of(manifest);
    let text = std::fs::read_to_string(&file).ok()?;
    let folder = file.parent().unwrap_or(Path::new("")).to_owned();
    let mut found = named(&text.parse().ok()?, &folder);
    found.insert(file);
    Some(found)
}

/// Returns the file of a manifest that is named by itself or by its folder.
pub(super) fn file_of(manifest: &Path) -> PathBuf {
    if manifest.is_dir() { manifest.join(MANIFEST) } else { manifest.to_owned() }
}

/// Returns the files that an error names, as those of compilers do: whole, or relative to one of these folders. The files outside of
/// its folder that a plugin is made of are known only once it has been built.
pub(super) fn mentioned(error: &str, folders: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let words = error.split(|each: char| each.is_whitespace() || "`'\"(),".contains(each));
    let paths = words.filter_map(|word| word.split(':').next().filter(|path| path.contains('/')));
    let paths: BTreeSet<&str> = paths.take(MENTIONED).collect();
    let files = |path: &str| folders.iter().map(|folder| folder.join(path)).find(|file| file.is_file());
    paths.into_iter().filter_map(files).collect()
}

fn named(manifest: &Table, folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let stages = manifest.get("stage").and_then(Value::as_array).into_iter().flatten();
    for table in stages.chain(manifest.get("input")).filter_map(Value::as_table) {
        for (key, value) in table.iter().filter(|(key, _)| NAMING.contains(&key.as_str())) {
            let mut texts = Vec::new();
            if key == "schema" {
                add_schemas(value, &mut texts);
            } else {
                add_texts(value, &mut texts);
            }
            if key == "exec" {
                // The rest are arguments.
                texts.truncate(1);
                texts.retain(|text| text.starts_with("./"));
            }
            found.extend(texts.into_iter().filter(|text| !text.starts_with(STORED)).map(|text| folder.join(text)));
        }
    }
    // Any other text may name a file too, as a schema does. A folder may be of any size.
    let mut texts = Vec::new();
    manifest.values().for_each(|value| add_texts(value, &mut texts));
    found.extend(texts.into_iter().filter_map(|text| file(folder, text)));
    found
}

/// Returns the file that a text names, below a folder or beside it. `None` if it names none.
fn file(folder: &Path, text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let is_near =
        path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir | Component::ParentDir));
    Some(folder.join(path)).filter(|path| is_near && path.is_file())
}

/// Adds the files of a schema: one, or one for each side. Anything deeper is the schema itself.
fn add_schemas<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
    let sides = |sides: &'a Table| ["input", "output"].into_iter().filter_map(|side| sides.get(side)?.as_str());
    texts.extend(value.as_str().into_iter().chain(value.as_table().into_iter().flat_map(sides)));
}

fn add_texts<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(values) => values.iter().for_each(|value| add_texts(value, texts)),
        Value::Table(table) => table.values().for_each(|value| add_texts(value, texts)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_that_a_compiler_complains_of_are_followed() {
        let at = tempfile::tempdir().expect("a folder");
        let path = |name: &str| at.path().join(name);
        for name in ["common/a.rs", "common/b.go", "own/c"] {
            std::fs::create_dir_all(path(name).parent().expect("a folder")).expect("made");
            std::fs::write(path(name), "").expect("written");
        }
        let whole = path("common/a.rs");
        let error = format!("error: no\n --> {}:1:24\n../common/b.go:3:4: `common/none.rs`, and/or", whole.display());
        let found = mentioned(&error, &[path("chain.toml"), path("own")].into());
        assert_eq!(found, [whole, path("own/../common/b.go")].into());
    }

    #[test]
    fn what_a_manifest_names_is_followed() {
        let at = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(at.path().join(name), text).expect("written");
        std::fs::create_dir(at.path().join("data")).expect("made");
        write("order.json", "{}");
        let stored = format!("sha256:{}", "0".repeat(64));
        let manifest = format!(
            "name = 'a'\n[input]\nschema = 'order.json'\n[[stage]]\nschema = {{ input = 'not/yet.json', output = {{ type = 'no' }} }}\n[[stage]]\nplugin = 'greet/'\nconfig = {{ at = 'data', no = '/' }}\n\
             [[stage]]\nplugin = '{stored}'\n[[stage]]\nexec = ['./run', './argument']\nfiles = ['data', 'run']\n\
             [[stage]]\nexec = ['cat']"
        );
        write("chain.toml", &manifest);
        let expected = ["chain.toml", "data", "greet/", "not/yet.json", "order.json", "./run", "run"];
        let expected: BTreeSet<_> = expected.iter().map(|name| at.path().join(name)).collect();
        assert_eq!(of(at.path()), Some(expected.clone()));
        assert_eq!(of(&at.path().join("chain.toml")), Some(expected));
        write("chain.toml", "name = ");
        assert_eq!(of(at.path()), None);
        assert_eq!(of(&at.path().join("none.toml")), None);
    }
}
