//! `dev --watch`: each content is deployed once, and what cannot be deployed leaves what runs.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use support::{Cluster, Process, eventually};

/// A chain of one program, which comes with it.
const CHAIN: &str =
    "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"run\"\nexec = [\"./run\"]\nfiles = [\"run\", \"data\"]\n";

/// Writes a program that gives a word for each item.
fn program(path: &Path, word: &str) {
    fs::write(path, format!("#!/bin/sh\necho '\"{word}\"'\n")).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Returns a port that nothing listens on.
fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// Returns `pcluster dev --watch`, which knows no server but its own.
fn watch(cluster: &Cluster, more: &[&str]) -> Command {
    let mut command = cluster.command(&[&["dev", "--watch"], more].concat());
    command.env_remove("PCLUSTER_NATS");
    command
}

#[test]
fn each_content_is_deployed_once_and_fed_and_the_last_good_one_runs() {
    let cluster = Cluster::start();
    let (port, run) = (free_port(), cluster.path("run"));
    cluster.file("items.jsonl", "1\n");
    let mut dev = Process::start(watch(&cluster, &["--port", &port, "--feed-file", "items.jsonl"]));
    dev.said("error: there is no `chain.toml` yet: start a chain with `pcluster new NAME`");
    dev.said("nothing of it runs until that is mended");
    dev.said("watching 2 files");
    dev.said(&format!("NATS is at nats://127.0.0.1:{port};"));

    // A folder and files that are made while it runs.
    fs::create_dir(cluster.path("data")).unwrap();
    program(&run, "first");
    cluster.file("data/a", "1");
    cluster.file("chain.toml", CHAIN);
    dev.printed("\"first\"");
    dev.said("`chain.toml` changed: a 1-dev.");
    dev.said("deployed as r1; built in");

    // The same content once more, then another one, saved as an editor does.
    program(&run, "first");
    program(&cluster.path("new"), "second");
    fs::rename(cluster.path("new"), &run).unwrap();
    dev.printed("\"second\"");
    dev.said("`run` changed: a 1-dev.");
    dev.said("deployed as r2, after 1-dev.");

    // A file that is half written, and then whole.
    cluster.file("chain.toml", &CHAIN[..9]);
    dev.said("error: `chain.toml`, line 1: ");
    let kept = dev.said("keeps running until that is mended");
    assert!(kept.contains("(r2)"), "{kept}");
    cluster.file("chain.toml", CHAIN);
    dev.said("`chain.toml` changed: as what runs already");

    // A hundred files while git holds its lock.
    fs::create_dir(cluster.path(".git")).unwrap();
    let lock = cluster.file(".git/index.lock", "");
    (0..100).for_each(|number| _ = cluster.file(&format!("data/{number}"), "x"));
    program(&run, "third");
    fs::remove_file(lock).unwrap();
    dev.printed("\"third\"");
    dev.said("`data/0`, `data/1` and 99 files changed: a 1-dev.");
    dev.said("deployed as r3");

    // What was there before is a content like any other. Items alone deploy nothing.
    cluster.file("items.jsonl", "1\n2\n");
    dev.said("`items.jsonl` changed: 2 items fed, results below");
    fs::remove_dir_all(cluster.path("data")).unwrap();
    dev.said("error: stage `run`: `files`: ");
    program(&run, "second");
    fs::create_dir(cluster.path("fresh")).unwrap();
    cluster.file("fresh/a", "1");
    fs::rename(cluster.path("fresh"), cluster.path("data")).unwrap();
    dev.said("deployed as r4, after 1-dev.");
    eventually("all results", || (dev.stdout().matches("second").count() == 3).then_some(()));
    dev.signal("INT");
    assert_eq!(dev.ended(), Some(0), "{}", dev.stderr());
    assert_eq!(dev.stderr().matches("deployed as").count(), 4, "{}", dev.stderr());
    for (word, number) in [("first", 1), ("second", 3), ("third", 3)] {
        assert_eq!(dev.stdout().matches(word).count(), number, "{word}: {}", dev.stdout());
    }

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let told = format!("port {port} is in use; name another with --port");
    cluster.run(&["dev", "--port", &port]).failed(1, &told);
}

#[test]
fn an_error_of_the_compiler_is_told_and_what_a_build_writes_changes_nothing() {
    let cluster = Cluster::start();
    cluster.ok(&["new", "greet", "--lang", "rust"]);
    let source = cluster.path("greet/src/lib.rs");
    // One that no other test has built.
    let good = format!("{}\n// {}\n", fs::read_to_string(&source).unwrap(), cluster.path("").display());
    fs::write(&source, &good).unwrap();
    let mut dev = Process::start(watch(&cluster, &["greet", "--offline", "--feed", "{\"word\": \"example\"}"]));
    dev.printed("\"letters\":7");
    dev.said("watching");
    fs::write(&source, format!("{good}\nfn broken( {{\n")).unwrap();
    dev.said("error: `greet");
    let kept = dev.said("keeps running until that is mended");
    assert!(kept.contains("(r1)"), "{kept}");
    fs::write(&source, good.replace("letters", "signs")).unwrap();
    dev.printed("\"signs\":7");
    let line = dev.said("deployed as r2");
    assert!(line.starts_with("`greet/src/lib.rs` changed: greet 0.1.0-dev."), "{line}");
    assert_eq!(dev.stop(), Some(0));
    assert_eq!(dev.stderr().matches("was not built").count(), 1, "{}", dev.stderr());
    assert_eq!(dev.stderr().matches("changed: ").count(), 2, "{}", dev.stderr());
}

#[test]
fn what_is_printed_into_a_watched_folder_changes_nothing() {
    let cluster = Cluster::start();
    fs::create_dir(cluster.path("data")).unwrap();
    program(&cluster.path("run"), "first");
    cluster.file("chain.toml", CHAIN);
    let dev = watch(&cluster, &["--feed", "1"]);
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" >data/results"]).arg(dev.get_program()).args(dev.get_args());
    for (name, value) in dev.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(cluster.path(""));
    let mut dev = Process::start(command);
    let results = || fs::read_to_string(cluster.path("data/results")).unwrap_or_default();
    dev.said("deployed as r1");
    eventually("the first result", || results().contains("first").then_some(()));
    program(&cluster.path("run"), "second");
    let line = dev.said("deployed as r2");
    assert!(line.starts_with("`run` changed: "), "{line}");
    eventually("the second result", || results().contains("second").then_some(()));
    cluster.file("data/a", "1");
    let line = dev.said("deployed as r3");
    assert!(line.starts_with("`data/a` changed: "), "{line}");
    assert_eq!(dev.stop(), Some(0));
    assert_eq!(dev.stderr().matches("changed: ").count(), 2, "{}", dev.stderr());
}

#[test]
fn q_ends_at_a_terminal_and_without_a_manifest_it_says_what_to_do() {
    let cluster = Cluster::start();
    let dev = cluster.command(&["dev"]);
    // A build that takes long.
    let (slow, began) = (cluster.path("slow"), cluster.path("began"));
    fs::write(&slow, format!("#!/bin/sh\ntouch {}\nexec sleep 1000\n", began.display())).unwrap();
    fs::set_permissions(&slow, PermissionsExt::from_mode(0o755)).unwrap();
    let terminal = |arguments: &[&str]| {
        const TERMINAL: &str = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        let mut command = Command::new("python3");
        command.args(["-c", TERMINAL]).arg(dev.get_program()).args(arguments);
        for (name, value) in dev.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env_remove("PCLUSTER_NATS").env("PCLUSTER_PYTHON", &slow).current_dir(cluster.path(""));
        Process::start_fed(command)
    };
    let (mut plain, input) = terminal(&["dev"]);
    plain.printed("no `chain.toml` is here: start one with `pcluster new NAME`");
    // Without --watch, only Ctrl-C is a key.
    let mut input = input;
    input.write_all(b"q\x03").unwrap();
    assert_eq!(plain.ended(), Some(0), "{}", plain.stdout());
    let (mut watched, mut input) = terminal(&["dev", "--watch"]);
    watched.printed("watching 1 file; t runs the cases, q ends");
    input.write_all(b"xt").unwrap();
    watched.printed("error: ");
    input.write_all(b"q").unwrap();
    assert_eq!(watched.ended(), Some(0), "{}", watched.stdout());
    cluster.ok(&["new", "greet", "--lang", "python"]);
    let (mut building, mut input) = terminal(&["dev", "--watch", "greet"]);
    eventually("a build", || began.exists().then_some(()));
    input.write_all(b"q").unwrap();
    assert_eq!(building.ended(), Some(0), "{}", building.stdout());
}
