//! What a stage of a program says of it.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::arguments::{ARGUMENT_MAX, Argument};
use super::{ChainError, Reader, default, manifest};
use crate::frame::format::Format;
use crate::name::{DIGEST_PREFIX, Digest};

/// The program of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The program as its author writes it: a name, an absolute path, or a path among the files that begins with `./`.
    pub name: String,
    /// The files that come with it.
    pub(crate) files: Option<Files>,
    /// Its arguments, without its name.
    pub(crate) arguments: Vec<Argument>,
    /// `true` if a field may make an argument an option.
    pub options: bool,
    /// The format of standard input. `None` for an empty one.
    pub input: Option<Format>,
    /// The format of standard output. `None` if nothing in it is an output.
    pub output: Option<Format>,
    /// The exit statuses after which an item fails for good.
    pub permanent: BTreeSet<u8>,
    /// The most processes at once on one node. `None` for as many as the node has processors.
    pub concurrency: Option<u32>,
    /// The most memory of all its processes, in bytes. `None` sets no limit.
    pub memory: Option<u64>,
}

/// The files that come with a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Files {
    /// Files and folders, relative to the manifest.
    Paths(Vec<PathBuf>),
    /// An archive on the server.
    Stored(Digest),
}

/// Variables that the node sets.
const OWN: &str = "PCLUSTER_";

/// Reads the program of a stage.
pub(super) fn program(reader: &Reader, raw: &manifest::Stage, exec: &[String]) -> Result<Program, ChainError> {
    let [program, arguments @ ..] = exec else {
        return Err(reader.error("exec", "names no program; write one, as in [\"python3\", \"job.py\"]"));
    };
    let is_path = program.contains('/');
    if program.is_empty() || program.contains(['\0', '{', '}']) || (is_path && !program.starts_with(['/', '.'])) {
        let problem = format!(
            "`{program}` names no program; write a name that a node finds in its PATH, an absolute path, or `./FILE`"
        );
        return Err(reader.error("exec", problem));
    }
    let files = raw.files.as_deref().map(|paths| files(reader, paths)).transpose()?;
    if program.starts_with('.') {
        let is_plain = |part| matches!(part, Component::Normal(_));
        let below = program.strip_prefix("./").map(Path::new).filter(|below| below.components().all(is_plain));
        if below.is_none_or(|below| below.as_os_str().is_empty()) {
            let problem = format!("`{program}` leaves the files of the stage; write `./` and a path below it");
            return Err(reader.error("exec", problem));
        }
        if files.is_none() {
            let problem = format!(
                "`{program}` comes with no files; name it in `files`, or write a name or an absolute path of a program on the nodes"
            );
            return Err(reader.error("exec", problem));
        }
    }
    for (key, is_given) in [("plugin", raw.plugin.is_some()), ("task", raw.task.is_some())] {
        if is_given {
            return Err(reader.error(key, "a stage has either a plugin or a program; leave it out beside `exec`"));
        }
    }
    if raw.isolation.as_deref() == Some("frame") {
        let problem = "a program knows no messages; write \"worker\" for a process that takes one item after another";
        return Err(reader.error("isolation", problem));
    }
    let is_worker = raw.isolation.as_deref() == Some("worker");
    if is_worker {
        no_streams(reader, raw)?;
    }
    if let Some(name) = raw.env.keys().find(|name| name.starts_with(OWN)) {
        return Err(
            reader.error("env", format!("`{name}` is set by the node; names that begin with `{OWN}` are its own"))
        );
    }
    if let Some((name, _)) = raw.env.iter().find(|(_, value)| value.contains('\0')) {
        return Err(reader.error("env", format!("`{name}` holds a NUL character, which no variable of a program may")));
    }
    lengths(reader, raw, arguments)?;
    let argument = |(number, text): (usize, &String)| {
        Argument::new(text).map_err(|error| reader.error("exec", format!("argument {}: {error}", number + 1)))
    };
    let exits = raw.exits.clone().unwrap_or_default();
    let permanent: BTreeSet<u8> = exits.permanent.map_or(default::EXITS_PERMANENT.into(), BTreeSet::from_iter);
    let transient = exits.transient.unwrap_or_default();
    if permanent.contains(&0) || transient.contains(&0) {
        return Err(reader.error("exits", "status 0 means that the item is done; leave it out"));
    }
    if let Some(both) = transient.iter().find(|status| permanent.contains(status)) {
        return Err(reader.error("exits", format!("status {both} is permanent and transient; leave one out")));
    }
    let arguments: Vec<Argument> = arguments.iter().enumerate().map(argument).collect::<Result<_, _>>()?;
    if is_worker && let Some(argument) = arguments.iter().find(|argument| argument.has_fields()) {
        let problem = format!(
            "`{}` has a placeholder, but a worker starts before it has an item; it finds each item in its messages",
            argument.fixed()
        );
        return Err(reader.error("exec", problem));
    }
    Ok(Program {
        name: program.clone(),
        files,
        arguments,
        options: raw.options.unwrap_or(false),
        input: stream(reader, "input", raw.input.as_deref(), Format::Json)?,
        output: stream(reader, "output", raw.output.as_deref(), Format::Ndjson)?,
        permanent,
        concurrency: raw.concurrency,
        memory: raw.memory.as_ref().map(|text| super::bounds::PROGRAM_MEMORY.size(reader, text)).transpose()?,
    })
}

/// Refuses what no item can start with: arguments and variables that are longer than the system takes.
fn lengths(reader: &Reader, raw: &manifest::Stage, arguments: &[String]) -> Result<(), ChainError> {
    let check = |key, what: &str, length: usize| {
        if length <= ARGUMENT_MAX {
            return Ok(());
        }
        let problem =
            format!("{what} has {length} bytes, and the system takes {ARGUMENT_MAX}; put it into one of the `files`");
        Err(reader.error(key, problem))
    };
    for (number, argument) in arguments.iter().enumerate() {
        check("exec", &format!("argument {}", number + 1), argument.len())?;
    }
    for (name, value) in &raw.env {
        check("env", &format!("`{}` with its value", crate::text::cut(name, 40)), name.len() + 1 + value.len())?;
    }
    let config = raw.config.as_ref().map_or(0, |config| config.to_string().len());
    check("config", "it, as the variable `PCLUSTER_CONFIG`,", "PCLUSTER_CONFIG=".len() + config)
}

/// Reads the files that come with a program.
fn files(reader: &Reader, paths: &[String]) -> Result<Files, ChainError> {
    let error = |problem: String| reader.error("files", problem);
    match paths {
        [] => return Err(error("names no file; leave it out".to_owned())),
        [digest] if digest.starts_with(DIGEST_PREFIX) => {
            return Ok(Files::Stored(
                digest.parse().map_err(|wrong: crate::name::DigestError| error(wrong.to_string()))?,
            ));
        }
        _ => {}
    }
    let mut names = BTreeSet::new();
    for text in paths {
        if text.starts_with(DIGEST_PREFIX) {
            return Err(error(format!("`{text}` is all of the files of a stage; write it alone, or write paths")));
        }
        let Some(name) = Path::new(text).file_name().filter(|_| !text.contains('\0')) else {
            return Err(error(format!("`{text}` names no file; write a path that ends in a name, as in \"tables/\"")));
        };
        if !names.insert(name) {
            let name = name.display();
            return Err(error(format!("two paths end in `{name}`, and each appears under its last name; rename one")));
        }
    }
    Ok(Files::Paths(paths.iter().map(PathBuf::from).collect()))
}

/// Refuses the keys of streams in a stage of workers.
fn no_streams(reader: &Reader, raw: &manifest::Stage) -> Result<(), ChainError> {
    let given = [
        ("input", raw.input.is_some(), "a worker takes items as messages, in the form that its `hello` asks for"),
        ("output", raw.output.is_some(), "a worker gives outputs as messages; its standard output is its log"),
        ("options", raw.options.is_some(), "no item is filled into the arguments of a worker"),
        ("exits", raw.exits.is_some(), "a worker says in a message how an item has failed; its end is no answer"),
    ];
    match given.into_iter().find(|(_, is_given, _)| *is_given) {
        Some((key, _, why)) => Err(reader.error(key, format!("{why}; leave it out"))),
        None => Ok(()),
    }
}

/// Refuses the keys of programs in a stage of a plugin.
pub(super) fn none(reader: &Reader, raw: &manifest::Stage) -> Result<(), ChainError> {
    let given = [
        ("input", raw.input.is_some()),
        ("output", raw.output.is_some()),
        ("options", raw.options.is_some()),
        ("exits", raw.exits.is_some()),
        ("files", raw.files.is_some()),
    ];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        Some((key, _)) => Err(reader.error(key, "belongs to a program; leave it out, or name one with `exec`")),
        None => Ok(()),
    }
}

/// Reads the format of a stream.
fn stream(
    reader: &Reader,
    key: &'static str,
    name: Option<&str>,
    default: Format,
) -> Result<Option<Format>, ChainError> {
    Ok(Some(match name {
        None => default,
        Some("none") => return Ok(None),
        Some("json") => Format::Json,
        Some("ndjson") => Format::Ndjson,
        Some("cbor") => Format::Cbor,
        Some("text") => Format::Text,
        Some("bytes") => Format::Bytes,
        Some(other) => {
            let problem = format!(
                "`{other}` is no format; write \"json\", \"ndjson\", \"cbor\", \"text\", \"bytes\" or \"none\""
            );
            return Err(reader.error(key, problem));
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::manifest::Manifest;
    use crate::chain::{Chain, Work};

    fn read(rest: &str) -> Result<Program, String> {
        let text = format!("name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"s\"\n{rest}");
        let manifest = Manifest::from_toml(&text).expect("the right shape");
        let chain = Chain::new(&manifest).map_err(|error| error.to_string())?;
        match &chain.stages[0].work {
            Work::Program(program) => Ok((**program).clone()),
            Work::Task { .. } => Err("a task".to_owned()),
        }
    }

    #[test]
    fn a_program_takes_json_and_gives_lines_unless_the_manifest_says_more() {
        let program = read("exec = [\"mpiexec\", \"-n\", \"2\", \"--steps={steps}\"]").expect("valid");
        assert_eq!((program.name.as_str(), program.arguments.len()), ("mpiexec", 3));
        assert_eq!((program.input, program.output), (Some(Format::Json), Some(Format::Ndjson)));
        assert_eq!((program.memory, program.permanent), (None, BTreeSet::from([65])));
        let program = read(
            "exec = [\"/bin/true\"]\ninput = \"none\"\noutput = \"none\"\nexits = { permanent = [2, 3] }\nmemory = \"16GiB\"",
        );
        let program = program.expect("valid");
        assert_eq!((program.input, program.output, program.memory), (None, None, Some(16 << 30)));
        assert_eq!(program.permanent, BTreeSet::from([2, 3]));
        let shipped = read("exec = [\"./bin/sim\"]\nfiles = [\"../target/bin\", \"tables/\"]").expect("valid");
        assert_eq!(shipped.files, Some(Files::Paths(vec!["../target/bin".into(), "tables/".into()])));
        let digest = Digest::of(b"archive");
        let stored = read(&format!("exec = [\"./sim\"]\nfiles = [\"{digest}\"]")).expect("valid");
        assert_eq!(stored.files, Some(Files::Stored(digest)));
    }

    #[test]
    fn a_worker_has_fixed_arguments_and_may_be_replaced_after_some_items() {
        let program = read("exec = [\"x\", \"{{a}}\"]\nisolation = \"worker\"\nreuse = 5").expect("valid");
        assert_eq!(program.arguments[0].fixed(), "{a}");
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        let long = "x".repeat(128 << 10);
        for (rest, told) in [
            ("", "`plugin`: a stage needs a task or a program: name a `plugin`, or a program with `exec`"),
            ("exec = []", "`exec`: names no program"),
            ("exec = [\"bin/x\"]", "`exec`: `bin/x` names no program"),
            ("exec = [\"./x\"]", "`exec`: `./x` comes with no files"),
            ("exec = [\"../x\"]\nfiles = [\"x\"]", "`exec`: `../x` leaves the files of the stage"),
            ("exec = [\"./a/../../x\"]\nfiles = [\"x\"]", "`exec`: `./a/../../x` leaves the files of the stage"),
            ("exec = [\"./\"]\nfiles = [\"x\"]", "`exec`: `./` leaves the files of the stage"),
            ("exec = [\"x\"]\nfiles = []", "`files`: names no file; leave it out"),
            ("exec = [\"x\"]\nfiles = [\"..\"]", "`files`: `..` names no file"),
            ("exec = [\"x\"]\nfiles = [\"a/x\", \"b/x/\"]", "`files`: two paths end in `x`"),
            ("exec = [\"x\"]\nfiles = [\"sha256:12\"]", "`files`: `sha256:12` is not a digest"),
            ("exec = [\"x\"]\nfiles = [\"a\", \"sha256:12\"]", "`files`: `sha256:12` is all of the files"),
            ("plugin = \"p.wasm\"\nfiles = [\"x\"]", "`files`: belongs to a program"),
            ("exec = [\"{x}\"]", "`exec`: `{x}` names no program"),
            ("exec = [\"x\", \"{\"]", "`exec`: argument 1: `{` has a `{` without its other brace"),
            ("exec = [\"x\"]\nplugin = \"p.wasm\"", "`plugin`: a stage has either a plugin or a program"),
            ("exec = [\"x\"]\nisolation = \"frame\"", "`isolation`: a program knows no messages"),
            ("exec = [\"x\"]\nreuse = 5", "`reuse`: every item has a fresh instance"),
            ("exec = [\"x\"]\nisolation = \"worker\"\ninput = \"json\"", "`input`: a worker takes items as messages"),
            (
                "exec = [\"x\"]\nisolation = \"worker\"\noutput = \"json\"",
                "`output`: a worker gives outputs as messages",
            ),
            ("exec = [\"x\"]\nisolation = \"worker\"\noptions = true", "`options`: no item is filled into"),
            ("exec = [\"x\"]\nisolation = \"worker\"\nexits = {}", "`exits`: a worker says in a message"),
            (
                "exec = [\"x\", \"--n={n}\"]\nisolation = \"worker\"",
                "`exec`: `--n={n}` has a placeholder, but a worker starts before it has an item",
            ),
            ("exec = [\"x\"]\ninput = \"xml\"", "`input`: `xml` is no format"),
            ("exec = [\"x\"]\nexits = { permanent = [0] }", "`exits`: status 0 means that the item is done"),
            (
                "exec = [\"x\"]\nexits = { permanent = [5], transient = [5] }",
                "`exits`: status 5 is permanent and transient",
            ),
            ("exec = [\"x\"]\nenv = { PCLUSTER_ITEM_ID = \"1\" }", "`env`: `PCLUSTER_ITEM_ID` is set by the node"),
            ("exec = [\"x\"]\nenv = { A = \"\\u0000\" }", "`env`: `A` holds a NUL character"),
            ("plugin = \"p.wasm\"\noutput = \"json\"", "`output`: belongs to a program"),
            (
                &format!("exec = [\"x\", \"{long}\"]"),
                "`exec`: argument 1 has 131072 bytes, and the system takes 131071",
            ),
            (&format!("exec = [\"x\"]\nenv = {{ A = \"{long}\" }}"), "`env`: `A` with its value has 131074 bytes"),
            (
                &format!("exec = [\"x\"]\nconfig = \"{long}\""),
                "`config`: it, as the variable `PCLUSTER_CONFIG`, has 131090",
            ),
        ] {
            let refused = read(rest).expect_err(rest);
            assert!(refused.starts_with(&format!("stage `s`: {told}")), "{rest}: {refused}");
        }
    }
}
