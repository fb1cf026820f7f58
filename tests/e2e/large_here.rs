//! Large items where everything runs on one machine: `dev`, and `replay` of dead letters.

use std::fs;

use serde_json::{Value, json};
use support::{Cluster, NatsClient, Objects, Process, Run, json_lines, probe_chain, with_table};

/// Items of more bytes are large.
const TABLE: &str = "[queue]\nlarge = \"1KiB\"";

/// A chain of one program, which is a script for `sh`, and gets and gives bytes.
fn program(name: &str, script: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"1\"\n{TABLE}\n[[stage]]\nname = \"run\"\nexec = [\"sh\", \"-c\", {script:?}]\n\
         input = \"bytes\"\noutput = \"bytes\"\nretry = {{ attempts = 1 }}\n"
    )
}

#[test]
fn dev_shows_large_results_and_other_commands_feed_and_save_them() {
    let cluster = Cluster::start();
    cluster.file("chain.toml", with_table(TABLE, &probe_chain("dev", &["echo"], "")));
    let text = "größe ".repeat(1_000);
    let run = cluster.run(&["dev", "--until-empty", "--feed", &text, "--feed", "7"]);
    assert!(run.stderr.contains("2 items fed, 2 results in "), "{}", run.stderr);
    let mut shown = json_lines(&run.succeeded());
    shown.sort_by_key(Value::is_string);
    assert_eq!(shown, [json!(7), json!(text)]);

    let mut dev = Process::start(cluster.command(&["dev", "--feed", &text]));
    let said = dev.said("NATS is at nats://127.0.0.1:");
    let url = said.split(' ').find_map(|word| word.strip_suffix(';')).unwrap().to_owned();
    dev.printed("größe");
    let at_dev = |arguments: &[&str]| {
        let mut command = cluster.command(arguments);
        command.args(["--nats", &url]);
        Run::of(command, b"").succeeded()
    };
    let content: Vec<u8> = (0..750_000_u32).flat_map(u32::to_le_bytes).collect();
    cluster.file("scan", &content);
    at_dev(&["feed", "dev", "-f", "scan", "--format", "bytes", "--id", "scan"]);
    // As Base64.
    dev.printed("AAAAAAEAAAACAAAA");
    at_dev(&["wait", "dev"]);
    assert_eq!(at_dev(&["pull", "dev", "--all", "--output", "results"]).lines().count(), 2);
    assert!(fs::read(cluster.path("results/scan")).unwrap() == content);
    assert_eq!(dev.stop(), Some(0), "{}", dev.stderr());
    assert!(!dev.stderr().contains("cannot be shown"), "{}", dev.stderr());
}

#[test]
fn a_letter_with_a_large_item_is_replayed_in_its_plugin_and_keeps_it() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let objects = Objects::of(&client, "failing");
    cluster.deploy(&with_table(TABLE, &probe_chain("failing", &["fatal"], "")));
    let _node = cluster.node("a");
    let text = "x".repeat(2_000_000);
    cluster.run_with_input(&["feed", "failing", "--format", "text"], &text).succeeded();
    client.messages("PCLUSTER_failing_DEAD", 1);
    let run = cluster.run(&["replay", "failing", "1", "--cases", "cases"]);
    let run = run.failed(1, "error: the item fails: error: this task always fails for good");
    assert!(run.stderr.contains("the item fails as in the letter\n"), "{}", run.stderr);
    let item: Value = serde_json::from_slice(&fs::read(cluster.path("cases/failing-1/item.json")).unwrap()).unwrap();
    assert_eq!(item, json!(text), "the case has the item");
    assert_eq!((objects.described(), client.count("PCLUSTER_failing_DEAD")), (1, 1), "the letter stays with its item");
    // It cannot be had any more.
    client.with(async |jetstream| {
        jetstream.get_stream("OBJ_pcluster_large_failing").await.unwrap().purge().await.unwrap()
    });
    cluster.run(&["replay", "failing", "1"]).failed(4, "chain `failing` does not have the large item");
}

#[test]
fn a_letter_with_a_large_item_is_replayed_in_its_program() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let ready = cluster.path("ready");
    cluster.deploy(&program("native", &format!("[ -e '{}' ] && printf x && cat", ready.display())));
    let _node = cluster.node_with("a", &["--allow-exec", "sh"]);
    let content: Vec<u8> = (0..750_000_u32).flat_map(u32::to_le_bytes).collect();
    cluster.file("scan", &content);
    cluster.ok(&["feed", "native", "-f", "scan", "--format", "bytes"]);
    client.messages("PCLUSTER_native_DEAD", 1);
    let run = cluster.run(&["replay", "native", "1", "--allow-exec"]);
    run.failed(1, "the item fails as in the letter");
    cluster.file("ready", "");
    let run = cluster.run(&["replay", "native", "1", "--allow-exec", "--cases", "cases"]);
    assert!(run.stderr.contains("the item succeeds, with 1 output"), "{}", run.stderr);
    assert_eq!(json_lines(&run.succeeded()).len(), 1);
    let output = fs::read(cluster.path("cases/native-1/outputs.cbor")).unwrap();
    let output: ciborium::Value = ciborium::from_reader(&output[..]).unwrap();
    assert!(output.as_bytes().unwrap().strip_prefix(b"x") == Some(&content));
    assert_eq!(Objects::of(&client, "native").described(), 1, "nothing more is stored, and nothing is taken");

    // What is not read as a whole is not replayed.
    fs::File::create(cluster.path("huge")).unwrap().set_len((64 << 20) + 1).unwrap();
    fs::remove_file(&ready).unwrap();
    cluster.ok(&["feed", "native", "-f", "huge", "--format", "bytes"]);
    client.messages("PCLUSTER_native_DEAD", 2);
    let run = cluster.run(&["replay", "native", "2", "--allow-exec"]);
    run.failed(1, "an item of 67108865 bytes is too large: 67108864 bytes is the most");
}
