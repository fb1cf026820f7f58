//! `pcluster check`: all mistakes of a chain at once, each with its place and what to write, without a server.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{Run, json_lines, pcluster};

/// Returns a plugin with tasks, each with more of its description, and this many pages of memory.
fn plugin(abi: u32, pages: u32, tasks: &[(&str, Value)]) -> Vec<u8> {
    let section: String = tasks
        .iter()
        .map(|(name, more)| {
            let mut described = json!({ "abi": abi, "name": name, "kind": "map" });
            described.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            format!("{described}\n")
        })
        .collect();
    let exports: String =
        tasks.iter().map(|(name, _)| format!(r#"(export "pcluster_task:{name}" (func $task))"#)).collect();
    let text = format!(
        r#"(module (memory (export "memory") {pages})
            (func (export "pcluster_alloc") (param i32) (result i32) (i32.const 16))
            (func $task (param i32 i32) (result i32) (i32.const 0)) {exports} (@custom "pcluster" {section:?}))"#
    );
    wat::parse_str(text).unwrap()
}

fn schemas(input: &Value, output: &Value) -> Value {
    json!({ "schema": { "input": input, "output": output } })
}

/// Makes a folder with plugins and programs that manifests name.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| fs::write(folder.path().join(name), content).unwrap();
    let total =
        |kind: &str| json!({ "type": "object", "properties": { "total": { "type": kind } }, "required": ["total"] });
    let any = json!({});
    let tasks = [
        ("echo", json!({})),
        ("fetch", json!({ "calls": ["http"] })),
        ("parse", schemas(&json!({ "type": "string" }), &total("string"))),
        ("sum", schemas(&total("number"), &json!({ "type": "number" }))),
        ("odd", schemas(&json!({ "type": "nmuber" }), &any)),
        ("weigh", schemas(&json!({ "type": "number", "wavelength": 7 }), &any)),
    ];
    write("p.wasm", &plugin(1, 1, &tasks));
    write("large.wasm", &plugin(1, 2000, &tasks[..1]));
    write("old.wasm", &plugin(2, 1, &tasks[..1]));
    write("text.wasm", b"#!/bin/sh\n");
    write("program", b"#!/bin/sh\n");
    for (name, file) in [("empty", "notes.txt"), ("python", "tasks.py")] {
        fs::create_dir(folder.path().join(name)).unwrap();
        write(&format!("{name}/{file}"), b"");
    }
    folder
}

fn check(folder: &Path, arguments: &[&str], input: &str) -> Run {
    let mut command = Command::new(pcluster());
    command.arg("check").args(arguments).current_dir(folder).env("PCLUSTER_NATS", "nats://127.0.0.1:1");
    Run::of(command, input.as_bytes())
}

/// Checks a manifest. Returns each mistake as `line:column message; help`, and each note without its place.
fn told(folder: &Path, manifest: &str) -> Vec<String> {
    let run = check(folder, &["--json", "-"], manifest);
    let found = json_lines(&run.stdout);
    let is_wrong = found.iter().any(|found| found["severity"] == "error");
    assert_eq!(run.code, Some(i32::from(is_wrong)), "{manifest}: {}", run.stderr);
    let text = |found: &Value| {
        let message = found["message"].as_str().unwrap();
        let text = found["help"].as_str().map_or(message.to_owned(), |help| format!("{message}; {help}"));
        if found["severity"] == "note" {
            format!("note {text}")
        } else {
            format!("{}:{} {text}", found["line"], found["column"])
        }
    };
    found.iter().map(text).collect()
}

/// What begins each manifest of [`STAGES`]. Its stage is in line 3, what follows in line 6.
const STAGE: &str = "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"echo\"\nplugin = \"p.wasm\"\n";

/// What is wrong with a stage, and what a user is told.
const STAGES: &[(&str, &[&str])] = &[
    ("concurency = 3", &["6:1 unknown key `concurency`; did you mean `concurrency`?"]),
    ("retry = { attempt = 3 }", &["6:11 unknown key `attempt`; did you mean `attempts`?"]),
    ("[stage.alow]\nhttp = []", &["6:8 unknown key `alow`; did you mean `allow`?"]),
    (
        "timeout = 5",
        &[
            "6:11 `timeout`: invalid type: integer `5`, expected a string; a duration is a text with its unit, as in \"500ms\", \"5s\" or \"5m\"",
        ],
    ),
    (
        "timeout = \"soon\"",
        &["6:11 stage `echo`: `timeout`: `soon` is not a duration; write one like \"500ms\", \"30s\" or \"5m\""],
    ),
    (
        "timeout = \"0s\"",
        &["6:11 stage `echo`: `timeout`: must be at least \"1ms\": a node measures it in milliseconds"],
    ),
    (
        "retry = { backoff = [\"1s\", \"late\", \"2s\", \"later\"] }",
        &[
            "6:28 stage `echo`: `backoff`: `late` is not a duration; write one like \"500ms\", \"30s\" or \"5m\"",
            "6:42 stage `echo`: `backoff`: `later` is not a duration; write one like \"500ms\", \"30s\" or \"5m\"",
        ],
    ),
    ("memory = \"lots\"", &["6:10 stage `echo`: `memory`: `lots` is not a size; write one like \"64MiB\" or \"1GiB\""]),
    ("concurrency = 0", &["6:15 stage `echo`: `concurrency`: must be at least 1"]),
    ("retry = { attempts = 0 }", &["6:22 stage `echo`: `attempts`: must be at least 1"]),
    (
        "inline = true",
        &["6:10 stage `echo`: `inline`: the first stage has none before it to run with; leave it out here"],
    ),
    (
        "isolation = \"none\"",
        &["6:13 stage `echo`: `isolation`: `none` is not known; write \"item\", \"frame\" or \"worker\""],
    ),
    (
        "reuse = 10",
        &[
            "6:9 stage `echo`: `reuse`: every item has a fresh instance; leave it out, or write `isolation = \"worker\"`",
        ],
    ),
    (
        "isolation = \"none\"\nreuse = 10",
        &["6:13 stage `echo`: `isolation`: `none` is not known; write \"item\", \"frame\" or \"worker\""],
    ),
    (
        "env = { \"A=B\" = \"c\", \"D=\" = \"e\" }",
        &[
            "6:17 stage `echo`: `env`: `A=B` cannot be the name of a variable",
            "6:29 stage `echo`: `env`: `D=` cannot be the name of a variable",
        ],
    ),
    (
        "config = { rate = [1, nan] }",
        &["6:10 stage `echo`: `config.rate[1]` is NaN, which no item can hold; write a number or a text"],
    ),
    (
        "exec = [\"true\"]",
        &["5:10 stage `echo`: `plugin`: a stage has either a plugin or a program; leave it out beside `exec`"],
    ),
    (
        "output = \"json\"",
        &["6:10 stage `echo`: `output`: belongs to a program; leave it out, or name one with `exec`"],
    ),
    ("needs = { gpu = \"1\" }", &["6:17 stage `echo`: `needs`: `gpu`: must be a whole number, as in `gpu = 1`"]),
    (
        "[stage.allow]\nhttp = [\"https://a.example\", \"b.example\"]",
        &["7:30 stage `echo`: `allow.http`: `b.example` has no scheme; write `https://b.example`"],
    ),
    (
        "[stage.allow]\nkv = { cache = \"read-wirte\" }",
        &["7:16 stage `echo`: `allow.kv`: `cache`: `read-wirte` is not known; did you mean `read-write`?"],
    ),
    ("[stage.allow]\nhtpp = []", &["7:1 unknown key `htpp`; did you mean `http`?"]),
    (
        "[stage.allow]\nsecrets = { key = \"https://a.example\" }",
        &[
            "7:19 stage `echo`: `allow.secrets`: `key` is for `https://a.example`, which the stage may not request; add `\"https://a.example\"` to `allow.http`",
        ],
    ),
    (
        "[stage.allow]\nkv = { cache = \"read\" }",
        &["note not checked, as only a server knows it: stage `echo`: the bucket `cache`"],
    ),
    (
        "task = \"ecco\"",
        &[
            "6:8 stage `echo`: plugin `p.wasm`: the plugin has no task `ecco`; it has `echo`, `fetch`, `odd`, `parse`, `sum`, `weigh`",
        ],
    ),
    (
        "task = \"fetch\"",
        &[
            "5:10 stage `echo`: plugin `p.wasm`: its task calls `http`, and the manifest grants none; add to its `[stage.allow]`: http = [\"https://api.example.com\"]",
        ],
    ),
    (
        "task = \"odd\"",
        &["5:10 stage `echo`: the schema of its input is at `#`: `type` names `nmuber`, which is no type"],
    ),
    (
        "[[stage]]\nname = \"echo\"\nplugin = \"p.wasm\"",
        &["7:8 two stages are named `echo`; a stage's name must be its own"],
    ),
    (
        "[[stage]]\nname = \"parse\"\nplugin = \"p.wasm\"\n[[stage]]\nname = \"sum\"\nplugin = \"p.wasm\"",
        &[
            "10:8 stages that do not fit: `parse` gives `/total: string`, `sum` takes `number`; for example {\"total\":\"aaa\"}",
        ],
    ),
    (
        "[[stage]]\nname = \"sum\"\nplugin = \"p.wasm\"\n[[stage]]\nname = \"weigh\"\nplugin = \"p.wasm\"",
        &["note whether `weigh` takes all that `sum` gives is not known: the keyword `wavelength`"],
    ),
];

/// Whole manifests, and what a user is told.
const CHAINS: &[(&str, &[&str])] = &[
    ("[[stage\n", &["1:8 invalid table header, expected `.`, `]]`"]),
    ("name = a\nversion = \"1\"", &["1:8 invalid string, expected `\"`, `'`"]),
    ("name = \"a\"\nname = \"b\"", &["2:1 duplicate key `name` in document root"]),
    ("", &["1:1 the key `name` is missing", "1:1 the key `version` is missing"]),
    (
        "nme = \"a\"\nversion = 1.0\n",
        &[
            "1:1 unknown key `nme`; did you mean `name`?",
            "2:11 `version`: invalid type: floating point `1.0`, expected a string; write it in quotes, as in \"1.0\"",
        ],
    ),
    ("name = \"a\"\nversion = \"1\"", &["1:1 the chain has no stage; add at least one `[[stage]]`"]),
    (
        "name = \"a\"\nversion = \"1\"\n[stage]\nname = \"s\"",
        &[
            "3:1 `stage`: invalid type: map, expected a sequence; write two brackets before each stage, as in `[[stage]]`",
        ],
    ),
    (
        "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"s\"\nexec = [\"cat\"]\nretry = 3\nconcurrency = -1",
        &[
            "6:9 `retry`: invalid type: integer `3`, expected a table; write a table, as in `retry = { attempts = 3 }`",
            "7:15 `concurrency`: invalid value: integer `-1`, expected a whole number that is not negative",
        ],
    ),
    (
        "name = \"My.Chain\"\nversion = \"1 beta\"\n[[stage]]\nname = \"b.c\"\nplugin = \"p.wasm\"\ntask = \"echo\"",
        &[
            "1:8 the chain name `My.Chain` has the character 'M'; allowed are lower-case letters, digits, `-` and `_`",
            "2:11 the version `1 beta` has the character ' '; allowed are letters, digits, `.`, `-`, `_` and `+`",
            "4:8 the stage name `b.c` has the character '.'; allowed are letters, digits, `-` and `_`",
        ],
    ),
    (
        "name = \"a\"\nversion = \"1\"\n[input]\nformat = \"xml\"\n[[stage]]\nname = \"echo\"\nplugin = \"p.wasm\"",
        &["4:10 `xml` is not known; known here are `cbor`, `json`, `ndjson`, `text`, `bytes`"],
    ),
    (
        "name = \"a\"\nversion = \"1\"\n[queue]\nlimit = 0\nack_wait = \"soon\"\nduplicate_window = \"1s\"\n[[stage]]\nname = \"echo\"\nplugin = \"p.wasm\"",
        &[
            "4:9 [queue] `limit`: must be at least 1",
            "5:12 [queue] `ack_wait`: `soon` is not a duration; write one like \"500ms\", \"30s\" or \"5m\"",
        ],
    ),
    (
        "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"echo\"",
        &["3:1 stage `echo`: `plugin`: a stage needs a task or a program: name a `plugin`, or a program with `exec`"],
    ),
    (
        "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"echo\"\nplugin = \"none.wasm\"",
        &[
            "5:10 there is no file `none.wasm`, which the manifest names as a plugin; build it first, as with `cargo build --release --target wasm32-wasip1`",
        ],
    ),
    (
        "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"echo\"\nplugin = \"text.wasm\"",
        &[
            "5:10 stage `echo`: plugin `text.wasm`: not a WebAssembly module; build the plugin with `cargo build --release --target wasm32-wasip1`",
        ],
    ),
    (
        "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"echo\"\nplugin = \"old.wasm\"",
        &[
            "5:10 stage `echo`: plugin `old.wasm`: built for plugin ABI 2, but this pcluster runs ABI 1; build it with a matching version of pcluster-sdk",
        ],
    ),
    (
        "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"echo\"\nplugin = \"large.wasm\"",
        &[
            "5:10 stage `echo`: plugin `large.wasm`: the plugin starts with 125.0 MiB of memory, but its stage allows 64.0 MiB; write `memory = \"128000KiB\"` or more",
        ],
    ),
    (
        "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"echo\"\nplugin = \"empty\"",
        &[
            "5:10 the folder `empty` holds no plugin; one has a `Cargo.toml` (Rust), a `pyproject.toml` (Python), a `go.mod` (Go), a `asconfig.json` (AssemblyScript), a `tsconfig.json` (TypeScript), a `.py` file (Python), a `.ts` file (TypeScript), a `.mts` file (TypeScript), a `package.json` (JavaScript), a `.js` file (JavaScript), a `.mjs` file (JavaScript), a `.zig` file (Zig), a `.cpp` file (C++), a `.cc` file (C++), a `.cxx` file (C++), a `.c` file (C)",
        ],
    ),
    (
        "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"echo\"\nplugin = \"python\"",
        &["note not checked, as it is not built: the plugin of `python`; `--build` builds it first"],
    ),
    (
        "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"echo\"\nplugin = \"sha256:12\"",
        &["5:10 stage `echo`: `sha256:12` is not a digest; one is `sha256:` and 64 hexadecimal digits"],
    ),
    (
        "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"echo\"\nexec = [\"./none\"]\nfiles = [\"program\"]",
        &["6:9 stage `echo`: `files`: `./none` is not among the files; name it in `files`"],
    ),
    (
        "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"echo\"\nexec = [\"./none\"]\nfiles = [\"none\", \"program\"]",
        &[
            "6:10 stage `echo`: `files`: there is no file `none`; build it first, or mend its path, which is relative to the manifest",
        ],
    ),
    (
        "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"echo\"\nexec = \"true\"",
        &[
            "5:8 `exec`: invalid type: string \"true\", expected a sequence; write the program and its arguments as a list of texts, as in [\"python3\", \"job.py\"]",
        ],
    ),
    (
        "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"echo\"\nexec = [\"echo\", \"{a\"]",
        &[
            "5:17 stage `echo`: `exec`: argument 1: `{a` has a `{` without its other brace; `{{` and `}}` are literal braces: write `{{a`",
        ],
    ),
    (
        "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"echo\"\nexec = [\"true\"]\nexits = { permanent = [0] }",
        &["6:9 stage `echo`: `exits`: status 0 means that the item is done; leave it out"],
    ),
];

#[test]
fn forty_mistakes_are_told_with_their_places_and_what_to_write() {
    let folder = folder();
    let stages = STAGES.iter().map(|(rest, says)| (format!("{STAGE}{rest}\n"), says));
    let chains = CHAINS.iter().map(|(text, says)| ((*text).to_owned(), says));
    let mut missed = Vec::new();
    for (rest, expected) in stages.chain(chains) {
        let told = told(folder.path(), &rest);
        if told != **expected {
            missed.push(format!("{rest}\n{told:#?}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    assert!(STAGES.len() + CHAINS.len() >= 40);
}

#[test]
fn mistakes_are_shown_with_their_lines_and_a_right_chain_is_said_to_be() {
    let folder = folder();
    let write = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
    write("chain.toml", &format!("{STAGE}concurency = 3\ntimeout = \"soon\"\n"));
    let shown = "\
error: unknown key `concurency`
 --> chain.toml:6:1
  |
6 | concurency = 3
  | ^^^^^^^^^^
  |
  = help: did you mean `concurrency`?
error: stage `echo`: `timeout`: `soon` is not a duration
 --> chain.toml:7:11
  |
7 | timeout = \"soon\"
  |           ^^^^^^
  |
  = help: write one like \"500ms\", \"30s\" or \"5m\"
error: `chain.toml` has 2 mistakes
";
    let run = check(folder.path(), &[], "");
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(1), "", shown));
    let object = json!({
        "file": "./chain.toml", "line": 6, "column": 1, "end": { "line": 6, "column": 11 }, "severity": "error",
        "code": "unknown-key", "message": "unknown key `concurency`", "help": "did you mean `concurrency`?",
    });
    assert_eq!(json_lines(&check(folder.path(), &[".", "--json"], "").stdout)[0], object);

    // Other commands show them all as well.
    let mut build = Command::new(pcluster());
    build.args(["build", "chain.toml"]).current_dir(folder.path());
    let shown = "\
error: `chain.toml`, line 6: unknown key `concurency`; did you mean `concurrency`?
 --> chain.toml:6:1
  |
6 | concurency = 3
  | ^^^^^^^^^^
also: stage `echo`: `timeout`: `soon` is not a duration
 --> chain.toml:7:11
  |
7 | timeout = \"soon\"
  |           ^^^^^^
  |
  = help: write one like \"500ms\", \"30s\" or \"5m\"
";
    assert_eq!(Run::of(build, b"").stderr, shown);

    write("chain.toml", STAGE);
    assert_eq!(check(folder.path(), &[], "").succeeded(), "`chain.toml` has no mistakes\n");
    assert_eq!(check(folder.path(), &["-"], STAGE).succeeded(), "`-` has no mistakes\n");
    let fits = format!(
        "{STAGE}[[stage]]\nname = \"parse\"\nplugin = \"p.wasm\"\n[[stage]]\nname = \"sum\"\nplugin = \"p.wasm\""
    );
    assert_eq!(check(folder.path(), &["-", "--no-contracts"], &fits).succeeded(), "`-` has no mistakes\n");
    check(folder.path(), &["none.toml"], "").failed(4, "there is no file `none.toml`");
}
