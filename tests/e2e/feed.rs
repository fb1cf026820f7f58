//! Feeding from all sources and in all formats, without losing or repeating an item.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use support::{Cluster, NatsClient, Process, eventually, json_lines, lines, numbers, probe_chain, with_table};

/// A cluster with a chain `fed` that passes everything on.
fn passing_on() -> Cluster {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("fed", &["echo"], ""));
    cluster
}

/// The results of the chain `fed`, sorted as texts.
fn results(cluster: &Cluster) -> Vec<Value> {
    let mut results = cluster.pull_all("fed");
    results.sort_by_key(Value::to_string);
    results
}

#[test]
fn items_come_from_arguments_standard_input_and_files_of_every_format() {
    let cluster = passing_on();
    let _node = cluster.node("a");
    cluster.ok(&["feed", "fed", "{\"a\": 1}", "plain text", "17"]);
    assert_eq!(results(&cluster), [json!("plain text"), json!(17), json!({"a": 1})]);

    cluster.run_with_input(&["feed", "fed"], "{\"a\": 1}\n\n[2]\n").succeeded();
    assert_eq!(results(&cluster), [json!([2]), json!({"a": 1})]);
    cluster.run_with_input(&["feed", "fed", "-f", "-"], "one\ntwo").succeeded();
    assert_eq!(results(&cluster), [json!("one"), json!("two")]);

    let record = json!({"name": "ada", "note": "b, c"});
    let files: [(&str, &[u8], Vec<Value>); 8] = [
        ("a.ndjson", b"1\n\"two\"\n", vec![json!("two"), json!(1)]),
        ("a.json", b" [1, \"two\", [3]] ", vec![json!("two"), json!(1), json!([3])]),
        ("a.txt", b"1\r\n\ntwo", vec![json!(""), json!("1"), json!("two")]),
        ("a.csv", b"name,note\nada,\"b, c\"\n", vec![record]),
        ("a.cbor", b"\x01\x82\x02\x03\x61x", vec![json!("x"), json!(1), json!([2, 3])]),
        ("a.lines", b"1\n2\n", vec![json!("1"), json!("2")]),
        ("b.data", b"{\"a\": 1}\n", vec![json!({"a": 1})]),
        ("empty.json", b"[]", vec![]),
    ];
    for (name, content, expected) in files {
        cluster.file(name, content);
        // An extension that is not known says nothing of the format.
        let more: &[&str] = if name == "a.lines" { &["--format", "lines"] } else { &[] };
        let fed = cluster.run(&[&["feed", "fed", "-f", name], more].concat());
        let noun = if expected.len() == 1 { "item" } else { "items" };
        assert!(fed.stderr.starts_with(&format!("fed {} {noun} in ", expected.len())), "{name}: {}", fed.stderr);
        assert_eq!(fed.code, Some(0));
        assert_eq!(results(&cluster), expected, "{name}");
    }
}

#[test]
fn an_id_makes_feeding_idempotent() {
    let cluster = passing_on();
    let _node = cluster.node("a");
    let feed = ["feed", "fed", "--id", "order.7", "7"];
    assert!(cluster.run(&feed).stderr.starts_with("fed 1 item in "));
    let again = cluster.run(&feed);
    assert!(again.stderr.ends_with("; 1 item dropped: fed before under the same id\n"), "{}", again.stderr);
    assert_eq!(again.code, Some(0));
    assert_eq!(results(&cluster), [7]);

    // Each item of a file has an id of its own; a longer file under the same id only adds what is new.
    cluster.run_with_input(&["feed", "fed", "--id", "batch"], "1\n2\n3\n").succeeded();
    let again = cluster.run_with_input(&["feed", "fed", "--id", "batch", "--json"], "1\n2\n3\n4\n");
    let report: Value = serde_json::from_str(&again.succeeded()).unwrap();
    assert_eq!((&report["fed"], &report["duplicates"]), (&json!(1), &json!(3)));
    assert_eq!(results(&cluster), [1, 2, 3, 4]);
}

#[test]
fn many_items_are_fed_with_a_summary() {
    let cluster = passing_on();
    let client = NatsClient::connect(&cluster);
    let fed = cluster.run_with_input(&["feed", "fed"], lines(0..10_000));
    assert!(fed.stderr.starts_with("fed 10000 items in ") && fed.stderr.ends_with(" s\n"), "{}", fed.stderr);
    assert_eq!((fed.code, fed.stdout.as_str()), (Some(0), ""));
    assert!(client.count("PCLUSTER_fed") < 1_000, "{} messages", client.count("PCLUSTER_fed"));
}

#[test]
fn items_are_packed_as_the_flags_say_and_each_keeps_an_id_of_its_own() {
    let cluster = passing_on();
    let client = NatsClient::connect(&cluster);
    let ten = lines(10..20);
    let packed = |more: &[&str], messages: u64| {
        let before = client.count("PCLUSTER_fed");
        let wait: &[&str] = if more.contains(&"--pack-wait") { &[] } else { &["--pack-wait", "1m"] };
        cluster.run_with_input(&[&["feed", "fed"], more, wait].concat(), &ten).succeeded();
        assert_eq!(client.count("PCLUSTER_fed") - before, messages, "{more:?}");
    };
    packed(&[], 1);
    packed(&["--pack-items", "4"], 3);
    packed(&["--pack-items", "1"], 10);
    packed(&["--pack-bytes", "3"], 4);
    packed(&["--id", "own"], 10);
    let _node = cluster.node("a");
    let results = json_lines(&cluster.ok(&["pull", "fed", "--all", "--meta"]));
    let ids: BTreeSet<&str> = results.iter().map(|result| result["id"].as_str().unwrap()).collect();
    assert_eq!((results.len(), ids.len()), (50, 50));
}

#[test]
fn an_item_waits_no_longer_for_others_than_it_is_told() {
    let cluster = passing_on();
    let _node = cluster.node("a");
    // Its standard input stays open, so nothing but the time sends the item.
    let (mut feed, mut input) = Process::start_fed(cluster.command(&["feed", "fed"]));
    input.write_all(b"1\n2\n").unwrap();
    assert_eq!(numbers(&json_lines(&cluster.ok(&["pull", "fed", "-n", "2"]))), [1, 2]);
    drop(input);
    assert_eq!(feed.ended(), Some(0));
}

#[test]
fn a_full_queue_slows_feeding_down_and_loses_nothing() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let stages = probe_chain("fed", &["first", "second"], "task = \"sleep\"\nconfig = { millis = 4 }\nconcurrency = 4");
    cluster.deploy(&with_table("[queue]\nlimit = 50", &stages));
    cluster.file("numbers.ndjson", lines(0..600));
    let mut feed = cluster.spawn(&["feed", "fed", "-f", "numbers.ndjson", "--pack-items", "1"]);
    eventually("the queue is full", || (client.count("PCLUSTER_fed") == 50).then_some(()));
    let _nodes = [cluster.node("a"), cluster.node("b")];
    let mut most = 0;
    eventually("feeding ends", || {
        most = most.max(client.count("PCLUSTER_fed"));
        feed.stderr().contains("fed 600 items in ").then_some(())
    });
    assert_eq!(feed.ended(), Some(0), "{}", feed.stderr());
    assert!(most <= 100, "{most} messages in two queues of 50");
    assert_eq!(numbers(&cluster.pull_all("fed")), (0..600).collect::<Vec<_>>());
}

#[test]
fn interrupted_feeding_says_how_many_items_the_chain_has() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&with_table("[queue]\nlimit = 50", &probe_chain("fed", &["echo"], "")));
    cluster.file("numbers.ndjson", lines(0..5_000));
    let mut feed = cluster.spawn(&["feed", "fed", "-f", "numbers.ndjson", "--pack-items", "1"]);
    eventually("the queue is full", || (client.count("PCLUSTER_fed") == 50).then_some(()));
    feed.signal("INT");
    assert_eq!(feed.ended(), Some(130), "{}", feed.stderr());
    assert!(feed.stderr().ends_with("error: interrupted: 50 items fed"), "{}", feed.stderr());
    let _node = cluster.node("a");
    assert_eq!(cluster.pull_all("fed").len(), 50);
}

#[test]
fn what_is_sent_again_because_no_answer_came_is_no_duplicate() {
    let cluster = passing_on();
    let client = NatsClient::connect(&cluster);
    let feeds: Vec<_> = [&["feed", "fed", "--pack-items", "1"][..], &["feed", "fed", "--id", "own"]]
        .iter()
        .map(|arguments| Process::start_fed(cluster.command(&[arguments, &["--json"][..]].concat())))
        .collect();
    let mut feeds: Vec<_> = feeds
        .into_iter()
        .map(|(feed, mut stdin)| {
            stdin.write_all(b"0\n").unwrap();
            (feed, stdin)
        })
        .collect();
    eventually("the first items are there", || (client.count("PCLUSTER_fed") == 2).then_some(()));
    cluster.server.signal("STOP");
    for (_, stdin) in &mut feeds {
        stdin.write_all(lines(1..150).as_bytes()).unwrap();
    }
    // What was sent stands before the server, which will take it and answer to nobody; then it is sent again.
    for (feed, _) in &feeds {
        feed.said("waiting: no answer from the server");
    }
    cluster.server.signal("CONT");
    for (mut feed, stdin) in feeds {
        drop(stdin);
        assert_eq!(feed.ended(), Some(0), "{}", feed.stderr());
        let report: Value = serde_json::from_str(&feed.stdout()).unwrap();
        assert_eq!((&report["fed"], &report["duplicates"]), (&json!(150), &json!(0)));
    }
    assert_eq!(client.count("PCLUSTER_fed"), 300);
    // What another feeder has fed before is one.
    let again = cluster.run_with_input(&["feed", "fed", "--id", "own", "--json"], lines(0..151)).succeeded();
    let report: Value = serde_json::from_str(&again).unwrap();
    assert_eq!((&report["fed"], &report["duplicates"]), (&json!(1), &json!(150)));
}

#[test]
fn feeding_ends_in_time_whatever_it_waits_for() {
    let cluster = Cluster::start();
    cluster.deploy(&with_table("[queue]\nlimit = 1", &probe_chain("fed", &["echo"], "")));
    let wait = |arguments: &[&str], input: &[u8], said: &str| {
        let (mut feed, mut stdin) = Process::start_fed(cluster.command(&[&["feed", "fed"], arguments].concat()));
        stdin.write_all(input).unwrap();
        feed.said(said);
        assert_eq!(feed.ended(), Some(3), "{}", feed.stderr());
    };
    wait(&["-t", "1"], b"", "error: no item was taken for 1s: nothing came from standard input");
    wait(&["-t", "0"], b"{\"a\":", "error: no item was taken for 0s: nothing came from standard input");
    wait(&["-t", "1", "--dry-run"], b"1\n", "error: nothing came from the input for 1s");
    let (mut bench, _stdin) = Process::start_fed(cluster.command(&["bench", "fed", "-f", "-", "-t", "1"]));
    bench.said("error: not done after 1s: the items to feed are not read yet");
    assert_eq!(bench.ended(), Some(3));
    // One is taken, and the queue is full.
    wait(&["-t", "3", "--pack-items", "1"], b"1\n2\n", "error: no item was taken for 3s: the queue is full");
    wait(&["-t", "3", "3"], b"", "error: no item was taken for 3s: the queue is full");
}

#[test]
fn a_negative_number_is_an_item() {
    let cluster = passing_on();
    let _node = cluster.node("a");
    cluster.ok(&["feed", "fed", "-5", "-1.5e3"]);
    assert_eq!(results(&cluster), [json!(-1500.0), json!(-5)]);
}

#[test]
fn what_came_before_a_line_that_is_wrong_is_fed() {
    let cluster = passing_on();
    let _node = cluster.node("a");
    let fed = cluster.run_with_input(&["feed", "fed"], "1\n2\n{\"a\":\n4\n").failed(1, "line 3");
    assert!(fed.stderr.starts_with("2 items fed\n"), "{}", fed.stderr);
    assert_eq!(results(&cluster), [1, 2]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_is_streamed_and_not_held_in_memory() {
    let cluster = Cluster::start();
    cluster.deploy(&with_table("[queue]\nlimit = 1_000_000", &probe_chain("fed", &["echo"], "")));
    // The lines together are more than what the process may hold.
    let line = format!("\"{}\"\n", "x".repeat(3_000));
    cluster.file("long.ndjson", line.repeat(MANY));
    let mut feed = cluster.spawn(&["feed", "fed", "-f", "long.ndjson"]);
    let status = format!("/proc/{}/status", feed.id());
    let mut peak = 0;
    eventually("feeding ends", || {
        // The last one counts: the first may be that of this process, whose memory a child has until its program starts.
        peak = peak_memory(Path::new(&status)).unwrap_or(peak);
        feed.stderr().contains("fed ").then_some(())
    });
    feed.said(&format!("fed {MANY} items in "));
    assert_eq!(feed.ended(), Some(0));
    assert!((1_000..100_000).contains(&peak), "the peak was {peak} KiB");
}

/// Lines of the large file.
#[cfg(target_os = "linux")]
const MANY: usize = 50_000;

/// The most memory that a process has held, in KiB; `None` if it is gone.
#[cfg(target_os = "linux")]
fn peak_memory(status: &Path) -> Option<u64> {
    let status = std::fs::read_to_string(status).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
