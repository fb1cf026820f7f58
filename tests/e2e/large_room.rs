//! A store of large items with a limit: whatever the items are, a chain does not lock itself.

use std::fmt::Write as _;

use ciborium::Value;
use serde_json::Value as Json;
use support::{Cluster, NatsClient, Server, eventually, json_lines, plugin};

/// The limit of the store: 1 MiB.
const QUEUE: &str = "[queue]\nlarge = \"1KiB\"\nlarge_bytes = \"1MiB\"\n";

/// A chain of these tasks. What follows a task belongs to its stage.
fn chain(name: &str, stages: &[(&str, &str)]) -> String {
    let mut manifest = format!("name = \"{name}\"\nversion = \"1\"\n{QUEUE}");
    for (task, rest) in stages {
        let plugin = plugin("probe");
        let _ = writeln!(
            manifest,
            "[[stage]]\nname = \"{task}\"\nplugin = \"{plugin}\"\nretry = {{ attempts = 1 }}\n{rest}"
        );
    }
    manifest
}

/// The lines of a stage that returns a text of so many bytes.
fn big(bytes: usize) -> String {
    format!("config = {{ bytes = {bytes} }}\ntimeout = \"1s\"")
}

/// Feeds items in one message.
fn feed(client: &NatsClient, chain: &str, items: &[Value]) {
    client.publish(&format!("pcluster.{chain}.in"), &[], support::sequence(items)).unwrap();
}

/// Feeds large texts of so many bytes.
fn feed_texts(cluster: &Cluster, chain: &str, number: usize, size: usize) {
    let text = format!("\"{}\"\n", "x".repeat(size));
    cluster.run_with_input(&["feed", chain], text.repeat(number)).succeeded();
}

/// Pulls all results. Returns their number.
fn results(cluster: &Cluster, chain: &str) -> usize {
    json_lines(&cluster.ok(&["pull", chain, "--all"])).len()
}

/// Returns the number of large items, as `status` counts them.
fn left(cluster: &Cluster, chain: &str) -> Json {
    cluster.status(chain)["large_items"].clone()
}

#[test]
fn outputs_that_do_not_fit_together_go_on_one_after_another() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&chain("many", &[("big", &big(200_000)), ("count_static", "")]));
    // Each item of one message has an output of 200 kB: together that is eight times the limit.
    let items: Vec<Value> = (0..40).map(Value::from).collect();
    feed(&client, "many", &items);
    let _node = cluster.node("a");
    cluster.ok(&["wait", "many"]);
    assert_eq!(results(&cluster, "many"), items.len());
    eventually("nothing is stored", || (left(&cluster, "many") == 0).then_some(()));
}

#[test]
fn the_outputs_of_one_item_go_on_before_there_is_room_for_the_next() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let fan = ("fan", "config = { times = 12 }");
    let inline = "inline = true\nconfig = { bytes = 200_000 }";
    let inline = [fan, ("big", inline), ("count_static", "")];
    let manifest = chain("one", &inline).replace("retry = { attempts = 1 }\ninline", "inline");
    cluster.deploy(&with_records(&manifest));
    feed(&client, "one", &[Value::from(3)]);
    let _node = cluster.node("a");
    cluster.ok(&["wait", "one"]);
    let results = json_lines(&cluster.ok(&["pull", "one", "--all", "--meta"]));
    assert_eq!(results.len(), 12);
    for result in &results {
        let steps: Vec<&str> =
            result["record"]["steps"].as_array().unwrap().iter().map(|step| step["stage"].as_str().unwrap()).collect();
        assert_eq!(steps, ["fan", "big", "count_static"], "{result}");
    }
    eventually("nothing is stored", || (left(&cluster, "one") == 0).then_some(()));
}

fn with_records(manifest: &str) -> String {
    format!("{manifest}\n[results]\nrecords = \"all\"\n")
}

#[test]
fn items_that_hold_each_other_up_get_the_reserve_or_wait_for_a_higher_limit() {
    let cluster = Cluster::start();
    // Four of 100 kB and an output of 600 kB are more than the share of the first hop, and less than the limit and its reserve.
    cluster.deploy(&chain("tight", &[("big", &big(600_000)), ("count_static", "timeout = \"1s\"")]));
    feed_texts(&cluster, "tight", 4, 100_000);
    let node = cluster.node("a");
    cluster.ok(&["wait", "tight"]);
    assert_eq!(results(&cluster, "tight"), 4);
    drop(node);
    // Three of 100 kB and an output of 900 kB are more than both. No attempt is counted, and nothing fails.
    let locked = chain("locked", &[("big", &big(900_000)), ("count_static", "timeout = \"1s\"")]);
    cluster.deploy(&locked);
    feed_texts(&cluster, "locked", 3, 100_000);
    let _node = cluster.node_with("b", &["--sweep-every", "1s"]);
    eventually("the log says so", || {
        let logs = cluster.ok(&["logs", "locked", "--no-follow"]);
        (logs.contains("has no room for 900000 bytes") && logs.contains("raise `large_bytes`")).then_some(())
    });
    cluster.deploy(&locked.replace("version = \"1\"", "version = \"2\"").replace("1MiB", "2MiB"));
    cluster.ok(&["wait", "locked"]);
    assert_eq!(results(&cluster, "locked"), 3);
    eventually("nothing is stored", || (left(&cluster, "locked") == 0).then_some(()));
}

#[test]
fn an_output_that_never_fits_beside_its_item_fails_with_both_sizes() {
    let cluster = Cluster::start();
    cluster.deploy(&chain("never", &[("big", &big(700_000))]));
    feed_texts(&cluster, "never", 1, 400_000);
    let _node = cluster.node("a");
    cluster.ok(&["wait", "never"]);
    let letters = json_lines(&cluster.ok(&["dead", "ls", "never", "--json"]));
    let reason = letters[0]["reason"].as_str().unwrap();
    assert!(reason.contains("700000 bytes; 648576 is the most") && reason.contains("large_bytes"), "{reason}");
}

#[test]
fn a_limit_of_more_than_half_of_what_the_server_has_is_set_aside_once() {
    let server = Server::with_configuration("jetstream { store_dir: data, max_file_store: 1GB }");
    let cluster = Cluster::with_server(server);
    let manifest = chain("half", &[("echo", ""), ("count_static", "")]);
    cluster.deploy(&manifest.replace("1MiB", "350MiB"));
    // The feeder makes the store, and the node finds it.
    feed_texts(&cluster, "half", 2, 100_000);
    let _node = cluster.node("a");
    cluster.ok(&["wait", "half"]);
    assert_eq!(results(&cluster, "half"), 2);
}
