//! `pcluster run`: a chain in a pipe, without a server.

use std::fs;
use std::io::{BufRead, BufReader, Read};

use serde_json::{Value, json};
use support::{Cluster, Process, Run, assert_refused, json_lines, lines, numbers, probe_chain};

/// A cluster with a chain of tasks that obey their items, in two hops, of which the second has an inline stage.
fn obeying() -> Cluster {
    let cluster = Cluster::start();
    let retry = "retry = { attempts = 3, backoff = [\"10ms\"] }";
    let manifest = probe_chain("obeying", &["obey", "echo"], retry);
    let inline = probe_chain("inline", &["mark"], "config = { mark = \"x\" }\ninline = true");
    let (_, inline) = inline.split_once("[[stage]]").unwrap();
    cluster.file("chain.toml", format!("{manifest}\n[[stage]]{inline}"));
    cluster
}

/// Runs `pcluster run` with no server within reach.
fn run(cluster: &Cluster, arguments: &[&str], input: &str) -> Run {
    Run::of(command(cluster, arguments), input.as_bytes())
}

fn command(cluster: &Cluster, arguments: &[&str]) -> std::process::Command {
    let mut command = cluster.command(&[&["run"], arguments].concat());
    command.env("PCLUSTER_NATS", "nats://127.0.0.1:1");
    command
}

/// Returns the texts that a run of the obeying chain printed.
fn items(printed: &str) -> Vec<String> {
    json_lines(printed).iter().map(|result| result["item"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn results_come_in_the_order_of_their_items_whatever_becomes_of_these() {
    let cluster = obeying();
    let verbs = ["repeat 3", "as", "flaky 1", "fatal", "sleep 3", "trap", "repeat 0", "flaky 2"];
    let fed: Vec<String> = (0..400).map(|number| format!("{} {number}", verbs[number % verbs.len()])).collect();
    let expected: Vec<String> = fed
        .iter()
        .flat_map(|item| {
            let times = match item.split(' ').next() {
                Some("repeat") => item.split(' ').nth(1).unwrap().parse().unwrap(),
                Some("fatal" | "trap") => 0,
                _ => 1,
            };
            std::iter::repeat_n(item.clone(), times)
        })
        .collect();
    let ran = run(&cluster, &["--format", "lines", "--quiet"], &lines(&fed));
    assert_eq!(items(&ran.stdout), expected);
    let told = ran.failed(1, "error: 100 items failed; 400 fed, 350 results in ");
    let failures: Vec<&str> = told.stderr.lines().filter(|line| line.contains("failed in stage")).collect();
    assert_eq!(failures.len(), 100);
    for number in 1..=50 {
        let (fatal, trap) = (number * 8 - 4, number * 8 - 2);
        let fatal = format!("error: item {fatal} failed in stage `obey`: error: told to fail for good");
        let trap = format!("error: item {trap} failed in stage `obey` after 3 attempts: trap: ");
        assert!(failures.contains(&fatal.as_str()), "{fatal}\n{}", told.stderr);
        assert!(failures.iter().any(|line| line.starts_with(&trap)), "{trap}\n{}", told.stderr);
    }

    let ran = run(&cluster, &["--format", "lines", "--quiet", "--unordered"], &lines(&fed));
    let (mut results, mut expected) = (items(&ran.stdout), expected);
    results.sort_unstable();
    expected.sort_unstable();
    assert_eq!(results, expected);
}

#[test]
fn items_come_from_arguments_files_and_pipes_and_failures_are_told_as_json_too() {
    let cluster = obeying();
    let marked = |item: &str| json!({ "mark": "x", "item": item });
    assert_eq!(
        json_lines(&run(&cluster, &["chain.toml", "a b", "\"c\""], "").succeeded()),
        [marked("a b"), marked("c")]
    );
    // The usual manifest needs no name.
    assert_eq!(json_lines(&run(&cluster, &["just text"], "").succeeded()), [marked("just text")]);
    cluster.file("in.txt", "one\ntwo\n");
    assert_eq!(json_lines(&run(&cluster, &["-f", "in.txt"], "").succeeded()), [marked("one"), marked("two")]);
    assert_eq!(json_lines(&run(&cluster, &["."], "\"piped\"\n").succeeded()), [marked("piped")]);

    let ran = run(&cluster, &["--json", "--quiet"], "\"fatal 1\"\n7\n");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    let mut told: Vec<Value> = ran
        .stderr
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(told.len(), 2, "{}", ran.stderr);
    // Each is told when it fails.
    told.sort_by_key(|failure| failure["item"].to_string());
    assert_eq!(
        (&told[0]["item"], &told[0]["value"], &told[0]["attempts"]),
        (&json!("1"), &json!("fatal 1"), &json!(1))
    );
    assert!(told[1]["reason"].as_str().unwrap().contains("not of type `String`"), "{}", ran.stderr);

    let ran = run(&cluster, &["--quiet", "--attempts", "1", "flaky 1"], "");
    ran.failed(1, "error: item 1 failed in stage `obey`: error: not yet\nerror: 1 item failed; 1 fed, 0 results in ");

    // What comes before a mistake in the input runs.
    let ran = run(&cluster, &["--quiet"], "\"good\"\n{\"bad\n");
    assert_eq!(json_lines(&ran.stdout), [marked("good")]);
    ran.failed(1, "line 2");
}

#[test]
fn what_a_run_cannot_do_is_refused_before_any_item_runs() {
    let cluster = Cluster::start();
    let bucket = "[stage.allow]\nhttp = [\"https://api.example.com\"]\nkv = { cache = \"read\" }";
    cluster.file("bucket.toml", probe_chain("a", &["call_often"], bucket));
    cluster.file(
        "stored.toml",
        "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"s\"\nplugin = \"sha256:".to_owned()
            + &"0".repeat(64)
            + "\"",
    );
    cluster.file("chain.toml", probe_chain("a", &["echo"], ""));
    let cases: [(&[&str], i32, &[&str]); 5] = [
        (&["bucket.toml", "1"], 1, &["stage `call_often`", "the bucket `cache`", "`pcluster dev`"]),
        (&["stored.toml", "1"], 1, &["stage `s`", "stored on a server", "give the path of the file"]),
        (&["none.toml", "1"], 4, &["no file `none.toml`"]),
        (&["chain.toml", "-f", "none.ndjson"], 4, &["no file `none.ndjson`"]),
        (&["chain.toml", "1", "-f", "x"], 2, &["cannot be used with"]),
    ];
    for (arguments, status, says) in cases {
        let ran = run(&cluster, arguments, "");
        assert_refused(&ran, status, says);
    }
}

#[test]
fn a_reader_that_leaves_ends_the_run() {
    let cluster = Cluster::start();
    cluster.file("chain.toml", probe_chain("a", &["fan", "echo"], "config = { times = 1_000_000 }"));
    // The first item alone gives more than fits into memory at once if nobody bounds it.
    cluster.file("in.ndjson", "1\n2\n3\n");
    let (mut process, stdout) = Process::start_unread(command(&cluster, &["--unordered", "-f", "in.ndjson"]));
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    for _ in 0..1_000 {
        line.clear();
        stdout.read_line(&mut line).unwrap();
        line.trim_end().parse::<u64>().unwrap();
    }
    drop(stdout);
    assert_eq!(process.ended(), Some(0));
}

#[test]
fn outputs_of_a_large_generator_keep_their_order() {
    let cluster = Cluster::start();
    cluster.file("chain.toml", probe_chain("a", &["fan", "echo"], "config = { times = 60_000 }"));
    let ran = run(&cluster, &[], "0\n1\n");
    let results: Vec<u64> = json_lines(&ran.stdout).iter().map(|result| result.as_u64().unwrap()).collect();
    assert!(results.iter().copied().eq(0..120_000), "{} results, the first {:?}", results.len(), &results[..9]);
    let ran = run(&cluster, &["--unordered"], "0\n1\n");
    assert!(numbers(&json_lines(&ran.stdout)).into_iter().eq(0..120_000));
}

#[test]
fn programs_run_in_a_pipe_with_the_files_that_come_with_them() {
    let cluster = Cluster::start();
    fs::write(cluster.path("up.sh"), "#!/bin/sh\ntr a-z A-Z\n").unwrap();
    let rights = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(cluster.path("up.sh"), rights).unwrap();
    let stage =
        "[[stage]]\nname = \"up\"\nexec = [\"./up.sh\"]\nfiles = [\"up.sh\"]\ninput = \"text\"\noutput = \"text\"";
    cluster.file("chain.toml", format!("name = \"up\"\nversion = \"1\"\n{stage}\n"));
    let ran = run(&cluster, &["--format", "lines", "--raw"], "one\ntwo\nthree\n");
    assert_eq!(ran.succeeded(), "ONE\nTWO\nTHREE\n");
}

#[test]
fn a_signal_ends_a_run_and_says_how_far_it_came() {
    let cluster = Cluster::start();
    cluster.file("chain.toml", probe_chain("a", &["nap"], ""));
    let (mut process, mut stdout) = Process::start_unread(command(&cluster, &["chain.toml", "1", "600000"]));
    let mut first = [0; 2];
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"1\n");
    process.signal("INT");
    assert_eq!(process.ended(), Some(130));
    process.said("interrupted: 2 fed, 1 result in ");
}
