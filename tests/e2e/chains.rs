//! Chains from deploy to result.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::{Cluster, plugin, probe_chain, repository};

#[test]
fn the_example_runs_by_itself_and_shows_logs_results_and_a_summary() {
    let cluster = Cluster::start();
    plugin("waiting");
    let manifest = repository().join("plugins/waiting/chain.toml");
    let feed = ["--feed", "hello world!", "--feed", "hello world!", "--until-empty"];
    let run = cluster.run(&[&["dev", manifest.to_str().unwrap()], &feed[..]].concat());
    assert_eq!(run.stdout, "\"hello world!\"\n".repeat(4), "{}", run.stderr);
    assert!(run.stderr.contains(": waiting 2 s with"), "{}", run.stderr);
    assert!(run.stderr.contains(": waited 4 s with"), "{}", run.stderr);
    assert!(run.stderr.contains("2 items fed, 4 results in "), "{}", run.stderr);
    assert_eq!(run.code, Some(0));
}

#[test]
fn the_words_of_a_file_are_counted_as_they_are_natively() {
    let cluster = Cluster::start();
    plugin("text");
    let manifest = repository().join("plugins/text/chain.toml");
    cluster.ok(&["deploy", manifest.to_str().unwrap()]);
    let _nodes = [cluster.node("a"), cluster.node("b")];
    let license = repository().join("LICENSE");
    let fed = cluster.run(&["feed", "text", "-f", license.to_str().unwrap()]);
    assert!(fed.stderr.contains("fed 202 items in"), "{}", fed.stderr);

    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for result in cluster.pull_all("text") {
        *counted.entry(result["word"].as_str().unwrap().to_owned()).or_default() += 1;
    }

    let text = std::fs::read_to_string(license).unwrap().to_lowercase();
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    for word in text.split(|character: char| !character.is_alphabetic()).filter(|word| word.chars().count() > 6) {
        *expected.entry(word.to_owned()).or_default() += 1;
    }
    assert_eq!(counted, expected);
}

#[test]
fn each_item_gets_an_instance_of_its_own() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("fresh", &["count_static"], ""));
    let _node = cluster.node("a");
    cluster.ok(&["feed", "fresh", "1", "2", "3", "4", "5"]);
    assert_eq!(cluster.pull_all("fresh"), vec![json!(1); 5]);
}

#[test]
fn a_result_comes_back_with_its_fed_id_and_where_it_was_made() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("meta", &["echo", "repeat"], "config = { times = 2 }"));
    let _node = cluster.node("maker");
    cluster.ok(&["feed", "meta", "--id", "order.7", "{\"a\": 1}"]);
    let results: Vec<Value> = support::json_lines(&cluster.ok(&["pull", "meta", "-n", "2", "--meta"]));
    let expected = json!({
        "id": "order.7", "chain": "meta", "version": "1.0", "revision": 1, "node": "maker", "headers": {}, "item": {"a": 1},
    });
    assert_eq!(results, [expected.clone(), expected]);
}
