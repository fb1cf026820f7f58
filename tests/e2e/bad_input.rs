//! Invalid items, chains and flags: each error names the fault, and earlier items stay.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::ffi::OsStringExt;

use support::{Cluster, Run, Server, assert_refused, eventually, probe_chain};

/// A cluster with a chain that gives every item back, and no node.
fn with_chain(server: Server) -> Cluster {
    let cluster = Cluster::with_server(server);
    cluster.deploy(&probe_chain("example", &["echo"], ""));
    cluster
}

/// How many items wait.
#[track_caller]
fn queued(cluster: &Cluster) -> u64 {
    cluster.status("example")["revisions"][0]["stages"][0]["queued_messages"].as_u64().unwrap()
}

#[test]
fn an_unknown_chain_is_named_with_the_nearest_one_by_every_command() {
    let cluster = Cluster::start();
    let none = "there is no chain `exmaple`; none is deployed yet: `pcluster deploy chain.toml`";
    assert_refused(&cluster.run(&["status", "exmaple"]), 4, &[none]);
    cluster.deploy(&probe_chain("example", &["echo"], ""));
    for command in ["feed", "pull", "watch", "logs", "wait", "bench", "status", "stop", "start", "reset"] {
        let run = cluster.run_with_input(&[command, "exmaple"], "1\n");
        assert_refused(&run, 4, &["there is no chain `exmaple`; did you mean `example`?"]);
    }
    assert_refused(&cluster.run(&["wait", "zzz"]), 4, &["there is no chain `zzz`; deployed are example"]);
    assert_eq!(queued(&cluster), 0);
}

#[test]
fn wrong_usage_has_a_status_of_its_own_and_needs_no_server() {
    let cluster = Cluster::start();
    for (arguments, said) in [
        (&["feed", "a", "1", "-f", "x"][..], "the argument '[ITEM]...' cannot be used with '--file <FILE>'"),
        (&["feed", "a", "1", "--format", "csv"], "cannot be used with items on the command line"),
        (&["feed", "a", "{1"], "the item is not JSON: expected key in quotes or `}` at line 1 column 2"),
        (&["feed", "a", "-f", "x", "--format", "xml"], "invalid value 'xml' for '--format <FORMAT>'"),
        (
            &["feed", "a", "1", "--id", "pcluster.1.9.0"],
            "the id `pcluster.1.9.0` begins with `pcluster.`, which is reserved for",
        ),
        (&["feed", "a", "1", "--id", "a b"], "the id must have at least one character, and no spaces"),
        (&["feed", "a", "1", "--id", &"x".repeat(1_025)], "the id has 1025 bytes; 1024 is the most: "),
        (&["pull", "a", "--all", "-n", "1"], "the argument '--all' cannot be used with '--number <N>'"),
        (&["pull", "a", "--raw", "--meta"], "cannot be used with"),
        (&["pull", "a", "-t", "soon"], "not a duration; write one like 500ms, 30s or 5m"),
        (&["pull", "a", "--timeout=-1"], "must be zero or more seconds"),
        (&["wait", "a", "-t", "soon"], "not a duration; write one like 500ms, 30s or 5m"),
        (&["pull", "a", "-n", "ten"], "not a whole number; write one like 10"),
        (&["dead", "show", "a", "seven"], "not a whole number; write one like 10"),
        (&["feed", "a", "1", "--pack-items", "0"], "must be a whole number from 1 on"),
        (&["feed", "a", "1", "--pack-bytes", "lots"], "not a size; write one like 64KiB"),
        (&["bench", "a", "--size", "lots"], "not a size; write one like 64KiB"),
        (&["node", "--instances", "many"], "not a whole number; write one like 10"),
        (&["pull", "My.Chain"], "the chain name `My.Chain` has the character 'M'"),
        (&["dev", "--feed", "1"], "--feed goes with exactly one chain, not 0"),
        (&["frobnicate"], "unrecognized subcommand 'frobnicate'"),
        (&["status", "--nats", "http://127.0.0.1"], "`http://127.0.0.1` is not a NATS URL: invalid scheme"),
    ] {
        let mut command = cluster.command(arguments);
        command.env("PCLUSTER_NATS", "nats://127.0.0.1:1");
        // What clap says can take more than one line.
        let run = Run::of(command, b"");
        assert_refused(&run, 2, &[]);
        assert!(run.stderr.contains(said), "{arguments:?}: {}", run.stderr);
    }
}

#[test]
fn settings_that_cannot_be_are_named_with_their_source() {
    let cluster = Cluster::start();
    let refused = |says: &[&str]| {
        assert_refused(&cluster.run(&["status"]), 2, says);
        assert_refused(&cluster.run(&["config"]), 2, says);
    };
    cluster.file("pcluster.toml", "nats = ");
    refused(&["cannot read the settings file `pcluster.toml`: line 1: "]);
    cluster.file("pcluster.toml", "grace = \"30s\"\ninstanzes = 3\n");
    refused(&["`pcluster.toml`: unknown setting `instanzes`; did you mean `instances`?"]);
    cluster.file("pcluster.toml", "log = [\"debug\"]\n");
    refused(&["the setting `log` from `pcluster.toml`: must be a text or a number, not an array"]);
    cluster.file("pcluster.toml", b"\xff");
    refused(&["cannot read the settings file `pcluster.toml`"]);
    std::fs::remove_file(cluster.path("pcluster.toml")).unwrap();
    std::fs::create_dir(cluster.path("pcluster.toml")).unwrap();
    refused(&["cannot read the settings file `pcluster.toml`: Is a directory"]);
    std::fs::remove_dir(cluster.path("pcluster.toml")).unwrap();

    assert_refused(
        &cluster.run(&["status", "--config", "none.toml"]),
        2,
        &["the settings file `none.toml`: No such file"],
    );
    for (variable, value, said) in [
        ("PCLUSTER_GRACE", "soon", "the setting `grace` from environment PCLUSTER_GRACE: `soon` is not a duration"),
        ("PCLUSTER_INSTANCES", "0", "the setting `instances` from environment PCLUSTER_INSTANCES: `0` is not a number"),
        ("PCLUSTER_NODE", "a b", "the setting `node` from environment PCLUSTER_NODE: `a b` cannot be a name"),
        (
            "PCLUSTER_NODE",
            &"x".repeat(256),
            "PCLUSTER_NODE: a name of 256 bytes; 255 is the most: each result carries it",
        ),
        ("PCLUSTER_LOG", "loud", "the log filter `loud` is not known; write a level like \"info\""),
    ] {
        let mut command = cluster.command(&["status"]);
        command.env(variable, value);
        assert_refused(&Run::of(command, b""), 2, &[said]);
    }
}

#[test]
fn a_closed_intake_takes_no_item_until_it_is_opened() {
    let cluster = with_chain(Server::start(""));
    cluster.ok(&["feed", "example", "1"]);
    cluster.ok(&["stop", "example"]);
    let run = cluster.run(&["feed", "example", "2", "3"]);
    assert_refused(&run, 1, &["the intake of chain `example` is closed; `pcluster start example` opens it"]);
    assert_eq!(queued(&cluster), 1);
    cluster.ok(&["start", "example"]);
    cluster.ok(&["feed", "example", "4"]);
    let _node = cluster.node("a");
    let mut results = cluster.pull_all("example");
    results.sort_by_key(serde_json::Value::as_u64);
    assert_eq!(results, [1, 4]);
}

#[test]
fn an_item_that_is_too_large_is_named_and_those_before_it_stay_fed() {
    let cluster = with_chain(Server::start("max_payload: 64KB"));
    // It fits no message, so it goes beside the queue.
    let large = "x".repeat(100_000);
    cluster.ok(&["feed", "example", "--pack-items", "1", "1", "2", &large, "3"]);
    assert_eq!(queued(&cluster), 4);

    let mut lines: Vec<String> = (0..1000).map(|n| format!("line {n}")).collect();
    lines[700] = "x".repeat((64 << 20) + 1);
    cluster.file("large.txt", lines.join("\n"));
    let run = cluster.run(&["feed", "example", "--pack-items", "1", "-f", "large.txt"]);
    assert_refused(&run, 1, &["`large.txt`: line 701: an item of more than 67108864 bytes"]);
    assert!(run.stderr.contains("700 items fed\n"), "{}", run.stderr);
    assert_eq!(queued(&cluster), 704);
}

#[test]
fn a_line_that_cannot_be_read_is_named_and_those_before_it_stay_fed() {
    let cluster = with_chain(Server::start(""));
    let many: Vec<String> = (0..2000).map(|n| format!("{{\"n\": {n}}}")).collect();
    let files: [(&str, Vec<u8>, &str, u64); 8] = [
        (
            "a.ndjson",
            b"1\n2\n{\"a\":\n4\n".to_vec(),
            "`a.ndjson`: line 3: not JSON: the line ends while parsing a value at column 5",
            2,
        ),
        (
            "many.ndjson",
            format!("{}\n{{]\n", many.join("\n")).into_bytes(),
            "`many.ndjson`: line 2001: not JSON: ",
            2000,
        ),
        ("a.json", b"[1, 2, 3, oops]".to_vec(), "`a.json`: line 1: not JSON: expected value at column 11", 3),
        ("a.csv", b"x,y\n1,2\n3,4\n5\n6,7\n".to_vec(), "`a.csv`: line 4: 1 fields, but the header line has 2", 2),
        ("b.csv", b"x\n1\n\xff\n".to_vec(), "`b.csv`: line 3: not UTF-8", 1),
        ("a.txt", b"one\ntwo\nthr\xffe\n".to_vec(), "`a.txt`: line 3: not UTF-8 after byte 3 of the line", 2),
        ("a.cbor", b"\x01\x02\x82".to_vec(), "`a.cbor`: item 3: not CBOR: ", 2),
        (
            "guessed",
            b"1\nplain\n".to_vec(),
            "`guessed`: line 2: not JSON: expected value at column 1; if it is plain text, add --format lines",
            1,
        ),
    ];
    let mut all = 0;
    for (name, content, said, before) in files {
        cluster.file(name, content);
        let run = cluster.run(&["feed", "example", "--pack-items", "1", "-f", name]);
        assert_refused(&run, 1, &[said]);
        let items = if before == 1 { "1 item fed\n".to_owned() } else { format!("{before} items fed\n") };
        assert!(run.stderr.contains(&items), "{name}: {}", run.stderr);
        all += before;
        assert_eq!(queued(&cluster), all, "{name}");
    }
    let run = cluster.run_with_input(&["feed", "example", "--format", "ndjson"], "{\n");
    assert_refused(&run, 1, &["`standard input`: line 1: not JSON"]);
    assert_refused(&cluster.run(&["feed", "example", "-f", "none"]), 4, &["there is no file `none`"]);
    assert_refused(&cluster.run(&["feed", "example", "-f", "."]), 1, &["`.`: Is a directory"]);
    assert_eq!(queued(&cluster), all);
    // A text that is meant for a file is fed, and said to be one.
    cluster.file("orders.csv", "a\n1\n");
    let run = cluster.run(&["feed", "example", "orders.csv", "no.csv"]);
    assert_eq!(
        run.stderr.lines().next(),
        Some("orders.csv is fed as a text; to feed the content of the file of this name, give `-f orders.csv`")
    );
    run.succeeded();
    all += 2;

    let _node = cluster.node("a");
    assert_eq!(cluster.pull_all("example").len() as u64, all);
}

#[test]
fn paths_that_are_not_text_work_or_are_refused_by_name() {
    let cluster = Cluster::start();
    let odd = |end: &str| OsString::from_vec([b"odd\xff", end.as_bytes()].concat());
    let write = |end: &str, content: &str| std::fs::write(cluster.path("").join(odd(end)), content).unwrap();
    let run = |arguments: &[&OsStr], variable: &str, value: OsString| {
        let mut command = cluster.command(&[]);
        command.args(arguments).env_remove("PCLUSTER_CACHE").env(variable, value);
        Run::of(command, b"")
    };
    write(".toml", &probe_chain("example", &["echo"], ""));
    write(".ndjson", "1\n2\n");
    write(".settings", "node = \"odd\"\n");
    let cache = cluster.path("").join(odd("")).into_os_string();
    for arguments in [
        ["deploy", ".toml"].as_slice(),
        &["feed", "example", "-f", ".ndjson"],
        &["node", "--until-empty", "--config", ".settings"],
    ] {
        let arguments: Vec<OsString> =
            arguments.iter().map(|text| if text.starts_with('.') { odd(text) } else { (*text).into() }).collect();
        let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
        run(&arguments, "XDG_CACHE_HOME", cache.clone()).succeeded();
    }
    assert!(std::path::Path::new(&cache).join("pcluster").is_dir(), "the folder for caches is used as it is named");
    assert_eq!(cluster.pull_all("example"), [1, 2]);

    for flag in ["--creds", "--nkey", "--tlsca", "--tlscert", "--tlskey", "--context"] {
        let refused = run(&[OsStr::new("status"), OsStr::new(flag), &odd("")], "OTHER", "x".into());
        assert_refused(&refused, 2, &["`odd\u{fffd}` is not UTF-8"]);
    }
    for variable in ["PCLUSTER_CREDS", "PCLUSTER_CACHE"] {
        let refused = run(&[OsStr::new("status")], variable, odd(""));
        assert_refused(&refused, 2, &[&format!("the environment variable {variable} is not UTF-8")]);
    }
}

#[test]
fn an_id_that_looks_like_one_a_node_makes_loses_nothing() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("example", &["echo", "count_static"], ""));
    let _node = cluster.node("a");
    // The first message of the first revision, and its first output.
    cluster.ok(&["feed", "example", "1", "--id", "1.1.0"]);
    assert_eq!(cluster.pull_all("example"), [1]);
}

#[test]
fn an_item_that_fills_a_message_and_fails_does_not_stay_in_its_queue() {
    let cluster = Cluster::with_server(Server::start("max_payload: 64KB"));
    let text = probe_chain("example", &["fatal"], "").replacen("[[stage]]", "[input]\nformat = \"text\"\n[[stage]]", 1);
    cluster.deploy(&text);
    let _node = cluster.node("a");
    let (mut publisher, limit) = (Publisher::connect(&cluster.server.url), 65_536);
    // With room for its headers, without it, and without any.
    for size in [limit - 8_192, limit - 300, limit] {
        publisher.publish("pcluster.example.in", "x".repeat(size).as_bytes());
    }
    eventually("all are dead letters", || (cluster.status("example")["dead"] == 3).then_some(()));
    cluster.ok(&["wait", "example"]);
}

/// A client that is not `pcluster`: it knows nothing of what a chain can bear.
struct Publisher(TcpStream);

impl Publisher {
    fn connect(url: &str) -> Self {
        let mut stream = TcpStream::connect(url.trim_start_matches("nats://")).unwrap();
        stream.write_all(b"CONNECT {\"verbose\":false}\r\n").unwrap();
        Self(stream)
    }

    fn publish(&mut self, subject: &str, payload: &[u8]) {
        self.0.write_all(format!("PUB {subject} {}\r\n", payload.len()).as_bytes()).unwrap();
        self.0.write_all(payload).unwrap();
        self.0.write_all(b"\r\n").unwrap();
    }
}
