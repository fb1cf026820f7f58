//! What cargo prints and leaves behind.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::build::tool::{first_lines, text};

/// The most errors that are shown.
const ERRORS: usize = 3;
/// The ends of messages that say nothing about the fault.
const EMPTY: [&str; 3] = ["error: aborting due to", "error: could not compile", "error: could not document"];

/// A message of cargo, of those that a build reads.
#[derive(Debug, Deserialize)]
#[serde(tag = "reason")]
enum Message {
    #[serde(rename = "compiler-message")]
    Compiler { message: Diagnostic },
    #[serde(rename = "compiler-artifact")]
    Artifact { filenames: Vec<PathBuf> },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct Diagnostic {
    level: String,
    rendered: Option<String>,
}

fn messages(stdout: &[u8]) -> impl Iterator<Item = Message> {
    stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

/// Returns the module that cargo has made. `None` if it made none.
pub(super) fn module(stdout: &[u8]) -> Option<PathBuf> {
    let files = messages(stdout).filter_map(|message| match message {
        Message::Artifact { filenames } => Some(filenames),
        _ => None,
    });
    files.flatten().filter(|path| path.extension().is_some_and(|extension| extension == "wasm")).last()
}

/// Returns what went wrong: the errors of the compiler, else those of cargo.
pub(super) fn errors(stdout: &[u8], stderr: &[u8]) -> String {
    let rendered: Vec<String> = messages(stdout)
        .filter_map(|message| match message {
            Message::Compiler { message } if message.level.starts_with("error") => message.rendered,
            _ => None,
        })
        .filter(|text| !EMPTY.iter().any(|empty| text.starts_with(empty)))
        .collect();
    if rendered.is_empty() {
        return cargo_error(&text(stderr));
    }
    let mut shown: Vec<String> = rendered.iter().take(ERRORS).map(|text| first_lines(text)).collect();
    if let Some(more) = rendered.len().checked_sub(ERRORS).filter(|more| *more > 0) {
        shown.push(format!("and {more} more; `cargo check` shows all"));
    }
    format!("\n{}", shown.join("\n\n"))
}

/// Returns the lines of cargo from its error on.
fn cargo_error(stderr: &str) -> String {
    let (start, _) = stderr.match_indices("error: ").next().unwrap_or((0, ""));
    let said = stderr.get(start..).unwrap_or(stderr);
    first_lines(said.strip_prefix("error: ").unwrap_or(said))
}

/// Returns the files that a module was made of, from the list that cargo leaves beside it. Some may be folders, which scripts name.
pub(super) fn read_files(list: &str) -> Vec<PathBuf> {
    let Some((_, files)) = list.lines().next().and_then(|line| line.split_once(": ")) else { return Vec::new() };
    // A space in a name is escaped.
    let (mut names, mut name) = (Vec::new(), String::new());
    let mut letters = files.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if letters.peek() == Some(&' ') => name.extend(letters.next()),
            ' ' => names.push(std::mem::take(&mut name)),
            letter => name.push(letter),
        }
    }
    names.push(name);
    names.into_iter().filter(|name| !name.is_empty()).map(PathBuf::from).collect()
}

/// Returns the files and the manifests of their packages. What lies below a folder of `known` is left out.
pub(super) fn with_manifests(files: Vec<PathBuf>, known: &[&Path]) -> Vec<PathBuf> {
    let is_known = |path: &PathBuf| known.iter().any(|known| path.starts_with(known));
    let mut all: Vec<PathBuf> = files.into_iter().filter(|path| !is_known(path)).collect();
    let manifest =
        |file: &PathBuf| file.ancestors().map(|folder| folder.join("Cargo.toml")).find(|path| path.is_file());
    let manifests: Vec<PathBuf> = all.iter().filter_map(manifest).collect();
    all.extend(manifests);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::tool::LINES;

    #[test]
    fn the_module_is_the_last_one_made() {
        let stdout = concat!(
            "{\"reason\":\"compiler-artifact\",\"filenames\":[\"/t/libserde.rlib\"],\"fresh\":true}\n",
            "{\"reason\":\"build-script-executed\"}\n",
            "{\"reason\":\"compiler-artifact\",\"filenames\":[\"/t/a b.wasm\"],\"executable\":null}\n",
            "{\"reason\":\"build-finished\",\"success\":true}\n",
        );
        assert_eq!(module(stdout.as_bytes()).as_deref(), Some(Path::new("/t/a b.wasm")));
        assert_eq!(module(b"{\"reason\":\"build-finished\",\"success\":true}\n"), None);
    }

    #[test]
    fn the_first_errors_of_the_compiler_are_shown_and_no_warnings() {
        let message = |level: &str, text: &str| {
            let message = serde_json::json!({ "level": level, "rendered": text });
            serde_json::json!({ "reason": "compiler-message", "message": message }).to_string()
        };
        let mut stdout = vec![message("warning", "warning: unused"), message("error", "error: aborting due to 1")];
        stdout.extend((1..=5).map(|number| message("error", &format!("error: {number}\n --> src/lib.rs:{number}\n"))));
        let shown = errors(stdout.join("\n").as_bytes(), b"error: could not compile `a`");
        let first: Vec<String> = (1..=3).map(|number| format!("error: {number}\n --> src/lib.rs:{number}")).collect();
        assert_eq!(shown, format!("\n{}\n\nand 2 more; `cargo check` shows all", first.join("\n\n")));
        let long = message("error", &"line\n".repeat(LINES + 1));
        assert!(errors(long.as_bytes(), b"").ends_with("line\n…"));
    }

    #[test]
    fn an_error_of_cargo_is_shown_without_what_comes_before() {
        let stderr = b"    Updating crates.io index\nerror: failed to get `x`\n\nCaused by:\n  no network\n";
        assert_eq!(errors(b"", stderr), "failed to get `x`\n\nCaused by:\n  no network");
    }

    #[test]
    fn names_of_files_may_have_spaces() {
        let list = "/t/a\\ b.wasm: /p/a\\ b/src/lib.rs /p/größe.rs\n\n/p/größe.rs:\n";
        assert_eq!(read_files(list), [Path::new("/p/a b/src/lib.rs"), Path::new("/p/größe.rs")]);
        assert_eq!(read_files(""), Vec::<PathBuf>::new());
    }
}
