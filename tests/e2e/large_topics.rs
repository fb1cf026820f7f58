//! Results with large items that two kinds of pullers wait for: those of a topic, and the plain ones.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Info};
use serde_json::{Value, json};
use support::{Cluster, NatsClient, Objects, Process, eventually, json_lines, probe_chain, with_table};

const OUT: &str = "PCLUSTER_shared_OUT";

/// A chain whose items are large from 1 KiB on, with a node that sweeps often.
fn served() -> (Cluster, NatsClient, Process) {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&with_table("[queue]\nlarge = \"1KiB\"", &probe_chain("shared", &["echo"], "")));
    let node = cluster.node_with("a", &["--sweep-every", "1s"]);
    (cluster, client, node)
}

fn text(letter: char) -> String {
    letter.to_string().repeat(5_000)
}

/// Feeds a large item for each letter, and waits for its result.
fn feed(cluster: &Cluster, topic: &[&str], letters: &str) {
    let lines: String = letters.chars().map(|letter| text(letter) + "\n").collect();
    cluster.run_with_input(&[&["feed", "shared", "--format", "lines"], topic].concat(), lines).succeeded();
    cluster.ok(&["wait", "shared"]);
}

/// Takes results. Returns their letters, sorted.
#[track_caller]
fn pulled(cluster: &Cluster, arguments: &[&str]) -> String {
    let results = json_lines(&cluster.ok(&[&["pull", "shared"], arguments].concat()));
    let mut letters: Vec<char> =
        results.iter().map(|result| result.as_str().unwrap().chars().next().unwrap()).collect();
    for (letter, result) in letters.iter().zip(&results) {
        assert_eq!(*result, json!(text(*letter)), "it is whole");
    }
    letters.sort_unstable();
    letters.into_iter().collect()
}

fn consumer(client: &NatsClient, name: &str) -> Info {
    client.read(&async |jetstream| {
        let stream = jetstream.get_stream(OUT).await?;
        Ok(stream.consumer_info(name).await?)
    })
}

/// The holders of all objects, without what is being made and read.
fn holders(objects: &Objects<'_>) -> BTreeSet<String> {
    objects.holders().into_iter().filter(|holder| !holder.starts_with("lease-")).collect()
}

#[test]
fn the_consumer_of_a_topic_is_durable_and_goes_after_a_day_without_pullers() {
    let (cluster, client, _node) = served();
    feed(&cluster, &["--topic", "ada"], "ab");
    assert_eq!(client.consumers(OUT), ["pull"], "a topic that nobody pulls has none");
    assert_eq!(pulled(&cluster, &["--topic", "ada", "-n", "1"]).len(), 1);
    let (topic, plain) = (consumer(&client, "topic_ada"), consumer(&client, "pull"));
    assert_eq!(topic.config.durable_name.as_deref(), Some("topic_ada"));
    assert_eq!(topic.config.inactive_threshold, Duration::from_hours(24));
    assert_eq!(plain.config.inactive_threshold, Duration::ZERO, "it stays for ever");
    assert_eq!(
        topic.config.filter_subjects.iter().collect::<BTreeSet<_>>(),
        [&"pcluster.shared.out.ada".to_owned(), &"pcluster.shared.out.ada.again".to_owned()].into()
    );
    // As the page says: with the settings of `pull`.
    for config in [&topic.config, &plain.config] {
        assert_eq!((config.ack_policy, config.ack_wait), (AckPolicy::Explicit, Duration::from_secs(30)));
    }
    assert_eq!(
        (topic.config.max_deliver, topic.config.max_ack_pending),
        (plain.config.max_deliver, plain.config.max_ack_pending)
    );
    // The puller is gone, and what it has taken is known.
    assert_eq!(topic.ack_floor.stream_sequence, 1);
    assert_eq!(plain.ack_floor.stream_sequence, 0);
    cluster.ok(&["pull", "shared", "--topic", "ada", "--all"]);
    assert_eq!(consumer(&client, "topic_ada").created, topic.created, "it is the same");
}

#[test]
fn a_large_result_goes_only_once_the_pullers_of_its_topic_and_the_plain_ones_have_taken_it() {
    let (cluster, client, _node) = served();
    let objects = Objects::of(&client, "shared");
    let is_kept = |number: usize| {
        let holders = holders(&objects);
        let are_results = holders.iter().all(|holder| holder.starts_with("out-"));
        are_results && [holders.len(), objects.described()] == [number; 2] && client.results("shared") == number as u64
    };
    let until_kept = |number: usize| {
        eventually("so many results hold what is left", || is_kept(number).then_some(()));
    };
    // A new consumer begins with the oldest result.
    feed(&cluster, &["--topic", "ada"], "a");
    assert_eq!(pulled(&cluster, &["--topic", "ada", "-n", "1"]), "a");
    feed(&cluster, &["--topic", "ada"], "b");
    feed(&cluster, &["--topic", "bob"], "c");
    feed(&cluster, &[], "d");
    until_kept(4);

    // The topic alone.
    assert_eq!(pulled(&cluster, &["--topic", "ada", "-n", "1"]), "b");
    assert_eq!(pulled(&cluster, &["--topic", "ada", "--all"]), "");
    two_sweeps(&objects);
    assert!(is_kept(4), "the plain pullers wait for all");

    // The plain ones too, but for the last. Nobody pulls the topic `bob`, so it does not keep its result.
    assert_eq!(pulled(&cluster, &["-n", "3"]), "abc");
    until_kept(1);
    assert_eq!(pulled(&cluster, &["--all"]), "d");
    until_kept(0);

    // The plain ones first. Now the topic keeps its result.
    feed(&cluster, &["--topic", "ada"], "e");
    assert_eq!(pulled(&cluster, &["-n", "1"]), "e");
    assert_eq!(pulled(&cluster, &["--all"]), "");
    two_sweeps(&objects);
    assert!(is_kept(1), "the topic waits for it");
    let refs: Vec<Value> = json_lines(&cluster.ok(&["pull", "shared", "--topic", "ada", "--refs"]));
    assert_eq!(cluster.ok(&["get", "shared", &refs[0].to_string()]), text('e'));
    assert_eq!(pulled(&cluster, &["--topic", "ada", "--all"]), "e");
    until_kept(0);
    assert!(objects.subjects().is_empty());
}

/// Waits for two sweeps, of which the second has begun after this was called. What each removes shows that.
fn two_sweeps(objects: &Objects<'_>) {
    for _ in 0..2 {
        objects.record("nothing", "work-999999", None);
        eventually("a sweep removes a stale record", || {
            objects.holders().iter().all(|holder| holder.starts_with("out-")).then_some(())
        });
    }
}
