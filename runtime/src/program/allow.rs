//! Which programs a node may run. Nothing is allowed unless its operator says so.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::contents::Contents;
use crate::name::{ChainName, Digest, NameError};

/// The prefix of a rule that allows the files that come with a chain.
const SHIPPED: &str = "shipped:";

/// What an operator allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Allowed {
    rules: Vec<Rule>,
}

/// One entry of `[allow] exec`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// A name that is looked up in the node's `PATH`.
    Name(String),
    /// An absolute path. `*` stands for any characters within one folder's name.
    Path(PathBuf),
    /// The files that come with a chain.
    Shipped(ChainName),
    /// All programs of the revisions with these contents.
    Contents(Contents),
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RuleError {
    /// It is neither a name nor an absolute path.
    #[error(
        "`{0}` allows nothing: write a name, as in `python3`, an absolute path, as in `/opt/sim/bin/*`, or `shipped:CHAIN`"
    )]
    Form(String),
    /// The name of the chain is malformed.
    #[error("`shipped:`: {0}")]
    Chain(#[from] NameError),
}

/// Why a node does not run a program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// It does not exist here.
    #[error("this node has no program `{0}` in its PATH")]
    NotInPath(String),
    /// The file cannot be looked at.
    #[error("`{0}`: {1}")]
    File(String, #[source] io::Error),
    /// It is no program.
    #[error("`{0}` is not an executable file")]
    NotExecutable(String),
    /// No rule allows it.
    #[error("this node does not allow `{0}`{1}; its operator can, with `--allow-exec` or `[allow]`")]
    NotAllowed(String, String),
    /// No rule allows the files of the chain.
    #[error("this node does not allow `{0}`; its operator can, with `--allow-exec {SHIPPED}{1}` or `[allow]`")]
    NotShipped(String, ChainName),
}

/// A program to look for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// The first element of `exec`.
    pub(crate) program: &'a str,
    /// The chain that asks.
    pub(crate) chain: &'a ChainName,
    /// The digest of the content of the revision that asks.
    pub(crate) content: &'a Digest,
}

impl Allowed {
    /// Reads the rules of an operator.
    pub(crate) fn new<'a>(rules: impl IntoIterator<Item = &'a str>) -> Result<Self, RuleError> {
        let rule = |text: &str| {
            if let Some(chain) = text.strip_prefix(SHIPPED) {
                return Ok(Rule::Shipped(chain.parse()?));
            }
            match text {
                "" | "." | ".." => Err(RuleError::Form(text.to_owned())),
                _ if text.starts_with('/') => Ok(Rule::Path(text.into())),
                _ if text.contains(['/', '*']) => Err(RuleError::Form(text.to_owned())),
                _ => Ok(Rule::Name(text.to_owned())),
            }
        };
        Ok(Self { rules: rules.into_iter().map(rule).collect::<Result<_, _>>()? })
    }

    /// Allows all programs of the revisions with this content.
    pub(crate) fn add_content(&mut self, content: Digest) {
        let contents = Contents::default();
        contents.add(content);
        self.add_contents(contents);
    }

    /// Allows all programs of the revisions with these contents, of which there may be more later.
    pub(crate) fn add_contents(&mut self, contents: Contents) {
        self.rules.push(Rule::Contents(contents));
    }

    /// Returns `true` if nothing is allowed.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns the file of a program, after all links, if the operator allows it. `path` is the node's `PATH`. The file of a program
    /// that comes with its stage is relative to those files: no archive has a link that leaves it.
    pub(crate) fn find(&self, wanted: Wanted<'_>, path: &OsStr) -> Result<PathBuf, Refusal> {
        let Wanted { program, chain, content } = wanted;
        if let Some(shipped) = program.strip_prefix("./") {
            let is_allowed = self.rules.iter().any(|rule| match rule {
                Rule::Shipped(allowed) => allowed == chain,
                Rule::Contents(allowed) => allowed.has(content),
                Rule::Name(_) | Rule::Path(_) => false,
            });
            let refusal = || Refusal::NotShipped(program.to_owned(), chain.clone());
            return is_allowed.then(|| shipped.into()).ok_or_else(refusal);
        }
        let file = locate(program, path)?;
        let is_allowed = self.rules.iter().any(|rule| match rule {
            Rule::Name(name) => look_up(name, path)
                .and_then(|allowed| fs::canonicalize(allowed).ok())
                .is_some_and(|allowed| allowed == file),
            Rule::Path(pattern) => is_like(&file, pattern),
            Rule::Shipped(_) => false,
            Rule::Contents(allowed) => allowed.has(content),
        });
        if is_allowed {
            return Ok(file);
        }
        let is_same = Path::new(program) == file;
        let resolved = if is_same { String::new() } else { format!(", which is {}", file.display()) };
        Err(Refusal::NotAllowed(program.to_owned(), resolved))
    }
}

/// Returns the file of a program of this machine, after all links, whether it is allowed or not.
pub(crate) fn locate(program: &str, path: &OsStr) -> Result<PathBuf, Refusal> {
    let written = if program.contains('/') {
        PathBuf::from(program)
    } else {
        look_up(program, path).ok_or_else(|| Refusal::NotInPath(program.to_owned()))?
    };
    executable(program, &written)
}

/// Returns the file of a program after all links.
pub(crate) fn executable(program: &str, file: &Path) -> Result<PathBuf, Refusal> {
    let file = fs::canonicalize(file).map_err(|error| Refusal::File(program.to_owned(), error))?;
    if is_executable(&file) { Ok(file) } else { Err(Refusal::NotExecutable(program.to_owned())) }
}

/// Returns the first executable file of this name in the folders of a `PATH`.
fn look_up(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// Returns `true` if a file is one that a pattern means. The folders of the pattern may be links.
fn is_like(file: &Path, pattern: &Path) -> bool {
    let fixed: PathBuf = pattern.components().take_while(|part| !part.as_os_str().as_bytes().contains(&b'*')).collect();
    let rest = pattern.strip_prefix(&fixed).unwrap_or(Path::new(""));
    let Ok(fixed) = fs::canonicalize(fixed) else { return false };
    let Ok(below) = file.strip_prefix(&fixed) else { return false };
    let (mut parts, mut patterns) = (below.components(), rest.components());
    loop {
        match (parts.next(), patterns.next()) {
            (None, None) => return true,
            (Some(part), Some(pattern)) if matches(part.as_os_str().as_bytes(), pattern.as_os_str().as_bytes()) => {}
            _ => return false,
        }
    }
}

/// Returns `true` if a name is like a pattern, where `*` stands for any characters.
fn matches(name: &[u8], pattern: &[u8]) -> bool {
    let mut pieces = pattern.split(|byte| *byte == b'*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces.filter(|piece| !piece.is_empty()) {
        let Some(at) = rest.windows(piece.len()).position(|window| window == piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn program(path: &Path) {
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, "#!/bin/sh\n").expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("set");
    }

    #[test]
    fn what_is_compared_is_the_file_behind_all_links() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = fs::canonicalize(folder.path()).expect("a path");
        let at = |path: &str| root.join(path);
        for path in ["bin/tool", "bin/tool2", "bin/deep/tool", "usr/python3.11", "other/sh"] {
            program(&at(path));
        }
        symlink(at("usr/python3.11"), at("bin/python3")).expect("a link");
        symlink(at("other/sh"), at("bin/innocent")).expect("a link");
        symlink(at("bin"), at("link")).expect("a link");
        fs::write(at("bin/text"), "").expect("written");
        let chain: ChainName = "weather".parse().expect("a name");
        let path = std::env::join_paths([at("bin"), at("usr"), at("other")]).expect("a path");
        let find_of = |content: &Digest, rules: &[&str], program: &str| {
            let rules: Vec<String> =
                rules.iter().map(|rule| rule.replace("ROOT", root.to_str().expect("there"))).collect();
            let allowed = Allowed::new(rules.iter().map(String::as_str)).expect("rules");
            let program = program.replace("ROOT", root.to_str().expect("there"));
            let mut allowed = allowed;
            allowed.add_content(Digest::of(b"allowed"));
            let wanted = Wanted { program: &program, chain: &chain, content };
            allowed
                .find(wanted, &path)
                .map(|file| file.strip_prefix(&root).unwrap_or(&file).to_str().expect("there").to_owned())
        };
        let find = |rules: &[&str], program: &str| find_of(&Digest::of(b"other"), rules, program);
        assert_eq!(find_of(&Digest::of(b"allowed"), &[], "tool").expect("allowed"), "bin/tool");
        for (rules, program, file) in [
            (&["python3"][..], "python3", "usr/python3.11"),
            (&["python3"], "ROOT/bin/python3", "usr/python3.11"),
            (&["python3"], "python3.11", "usr/python3.11"),
            (&["ROOT/bin/tool"], "tool", "bin/tool"),
            (&["ROOT/bin/*"], "tool", "bin/tool"),
            (&["ROOT/bin/t*l"], "tool", "bin/tool"),
            (&["ROOT/*/tool"], "ROOT/bin/tool", "bin/tool"),
            (&["ROOT/link/*"], "ROOT/bin/tool", "bin/tool"),
            (&["ROOT/bin/*"], "ROOT/link/tool", "bin/tool"),
            (&["ROOT/bin/*"], "ROOT/other/../bin/tool", "bin/tool"),
            (&["shipped:weather"], "./sim", "sim"),
            (&["shipped:other", "shipped:weather"], "./bin/sim", "bin/sim"),
        ] {
            assert_eq!(find(rules, program).expect(program), file, "{rules:?}");
        }
        for (rules, program) in [
            (&[][..], "tool"),
            (&["tool2"], "tool"),
            (&["ROOT/bin/*"], "innocent"),
            (&["ROOT/bin/*"], "ROOT/bin/deep/tool"),
            (&["ROOT/bin/*"], "ROOT/bin/../other/sh"),
            (&["ROOT/*"], "tool"),
            (&["ROOT/bin/t*l"], "tool2"),
            (&["shipped:weather"], "tool"),
            (&["shipped:weather"], "ROOT/bin/tool"),
        ] {
            let refused = find(rules, program).expect_err(program);
            assert!(matches!(refused, Refusal::NotAllowed(..)), "{rules:?} {program}: {refused}");
        }
        for rules in [&[][..], &["shipped:other"], &["sim", "ROOT/*", "/*"]] {
            let refused = find(rules, "./sim").expect_err("not allowed").to_string();
            assert!(refused.contains("with `--allow-exec shipped:weather`"), "{refused}");
        }
        assert_eq!(find_of(&Digest::of(b"allowed"), &[], "./sim").expect("allowed"), "sim");
        assert!(matches!(find(&["python4"], "python4"), Err(Refusal::NotInPath(_))));
        assert!(matches!(find(&["ROOT/bin/*"], "ROOT/bin/nothing"), Err(Refusal::File(..))));
        assert!(matches!(find(&["ROOT/bin/*"], "ROOT/bin/text"), Err(Refusal::NotExecutable(_))));
        let told = find(&[], "python3").expect_err("not allowed").to_string();
        assert!(told.starts_with("this node does not allow `python3`, which is /"), "{told}");
    }

    #[test]
    fn what_is_no_rule_is_told() {
        for text in ["", "..", "bin/tool", "./tool", "to*l", "*"] {
            assert!(matches!(Allowed::new([text]), Err(RuleError::Form(_))), "{text}");
        }
        assert!(matches!(Allowed::new(["shipped:a b"]), Err(RuleError::Chain(_))));
    }
}
