//! Exit statuses: one rule for all commands.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{Cluster, NatsClient, Process, Run, eventually, lines, probe_chain, with_table};

/// Signals by name, with the status of a command that each interrupts.
const SIGNALS: [(&str, i32); 3] = [("INT", 130), ("TERM", 143), ("HUP", 129)];

/// A cluster without nodes, with a chain that is empty and one that never will be.
fn prepared() -> Cluster {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("idle", &["echo"], ""));
    cluster.deploy(&probe_chain("stuck", &["echo"], ""));
    cluster.ok(&["feed", "stuck", "1"]);
    cluster
}

/// Waits until a process hears a signal of its own accord.
fn listens(process: &Process, number: u32) {
    let set = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    eventually("it listens for signals", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
        (set(&status, "SigCgt:") & (1 << (number - 1)) != 0).then_some(())
    });
}

/// Runs a command whose standard output nobody reads.
fn unread(mut command: Command) -> Run {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    let mut stderr = child.stderr.take().unwrap();
    let (mut said, started) = (String::new(), std::time::Instant::now());
    std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
    let code = child.wait().unwrap().code();
    Run { code, stdout: String::new(), stderr: said, took: started.elapsed() }
}

#[test]
fn an_interrupted_command_ends_with_the_status_of_the_signal() {
    let cluster = prepared();
    let commands: [&[&str]; 7] = [
        &["watch", "idle"],
        &["logs"],
        &["wait", "stuck"],
        &["pull", "idle"],
        &["pull", "stuck", "--all"],
        &["bench", "idle"],
        // Waits for a server that never comes.
        &["status", "--wait", "1h", "--nats", "nats://127.0.0.1:9"],
    ];
    for (signal, status) in SIGNALS {
        let mut processes: Vec<Process> = commands.iter().map(|command| cluster.spawn(command)).collect();
        for (process, command) in processes.iter_mut().zip(&commands) {
            listens(process, 15);
            process.signal(signal);
            assert_eq!(process.ended(), Some(status), "{command:?} and {signal}: {}", process.stderr());
            assert!(!process.stderr().contains("panic"), "{command:?}: {}", process.stderr());
        }
    }
    let (mut feed, _input) = Process::start_fed(cluster.command(&["feed", "stuck"]));
    listens(&feed, 15);
    feed.signal("TERM");
    assert_eq!(feed.ended(), Some(143), "{}", feed.stderr());
}

#[test]
fn a_node_that_is_told_to_stop_has_done_its_work() {
    let cluster = prepared();
    for (signal, _) in SIGNALS {
        let mut node = cluster.node_with("a", &["--chain", "idel", "--chain", "idle"]);
        node.said("there is no chain `idel` yet: it is served once it is deployed; did you mean `idle`?");
        node.said("served node=\"a\" chain=idle");
        if signal == "INT" {
            cluster.deploy(&probe_chain("idle", &["echo"], "").replace("\"1.0\"", "\"1.1\""));
            node.said("no longer served node=\"a\" chain=idle revision=r1");
        }
        node.signal(signal);
        assert_eq!(node.ended(), Some(0), "{signal}: {}", node.stderr());
        for line in ["stopping: finishing what is in hand", "stopped"] {
            let said = node.said(line);
            assert!(said.ends_with(" node=\"a\""), "{said}");
        }
    }
    // One that runs until all is done, and is stopped before, has not.
    let manifest = cluster.file("long.toml", probe_chain("long", &["spin"], ""));
    let run = ["dev", manifest.to_str().unwrap(), "--feed", "1", "--until-empty", "--grace", "0s"];
    let mut dev = cluster.spawn(&run);
    dev.said("long 1.0 deployed as r1");
    dev.signal("INT");
    assert_eq!(dev.ended(), Some(130), "{}", dev.stderr());
    cluster.ok(&["deploy", manifest.to_str().unwrap()]);
    cluster.ok(&["feed", "long", "1"]);
    let mut node = cluster.node_with("b", &["--until-empty", "--grace", "0s"]);
    node.signal("TERM");
    assert_eq!(node.ended(), Some(143), "{}", node.stderr());
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let cluster = prepared();
    for (command, status) in [(["watch", "idle"], 143), (["node", "--name=a"], 0)] {
        let program = cluster.command(&command);
        let mut shell = cluster.command(&[]);
        shell = {
            let mut with = Command::new("sh");
            with.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(program.get_program()).args(program.get_args());
            with.current_dir(shell.get_current_dir().unwrap());
            with.envs(shell.get_envs().filter_map(|(name, value)| Some((name, value?))));
            with
        };
        let mut process = Process::start(shell);
        listens(&process, 15);
        process.signal("HUP");
        process.signal("TERM");
        assert_eq!(process.ended(), Some(status), "{command:?}: {}", process.stderr());
    }
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure_and_ends_the_command() {
    let cluster = prepared();
    cluster.deploy(&probe_chain("ran", &["fatal"], ""));
    cluster.ok(&["feed", "ran", "1", "2"]);
    let mut node = cluster.node_with("a", &["--chain", "ran", "--until-empty"]);
    assert_eq!(node.ended(), Some(0), "{}", node.stderr());
    let commands: [&[&str]; 14] = [
        // Nothing comes that they could print.
        &["watch", "idle"],
        &["logs"],
        &["logs", "--json"],
        &["pull", "idle"],
        &["pull", "stuck", "--all"],
        // They print at once.
        &["logs", "--no-follow"],
        &["status"],
        &["dead", "ls", "ran"],
        &["dead", "show", "ran", "--all"],
        &["wait", "idle", "--json"],
        &["config"],
        &["completions", "bash"],
        &["--help"],
        &["--version"],
    ];
    for command in commands {
        let run = unread(cluster.command(command));
        assert_eq!(run.code, Some(0), "{command:?}: {}", run.stderr);
        assert_eq!(run.stderr, "", "{command:?}");
    }
    // What was asked for is not true because nobody wants to know.
    unread(cluster.command(&["wait", "ran", "--json", "--fail-on-dead"])).failed(1, "chain `ran` has 2 dead letters");
    unread(cluster.command(&["wait", "stuck", "--json", "-t", "0"])).failed(3, "chain `stuck` has unfinished items");
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let cluster = prepared();
    let commands: [&[&str]; 9] = [
        &["status"],
        &["nodes", "--json"],
        &["wait", "idle", "--json"],
        &["feed", "stuck", "2", "--json"],
        &["stop", "idle", "--json"],
        &["config"],
        &["completions", "bash"],
        &["--help"],
        &["--version"],
    ];
    for command in commands {
        let mut full = cluster.command(command);
        full.stdin(Stdio::null()).stdout(File::options().write(true).open("/dev/full").unwrap());
        let ended = full.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{command:?}: {said}");
        assert!(
            said.starts_with("error: cannot write to standard output: No space left on device"),
            "{command:?}: {said}"
        );
    }
}

#[test]
fn each_other_ending_has_its_status() {
    let cluster = prepared();
    for (command, status, said) in [
        (&["wait", "idle"][..], 0, "idle is empty after"),
        (&["wait", "idle", "-t", "0"], 0, "idle is empty after"),
        (&["wait", "stuck", "-t", "0"], 3, "error: chain `stuck` has unfinished items"),
        (&["wait", "stuck", "-t", "0.2"], 3, "error: chain `stuck` still has unfinished items after 200ms"),
        (&["wait", "idle", "-t", "20000years"], 0, "idle is empty after"),
        (&["pull", "idle", "-n", "1", "-t", "0.2"], 3, "error: no result for 200ms; 0 results taken"),
        (&["wait", "none"], 4, "error: there is no chain `none`"),
        (&["dead", "show", "idle", "7"], 4, "error: chain `idle` has no dead letter 7"),
        (&["inspect", "none.wasm"], 4, "error: there is no file `none.wasm`"),
        (&["wait"], 2, "error: the following required arguments were not provided"),
        (&["wait", "Idle"], 2, "error: "),
        (&["wait", "idle", "--nats", "nats://127.0.0.1:9"], 5, "error: cannot reach NATS at nats://127.0.0.1:9"),
    ] {
        cluster.run(command).failed(status, said);
    }
    // With --json, one document, whatever it says.
    for (command, status, keys) in [
        (&["wait", "idle"][..], 0, &["chain", "dead_letters", "empty", "seconds", "unfinished_messages"][..]),
        (&["wait", "stuck", "-t", "0"], 3, &["chain", "dead_letters", "empty", "seconds", "unfinished_messages"]),
        (&["stop", "idle"], 0, &["chain", "changed", "open"]),
        (&["start", "idle"], 0, &["chain", "changed", "made", "open"]),
        (&["start", "idle"], 0, &["chain", "changed", "made", "open"]),
    ] {
        let run = cluster.run(&[command, &["--json"]].concat());
        assert_eq!(run.code, Some(status), "{command:?}: {}", run.stderr);
        let document: BTreeMap<String, Value> = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(document.keys().collect::<Vec<_>>(), keys, "{command:?}");
        assert_eq!(document["chain"], command[1], "{command:?}");
    }
    let manifest = cluster.file("fails.toml", probe_chain("fails", &["fatal"], ""));
    let manifest = manifest.to_str().unwrap();
    let dev = ["dev", manifest, "--store", "store", "--until-empty"];
    cluster.run(&[&dev[..], &["--feed", "1"]].concat()).failed(1, "error: 1 dead letter of the items that ran");
    // Letters of an earlier run are not of this one.
    cluster.run(&dev).failed(0, "0 items fed");
}

#[test]
fn an_interrupted_retry_leaves_no_letter_both_retried_and_kept() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&with_table("[queue]\nlimit = 10", &probe_chain("many", &["fatal"], "")));
    let mut node = cluster.node("a");
    cluster.run_with_input(&["feed", "many", "--pack-items", "1"], lines(0..30)).succeeded();
    cluster.ok(&["wait", "many"]);
    assert_eq!(node.stop(), Some(0), "{}", node.stderr());
    // Only ten have room, and nobody makes more.
    let mut retry = cluster.spawn(&["dead", "retry", "many", "--all"]);
    eventually("the queue is full", || (client.count("PCLUSTER_many") == 10).then_some(()));
    retry.signal("INT");
    assert_eq!(retry.ended(), Some(130), "{}", retry.stderr());
    assert_eq!(retry.stdout(), "10 dead letters retried");
    assert_eq!((client.count("PCLUSTER_many"), client.count("PCLUSTER_many_DEAD")), (10, 20));
}
