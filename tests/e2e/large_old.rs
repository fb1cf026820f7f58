//! Revisions that the release before has deployed: some of their nodes know no references, so none is made.

use serde_json::Value;
use support::{Cluster, NatsClient, Objects, json_lines, probe_chain};

use crate::upgrade::rewrite;

/// Deploys a chain as the release before did.
fn deploy(cluster: &Cluster, client: &NatsClient, name: &str, manifest: &str) {
    cluster.deploy(manifest);
    let key = format!("{name}.r1");
    rewrite(client, &key, |deployed| drop(deployed["manifest"].as_object_mut().unwrap().remove("wire")));
}

#[test]
fn what_fits_no_message_is_refused_or_fails_for_good_with_both_sizes() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let size = 3 << 20;
    let print = format!("head -c {size} /dev/zero");
    let program = format!(
        "name = \"program\"\nversion = \"1\"\n[[stage]]\nname = \"run\"\nexec = [\"sh\", \"-c\", {print:?}]\n\
         input = \"none\"\noutput = \"bytes\"\n"
    );
    deploy(&cluster, &client, "program", &program);
    deploy(&cluster, &client, "plugin", &probe_chain("plugin", &["big"], &format!("config = {{ bytes = {size} }}")));
    let _node = cluster.node_with("a", &["--allow-exec", "sh"]);
    // A message of the server takes 1 MiB, and has headers.
    let is_most = |number: u64| (1_000_000..1 << 20).contains(&number);
    for chain in ["program", "plugin"] {
        cluster.ok(&["feed", chain, "1"]);
        cluster.ok(&["wait", chain]);
        let letters = json_lines(&cluster.ok(&["dead", "ls", chain, "--json"]));
        let [letter] = &letters[..] else { panic!("{letters:?}") };
        assert_eq!((&letter["failure"], &letter["attempts"]), (&Value::from("output"), &Value::from(1)), "{letter}");
        let reason = letter["reason"].as_str().unwrap();
        let numbers: Vec<u64> = reason.split(|each: char| !each.is_ascii_digit()).flat_map(str::parse).collect();
        let is_told = numbers.iter().any(|number| (size..=size + 5).contains(number));
        assert!(is_told && numbers.iter().any(|number| is_most(*number)), "{chain}: {reason}");
        assert!(Objects::of(&client, chain).subjects().is_empty(), "{chain}: no object is made");
    }
    assert_eq!(client.items_now("PCLUSTER_program_OUT") + client.items_now("PCLUSTER_plugin_OUT"), 0);
}

#[test]
fn a_feeder_makes_no_reference_until_a_new_version_is_deployed() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let objects = Objects::of(&client, "plain");
    let manifest = probe_chain("plain", &["echo"], "");
    deploy(&cluster, &client, "plain", &manifest);
    let content = "x".repeat(2_000_000);
    cluster.file("large.txt", &content);
    let lines = format!("\"{content}\"\n");
    for format in ["text", "bytes", "ndjson"] {
        if format == "ndjson" {
            cluster.file("large.txt", &lines);
        }
        let run = cluster.run(&["feed", "plain", "-f", "large.txt", "--format", format]);
        let run = run.failed(1, "write a new version into the manifest and deploy it");
        assert!(run.stderr.contains("an item of 2000000 bytes is too large: 10"), "{}", run.stderr);
    }
    assert_eq!((client.count("PCLUSTER_plain"), objects.subjects().len()), (0, 0), "nothing was fed or stored");
    cluster.run_with_input(&["feed", "plain", "--format", "text"], "fits").succeeded();
    cluster.deploy(&manifest.replace("version = \"1.0\"", "version = \"1.1\""));
    cluster.ok(&["feed", "plain", "-f", "large.txt", "--format", "ndjson"]);
    assert_eq!(objects.described(), 1);
    let _node = cluster.node("a");
    cluster.ok(&["wait", "plain"]);
    let mut results = cluster.pull_all("plain");
    results.sort_by_key(|result| result.as_str().map(str::len));
    assert_eq!(results, ["fits", &content]);
}
