//! Builds of plugins: what they depend on, what they do not see, and mistakes, each with the message that a user sees.

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{Cluster, Run, assert_refused};

use crate::large_disk::{can_mount, with_disk};

const TASK: &str = "use pcluster_sdk::task;\n\n#[task]\nfn double(number: u64) -> u64 {\n    2 * number\n}\n";

/// The source of a task that no other test has built.
fn task(cluster: &Cluster) -> String {
    format!("{TASK}\n// {}\n", cluster.path("").display())
}

/// Makes a plugin in Rust with this source.
fn rust_plugin(cluster: &Cluster, folder: &str, source: &str) {
    cluster.ok(&["new", folder, "--lang", "rust", "--name", "plugin"]);
    fs::write(cluster.path(folder).join("src/lib.rs"), source).unwrap();
}

/// Builds a folder, or what a manifest names. Returns what `--json` says of each plugin.
#[track_caller]
fn build(cluster: &Cluster, path: &str) -> Vec<Value> {
    let built = cluster.ok(&["build", path, "--offline", "--json"]);
    serde_json::from_str::<Value>(&built).unwrap().as_array().unwrap().clone()
}

/// Returns `true` if a folder is built, `false` if it was built before.
#[track_caller]
fn is_built(cluster: &Cluster, path: &str) -> bool {
    build(cluster, path)[0]["built"].as_bool().unwrap()
}

#[test]
fn a_build_sees_neither_the_shell_nor_what_lies_around_its_folder() {
    let cluster = Cluster::start();
    for (name, text) in [
        ("Cargo.toml", "[workspace]\nmembers = [\"none\"]\n"),
        ("rust-toolchain.toml", "[toolchain]\nchannel = \"stable\"\n"),
    ] {
        cluster.file(name, text);
    }
    fs::create_dir_all(cluster.path(".cargo")).unwrap();
    cluster.file(".cargo/config.toml", "[build]\nrustflags = [\"--no-such-flag\"]\ntarget-dir = \"/none\"\n");
    rust_plugin(&cluster, "a", &task(&cluster));
    let mut command = cluster.command(&["build", "a", "--offline", "-o", "a.wasm"]);
    for (name, value) in [
        ("RUSTFLAGS", "--no-such-flag"),
        ("CARGO_ENCODED_RUSTFLAGS", "--no-such-flag"),
        ("CARGO_TARGET_DIR", "/none"),
        ("CARGO_BUILD_TARGET", "no-such-target"),
        ("CARGO_BUILD_RUSTFLAGS", "--no-such-flag"),
        ("CARGO_PROFILE_RELEASE_PANIC", "no-such-way"),
        ("RUSTC", "/none"),
        ("RUSTC_WRAPPER", "/none"),
        ("RUSTUP_TOOLCHAIN", "none"),
    ] {
        command.env(name, value);
    }
    assert_eq!(Run::of(command, b"").succeeded(), "a.wasm\n");
    assert!(cluster.ok(&["inspect", "a.wasm"]).contains("double (map): u64 -> u64"));
    // The same without any of it is the same build.
    assert!(!is_built(&cluster, "a"));
    assert!(!cluster.path("a/target").exists());
}

#[test]
fn a_member_of_a_workspace_is_built_again_when_anything_changes_that_it_is_made_of() {
    let cluster = Cluster::start();
    rust_plugin(&cluster, "work/plugin", "");
    let folder = cluster.path("work");
    let write = |name: &str, text: &str| {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), text).unwrap();
    };
    let package = |name: &str, more: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[dependencies]\n{more}")
    };
    write(
        "Cargo.toml",
        "[workspace]\nmembers = [\"plugin\", \"shared\"]\nresolver = \"3\"\n[workspace.dependencies]\npcluster-sdk = \"0.1\"\n",
    );
    // Without a crate-type, as any library: a plugin is made of it all the same.
    write(
        "plugin/Cargo.toml",
        &package("plugin", "pcluster-sdk.workspace = true\nshared = { path = \"../shared\" }\n"),
    );
    let source = "use pcluster_sdk::task;\n\n#[task]\nfn add(number: u64) -> u64 {\n    shared::add(number)\n}\n\n\
         pub const TABLE: &str = include_str!(\"../../a table.txt\");\n";
    let source = format!("{source}// {}\n", folder.display());
    write("plugin/src/lib.rs", &source);
    write("shared/Cargo.toml", &package("shared", ""));
    write("shared/src/lib.rs", "pub fn add(number: u64) -> u64 {\n    number + 1\n}\n");
    write("a table.txt", "1");
    write("notes.txt", "");
    let manifest = "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"add\"\nplugin = \".\"\n";
    assert!(is_built(&cluster, "work/plugin"));
    for (name, text, changes) in [
        ("notes.txt", "x", false),
        ("shared/tests/more.rs", "// x", false),
        ("shared/src/lib.rs", "pub fn add(number: u64) -> u64 {\n    number + 2\n}\n", true),
        ("a table.txt", "2", true),
        ("plugin/data.bin", "x", true),
        ("plugin/chain.toml", manifest, false),
        ("shared/Cargo.toml", &package("shared", "\n"), true),
    ] {
        write(name, text);
        assert_eq!(is_built(&cluster, "work/plugin"), changes, "{name}");
        assert!(!is_built(&cluster, "work/plugin"), "{name}");
    }
    // What was built before is found again.
    write("shared/Cargo.toml", &package("shared", ""));
    assert!(!is_built(&cluster, "work/plugin"));
}

#[test]
fn the_files_of_a_folder_that_a_build_script_names_count() {
    let cluster = Cluster::start();
    let source = task(&cluster) + "pub const TEXT: &str = include_str!(concat!(env!(\"OUT_DIR\"), \"/text\"));\n";
    rust_plugin(&cluster, "a", &source);
    let script = "fn main() {\n    println!(\"cargo::rerun-if-changed=../texts\");\n    \
         println!(\"cargo::rerun-if-changed=assets\");\n    \
         let text = std::fs::read(\"../texts/below/x\").unwrap();\n    \
         std::fs::write(std::env::var(\"OUT_DIR\").unwrap() + \"/text\", text).unwrap();\n}\n";
    cluster.file("a/build.rs", script);
    for folder in ["texts/below", "a/assets"] {
        fs::create_dir_all(cluster.path(folder)).unwrap();
    }
    for (name, text) in [("texts/below/x", "1"), ("texts/below/x", "2"), ("texts/new", ""), ("a/assets/x", "")] {
        cluster.file(name, text);
        assert!(is_built(&cluster, "a"), "{name}");
        assert!(!is_built(&cluster, "a"), "{name}");
    }
}

#[test]
fn plugins_of_one_name_are_kept_apart() {
    let cluster = Cluster::start();
    let other = TASK.replace("double", "twice");
    for (folder, source) in [("a", TASK), ("b", &other)] {
        rust_plugin(&cluster, folder, source);
    }
    let task = |folder: &str| build(&cluster, folder)[0]["tasks"][0]["name"].clone();
    for round in 0..2 {
        assert_eq!((task("a"), task("b")), ("double".into(), "twice".into()));
        for folder in ["a", "b"] {
            // Another build, of which cargo finds nothing new.
            fs::write(cluster.path(folder).join("notes.md"), format!("{round}")).unwrap();
        }
    }
    // The script of one is older than what cargo has made of the other's.
    for folder in ["a", "b"] {
        let text = format!("{folder} of {}", cluster.path("").display());
        let script = format!("fn main() {{\n    println!(\"cargo::rustc-env=TEXT={text}\");\n}}\n");
        fs::write(cluster.path(folder).join("build.rs"), script).unwrap();
        let read = "#[unsafe(no_mangle)]\npub static READ: &str = env!(\"TEXT\");\n";
        fs::write(cluster.path(folder).join("src/lib.rs"), format!("{TASK}{read}")).unwrap();
    }
    for folder in ["a", "b"] {
        cluster.ok(&["build", folder, "--offline", "-o", "built.wasm"]);
        let (module, text) = (fs::read(cluster.path("built.wasm")).unwrap(), format!("{folder} of /"));
        assert!(module.windows(text.len()).any(|part| part == text.as_bytes()), "{folder}");
    }
}

#[test]
fn mistakes_in_rust_are_told_with_their_place_and_what_to_do() {
    let cluster = Cluster::start();
    let twice = format!(
        "{TASK}\nmod more {{\n    use pcluster_sdk::task;\n\n    #[task]\n    fn double(number: u64) -> u64 {{\n        number\n    }}\n}}\n"
    );
    for (name, source, says) in [
        (
            "syntax",
            &TASK.replace("2 * number", "2 * numbr"),
            &["`syntax` was not built: ", "error[E0425]: cannot find value `numbr`", " --> src/lib.rs:5:9"][..],
        ),
        ("unclosed", &TASK.replace(')', ""), &["`unclosed` was not built: ", "src/lib.rs:"]),
        (
            "no task",
            &"pub fn a() {}\n".to_owned(),
            &["`no task` was built, but cannot be run: it has no task; mark a function with `#[task]`"],
        ),
        ("twice", &twice, &["`twice` was not built: ", "two tasks are named `double`; rename one", "src/lib.rs:"]),
    ] {
        rust_plugin(&cluster, name, source);
        let run = cluster.run(&["build", name, "--offline"]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{name}: {}", run.stderr);
        for said in says {
            assert!(run.stderr.contains(said), "{name}: expected {said}\n{}", run.stderr);
        }
        assert!(!run.stderr.contains("aborting due to"), "{}", run.stderr);
    }
    // Mended, it is built.
    fs::write(cluster.path("syntax/src/lib.rs"), task(&cluster)).unwrap();
    assert!(is_built(&cluster, "syntax"));
    let lock = fs::read_to_string(cluster.path("syntax/Cargo.lock")).unwrap();
    let manifest = fs::read_to_string(cluster.path("syntax/Cargo.toml")).unwrap();
    let changed = |text: &str| fs::write(cluster.path("syntax/Cargo.toml"), text).unwrap();
    changed(&manifest.replace("\"derive\"] }\n", "\"derive\"] }\nlog = \"0.4\"\n"));
    let stale = "`Cargo.lock` does not fit `Cargo.toml`, and a build keeps to it; `cargo update --workspace` in `syntax` mends it";
    assert_refused(&cluster.run(&["build", "syntax", "--offline"]), 1, &["`syntax` was not built: ", stale]);
    assert_eq!(fs::read_to_string(cluster.path("syntax/Cargo.lock")).unwrap(), lock);
    changed(&manifest.replace("[package]", "[package"));
    assert_refused(&cluster.run(&["build", "syntax", "--offline"]), 1, &["`syntax` was not built: "]);
    changed("[workspace]\n");
    assert_refused(&cluster.run(&["build", "syntax", "--offline"]), 1, &["no `[package]`"]);
    fs::create_dir_all(cluster.path("below/plugin/src")).unwrap();
    cluster.file("below/Cargo.toml", "[workspace]\n");
    cluster.file("below/plugin/src/lib.rs", TASK);
    cluster.file("below/plugin/Cargo.toml", manifest.replace("[workspace]\n", ""));
    let below = "it lies below the workspace of others; write an empty `[workspace]` into its `Cargo.toml`";
    assert_refused(&cluster.run(&["build", "below/plugin", "--offline"]), 1, &[below]);
}

#[test]
fn what_cannot_be_built_is_told_before_anything_runs() {
    let cluster = Cluster::start();
    fs::create_dir(cluster.path("empty")).unwrap();
    cluster.file("file.wasm", "");
    cluster.file("task.py", "");
    let whole = "`task.py` was not built: such a plugin is made of its whole folder; name that: `pcluster build .`";
    for (path, code, says) in [
        ("none", 4, "there is no folder `none`"),
        ("none.toml", 4, "there is no folder `none.toml`"),
        (
            "empty",
            1,
            "the folder `empty` holds no plugin; one has a `Cargo.toml` (Rust), a `pyproject.toml` (Python), ",
        ),
        ("file.wasm", 2, "`file.wasm` is neither a folder nor a manifest nor a source"),
        ("task.py", 1, whole),
    ] {
        assert_refused(&cluster.run(&["build", path]), code, &[says]);
    }
    let stage =
        |plugin: &str| format!("name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"s\"\nplugin = \"{plugin}\"\n");
    for command in ["build", "deploy", "dev"] {
        cluster.file("chain.toml", stage("gone/"));
        assert_refused(&cluster.run(&[command, "chain.toml"]), 4, &["there is no folder `gone`"]);
        cluster.file("chain.toml", stage("empty"));
        assert_refused(&cluster.run(&[command, "chain.toml"]), 1, &["the folder `empty` holds no plugin"]);
    }
    assert_eq!(cluster.ok(&["status", "--json"]).trim(), "[]");
    cluster.file("chain.toml", stage("file.wasm"));
    let nothing = cluster.run(&["build"]);
    assert!(
        nothing.stderr.contains("`.` names no plugin by its folder; there is nothing to build"),
        "{}",
        nothing.stderr
    );
    assert_eq!(nothing.succeeded(), "");
    rust_plugin(&cluster, "kept nowhere", TASK);
    let mut command = cluster.command(&["build", "kept nowhere", "--offline"]);
    command.env("PCLUSTER_CACHE", "");
    assert_refused(&Run::of(command, b""), 2, &["`cache` is empty, so only the file of -o would keep the plugin; "]);
}

#[test]
fn a_tool_that_is_missing_is_named_with_the_line_that_installs_it() {
    let cluster = Cluster::start();
    rust_plugin(&cluster, "rust", TASK);
    fs::create_dir(cluster.path("python")).unwrap();
    cluster.file("python/clean.py", "");
    for (folder, says) in [
        ("rust", "Rust is missing, with which `rust` is built: install it from https://rustup.rs"),
        ("python", "Python (`python3`) is missing, with which `python` is built: install Python 3.10 or newer"),
    ] {
        let mut command = cluster.command(&["build", folder]);
        command.env("PATH", "/none");
        assert_refused(&Run::of(command, b""), 1, &[says]);
    }
    // A Python of its own kind, each with what it answers.
    for (answer, says) in [
        (
            r#"{"version": [3, 9], "exact": "3.9.1", "package": null}"#,
            "Python 3.10 or newer (`./py` is 3.9) is missing, with which `python` is built: name a newer one with PCLUSTER_PYTHON",
        ),
        (
            r#"{"version": [3, 12], "exact": "3.12.0", "package": null}"#,
            "the package `pcluster` for Python is missing, with which `python` is built: ",
        ),
        ("oops", "`python` was not built: "),
    ] {
        let python = cluster.file("py", format!("#!/bin/sh\necho '{answer}'\n"));
        fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut command = cluster.command(&["build", "python"]);
        command.env("PCLUSTER_PYTHON", "./py");
        let says = says.replace("./py", &python.display().to_string());
        assert_refused(&Run::of(command, b""), 1, &[&says]);
    }
}

#[test]
fn a_build_on_a_full_disk_says_so_and_leaves_no_plugin() {
    if !can_mount("a build on a full disk") {
        return;
    }
    let cluster = Cluster::start();
    rust_plugin(&cluster, "a", &task(&cluster));
    let mut command = cluster.command(&["build", "a", "--offline"]);
    command.env("PCLUSTER_CACHE", cluster.path("disk"));
    let script = "\"$@\"; status=$?; ls disk/builds > listed; exit $status";
    let run = Run::of(with_disk(&cluster, 1, script, &command), b"");
    assert!(run.stderr.contains("No space left on device"), "{}", run.stderr);
    run.failed(1, "`a` was not built: ");
    let listed = fs::read_to_string(cluster.path("listed")).unwrap();
    assert!(!listed.contains(".wasm") && !listed.contains(".files"), "{listed}");
    assert!(is_built(&cluster, "a"));
}

#[test]
fn an_interrupted_build_ends_its_tools_and_leaves_no_plugin() {
    let cluster = Cluster::start();
    // The compiler runs the script, which runs for as long as the test wants it to.
    rust_plugin(&cluster, "a", &task(&cluster));
    let script = "fn main() {\n    std::fs::write(std::env::var(\"CARGO_MANIFEST_DIR\").unwrap() + \"/.begun\", \"\").unwrap();\n    \
         loop {\n        std::thread::park();\n    }\n}\n";
    cluster.file("a/build.rs", script);
    for command in ["build", "dev"] {
        let mut building = cluster.spawn(&[command, "a", "--offline"]);
        support::eventually("the tools run", || cluster.path("a/.begun").is_file().then_some(()));
        let tools = running_below(&cluster.path(""));
        assert!(!tools.is_empty());
        building.signal("INT");
        assert_eq!(building.ended(), Some(130), "{command}");
        support::eventually("the tools have ended", || running_below(&cluster.path("")).is_empty().then_some(()));
        fs::remove_file(cluster.path("a/.begun")).unwrap();
    }
    fs::remove_file(cluster.path("a/build.rs")).unwrap();
    assert!(is_built(&cluster, "a"));
}

/// Returns the processes that were told of a folder in their arguments or environment, but for `pcluster` itself.
fn running_below(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let read =
            |name: &str| fs::read(entry.path().join(name)).map(|text| String::from_utf8_lossy(&text).into_owned());
        let (Ok(arguments), Ok(environment)) = (read("cmdline"), read("environ")) else { continue };
        let is_tool = arguments.contains("build-script-build") || arguments.contains("cargo");
        if is_tool && (arguments.contains(&folder) || environment.contains(&folder)) {
            found.push(arguments);
        }
    }
    found
}

#[test]
fn a_plugin_built_elsewhere_from_the_same_inputs_deploys_as_unchanged() {
    let cluster = Cluster::start();
    let _node = cluster.node("a");
    fs::create_dir_all(cluster.path("package/pcluster")).unwrap();
    fs::create_dir(cluster.path("plugin")).unwrap();
    cluster.file("plugin/tasks.py", "1");
    cluster.file("chain.toml", "name = \"c\"\nversion = \"1\"\n[[stage]]\nname = \"t\"\nplugin = \"plugin/\"\n");
    // A tool that gives other bytes each time, as compilers of two machines do.
    let answer = format!(r#"{{"version": [3, 12], "package": "{}"}}"#, cluster.path("package/pcluster").display());
    let module = cluster.file("module", emitting()).display().to_string();
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = -c ]; then echo '{answer}'; else\n\
         cat '{module}' > \"$5\"; printf '\\000\\005\\001x%.3s' \"$(od -An -N4 -tx1 /dev/urandom | tr -d ' ')\" >> \"$5\"; fi\n"
    );
    let python = cluster.file("py", script);
    fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let on_machine = |machine: &str, arguments: &[&str]| {
        let mut command = cluster.command(arguments);
        command.env("PCLUSTER_PYTHON", &python).env("PCLUSTER_CACHE", cluster.path(machine));
        Run::of(command, b"").succeeded()
    };
    let digest = |machine: &str| {
        let built: Value = serde_json::from_str(&on_machine(machine, &["build", "--json"])).unwrap();
        built[0]["digest"].clone()
    };
    assert_ne!(digest("one"), digest("other"));
    assert_eq!(on_machine("one", &["deploy"]), "c 1 deployed as r1\n");
    assert_eq!(on_machine("other", &["deploy"]), "c 1 is unchanged (r1)\n");
    cluster.ok(&["feed", "c", "7"]);
    assert_eq!(cluster.pull_all("c"), [7]);

    cluster.file("plugin/tasks.py", "2");
    let mut changed = cluster.command(&["deploy"]);
    changed.env("PCLUSTER_PYTHON", &python);
    assert_refused(&Run::of(changed, b""), 1, &["chain `c` already has a version 1 with other content"]);
}

/// Returns a plugin whose task `t` gives its item.
fn emitting() -> Vec<u8> {
    let text = r#"(module
        (import "pcluster_v1" "emit" (func $emit (param i32 i32)))
        (memory (export "memory") 1)
        (func (export "pcluster_alloc") (param i32) (result i32) (i32.const 16))
        (func (export "pcluster_task:t") (param i32 i32) (result i32)
            (call $emit (local.get 0) (local.get 1)) (i32.const 0)))"#;
    wat::parse_str(text).unwrap()
}
