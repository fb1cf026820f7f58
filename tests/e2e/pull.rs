//! Pulling results, and watching them.

use std::collections::BTreeSet;

use serde_json::json;
use support::{Cluster, eventually, json_lines, lines, numbers, plugin, probe_chain};

/// A cluster with a chain `pulled` that passes everything on.
fn passing_on() -> Cluster {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("pulled", &["echo"], ""));
    cluster
}

#[test]
fn pull_blocks_until_as_many_results_came_as_are_wanted() {
    let cluster = passing_on();
    let _node = cluster.node("a");
    let mut pull = cluster.spawn(&["pull", "pulled", "-n", "3"]);
    cluster.ok(&["feed", "pulled", "1", "2"]);
    pull.printed("2");
    cluster.ok(&["wait", "pulled"]);
    cluster.ok(&["feed", "pulled", "3", "4"]);
    assert_eq!(pull.ended(), Some(0), "{}", pull.stderr());
    let pulled = json_lines(&pull.stdout());
    assert_eq!(pulled.len(), 3);
    // The one that was not wanted is still there.
    let all = [pulled, cluster.pull_all("pulled")].concat();
    assert_eq!(numbers(&all), [1, 2, 3, 4]);
}

#[test]
fn pull_gives_up_after_its_timeout_and_prints_what_it_got() {
    let cluster = passing_on();
    for (timeout, said) in [("0.5", "500ms"), ("300ms", "300ms")] {
        let pull = cluster.run(&["pull", "pulled", "-t", timeout]);
        assert!(pull.took.as_millis() >= 300, "it gave up after {:?}", pull.took);
        let pull = pull.failed(3, &format!("error: no result for {said}; 0 results taken"));
        assert_eq!(pull.stdout, "");
    }
    let _node = cluster.node("a");
    cluster.ok(&["feed", "pulled", "1"]);
    cluster.ok(&["wait", "pulled"]);
    let pull = cluster.run(&["pull", "pulled", "-n", "2", "-t", "3"]).failed(3, "1 result taken");
    assert_eq!(pull.stdout, "1\n");
    // Those that are there are taken, however short the wait is.
    cluster.ok(&["feed", "pulled", "2"]);
    cluster.ok(&["wait", "pulled"]);
    assert_eq!(cluster.ok(&["pull", "pulled", "-n", "1", "-t", "0"]), "2\n");
    cluster.run(&["pull", "pulled", "-t", "0"]).failed(3, "0 results taken");
    cluster.run(&["pull", "pulled", "-t", "soon"]).failed(2, "soon");
    cluster.run(&["pull", "pulled", "-t", "-1"]).failed(2, "error");
}

#[test]
fn several_pullers_share_the_results() {
    let cluster = passing_on();
    let _node = cluster.node("a");
    let mut pulls = [(); 3].map(|()| cluster.spawn(&["pull", "pulled", "-n", "20"]));
    cluster.run_with_input(&["feed", "pulled"], lines(0..60)).succeeded();
    let mut all = Vec::new();
    for pull in &mut pulls {
        assert_eq!(pull.ended(), Some(0), "{}", pull.stderr());
        let pulled = json_lines(&pull.stdout());
        assert_eq!(pulled.len(), 20);
        all.extend(pulled);
    }
    assert_eq!(numbers(&all), (0..60).collect::<Vec<_>>());
}

#[test]
fn pull_all_ends_when_the_chain_is_empty_and_not_before() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("pulled", &["sleep", "echo"], "config = { millis = 2 }\nconcurrency = 2"));
    let _nodes = [cluster.node("a"), cluster.node("b")];
    for round in 0..6 {
        cluster.run_with_input(&["feed", "pulled"], lines(round * 100..round * 100 + 50)).succeeded();
        let mut pulls = [(); 2].map(|()| cluster.spawn(&["pull", "pulled", "--all"]));
        let mut all = Vec::new();
        for pull in &mut pulls {
            assert_eq!(pull.ended(), Some(0), "{}", pull.stderr());
            all.extend(json_lines(&pull.stdout()));
        }
        assert_eq!(numbers(&all), (round * 100..round * 100 + 50).collect::<Vec<_>>());
    }
    assert_eq!(cluster.ok(&["pull", "pulled", "--all"]), "", "an empty chain has nothing");
}

#[test]
fn a_puller_that_is_told_to_stop_gives_back_what_it_has_not_shown() {
    let cluster = passing_on();
    let _node = cluster.node("a");
    let mut pull = cluster.spawn(&["pull", "pulled"]);
    cluster.run_with_input(&["feed", "pulled"], lines(0..2_000)).succeeded();
    eventually("it shows some", || (!pull.stdout().is_empty()).then_some(()));
    pull.signal("INT");
    assert_eq!(pull.ended(), Some(130), "{}", pull.stderr());
    let all = [json_lines(&pull.stdout()), cluster.pull_all("pulled")].concat();
    assert_eq!(numbers(&all), (0..2_000).collect::<Vec<_>>());
}

#[test]
fn watch_sees_every_result_and_takes_none() {
    let cluster = passing_on();
    let _node = cluster.node("a");
    cluster.ok(&["feed", "pulled", "1", "2", "3"]);
    cluster.ok(&["wait", "pulled"]);
    let watched = json_lines(&cluster.ok(&["watch", "pulled", "--all", "-n", "3"]));
    assert_eq!(numbers(&watched), [1, 2, 3]);
    let mut watch = cluster.spawn(&["watch", "pulled", "--all"]);
    watch.printed("3");
    cluster.ok(&["feed", "pulled", "4"]);
    watch.printed("4");
    watch.signal("INT");
    assert_eq!(watch.ended(), Some(130), "{}", watch.stderr());
    assert_eq!(cluster.status("pulled")["result_messages"], 2, "messages that nobody took");
    assert_eq!(numbers(&cluster.pull_all("pulled")), [1, 2, 3, 4]);
    // What was taken is still kept, and can be watched.
    assert_eq!(numbers(&json_lines(&cluster.ok(&["watch", "pulled", "--all", "-n", "4"]))), [1, 2, 3, 4]);
}

#[test]
fn results_are_printed_as_json_with_where_they_come_from_or_raw() {
    let cluster = Cluster::start();
    let manifest =
        format!("name = \"forms\"\nversion = \"2.1\"\n[[stage]]\nname = \"echo\"\nplugin = \"{}\"\n", plugin("probe"));
    cluster.deploy(&manifest);
    let _node = cluster.node("maker");
    cluster.ok(&["feed", "forms", "--id", "a", "two\nlines"]);
    cluster.ok(&["wait", "forms"]);
    assert_eq!(cluster.ok(&["watch", "forms", "--all", "-n", "1"]), "\"two\\nlines\"\n");
    assert_eq!(cluster.ok(&["watch", "forms", "--all", "-n", "1", "--raw"]), "two\nlines\n");
    assert_eq!(cluster.ok(&["pull", "forms", "-n", "1", "--json", "--meta"]).lines().count(), 1);
    let meta = &json_lines(&cluster.ok(&["watch", "forms", "--all", "-n", "1", "--meta"]))[0];
    let keys: BTreeSet<&str> = meta.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(["id", "chain", "version", "revision", "node", "headers", "item"]));
    assert_eq!((&meta["id"], &meta["version"], &meta["node"]), (&json!("a"), &json!("2.1"), &json!("maker")));
}
