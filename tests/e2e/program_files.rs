//! Files that come with a stage: shipped with the deploy, unpacked on the node.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use serde_json::json;
use support::{Cluster, NatsClient, Process, plugin};

/// A program that answers with a table that came with it, and then spoils the table.
const SIM: &str = r#"#!/bin/sh
read -r item
echo "[$item, $(cat "$1"), $(cat "$PCLUSTER_FILES/tables/x")]"
chmod u+w "$PCLUSTER_FILES/tables/x"
echo 0 > "$PCLUSTER_FILES/tables/x"
"#;

const STAGE: &str = "exec = [\"./sim\", \"./tables/x\"]\nfiles = [\"sim\", \"tables/\"]\nconcurrency = 1\n";

/// Writes a chain with its files into a folder of its own.
fn checkout(cluster: &Cluster, folder: &str, stage: &str) -> String {
    fs::create_dir_all(cluster.path(folder).join("tables")).unwrap();
    let manifest = format!("name = \"weather\"\nversion = \"1\"\n[[stage]]\nname = \"run\"\n{stage}");
    cluster.file(&format!("{folder}/tables/x"), "42\n");
    let sim = cluster.file(&format!("{folder}/sim"), SIM);
    fs::set_permissions(sim, Permissions::from_mode(0o755)).unwrap();
    cluster.file(&format!("{folder}/chain.toml"), manifest).to_str().unwrap().to_owned()
}

fn node(cluster: &Cluster, name: &str, more: &[&str]) -> Process {
    let temporary = cluster.path(name);
    fs::create_dir_all(&temporary).unwrap();
    let mut command = cluster.command(&["node", "--name", name]);
    command.args(more).env("TMPDIR", temporary);
    let node = Process::start(command);
    node.said("ready: serving");
    node
}

#[test]
fn files_come_with_their_stage_and_the_same_files_are_the_same_version() {
    let cluster = Cluster::start();
    let one = checkout(&cluster, "one", STAGE);
    let two = checkout(&cluster, "two", STAGE);
    fs::set_permissions(cluster.path("two/sim"), Permissions::from_mode(0o700)).unwrap();
    let old = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    File::open(cluster.path("two/tables/x")).unwrap().set_times(old).unwrap();
    assert_eq!(cluster.ok(&["deploy", &one]), "weather 1 deployed as r1\n");
    assert_eq!(cluster.ok(&["deploy", &two]), "weather 1 is unchanged (r1)\n");

    let _strict = node(&cluster, "strict", &["--allow-exec", "cat"]);
    let status = cluster.until("weather", "it says why", |status| !status["problems"].as_array().unwrap().is_empty());
    let problem = status["problems"][0].to_string();
    assert!(problem.contains("does not allow `./sim`"), "{problem}");
    assert!(problem.contains("with `--allow-exec shipped:weather` or `[allow]`"), "{problem}");
    cluster.file("pcluster.toml", "[allow]\nexec = [\"shipped:weather\"]\n");
    let mut willing = node(&cluster, "willing", &[]);
    cluster.run_with_input(&["feed", "weather"], "1\n2\n3\n").succeeded();
    cluster.ok(&["wait", "weather"]);
    let mut results = cluster.pull_all("weather");
    results.sort_by_key(|result| result[0].as_u64());
    assert_eq!(results, [json!([1, 42, 42]), json!([2, 42, 42]), json!([3, 42, 42])]);
    willing.said("files of a stage have changed in");
    assert_eq!(willing.stop(), Some(0));
    let user = fs::metadata("/proc/self").map(|data| std::os::unix::fs::MetadataExt::uid(&data)).unwrap();
    let left = fs::read_dir(cluster.path("willing").join(format!("pcluster-programs-{user}"))).unwrap().count();
    assert_eq!(left, 0, "copies go with their node");
}

#[test]
fn dev_runs_what_its_manifest_ships() {
    let cluster = Cluster::start();
    checkout(&cluster, "one", STAGE);
    let out = cluster.ok(&["dev", "one", "--feed", "7", "--until-empty"]);
    assert_eq!(out, "[7,42,42]\n");
}

#[test]
fn files_that_cannot_be_shipped_are_named_by_the_deploy() {
    let cluster = Cluster::start();
    let manifest = |stage: &str| checkout(&cluster, "one", stage);
    let path = |name: &str| cluster.path("one").join(name).display().to_string();
    symlink("/etc/passwd", cluster.path("one").parent().unwrap().join("outside")).unwrap();
    manifest(STAGE);
    cluster.file("one/text", "no program");
    fs::create_dir_all(cluster.path("one/linked")).unwrap();
    symlink("/etc/passwd", cluster.path("one/linked/passwd")).unwrap();
    for (stage, code, told) in [
        ("exec = [\"cat\"]\nfiles = [\"gone\"]\n", 4, format!("there is no file `{}`; build it first", path("gone"))),
        ("exec = [\"./text\"]\nfiles = [\"text\"]\n", 1, format!("`{}` is not executable; ", path("text"))),
        (
            "exec = [\"./other\"]\nfiles = [\"text\"]\n",
            1,
            "`./other` is not among the files; name it in `files`".to_owned(),
        ),
        (
            "exec = [\"cat\"]\nfiles = [\"linked\"]\n",
            1,
            format!("`{}`: the link to `/etc/passwd` may leave the files", path("linked/passwd")),
        ),
    ] {
        let told = format!("error: stage `run`: `files`: {told}");
        cluster.run(&["deploy", &manifest(stage)]).failed(code, &told);
    }
}

#[test]
fn an_archive_that_is_gone_holds_up_its_stage_alone_until_it_is_stored_again() {
    let cluster = Cluster::start();
    let echo = format!("plugin = \"{}\"\ntask = \"echo\"\n[[stage]]\nname = \"sim\"\n", plugin("probe"));
    let manifest = checkout(&cluster, "one", &format!("{echo}{STAGE}"));
    cluster.ok(&["deploy", &manifest]);
    // The plugin comes first, so the last message is the description of the archive.
    NatsClient::connect(&cluster).with(async |jetstream| {
        let stream = jetstream.get_stream("OBJ_pcluster_plugins").await.unwrap();
        let last = stream.cached_info().state.last_sequence;
        assert!(stream.delete_message(last).await.unwrap());
    });
    let node = node(&cluster, "a", &["--allow-exec", "shipped:weather"]);
    cluster.ok(&["feed", "weather", "5"]);
    let status = cluster.until("weather", "the first stage has run", |status| {
        status["revisions"][0]["stages"][0]["done"] == json!(1) && !status["problems"].as_array().unwrap().is_empty()
    });
    let problem = status["problems"][0].to_string();
    assert!(problem.contains("stage `sim`: its files cannot be unpacked: cannot fetch the archive"), "{problem}");
    assert!(problem.contains("deploying the same manifest again stores it"), "{problem}");
    assert!(cluster.ok(&["deploy", &manifest]).contains("is unchanged"));
    cluster.ok(&["wait", "weather"]);
    assert_eq!(cluster.pull_all("weather"), [json!([5, 42, 42])]);
    let status = cluster.until("weather", "nothing is wrong", |status| status["problems"] == json!([]));
    assert_eq!(status["dead"], json!(0), "no attempt was counted: {status}");
    drop(node);
}
