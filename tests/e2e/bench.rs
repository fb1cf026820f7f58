//! `bench`: it counts the results of its own items, and leaves none of them behind.

use serde_json::{Value, json};
use support::{Cluster, NatsClient, Run, assert_refused, eventually, lines, numbers, probe_chain, with_table};

/// What a run with `--json` has printed.
#[track_caller]
fn report(run: Run) -> Value {
    serde_json::from_str(&run.succeeded()).unwrap()
}

/// Items, messages, results, failures, and items that left neither.
fn counts(report: &Value) -> [u64; 5] {
    ["items", "messages", "results", "failures", "unanswered"].map(|name| report[name].as_u64().unwrap())
}

#[test]
fn a_run_counts_its_results_and_leaves_only_those_of_others() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("echo", &["echo"], ""));
    let _node = cluster.node("a");
    cluster.run_with_input(&["feed", "echo", "--pack-items", "1"], lines(0..3)).succeeded();
    cluster.ok(&["wait", "echo"]);

    let run = cluster.run(&["bench", "echo", "-n", "600", "--json"]);
    assert_eq!(run.stderr, "600 results of the run removed\n");
    let report = report(run);
    assert_eq!(counts(&report), [600, 3, 600, 0, 0]);
    // A text of 256 bytes has a head of three.
    assert_eq!(
        (&report["chain"], &report["bytes"], &report["ended"]),
        (&json!("echo"), &json!(600 * 259), &json!("done"))
    );
    for name in ["feed_seconds", "seconds", "items_per_second", "results_per_second", "bytes_per_second"] {
        assert!(report[name].as_f64().unwrap() > 0.0, "{name}: {report}");
    }
    let latency = ["min", "p50", "p90", "p99", "max"].map(|name| report["latency_ms"][name].as_f64().unwrap());
    assert!(latency[0] > 0.0 && latency.is_sorted(), "{latency:?}");

    let streams = ["PCLUSTER_echo", "PCLUSTER_echo_OUT", "PCLUSTER_echo_DEAD"];
    assert_eq!(streams.map(|stream| client.count(stream)), [0, 3, 0]);
    assert_eq!(numbers(&cluster.pull_all("echo")), [0, 1, 2]);
}

#[test]
fn results_that_tasks_give_topics_are_counted_and_removed_too() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("spread", &["to_topics"], ""));
    let _node = cluster.node("a");
    let item = json!({"topics": ["a", null, "b"], "value": 0}).to_string();
    let report = report(cluster.run(&["bench", "spread", &item, "-n", "50", "--json", "-t", "60"]));
    assert_eq!(["items", "results", "failures", "unanswered"].map(|name| &report[name]), [50, 150, 0, 0]);
    assert_eq!(client.results("spread"), 0);
}

#[test]
fn a_table_is_printed_for_people() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("echo", &["echo"], ""));
    let _node = cluster.node("a");
    let printed = cluster.ok(&["bench", "echo", "-n", "2", "--size", "2kB"]);
    let table: Vec<(&str, &str)> = printed.lines().map(|line| line.split_once("  ").unwrap()).collect();
    assert_eq!(
        table.iter().map(|row| row.0.trim()).collect::<Vec<_>>(),
        ["fed", "results", "failures", "time", "rate", "latency"]
    );
    assert!(table[0].1.trim().starts_with("2 items in 1 message, 4.01 kB, in "), "{printed}");
    assert_eq!((table[1].1.trim(), table[2].1.trim()), ("2", "0"));
}

#[test]
fn items_of_a_file_are_fed_in_turn_and_results_are_kept_if_asked_for() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("echo", &["echo"], ""));
    let _node = cluster.node("a");
    cluster.file("numbers.ndjson", "1\n2\n3\n");
    let run = cluster.run(&["bench", "echo", "-f", "numbers.ndjson", "-n", "8", "--keep-results", "--json"]);
    assert_eq!(run.stderr, "8 results kept; `pcluster pull echo` takes them\n");
    assert_eq!(counts(&report(run)), [8, 1, 8, 0, 0]);
    assert_eq!(numbers(&cluster.pull_all("echo")), [1, 1, 1, 2, 2, 2, 3, 3]);
    // Fewer than the file has.
    let run = cluster.run_with_input(&["bench", "echo", "-f", "-", "-n", "2", "--keep-results", "--json"], lines(5..9));
    assert_eq!(counts(&report(run)), [2, 1, 2, 0, 0]);
    assert_eq!(numbers(&cluster.pull_all("echo")), [5, 6]);
}

#[test]
fn a_chain_may_drop_items_and_make_many_of_one() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("many", &["drop_odd", "repeat"], "config = { times = 3 }"));
    let _nodes = [cluster.node("a"), cluster.node("b")];
    let run = cluster.run(&["bench", "many", "1", "2", "3", "4", "6", "-n", "500", "--pack-items", "10", "--json"]);
    assert_eq!(counts(&report(run)), [500, 50, 900, 0, 200]);
    // All of them dropped: there is nothing to wait for but the end.
    let run = cluster.run(&["bench", "many", "7", "-n", "100"]);
    assert_eq!(run.stderr, "");
    let printed = run.succeeded();
    assert!(printed.contains("\ndropped     100 items\n") && !printed.contains("latency"), "{printed}");
    assert_eq!(client.items_now("PCLUSTER_many_OUT"), 0);
}

#[test]
fn failures_are_counted_and_stay_as_dead_letters() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("orders", &["obey"], ""));
    let _node = cluster.node("a");
    let run = cluster.run(&["bench", "orders", "fine", "repeat 2", "fatal", "-n", "300", "--json"]);
    assert!(run.stderr.ends_with("100 failures; `pcluster dead ls orders` tells why\n"), "{}", run.stderr);
    assert_eq!(counts(&report(run)), [300, 2, 300, 100, 0]);
    assert_eq!(cluster.status("orders")["dead"], 100);

    let run = cluster.run(&["bench", "orders", "fatal", "-n", "3", "--json"]);
    let run = run.failed(1, "error: 3 failures and no result; `pcluster dead ls orders` tells why");
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((counts(&report), &report["latency_ms"]), ([3, 1, 0, 3, 0], &Value::Null));
    assert_eq!(cluster.status("orders")["dead"], 103);

    // A chain that takes nothing of the kind is not fed all of it.
    let run = cluster.run(&["bench", "orders", "fatal", "-n", "1000000", "--rate", "1000", "--json"]);
    let run = run.failed(1, "failures before any result, so feeding stopped after");
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&report["ended"], &report["unanswered"]), (&json!("all failed"), &json!(0)));
    assert_eq!(cluster.status("orders")["dead"], 103 + report["items"].as_u64().unwrap());
}

#[test]
fn with_a_rate_items_are_fed_one_by_one_and_not_too_early() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("echo", &["echo"], ""));
    let _node = cluster.node("a");
    let bench = |more: &[&str]| report(cluster.run(&[&["bench", "echo", "--json"], more].concat()));
    let alone = bench(&["--rate", "200", "-n", "41"]);
    assert_eq!(counts(&alone), [41, 41, 41, 0, 0]);
    // Forty distances of 5 ms.
    assert!(alone["feed_seconds"].as_f64().unwrap() >= 0.2, "{alone}");
    assert_eq!(
        counts(&bench(&["--rate", "200", "-n", "21", "--pack-items", "5", "--pack-wait", "1m"])),
        [21, 5, 21, 0, 0]
    );
    // The time for others is over before the next item is due.
    assert_eq!(counts(&bench(&["--rate", "2", "-n", "3", "--pack-wait", "1ms"])), [3, 3, 3, 0, 0]);
}

#[test]
fn runs_at_the_same_time_count_only_their_own() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("echo", &["echo"], ""));
    let _node = cluster.node("a");
    let mut runs = [300, 400].map(|number: u64| {
        let number = number.to_string();
        cluster.spawn(&["bench", "echo", "-n", &number, "--pack-items", "7", "--json"])
    });
    for (run, number) in runs.iter_mut().zip([300, 400]) {
        assert_eq!(run.ended(), Some(0), "{}", run.stderr());
        let report: Value = serde_json::from_str(&run.stdout()).unwrap();
        assert_eq!((&report["items"], &report["results"]), (&json!(number), &json!(number)));
    }
    assert_eq!(client.items_now("PCLUSTER_echo_OUT"), 0);
}

#[test]
fn a_run_says_at_once_what_is_in_its_way_and_begins_when_a_node_is_there() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("unserved", &["echo"], ""));
    cluster.ok(&["feed", "unserved", "1"]);
    let run = cluster.run(&["bench", "unserved", "-t", "300ms"]);
    assert!(run.took.as_millis() >= 300, "it gave up after {:?}", run.took);
    assert_eq!(run.stdout, "");
    run.failed(3, "error: not done after 300ms: 0 of 10000 items fed");

    let mut bench = cluster.spawn(&["bench", "unserved", "-n", "5", "--json"]);
    bench.said("unserved already has 1 unfinished message, which the measurement includes");
    bench.said("no node serves unserved: start one with `pcluster node`; waiting");
    assert_eq!(client.count("PCLUSTER_unserved"), 1);
    let _node = cluster.node("a");
    assert_eq!(bench.ended(), Some(0), "{}", bench.stderr());
    let report: Value = serde_json::from_str(&bench.stdout()).unwrap();
    assert_eq!(counts(&report), [5, 1, 5, 0, 0]);
    // What was fed before comes out as ever.
    assert_eq!(cluster.pull_all("unserved"), [1]);
}

#[test]
fn a_run_gives_up_after_its_timeout_and_says_what_it_has_seen() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("stuck", &["obey"], ""));
    let _node = cluster.node("a");
    let run = cluster.run(&["bench", "stuck", "fine", "spin", "-n", "2", "--pack-items", "1", "-t", "10", "--json"]);
    let run = run.failed(3, "error: not done after 10s: 2 of 2 items fed; the remaining items still run");
    assert!(run.stderr.contains("1 result of the run removed\n"), "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((counts(&report), &report["ended"]), ([2, 2, 1, 0, 1], &json!("timed out")));
}

#[test]
fn an_interrupted_run_measures_what_it_has_fed() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&with_table("[queue]\nlimit = 20", &probe_chain("slow", &["sleep"], "config = { millis = 5 }")));
    let _node = cluster.node("a");
    let mut bench = cluster.spawn(&["bench", "slow", "-n", "1000000", "--pack-items", "1", "--json"]);
    eventually("results come", || (client.count("PCLUSTER_slow_OUT") > 0).then_some(()));
    bench.signal("INT");
    bench.said("interrupted: waiting for the items that were fed; a second signal ends at once");
    assert_eq!(bench.ended(), Some(130), "{}", bench.stderr());
    let report: Value = serde_json::from_str(&bench.stdout()).unwrap();
    assert_eq!((&report["ended"], &report["items"]), (&json!("interrupted"), &report["results"]));
    bench.said(&format!("error: interrupted: {} of 1000000 items fed", report["items"]));
    assert_eq!((client.count("PCLUSTER_slow"), client.count("PCLUSTER_slow_OUT")), (0, 0));
}

#[test]
fn a_run_that_cannot_be_is_refused_before_anything_is_fed() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("echo", &["echo"], ""));
    cluster.file("empty.json", "[]");
    cluster.file("long.txt", "short\n".to_owned() + &"x".repeat(2_000_000));
    cluster.file("bad.ndjson", "1\n{\"a\":\n");
    let refused: [(&[&str], i32, &[&str]); 6] = [
        (&["ehco"], 4, &["there is no chain `ehco`", "did you mean `echo`?"]),
        (&["echo", "-f", "missing.json"], 4, &["there is no file `missing.json`"]),
        (&["echo", "-f", "empty.json"], 1, &["`empty.json` has no items"]),
        (&["echo", "-f", "bad.ndjson"], 1, &["`bad.ndjson`: line 2"]),
        (&["echo", "--size", "2TiB"], 1, &["an item of 2199023255552 bytes is more than fits in a message"]),
        (&["echo", "-f", "long.txt"], 1, &["`long.txt`: line 2: an item of more than 1040384 bytes"]),
    ];
    for (arguments, code, says) in refused {
        assert_refused(&cluster.run(&[&["bench"], arguments].concat()), code, says);
    }
    for wrong in [&["--rate", "0"][..], &["--rate", "many"], &["-n", "0"], &["1", "--size", "5"], &["--format", "csv"]]
    {
        assert_refused(&cluster.run(&[&["bench", "echo"], wrong].concat()), 2, &[]);
    }
    cluster.ok(&["stop", "echo"]);
    assert_refused(&cluster.run(&["bench", "echo"]), 1, &["the intake of chain `echo` is closed"]);
    assert_eq!(client.count("PCLUSTER_echo"), 0);
}
