//! Input is read exactly or refused with its position, in all formats and in chunks of any size.

use std::io::Write;

use ciborium::Value;
use serde_json::json;
use support::{
    Cluster, Message, NatsClient, Process, Run, Server, assert_refused, eventually, json_lines, probe_chain,
};

/// Runs `pcluster feed x --dry-run` where there is no server, with a file or standard input.
fn dry_run(cluster: &Cluster, more: &[&str], input: &[u8]) -> Run {
    let mut command = cluster.command(&[&["feed", "x", "--dry-run"], more].concat());
    command.env("PCLUSTER_NATS", "nats://127.0.0.1:1");
    Run::of(command, input)
}

#[test]
fn a_dry_run_says_what_would_be_fed_and_needs_no_server() {
    let cluster = Cluster::start();
    let piped: [(&[u8], serde_json::Value); 8] = [
        (b"{\"a\":1}\n{\"a\":2}\n", json!({"format": "ndjson", "items": 2, "largest": 4, "first": {"a": 1}})),
        (b"\n{\n \"a\": 1\n}\n{\"a\":\n2}", json!({"format": "json", "items": 2, "largest": 4, "first": {"a": 1}})),
        (b"[1,\n\"two\"]", json!({"format": "json", "items": 2, "largest": 4, "first": 1})),
        (b"[1]\n[2]\n", json!({"format": "ndjson", "items": 2, "largest": 2, "first": [1]})),
        (b"\xef\xbb\xbf{\"a\":1}", json!({"format": "ndjson", "items": 1, "largest": 4, "first": {"a": 1}})),
        (b"one\n\ntwo", json!({"format": "lines", "items": 3, "largest": 4, "first": "one"})),
        (b"17\nnull\n", json!({"format": "ndjson", "items": 2, "largest": 1, "first": 17})),
        (b"", json!({"format": "lines", "items": 0, "largest": 0, "first": null})),
    ];
    for (input, expected) in piped {
        let said = dry_run(&cluster, &["--json"], input).succeeded();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&said).unwrap(), expected);
    }
    let files: [(&str, &[&str], &str, &str); 5] = [
        ("a.csv", &[], "x,y\n1,2\n\n", "{\"x\":\"1\",\"y\":\"2\"}"),
        ("one.csv", &[], "x\n\n", "{\"x\":\"\"}"),
        ("a.tsv", &[], "x\ty\n1\t2\n", "{\"x\":\"1\",\"y\":\"2\"}"),
        ("semicolons", &["--delimiter", ";"], "x;y\n1,5;2\n", "{\"x\":\"1,5\",\"y\":\"2\"}"),
        ("a.json", &[], "[18446744073709551616]", "18446744073709551616"),
    ];
    for (name, more, content, first) in files {
        cluster.file(name, content);
        let said = dry_run(&cluster, &[&["-f", name], more].concat(), b"").succeeded();
        assert!(said.contains("\nitems    1\n") && said.ends_with(&format!("first    {first}\n")), "{name}: {said}");
    }
    let said = dry_run(&cluster, &["-5", "[INFO] ready", "--format", "lines"], b"").succeeded();
    assert_eq!(said, "items    2\nlargest  13 bytes\nfirst    \"-5\"\n");
    let large = "x".repeat((1 << 20) - (8 << 10));
    dry_run(&cluster, &["--format", "lines"], large.as_bytes())
        .failed(0, "the largest item has 1040389 bytes; an item of more than 1040384 goes beside the queue");
}

#[test]
fn what_breaks_the_rules_of_its_format_is_refused_with_its_place_and_never_taken_for_text() {
    let cluster = Cluster::start();
    let lines = "; if it is plain text, add --format lines";
    let piped: [(&[u8], String); 7] = [
        (b"{\"a\":", format!("line 1: not JSON: EOF while parsing a value at column 5{lines}")),
        (b"{\"a\":1}\nplain\n", format!("line 2: not JSON: expected value at column 1{lines}")),
        (b"[INFO] ready\n", format!("line 1: not JSON: expected value at column 2{lines}")),
        (b"{\"a\":1,\n\"a\":2}", format!("line 2: not JSON: the key `a` twice in one object at column 4{lines}")),
        (b"1e400\n", format!("line 1: not JSON: number out of range at column 6{lines}")),
        (
            b"\xff\xfea\0\n\0",
            "the text is UTF-16LE and not UTF-8; convert it, as in `iconv -f UTF-16LE -t UTF-8 | ".into(),
        ),
        (b"\x1f\x8b\x08\0\0", "it is compressed with gzip; unpack it, as in `zcat | pcluster feed …`".into()),
    ];
    for (input, said) in piped {
        assert_refused(&dry_run(&cluster, &[], input), 1, &[&format!("`standard input`: {said}")]);
    }
    for (name, content, said) in [
        ("open.csv", "x,y\n1,2\n3,\"4\n5,6\n", "`open.csv`: line 3: the quote that opens here is never closed"),
        ("text.csv", "x,y\n\"1\"a,2\n", "`text.csv`: line 2: text after the closing quote of a field"),
        ("semicolons.csv", "x;y\n1;2\n", "add --delimiter ';' to separate columns there"),
        ("twice.csv", "x,y,x\n1,2,3\n", "`twice.csv`: line 1: the header line has two columns of the name `x`"),
    ] {
        cluster.file(name, content);
        assert_refused(&dry_run(&cluster, &["-f", name], b""), 1, &[said]);
    }
    for (more, said) in [
        (&["{\"a\":"][..], "the item is not JSON: EOF while parsing a value at line 1 column 5"),
        (&["1", "[x]"], "item 2 is not JSON: expected value at line 1 column 2"),
        (&["1", "--delimiter", ";"], "--delimiter cannot be used with items on the command line"),
        (&["--format", "json", "--delimiter", ";"], "--delimiter goes with csv, and this is json"),
    ] {
        assert_refused(&dry_run(&cluster, more, b""), 2, &[said]);
    }
}

#[test]
fn an_item_is_fed_as_soon_as_it_is_complete() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("slow", &["echo"], ""));
    let client = NatsClient::connect(&cluster);
    let mut items = 0;
    for parts in [&["{\"a\":1}\n", "{\n \"b\":", "2}\n"][..], &["one\n", "tw", "o\n"], &["1\n", "[2", ",3]\n"]] {
        let (mut feed, mut stdin) = Process::start_fed(cluster.command(&["feed", "slow"]));
        // The first part is an item, and so is what the other two are together. The input stays open.
        for part in parts {
            stdin.write_all(part.as_bytes()).unwrap();
            stdin.flush().unwrap();
            if part.ends_with('\n') {
                items += 1;
                eventually("the item is fed", || (client.count("PCLUSTER_slow") == items).then_some(()));
            }
        }
        drop(stdin);
        assert_eq!(feed.ended(), Some(0), "{}", feed.stderr());
    }
    let _node = cluster.node("a");
    let mut results: Vec<String> = cluster.pull_all("slow").iter().map(serde_json::Value::to_string).collect();
    results.sort();
    assert_eq!(results, ["\"one\"", "\"two\"", "1", "[2,3]", "{\"a\":1}", "{\"b\":2}"]);
}

#[test]
fn integers_of_any_size_come_out_as_they_went_in() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("exact", &["echo"], ""));
    let client = NatsClient::connect(&cluster);
    let _node = cluster.node("a");
    let mut numbers: Vec<String> =
        [64, 127, 128, 200].iter().map(|power| format!("{:.0}", 2_f64.powi(*power))).collect();
    numbers.extend(["-9223372036854775809", "-18446744073709551616", "-18446744073709551617"].map(str::to_owned));
    numbers.extend(
        ["-170141183460469231731687303715884105729", "-340282366920938463463374607431768211456"].map(str::to_owned),
    );
    numbers.push("7".repeat(2_000));
    cluster.run_with_input(&["feed", "exact"], numbers.join("\n")).succeeded();
    for number in &numbers {
        let json = [("Content-Type", "application/json")];
        client.publish("pcluster.exact.in", &json, format!("\u{feff}{number}\n")).unwrap();
    }
    let results = cluster.ok(&["pull", "exact", "--all"]);
    let mut results: Vec<&str> = results.lines().collect();
    let mut expected: Vec<&str> = numbers.iter().chain(&numbers).map(String::as_str).collect();
    results.sort_unstable();
    expected.sort_unstable();
    assert_eq!(results, expected);
}

#[test]
fn json_with_a_key_twice_is_a_dead_letter_and_headers_with_several_values_are_lists() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("odd", &["echo"], ""));
    let client = NatsClient::connect(&cluster);
    let _node = cluster.node("a");
    client.publish("pcluster.odd.in", &[("Content-Type", "application/json")], "{\"a\":1,\"a\":2}").unwrap();
    let letter = &client.messages("PCLUSTER_odd_DEAD", 1)[0];
    assert_eq!(letter.header("Pcluster-Failure"), "undecodable");
    assert_eq!(letter.header("Pcluster-Reason"), "not JSON: the key `a` twice in one object at line 1 column 11");

    client.with(async |jetstream| {
        let mut headers = async_nats::HeaderMap::new();
        for (name, value) in [("X-Tag", "a"), ("X-Tag", "b"), ("X-One", "c")] {
            headers.append(name, value);
        }
        jetstream.publish_with_headers("pcluster.odd.in", headers, "\x01".into()).await.unwrap().await.unwrap();
    });
    let result = &json_lines(&cluster.ok(&["pull", "odd", "-n", "1", "--meta"]))[0];
    assert_eq!(result["headers"], json!({"X-Tag": ["a", "b"], "X-One": "c"}));
}

#[test]
fn an_item_without_an_end_is_refused() {
    let cluster = Cluster::with_server(Server::start("max_payload: 64KB"));
    cluster.deploy(&probe_chain("endless", &["echo"], ""));
    let endless: [(&[&str], &[u8], &[u8]); 6] = [
        (&[], b"", b"x"),
        (&[], b"{\"a\":\"", b"x"),
        (&["--format", "ndjson"], b"1\n[", b"1,"),
        (&["--format", "json"], b"[\"", b"x"),
        (&["--format", "csv"], b"a,b\n1,\"", b"2\n"),
        (&["--format", "cbor"], b"\x01\x5f", b"\x41x"),
    ];
    for (more, begin, again) in endless {
        let (mut feed, mut stdin) = Process::start_fed(cluster.command(&[&["feed", "endless"], more].concat()));
        let (begin, much) = (begin.to_owned(), again.repeat(100_000));
        let writing = std::thread::spawn(move || {
            let _ = stdin.write_all(&begin);
            // It ends when nobody reads any more.
            while stdin.write_all(&much).is_ok() {}
        });
        let said = feed.said("an item of more than 67108864 bytes, which is the most");
        assert!(said.starts_with("error: `standard input`: "), "{said}");
        assert_eq!(feed.ended(), Some(1));
        writing.join().unwrap();
    }
    let _node = cluster.node("a");
    let items: Vec<Value> =
        NatsClient::connect(&cluster).items("PCLUSTER_endless_OUT", 2).iter().map(Message::item).collect();
    assert_eq!(items, [Value::from(1), Value::from(1)], "what came before is fed");
}
