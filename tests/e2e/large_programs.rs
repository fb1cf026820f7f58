//! Large items and programs: streamed from and to files, and refused with both sizes where they must be whole.

use std::fs;
use std::path::Path;

use support::{Cluster, Process, json_lines};

const MIB: usize = 1 << 20;

fn node(cluster: &Cluster) -> Process {
    cluster.node_with("a", &["--allow-exec", "sh", "--allow-exec", "python3"])
}

/// A stage that runs a program.
fn stage(name: &str, program: &[&str], rest: &str) -> String {
    format!("[[stage]]\nname = \"{name}\"\nexec = {program:?}\ntimeout = \"2m\"\n{rest}\n")
}

fn deploy(cluster: &Cluster, name: &str, stages: &[String]) {
    cluster.deploy(&format!("name = \"{name}\"\nversion = \"1\"\n{}", stages.concat()));
}

/// Feeds a file as one byte string.
fn feed(cluster: &Cluster, chain: &str, content: &[u8]) {
    let file = cluster.file(&format!("{chain}.in"), content);
    cluster.ok(&["feed", chain, "--format", "bytes", "--file", file.to_str().unwrap()]);
}

/// Pulls some results. Returns the content of their files.
fn pull(cluster: &Cluster, chain: &str, number: &str) -> Vec<Vec<u8>> {
    let folder = cluster.path(&format!("{chain}.out"));
    cluster.ok(&["pull", chain, "-n", number, "--output", folder.to_str().unwrap()]);
    fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

/// Returns the reasons of the dead letters.
fn reasons(cluster: &Cluster, chain: &str) -> Vec<String> {
    cluster.ok(&["wait", chain]);
    let letters = json_lines(&cluster.ok(&["dead", "ls", chain, "--json"]));
    letters.iter().map(|letter| letter["reason"].as_str().unwrap().to_owned()).collect()
}

/// The most memory that a process has had, in bytes.
fn most_resident(process: &Process) -> usize {
    let status = fs::read_to_string(Path::new("/proc").join(process.id().to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[test]
fn a_large_item_streams_through_programs_and_their_node_holds_little_of_it() {
    let cluster = Cluster::start();
    let bytes = "input = \"bytes\"\noutput = \"bytes\"";
    let change = ["sh", "-c", "printf x; cat"];
    deploy(&cluster, "stream", &[stage("first", &change, bytes), stage("second", &change, bytes)]);
    let node = node(&cluster);
    feed(&cluster, "stream", b"small");
    assert_eq!(pull(&cluster, "stream", "1"), [b"xxsmall"]);
    fs::remove_dir_all(cluster.path("stream.out")).unwrap();
    let before = most_resident(&node);
    let content: Vec<u8> = (0..u32::try_from(96 * MIB / 4).unwrap()).flat_map(u32::to_le_bytes).collect();
    feed(&cluster, "stream", &content);
    let result = pull(&cluster, "stream", "1").remove(0);
    assert!(result.strip_prefix(b"xx") == Some(&content[..]), "{} bytes", result.len());
    let more = (most_resident(&node) - before) / MIB;
    assert!(more < 64, "the node has taken {more} MiB more");
}

#[test]
fn a_text_is_one_only_if_all_of_it_is_utf_8() {
    let cluster = Cluster::start();
    let script = "head -c 3000000 /dev/zero | tr '\\0' a; cat";
    let stage = stage("write", &["sh", "-c", script], "input = \"bytes\"\noutput = \"text\"");
    deploy(&cluster, "text", &[stage]);
    let _node = node(&cluster);
    feed(&cluster, "text", b"\xff");
    assert_eq!(reasons(&cluster, "text"), ["standard output: not UTF-8 after byte 3000000"]);
    feed(&cluster, "text", b"\xc3\xa4");
    let result = pull(&cluster, "text", "1").remove(0);
    assert!(result.starts_with(b"aaa") && result.ends_with("aä".as_bytes()) && result.len() == 3_000_002);
}

#[test]
fn each_line_may_be_a_large_output() {
    let cluster = Cluster::start();
    let print = "import json\nfor n in range(3): print(json.dumps(str(n) * (2 << 20)))";
    deploy(&cluster, "lines", &[stage("print", &["python3", "-c", print], "input = \"none\"")]);
    let _node = node(&cluster);
    cluster.ok(&["feed", "lines", "1"]);
    let mut results = pull(&cluster, "lines", "3");
    results.sort();
    for (result, digit) in results.iter().zip([b'0', b'1', b'2']) {
        assert!(result.windows(2 * MIB).any(|part| part.iter().all(|byte| *byte == digit)), "{}", char::from(digit));
    }
}

#[test]
fn what_must_be_whole_and_is_too_large_is_a_dead_letter_with_both_sizes() {
    let cluster = Cluster::start();
    deploy(&cluster, "json", &[stage("read", &["sh", "-c", "cat"], "")]);
    deploy(&cluster, "worker", &[stage("read", &["sh", "-c", "cat"], "isolation = \"worker\"")]);
    let print = ["python3", "-c", "print('\"' + 'x' * (65 << 20) + '\"')"];
    deploy(&cluster, "output", &[stage("print", &print, "input = \"none\"\noutput = \"json\"")]);
    let _node = node(&cluster);
    for (chain, told) in [
        ("json", "the item has 65.0 MiB, and as JSON, a program takes at most 64.0 MiB"),
        ("worker", "the item has 65.0 MiB, and a worker takes at most 64.0 MiB"),
    ] {
        feed(&cluster, chain, &vec![1; 65 * MIB]);
        let reasons = reasons(&cluster, chain);
        assert!(reasons.len() == 1 && reasons[0].starts_with(told), "{chain}: {reasons:?}");
    }
    cluster.ok(&["feed", "output", "1"]);
    let reasons = reasons(&cluster, "output");
    let told = "standard output: an output of 65.0 MiB; at most 64.0 MiB are one output";
    assert!(reasons.len() == 1 && reasons[0].starts_with(told), "{reasons:?}");
}
