//! Stages that are programs of the node's machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use support::{Cluster, Process, eventually, json_lines, lines, numbers, plugin};

/// A chain of one stage that runs a shell script.
fn script(name: &str, script: &str, rest: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"1\"\n[[stage]]\nname = \"run\"\nexec = [\"sh\", \"-c\", {script:?}]\n{rest}\n"
    )
}

fn node(cluster: &Cluster, name: &str) -> Process {
    node_with(cluster, name, |_| {})
}

fn node_with(cluster: &Cluster, name: &str, change: impl FnOnce(&mut Command)) -> Process {
    let temporary = cluster.path(name);
    fs::create_dir_all(&temporary).unwrap();
    let mut command = cluster.command(&["node", "--name", name, "--allow-exec", "sh", "--allow-exec", "/bin/cat"]);
    command.env("TMPDIR", temporary);
    change(&mut command);
    let node = Process::start(command);
    node.said("ready: serving");
    node
}

/// Waits until nothing of a node's programs is left.
fn assert_nothing_left(cluster: &Cluster, name: &str) {
    let user = fs::metadata("/proc/self").map(|data| std::os::unix::fs::MetadataExt::uid(&data)).unwrap();
    let folder = cluster.path(name).join(format!("pcluster-programs-{user}"));
    eventually("all working folders are removed", || {
        let nodes = fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
        nodes.flat_map(|node| fs::read_dir(node).into_iter().flatten()).next().is_none().then_some(())
    });
}

#[test]
fn items_go_through_programs_and_tasks_and_come_out_once() {
    let cluster = Cluster::start();
    let manifest = format!(
        "name = \"mixed\"\nversion = \"1\"\n\
         [[stage]]\nname = \"first\"\nexec = [\"cat\"]\n\
         [[stage]]\nname = \"echo\"\nplugin = \"{}\"\n\
         [[stage]]\nname = \"last\"\nexec = [\"sh\", \"-c\", \"cat; echo; echo of $PCLUSTER_STAGE >&2\"]\n",
        plugin("probe")
    );
    cluster.deploy(&manifest);
    let _node = node(&cluster, "a");
    cluster.run_with_input(&["feed", "mixed"], lines(0..40)).succeeded();
    cluster.ok(&["wait", "mixed"]);
    assert_eq!(numbers(&cluster.pull_all("mixed")), (0..40).collect::<Vec<_>>());
    eventually("every line of standard error is logged", || {
        (cluster.ok(&["logs", "mixed", "--stage", "last", "--no-follow"]).matches("of last").count() == 40)
            .then_some(())
    });
    assert_nothing_left(&cluster, "a");
}

#[test]
fn a_program_that_fails_is_tried_again_or_not_as_its_status_says() {
    let cluster = Cluster::start();
    let retry = "retry = { attempts = 2, backoff = [\"10ms\"] }\ntimeout = \"1m\"";
    let cases = [
        (
            "status",
            "echo 1; echo no mesh >&2; exit 3",
            retry,
            "error",
            "2",
            "the program ended with status 3; it said: no mesh",
        ),
        (
            "permanent",
            "exit 65",
            retry,
            "error",
            "1",
            "the program ended with status 65, which the stage calls permanent",
        ),
        ("signal", "kill -SEGV $$", retry, "trap", "2", "SIGSEGV ended the program"),
        ("text", "echo 1; echo x", retry, "output", "1", "standard output: "),
        (
            "slow",
            "sleep 300",
            "timeout = \"200ms\"\nretry = { attempts = 1 }",
            "timeout",
            "1",
            "the program took longer than its timeout of 200ms",
        ),
        (
            "stopped",
            "kill -STOP $PPID; sleep 300",
            "timeout = \"200ms\"\nretry = { attempts = 1 }",
            "timeout",
            "1",
            "the program took longer than its timeout of 200ms",
        ),
        (
            "large",
            "tail /dev/zero",
            "memory = \"64MiB\"\nretry = { attempts = 1 }",
            "memory",
            "1",
            "the program and what it started took ",
        ),
    ];
    for (name, text, rest, ..) in cases {
        cluster.deploy(&script(name, text, rest));
    }
    let _node = node(&cluster, "a");
    for (name, .., kind, attempts, reason) in cases {
        cluster.ok(&["feed", name, "1"]);
        cluster.ok(&["wait", name]);
        let letters = json_lines(&cluster.ok(&["dead", "ls", name, "--json"]));
        let letter = &letters[0];
        assert_eq!(
            (letter["failure"].as_str(), letter["attempts"].to_string().as_str()),
            (Some(kind), attempts),
            "{letter}"
        );
        assert!(letter["reason"].as_str().unwrap().starts_with(reason), "{letter}");
        assert_eq!(cluster.pull_all(name).len(), 0, "nothing of a failed attempt is handed on");
    }
    // The log has each attempt, without what the program said, which is there already.
    let logged = eventually("the last attempt is logged", || {
        let lines = json_lines(&cluster.ok(&["logs", "status", "--no-follow", "--json"]));
        (lines.len() == 4).then_some(lines)
    });
    let told: Vec<_> =
        logged.iter().map(|line| (line["level"].as_str().unwrap(), line["message"].as_str().unwrap())).collect();
    let expected = [
        ("info", "no mesh"),
        ("warn", "attempt 1 of 2: the program ended with status 3"),
        ("info", "no mesh"),
        ("error", "attempt 2 of 2: the program ended with status 3"),
    ];
    assert_eq!(told, expected);
    assert!(logged.iter().all(|line| line["item"] == logged[0]["item"] && line["stage"] == "run"), "{logged:?}");
    assert_nothing_left(&cluster, "a");
}

#[test]
fn a_node_runs_no_program_that_its_operator_does_not_allow_and_another_does() {
    let cluster = Cluster::start();
    let manifest = format!(
        "name = \"apart\"\nversion = \"1\"\n[[stage]]\nname = \"echo\"\nplugin = \"{}\"\n\
         [[stage]]\nname = \"run\"\nexec = [\"sh\", \"-c\", \"cat; sleep 1\"]\n",
        plugin("probe")
    );
    cluster.deploy(&manifest);
    let _strict = cluster.node("strict");
    cluster.ok(&["feed", "apart", "1"]);
    let status = cluster.until("apart", "the first stage has run", |status| {
        status["revisions"][0]["stages"][0]["done"] == json!(1) && !status["problems"].as_array().unwrap().is_empty()
    });
    let problem = &status["problems"][0];
    assert_eq!((&problem["stage"], &problem["served_by_others"]), (&json!("run"), &json!(false)));
    assert!(
        problem["problem"].as_str().unwrap().starts_with("stage `run`: this node does not allow `sh`"),
        "{problem}"
    );
    assert!(problem["problem"].as_str().unwrap().contains("--allow-exec"), "{problem}");
    let mut wait = cluster.spawn(&["wait", "apart"]);
    wait.said("apart cannot continue: node strict: stage `run`: this node does not allow `sh`");
    let _willing = node(&cluster, "willing");
    assert_eq!(wait.ended(), Some(0), "{}", wait.stderr());
    assert_eq!(numbers(&cluster.pull_all("apart")), [1]);
    // The refusal of one node keeps nothing from going on now.
    cluster.run(&["status", "apart"]).failed(0, "node strict leaves it to other nodes: stage `run`: ");
    cluster.ok(&["feed", "apart", "2"]);
    let waited = cluster.run(&["wait", "apart"]);
    assert!(!waited.stderr.contains("cannot continue"), "{}", waited.stderr);
    waited.succeeded();
}

#[test]
fn a_program_that_is_installed_later_is_noticed() {
    let cluster = Cluster::start();
    cluster.deploy("name = \"tool\"\nversion = \"1\"\n[[stage]]\nname = \"run\"\nexec = [\"tool\"]\n");
    let bin = cluster.path("bin");
    fs::create_dir(&bin).unwrap();
    let _node = node_with(&cluster, "a", |command| {
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        command.args(["--allow-exec", "tool"]).env("PATH", path);
    });
    cluster.ok(&["feed", "tool", "1"]);
    let status = cluster.status("tool");
    assert!(status["problems"].to_string().contains("stage `run`: this node has no program `tool`"), "{status}");
    fs::write(bin.join("tool"), "#!/bin/sh\ncat\n").unwrap();
    fs::set_permissions(bin.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    cluster.ok(&["wait", "tool"]);
    assert_eq!(numbers(&cluster.pull_all("tool")), [1]);
    assert_eq!(cluster.status("tool")["problems"], json!([]));
}

#[test]
fn a_killed_node_leaves_no_process_and_its_items_are_run_by_another() {
    let cluster = Cluster::start();
    let marks = cluster.path("marks");
    fs::create_dir_all(&marks).unwrap();
    // The first attempt waits for ever, with a child of a session of its own.
    let text = format!(
        "cd {}; if mkdir first 2>/dev/null; then setsid sh -c 'echo $$ > child; exec sleep 300' & echo $$ > own; sleep 300; fi; cat",
        marks.display()
    );
    cluster.deploy(&support::recovering(&script("hang", &text, "")));
    let killed = node(&cluster, "killed");
    cluster.ok(&["feed", "hang", "7"]);
    let read = |name: &str| {
        eventually("the program runs", || {
            fs::read_to_string(marks.join(name))
                .ok()
                .filter(|text| text.ends_with('\n'))
                .map(|text| text.trim().to_owned())
        })
    };
    let processes = [read("own"), read("child")];
    killed.signal("KILL");
    for process in processes {
        eventually("its processes have ended", || {
            let stat = fs::read_to_string(Path::new("/proc").join(&process).join("stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        });
    }
    let _other = node(&cluster, "other");
    cluster.ok(&["wait", "hang"]);
    assert_eq!(numbers(&cluster.pull_all("hang")), [7]);
    // The next node with the same folder removes what the killed one has left.
    let _next = node(&cluster, "killed");
    assert_nothing_left(&cluster, "killed");
}

#[test]
fn a_node_that_stops_asks_its_programs_to_end_and_gives_their_items_back() {
    let cluster = Cluster::start();
    let marks = cluster.path("marks");
    fs::create_dir_all(&marks).unwrap();
    // The first run waits for ever, and ends well once it is asked to end.
    let text = format!(
        "cd {}; if mkdir first 2>/dev/null; then trap 'touch asked; echo 0; exit 0' TERM; touch began; sleep 300 & wait; fi; \
         echo $PCLUSTER_ATTEMPT",
        marks.display()
    );
    cluster.deploy(&script("drain", &text, ""));
    let mut stopped = node_with(&cluster, "stopped", |command| {
        command.args(["--grace", "100ms"]);
    });
    cluster.ok(&["feed", "drain", "7"]);
    eventually("the program runs", || marks.join("began").exists().then_some(()));
    assert_eq!(stopped.stop(), Some(0));
    assert!(marks.join("asked").exists(), "it was asked to end");
    let _other = node(&cluster, "other");
    cluster.ok(&["wait", "drain"]);
    assert_eq!(numbers(&cluster.pull_all("drain")), [1], "no attempt was used, and the end of the first run was none");
    assert_nothing_left(&cluster, "stopped");
}

#[test]
fn a_node_that_cannot_execute_a_program_says_so_and_leaves_its_items_to_others() {
    let cluster = Cluster::start();
    let manifest = "name = \"tool\"\nversion = \"1\"\n[[stage]]\nname = \"run\"\nexec = [\"tool\"]\n\
                    retry = { attempts = 1 }\ntimeout = \"1m\"\n";
    cluster.deploy(manifest);
    let with_tool = |name: &str, text: &str| {
        fs::create_dir(cluster.path(&format!("{name}-bin"))).unwrap();
        let file = cluster.file(&format!("{name}-bin/tool"), text);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        node_with(&cluster, name, |command| {
            let path = format!("{}:{}", file.parent().unwrap().display(), std::env::var("PATH").unwrap());
            command.args(["--allow-exec", "tool"]).env("PATH", path);
        })
    };
    // No shell runs it.
    let _broken = with_tool("broken", "echo 1\n");
    cluster.run_with_input(&["feed", "tool"], lines(0..3)).succeeded();
    let status = cluster.until("tool", "the node says why", |status| status["problems"][0].is_object());
    let problem = status["problems"][0].to_string();
    assert!(
        problem.contains("stage `run`: ") && problem.contains("tool` cannot be executed: Exec format"),
        "{problem}"
    );
    let _whole = with_tool("whole", "#!/bin/sh\necho $PCLUSTER_ATTEMPT\n");
    cluster.ok(&["wait", "tool"]);
    assert_eq!(numbers(&cluster.pull_all("tool")), [1, 1, 1], "no attempt was used");
}
