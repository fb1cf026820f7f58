//! New folders: they build, test and run as they are.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{Cluster, Run, assert_refused, json_lines};

/// The names of folders, one for each template: a short name and a long one, as neither breaks a line.
pub const TEMPLATES: [&str; 4] = ["m", "filter", "many-words", "explain-abbreviations"];

/// An item for each template, and what its task makes of it.
pub fn examples() -> [(&'static str, Value, Vec<Value>); 4] {
    [
        ("map", json!({ "word": "example" }), vec![json!({ "word": "example", "letters": 7 })]),
        ("filter", json!({ "word": "as" }), vec![]),
        ("generator", json!({ "text": "Two words" }), vec![json!({ "word": "two" }), json!({ "word": "words" })]),
        ("stateful", json!({ "word": "eg" }), vec![json!({ "word": "eg", "meaning": "for example" })]),
    ]
}

/// Runs a tool of a language in a folder, as its user would by hand.
#[track_caller]
fn by_hand(cluster: &Cluster, folder: &str, program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(cluster.path(folder));
    // What builds share has most of what a test needs.
    command.env("CARGO_TARGET_DIR", std::env::temp_dir().join("pcluster-e2e-cache/cargo"));
    Run::of(command, b"").succeeded()
}

/// Makes what is built of a folder differ from what earlier runs of the test have built.
fn make_unique(cluster: &Cluster, folder: &str) {
    cluster.file(&format!("{folder}/notes.md"), cluster.path("").display().to_string());
}

#[test]
fn each_template_of_rust_is_formatted_tested_and_run_as_it_is() {
    let cluster = Cluster::start();
    for ((template, item, results), name) in examples().into_iter().zip(TEMPLATES) {
        cluster.ok(&["new", name, "--lang", "rust", "--template", template]);
        make_unique(&cluster, name);
        by_hand(&cluster, name, "cargo", &["fmt", "--check"]);
        let tested = by_hand(&cluster, name, "cargo", &["test", "--release", "--offline", "--quiet"]);
        assert!(tested.contains(" passed; 0 failed"), "{tested}");
        let run = cluster.run(&["dev", name, "--offline", "--until-empty", "--feed", &item.to_string()]);
        assert!(run.stderr.contains(&format!("building `{name}` (Rust)")), "{}", run.stderr);
        assert_eq!(json_lines(&run.succeeded()), results, "{template}");
    }
}

#[test]
fn a_new_chain_is_deployed_and_only_what_changes_is_built_again() {
    let cluster = Cluster::start();
    let made = cluster.ok(&["new", "a folder/orders", "--lang", "rust", "--chain", "--json"]);
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(made["name"], "orders");
    for file in made["files"].as_array().unwrap() {
        assert!(cluster.path("a folder/orders").join(file.as_str().unwrap()).is_file(), "{file}");
    }
    for task in ["split", "keep", "measure"] {
        make_unique(&cluster, &format!("a folder/orders/{task}"));
    }
    let build = || -> Vec<bool> {
        let built: Value =
            serde_json::from_str(&cluster.ok(&["build", "a folder/orders", "--offline", "--json"])).unwrap();
        built.as_array().unwrap().iter().map(|each| each["built"].as_bool().unwrap()).collect()
    };
    assert_eq!(build(), [true, true, true]);
    assert_eq!(build(), [false, false, false]);
    let deploy = || cluster.ok(&["deploy", "a folder/orders/chain.toml", "--offline"]);
    assert_eq!(deploy(), "orders 0.1.0 deployed as r1\n");
    assert_eq!(deploy(), "orders 0.1.0 is unchanged (r1)\n");
    let _node = cluster.node("a");
    cluster.ok(&["feed", "orders", &json!({ "text": "a few words" }).to_string()]);
    let mut words: Vec<Value> = cluster.pull_all("orders").into_iter().map(|result| result["word"].clone()).collect();
    words.sort_by_key(ToString::to_string);
    assert_eq!(words, ["few", "words"]);

    let source = cluster.path("a folder/orders/keep/src/lib.rs");
    let changed = std::fs::read_to_string(&source).unwrap().replace(">= least", "> least");
    std::fs::write(&source, &changed).unwrap();
    assert_eq!(build(), [false, true, false]);
    let refused = cluster.run(&["deploy", "a folder/orders", "--offline"]);
    assert_refused(&refused, 1, &["chain `orders` already has a version 0.1.0 with other content"]);
    std::fs::write(&source, changed.replace("> least", ">= least")).unwrap();
    assert_eq!(build(), [false, false, false]);
    assert_eq!(deploy(), "orders 0.1.0 is unchanged (r1)\n");
}

#[test]
fn what_cannot_be_begun_is_refused_and_nothing_is_written() {
    let cluster = Cluster::start();
    std::fs::create_dir_all(cluster.path("full/.git")).unwrap();
    cluster.file("file", "");
    let name =
        "such a name starts with a letter, and has at most 64 of a-z, 0-9, `-` and `_`; `--name NAME` names it apart";
    for (arguments, says) in [
        (&["full", "--lang", "rust"][..], "`full` holds something already; name a new or empty folder"),
        (&["file", "--lang", "rust"], "`file` is a file; name a new or empty folder"),
        (&["größe über", "--lang", "python"], name),
        (&["Clean", "--lang", "rust"], name),
        (&["fn", "--lang", "rust"], "`fn` means something else in Rust, and cannot name a task; `--name NAME`"),
        (&["lambda", "--lang", "python"], "`lambda` means something else in Python"),
        (&["words", "--lang", "rust"], "`words` means something else in Rust"),
        (&["str", "--lang", "python"], "`str` means something else in Python"),
        (&["serde", "--lang", "rust"], "`serde` means something else in Rust"),
        (&["a", "--lang", "rust", "--name", "B"], "`B` cannot name a chain and a task"),
    ] {
        let run = cluster.run(&[&["new"], arguments].concat());
        assert_refused(&run, 2, &[says]);
        assert!(arguments[0] == "full" || arguments[0] == "file" || !cluster.path(arguments[0]).exists());
    }
    assert_eq!(std::fs::read_dir(cluster.path("full")).unwrap().count(), 1);
    for (arguments, says) in [
        (&["new", "a"][..], "--lang <LANGUAGE>"),
        (&["new", "a", "--lang", "cobol"], "invalid value 'cobol' for '--lang <LANGUAGE>'"),
        (&["new", "a", "--lang", "rust", "--template", "fold"], "invalid value 'fold'"),
    ] {
        cluster.run(arguments).failed(2, says);
    }
    // The SDK finds no place.
    let mut command = cluster.command(&["new", "later", "--lang", "rust"]);
    command.env("XDG_DATA_HOME", cluster.path("file"));
    Run::of(command, b"").failed(1, "cannot write the SDK into");
    assert!(!cluster.path("later").exists());
    cluster.ok(&["new", "later", "--lang", "rust"]);
    std::fs::create_dir(cluster.path("größe über")).unwrap();
    cluster.ok(&["new", "größe über", "--lang", "rust", "--name", "measure"]);
    let built = cluster.ok(&["build", "größe über", "--offline"]);
    let shown = cluster.ok(&["inspect", built.trim()]);
    assert!(shown.contains("measure (map): Word -> Measured\n    Counts the letters of a word."), "{shown}");
    assert!(Path::new(built.trim()).is_absolute());
}
