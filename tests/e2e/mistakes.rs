//! Mistakes of authors and their machines, each with the command and the text that a user sees.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use support::{Cluster, Run, install_javascript, javascript_package, python, python_package, repository};

use crate::languages::provide;
use crate::large_disk::{can_mount, with_disk};
use crate::new_languages::with_tools;

/// A mistake in the folder of a plugin, and what is said of it.
struct Mistake {
    /// What is wrong. It names the folder too.
    name: &'static str,
    lang: &'static str,
    /// A file of the folder, a text in it, and what stands there instead. A file without the text is new.
    edit: (&'static str, &'static str, &'static str),
    /// The item to run. Empty to build alone.
    item: &'static str,
    says: &'static [&'static str],
}

/// Tries an item once.
const ONCE: (&str, &str) = ("config = { most = 30 }\n", "config = { most = 30 }\nretry = { attempts = 1 }\n");
const ITEM: &str = r#"{"word": "example"}"#;

const fn built(
    name: &'static str,
    lang: &'static str,
    edit: (&'static str, &'static str, &'static str),
    says: &'static [&'static str],
) -> Mistake {
    Mistake { name, lang, edit, item: "", says }
}

const RUST: &[Mistake] = &[
    built(
        "rust without a task",
        "rust",
        ("src/lib.rs", "#[task]\n", ""),
        &["it has no task; mark a function with `#[task]`"],
    ),
    built("rust syntax", "rust", ("src/lib.rs", ".count();", ".count(;"), &["error: ", " --> src/lib.rs:"]),
    built(
        "rust type",
        "rust",
        ("src/lib.rs", "Ok(Measured { word, letters })", "Ok(word)"),
        &["error[E0308]: mismatched types", " --> src/lib.rs:"],
    ),
];

const PYTHON: &[Mistake] = &[
    built(
        "python without a task",
        "python",
        ("tasks.py", "@task\n", ""),
        &["there is no task in the folder; mark a function with `@task`"],
    ),
    built(
        "python twice",
        "python",
        ("more.py", "", "from pcluster import task\n\n\n@task\ndef plugin(item: dict) -> dict:\n    return item\n"),
        &["tasks.py:22: there is another task `plugin` at more.py:5; rename one"],
    ),
    built("python syntax", "python", ("tasks.py", "(item: Word)", "(item: Word"), &["tasks.py:22: "]),
    built(
        "python native",
        "python",
        ("fast.cpython-314-x86_64-linux-gnu.so", "", "x"),
        &[
            "fast.cpython-314-x86_64-linux-gnu.so is code for this machine, which the sandbox cannot run; run the file as a native worker",
        ],
    ),
    built(
        "python address",
        "python",
        ("requirements.txt", "", "tool @ https://example.org/tool-1-py3-none-any.whl\n"),
        &["requirements.txt", "`tool @ https://example.org/tool-1-py3-none-any.whl`", "--offline"],
    ),
    Mistake {
        name: "python late import",
        lang: "python",
        edit: ("tasks.py", "    most = context()", "    import numpy\n\n    most = context()"),
        item: ITEM,
        says: &["ModuleNotFoundError: No module named 'numpy'", "requirements.txt", "line 24"],
    },
    Mistake {
        name: "python type",
        lang: "python",
        edit: ("tasks.py", "return Measured(item.word, len(item.word))", "return object()"),
        item: ITEM,
        says: &["dead letter of plugin: ", "object"],
    },
];

const GO: &[Mistake] = &[
    built(
        "go without a task",
        "go",
        ("main.go", "\tpcluster.Map(\"plugin\", measure)\n", "\t_ = measure\n"),
        &["registers no task: call pcluster.Map(\"name\", function) in main"],
    ),
    built(
        "go twice",
        "go",
        ("main.go", "measure)\n}", "measure)\n\tpcluster.Map(\"plugin\", measure)\n}"),
        &["main.go:46:2: there is a task `plugin` already, at main.go:45:2"],
    ),
    built("go syntax", "go", ("main.go", "func main() {", "func main( {"), &["main.go:44:"]),
    built(
        "go type",
        "go",
        ("main.go", "return measured{item.Word, letters}, nil", "return letters, nil"),
        &["main.go:41:9: cannot use letters (variable of type int) as measured value in return statement"],
    ),
];

const C: &[Mistake] = &[
    built(
        "c without a task",
        "c",
        ("tasks.c", "PCLUSTER_TASK(plugin, run)\n", "pcluster_task task = run;\n"),
        &["it has no task; make a function one with `PCLUSTER_TASK(name, function)`"],
    ),
    built(
        "c twice",
        "c",
        (
            "more.c",
            "",
            "#include <pcluster.h>\n\nstatic pcluster_status end(pcluster_reader *item)\n{\n    (void)item;\n    return PCLUSTER_DONE;\n}\n\nPCLUSTER_TASK(plugin, end)\n",
        ),
        &["two tasks are named `plugin`; rename one"],
    ),
    built("c syntax", "c", ("tasks.c", "return letters;", "return letters"), &["tasks.c:11:", "expected ';'"]),
    built("c++ syntax", "cpp", ("tasks.cpp", "return PCLUSTER_DONE;", "return DONE;"), &["tasks.cpp:34:", "'DONE'"]),
    built(
        "zig syntax",
        "zig",
        ("tasks.zig", "return pcluster.PCLUSTER_DONE;", "return pcluster.DONE;"),
        &["tasks.zig:23:", "DONE"],
    ),
];

const ASSEMBLYSCRIPT: &[Mistake] = &[built(
    "assemblyscript syntax",
    "assemblyscript",
    ("tasks.ts", "return DONE;", "return DON;"),
    &["ERROR TS2304: Cannot find name 'DON'.", "tasks.ts(22,"],
)];

const JAVASCRIPT: &[Mistake] = &[
    built(
        "typescript without a task",
        "typescript",
        ("tasks.ts", "task(({ word }: Word): Measured => {", "(({ word }: Word): Measured => {"),
        &["tasks.ts exports no task; write `export const NAME = task((item) => ...)`"],
    ),
    built(
        "typescript syntax",
        "typescript",
        ("tasks.ts", "return { word, letters };", "return { word, letters ;"),
        &["tasks.ts:22:"],
    ),
    built(
        "typescript package",
        "typescript",
        ("tasks.ts", "import {", "import { z } from \"no-such-package\";\nimport {"),
        &["tasks.ts:1:19: Could not resolve \"no-such-package\""],
    ),
    Mistake {
        name: "typescript type",
        lang: "typescript",
        edit: ("tasks.ts", "return { word, letters };", "return new Set([word, letters]) as unknown as Measured;"),
        item: ITEM,
        says: &["the output cannot be written: a value of type Set cannot be an output; write [...set]"],
    },
    built(
        "javascript syntax",
        "javascript",
        ("tasks.js", "return { word, letters };", "return { word, letters ;"),
        &["SyntaxError: ", "at tasks.js:11:"],
    ),
];

/// Returns a command that finds the compilers of the tests, and the package for Python.
fn command(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = with_tools(cluster, "", cluster.command(arguments));
    let package = python_package().display().to_string();
    let script = format!("#!/bin/sh\nPYTHONPATH='{package}' exec python3 \"$@\"\n");
    command.env("PCLUSTER_PYTHON", executable(cluster, "python", &script));
    command
}

/// Makes a program of the test.
fn executable(cluster: &Cluster, name: &str, script: &str) -> PathBuf {
    std::fs::create_dir_all(cluster.path("bin")).unwrap();
    let path = cluster.file(&format!("bin/{name}"), script);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// Makes each mistake in a new folder, and checks what is said.
fn check(mistakes: &[Mistake]) {
    check_in(&Cluster::start(), mistakes);
}

fn check_in(cluster: &Cluster, mistakes: &[Mistake]) {
    for Mistake { name, lang, edit: (file, from, to), item, says } in mistakes {
        cluster.ok(&["new", name, "--lang", lang, "--name", "plugin"]);
        let path = cluster.path(name).join(file);
        let text = if from.is_empty() { String::new() } else { std::fs::read_to_string(&path).unwrap() };
        assert!(text.contains(from), "{name}: {file} has no {from}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let manifest = std::fs::read_to_string(cluster.path(name).join("chain.toml")).unwrap();
        cluster.file(&format!("{name}/chain.toml"), manifest.replace(ONCE.0, ONCE.1));
        let run = match *item {
            "" => Run::of(command(cluster, &["build", name, "--offline"]), b""),
            item => Run::of(command(cluster, &["dev", name, "--offline", "--until-empty", "--feed", item]), b""),
        };
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{name}: {}", run.stderr);
        for said in *says {
            assert!(run.stderr.contains(said), "{name}: expected {said}\n{}", run.stderr);
        }
    }
}

#[test]
fn mistakes_in_rust_are_told() {
    check(RUST);
}

#[test]
fn mistakes_in_python_are_told() {
    // The interpreter is built.
    python(&["--version"]);
    check(PYTHON);
}

#[test]
fn mistakes_in_go_are_told() {
    provide("go");
    check(GO);
}

#[test]
fn mistakes_in_c_cpp_and_zig_are_told() {
    provide("ziglang");
    check(C);
}

#[test]
fn mistakes_in_assemblyscript_are_told() {
    provide("assemblyscript");
    check(ASSEMBLYSCRIPT);
}

#[test]
fn mistakes_in_typescript_and_javascript_are_told() {
    let cluster = Cluster::start();
    install_javascript(&cluster.path(""));
    check_in(&cluster, JAVASCRIPT);
}

#[test]
fn what_a_machine_lacks_is_told_with_what_to_do() {
    let cluster = Cluster::start();
    for lang in ["c", "go", "assemblyscript", "python", "typescript"] {
        cluster.ok(&["new", lang, "--lang", lang, "--name", "plugin"]);
    }
    // No compiler is on this path, and the folder of tools is empty.
    let on = |path: &str, arguments: &[&str]| {
        let mut command = command(&cluster, arguments);
        command.env("PATH", path).env("XDG_DATA_HOME", cluster.path("data")).env_remove("PCLUSTER_PYTHON");
        command.env_remove("PCLUSTER_JAVASCRIPT");
        command
    };
    let bin = cluster.path("bin").display().to_string();
    executable(&cluster, "go", "#!/bin/sh\necho go1.20.1\n");
    for (path, folder, says) in [
        (
            "/none",
            "c",
            "zig 0.17 or newer is missing, with which `c` is built: `pcluster build c` without --offline downloads ziglang 0.17.1 from PyPI (90 MB), or put `zig` on the PATH",
        ),
        ("/none", "assemblyscript", "asc 0.28 or newer is missing, with which `assemblyscript` is built: "),
        (
            &bin,
            "go",
            "go 1.24 or newer (`BIN/go` is 1.20.1) is missing, with which `go` is built: `pcluster build go` without --offline",
        ),
    ] {
        let says = says.replace("BIN", &bin);
        support::assert_refused(&Run::of(on(path, &["build", folder, "--offline"]), b""), 1, &[&says]);
    }
    let tools = repository().join(".tools/bin").display().to_string();
    provide("javascript");
    for (path, package, says) in [
        (
            "/none",
            None,
            "the package `pcluster` for JavaScript is missing, with which `typescript` is built: `npm install PATH/sdk/js`",
        ),
        ("/none", Some(cluster.path("")), "the package `pcluster` for JavaScript (`"),
        (
            "/none",
            Some(javascript_package()),
            "node 20.0 or newer is missing, with which `typescript` is built: `pcluster build typescript` without",
        ),
        (
            &*tools,
            Some(javascript_package()),
            "esbuild is missing, with which `typescript` is built: `pcluster build typescript` without --offline",
        ),
    ] {
        let mut build = on(path, &["build", "typescript", "--offline"]);
        build.envs(package.map(|package| ("PCLUSTER_JAVASCRIPT", package)));
        support::assert_refused(&Run::of(build, b""), 1, &[says]);
    }
    let said = "ziglang 0.17.1 is downloaded with Python and pip, and there is no `python3`; install them, or put `zig` on the PATH";
    Run::of(on("/none", &["build", "c"]), b"").failed(1, said);
    // A registry that nobody answers for.
    let path = std::env::var("PATH").unwrap();
    let mut alone = on(&path, &["build", "c"]);
    alone.env("PIP_INDEX_URL", "http://127.0.0.1:9/simple").env("PIP_CACHE_DIR", cluster.path("pip"));
    let run = Run::of(alone, b"")
        .failed(1, "ziglang 0.17.1 was not downloaded: PyPI cannot be reached; build again with a network");
    assert!(run.stderr.contains("downloading ziglang 0.17.1 from PyPI into `"), "{}", run.stderr);
    assert!(!cluster.path("data/pcluster/tools/ziglang-0.17.1").exists());
}

#[test]
fn a_full_disk_and_a_folder_with_spaces_and_umlauts_do_no_harm() {
    provide("ziglang");
    let cluster = Cluster::start();
    cluster.ok(&["new", "Größe und Maß", "--lang", "c", "--name", "plugin"]);
    cluster.file("Größe und Maß/notes.md", cluster.path("").display().to_string());
    let built = Run::of(command(&cluster, &["build", "Größe und Maß", "--offline"]), b"");
    assert!(built.stderr.contains("built `Größe und Maß` in "), "{}", built.stderr);
    assert!(cluster.ok(&["inspect", built.succeeded().trim()]).contains("plugin"));
    if !can_mount("a build in C on a full disk") {
        return;
    }
    let mut full = command(&cluster, &["build", "Größe und Maß", "--offline"]);
    full.env("PCLUSTER_CACHE", cluster.path("disk"));
    let script = "head -c 2m /dev/zero > disk/filler 2>/dev/null; \"$@\"";
    let run = Run::of(with_disk(&cluster, 1, script, &full), b"");
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{}", run.stderr);
    assert!(run.stderr.contains("No space left on device") || run.stderr.contains("NoSpaceLeft"), "{}", run.stderr);
}
