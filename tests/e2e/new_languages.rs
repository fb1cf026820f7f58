//! New folders in languages that a compiler or a package is provided for: the commands of their README, as they stand.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;
use support::{Cluster, Run, assert_refused, install_javascript, javascript_package, json_lines, repository};

use crate::languages::provide;
use crate::new::{TEMPLATES, examples};

/// A language, and what a test must know of it.
struct Language {
    name: &'static str,
    /// The script of `.make` that provides its compiler.
    script: &'static str,
    /// What its formatter prints of a folder that is formatted is nothing. Empty if it has no formatter here.
    formatter: &'static str,
    /// What its unit tests print, each of the templates.
    tested: &'static str,
}

const C: Language = Language { name: "c", script: "ziglang", formatter: "", tested: " hold" };
const CPP: Language = Language { name: "cpp", script: "ziglang", formatter: "", tested: " hold" };
const ZIG: Language = Language { name: "zig", script: "ziglang", formatter: "zig fmt --check tasks.zig", tested: "" };
const GO: Language = Language {
    name: "go",
    script: "go",
    formatter: "\"$(go env GOROOT)/bin/gofmt\" -l main.go main_test.go",
    tested: "ok  \ttasks/",
};
const ASSEMBLYSCRIPT: Language =
    Language { name: "assemblyscript", script: "assemblyscript", formatter: "", tested: "# fail 0" };
const TYPESCRIPT: Language = Language { name: "typescript", script: "javascript", formatter: "", tested: "# fail 0" };

/// Returns a command with the compilers that the tests have, in the folder of a test or one below.
pub fn with_tools(cluster: &Cluster, folder: &str, mut command: Command) -> Command {
    let pcluster = PathBuf::from(cluster.command(&[]).get_program());
    let path = std::env::var_os("PATH").unwrap();
    let own = [pcluster.parent().unwrap().to_owned(), repository().join(".tools/bin")];
    command.env("PATH", std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path))).unwrap());
    // What zig builds once for all plugins, as the C library, is there.
    command.env("ZIG_GLOBAL_CACHE_DIR", repository().join(".tools/zig-cache"));
    command.current_dir(cluster.path(folder));
    command
}

/// Returns a line of a shell in a folder of the test, with what `pcluster` needs.
fn line(cluster: &Cluster, folder: &str, line: &str) -> Command {
    let mut command = Command::new("sh");
    let of_pcluster = cluster.command(&[]);
    command.args(["-ec", line]).envs(of_pcluster.get_envs().filter_map(|(name, value)| Some((name, value?))));
    with_tools(cluster, folder, command)
}

/// Returns the commands of a README.
fn commands(cluster: &Cluster, folder: &str) -> Vec<String> {
    let text = std::fs::read_to_string(cluster.path(folder).join("README.md")).unwrap();
    let (_, block) = text.split_once("```sh\n").unwrap();
    block.split_once("```").unwrap().0.lines().map(ToOwned::to_owned).collect()
}

/// Makes a folder of each template, runs its unit tests, and deploys and runs it as its README says.
fn check(language: &Language) {
    provide(language.script);
    let cluster = Cluster::start();
    if language.script == TYPESCRIPT.script {
        install_javascript(&cluster.path(""));
    }
    let _node = cluster.node("a");
    for ((template, item, results), name) in examples().into_iter().zip(TEMPLATES) {
        let started = Instant::now();
        cluster.ok(&["new", name, "--lang", language.name, "--template", template]);
        // Not what earlier runs of the test have built.
        cluster.file(&format!("{name}/notes.md"), cluster.path("").display().to_string());
        let readme = commands(&cluster, name);
        let [test, cases, _dev, deploy, feed, pull] = &readme[..] else { panic!("{readme:?}") };
        let mut ran = Vec::new();
        for each in [test, cases, deploy] {
            let run = Run::of(line(&cluster, name, each), b"");
            ran.push(format!("{}{}", run.stdout, run.stderr));
            run.succeeded();
        }
        assert!(ran[0].contains(language.tested), "{}", ran[0]);
        assert!(ran[1].contains(" passed"), "{}", ran[1]);
        assert!(ran[2].contains(&format!("{name} 0.1.0 deployed as r1")), "{}", ran[2]);
        Run::of(line(&cluster, name, feed), b"").succeeded();
        let pulled = Run::of(line(&cluster, name, pull), b"").succeeded();
        let took = started.elapsed().as_secs_f64();
        _ = writeln!(io::stderr(), "{}, {template}: {took:.1} s from nothing to a result", language.name);
        assert_eq!(json_lines(&pulled).len(), 1, "{pulled}");
        cluster.ok(&["wait", name]);
        cluster.pull_all(name);
        cluster.ok(&["feed", name, &item.to_string()]);
        cluster.ok(&["wait", name]);
        let mut pulled = cluster.pull_all(name);
        pulled.sort_by_key(Value::to_string);
        assert_eq!(pulled, results, "{template}");
        if !language.formatter.is_empty() {
            assert_eq!(Run::of(line(&cluster, name, language.formatter), b"").succeeded(), "", "{template}");
        }
        // Nothing has changed: nothing is built, and the chain is as it was.
        let again = Run::of(line(&cluster, name, "pcluster build --offline --json"), b"").succeeded();
        let again: Value = serde_json::from_str(&again).unwrap();
        assert_eq!(again[0]["built"], false, "{again}");
    }
}

#[test]
fn each_template_of_c_is_tested_deployed_and_run_as_its_readme_says() {
    check(&C);
}

#[test]
fn each_template_of_cpp_is_tested_deployed_and_run_as_its_readme_says() {
    check(&CPP);
}

#[test]
fn each_template_of_zig_is_tested_deployed_and_run_as_its_readme_says() {
    check(&ZIG);
}

#[test]
fn each_template_of_go_is_tested_deployed_and_run_as_its_readme_says() {
    check(&GO);
}

#[test]
fn each_template_of_assemblyscript_is_tested_deployed_and_run_as_its_readme_says() {
    check(&ASSEMBLYSCRIPT);
}

#[test]
fn each_template_of_typescript_is_tested_deployed_and_run_as_its_readme_says() {
    check(&TYPESCRIPT);
}

#[test]
fn each_template_of_javascript_is_tested_and_built_as_it_is() {
    let cluster = Cluster::start();
    install_javascript(&cluster.path(""));
    // The same tasks run in the same interpreter in the test of TypeScript.
    for ((template, ..), name) in examples().into_iter().zip(TEMPLATES) {
        cluster.ok(&["new", name, "--lang", "javascript", "--template", template]);
        let tested = Run::of(line(&cluster, name, &commands(&cluster, name)[0]), b"").succeeded();
        assert!(tested.contains("# fail 0"), "{tested}");
        let built = Run::of(line(&cluster, name, "pcluster build --offline"), b"").succeeded();
        let kind = if template == "generator" { "generator" } else { "map" };
        let task = format!("{} ({kind})", name.replace('-', "_"));
        let shown = cluster.ok(&["inspect", built.trim()]);
        assert!(shown.contains(&task), "{shown}");
    }
}

#[test]
fn modules_outside_of_a_folder_and_packages_are_inputs_of_its_plugin() {
    let cluster = Cluster::start();
    install_javascript(&cluster.path(""));
    cluster.ok(&["new", "m", "--lang", "javascript", "--name", "double"]);
    for folder in ["shared", "node_modules/twice"] {
        std::fs::create_dir(cluster.path(folder)).unwrap();
    }
    cluster.file("node_modules/twice/package.json", r#"{"name": "twice", "main": "twice.js"}"#);
    cluster.file("node_modules/twice/twice.js", "exports.twice = (number) => 2 * number;\n");
    cluster.file("shared/more.js", "export const more = 1;\n");
    // Not read: a build does not see what lies around its folder.
    cluster.file("tsconfig.json", "{ this is no JSON");
    let source = "import { task } from 'pcluster';\nimport { twice } from 'twice';\nimport { more } from '../shared/more.js';\n\n\
                  export const double = task((number) => twice(number) + more);\n";
    cluster.file("m/tasks.js", format!("{source}// {}\n", cluster.path("").display()));
    let is_built = || {
        let built = Run::of(line(&cluster, "m", "pcluster build --offline --json"), b"").succeeded();
        serde_json::from_str::<Value>(&built).unwrap()[0]["built"].as_bool().unwrap()
    };
    let result = || {
        Run::of(line(&cluster, "m", "pcluster dev --offline --until-empty --feed 5"), b"").succeeded().trim().to_owned()
    };
    assert!(is_built());
    assert!(!is_built());
    assert_eq!(result(), "11");
    cluster.file("m/tasks.test.js", "");
    assert!(!is_built(), "tests are no part of it");
    cluster.file("shared/more.js", "export const more = 2;\n");
    assert!(is_built());
    cluster.file("node_modules/twice/twice.js", "exports.twice = (number) => number + number + 0;\n");
    assert!(is_built());
    assert_eq!(result(), "12");
}

#[test]
fn the_package_that_a_setting_names_is_linked_into_folders_that_find_none() {
    provide("javascript");
    provide("quickjs-engine");
    let cluster = Cluster::start();
    let package = javascript_package();
    let with_setting = |folder: &str, arguments: &str| {
        let mut command = line(&cluster, folder, arguments);
        command.env("PCLUSTER_JAVASCRIPT", &package);
        Run::of(command, b"")
    };
    with_setting("", "pcluster new plugin --lang javascript").succeeded();
    let link = cluster.path("plugin/node_modules/pcluster");
    let leads = || std::fs::read_link(&link).unwrap().canonicalize().unwrap();
    assert_eq!(leads(), package.canonicalize().unwrap());
    let readme = commands(&cluster, "plugin");
    assert!(Run::of(line(&cluster, "plugin", &readme[0]), b"").succeeded().contains("# fail 0"));
    // As in a fresh clone.
    std::fs::remove_dir_all(cluster.path("plugin/node_modules")).unwrap();
    let without = Run::of(line(&cluster, "plugin", "pcluster build"), b"");
    assert_refused(&without, 1, &["the package `pcluster` for JavaScript is missing, with which `.` is built: "]);
    with_setting("plugin", "pcluster build --offline").succeeded();
    assert_eq!(leads(), package.canonicalize().unwrap());
    // Now the folder finds it without the setting.
    Run::of(line(&cluster, "plugin", "pcluster build --offline"), b"").succeeded();
    // A file makes a plugin by itself.
    cluster.file("plugin/one.js", "import { task } from \"pcluster\";\nexport const one = task((item) => item);\n");
    Run::of(line(&cluster, "plugin", "pcluster build one.js -o one.wasm --offline"), b"").succeeded();
    let inspected: serde_json::Value =
        serde_json::from_str(&cluster.ok(&["inspect", "plugin/one.wasm", "--json"])).unwrap();
    assert_eq!((inspected["tasks"].as_array().unwrap().len(), &inspected["tasks"][0]["name"]), (1, &"one".into()));
}
