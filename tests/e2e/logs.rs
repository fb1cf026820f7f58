//! Log lines: all lines of a task arrive with their origin.

use std::time::Instant;

use serde_json::Value;
use support::{Cluster, assert_refused, eventually, json_lines, lines, plugin, probe_chain};

/// What the task `print` says, level by level.
const SAID: [(&str, &str); 7] = [
    ("debug", "at debug"),
    ("error", "at error"),
    ("info", "at info"),
    ("info", "to standard output"),
    ("trace", "at trace"),
    ("warn", "at warn"),
    ("warn", "to standard error"),
];

/// A cluster whose chain `talk` has said all that it says in two stages.
fn after_talking() -> Cluster {
    let cluster = Cluster::start();
    let plugin = plugin("probe");
    let stage = |name: &str| format!("[[stage]]\nname = \"{name}\"\nplugin = \"{plugin}\"\ntask = \"print\"\n");
    cluster.deploy(&format!("name = \"talk\"\nversion = \"1.0\"\n{}{}", stage("first"), stage("second")));
    cluster.run(&["feed", "talk", "--id", "it", "1"]).succeeded();
    let mut node = cluster.node_with("a", &["--until-empty"]);
    // A node that ends has sent its last lines.
    assert_eq!(node.ended(), Some(0), "{}", node.stderr());
    cluster
}

/// The level and text of each line, sorted.
fn said(cluster: &Cluster, arguments: &[&str]) -> Vec<(String, String)> {
    let printed = cluster.ok(&[&["logs", "--no-follow", "--json"], arguments].concat());
    let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let mut said: Vec<_> =
        json_lines(&printed).iter().map(|line| (text(line, "level"), text(line, "message"))).collect();
    said.sort();
    said
}

fn expected(keep: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let kept = SAID.iter().filter(|(level, _)| keep(level));
    kept.map(|(level, message)| ((*level).to_owned(), (*message).to_owned())).collect()
}

#[test]
fn every_level_and_what_is_printed_arrives_and_can_be_filtered() {
    let cluster = after_talking();
    assert_eq!(said(&cluster, &["talk"]).len(), 2 * SAID.len());
    assert_eq!(said(&cluster, &[]).len(), 2 * SAID.len(), "without a chain, all of them");
    assert_eq!(said(&cluster, &["talk", "--stage", "second"]), expected(|_| true));
    let grave = expected(|level| ["error", "warn"].contains(&level));
    assert_eq!(said(&cluster, &["talk", "--stage", "first", "--level", "warn"]), grave);
    assert_eq!(said(&cluster, &["talk", "--stage", "first", "--since", "1h"]), expected(|_| true));
    eventually("the lines are older than that", || {
        said(&cluster, &["talk", "--since", "100ms"]).is_empty().then_some(())
    });

    let line = &json_lines(&cluster.ok(&["logs", "talk", "--no-follow", "--json", "--level", "error"]))[0];
    let place = ["chain", "stage", "node", "item", "message"].map(|key| line[key].as_str().unwrap());
    assert_eq!(place, ["talk", "first", "a", "it", "at error"]);
    let shown = cluster.ok(&["logs", "--no-follow", "--level", "error"]);
    assert!(shown.lines().next().unwrap().ends_with(" error talk/first it: at error"), "{shown}");

    let near = "chain `talk` has no stage `secnd`; did you mean `second`?";
    for command in [&["logs", "talk", "--no-follow"][..], &["dead", "ls", "talk"], &["dead", "show", "talk"]] {
        assert_refused(&cluster.run(&[command, &["--stage", "secnd"]].concat()), 4, &[near]);
    }
    let near = "the cluster has no stage `frist`; did you mean `first`?";
    assert_refused(&cluster.run(&["logs", "--no-follow", "--stage", "frist"]), 4, &[near]);
}

#[test]
fn logs_follow_until_they_are_told_to_stop() {
    let cluster = after_talking();
    // From the past on, so that it does not matter when it starts to follow.
    let mut logs = cluster.spawn(&["logs", "talk", "--since", "1h", "--stage", "second", "--level", "error"]);
    logs.printed("at error");
    cluster.ok(&["feed", "talk", "2"]);
    let _node = cluster.node("b");
    eventually("the line of the second item", || (logs.stdout().lines().count() == 2).then_some(()));
    logs.signal("INT");
    assert_eq!(logs.ended(), Some(130), "{}", logs.stderr());
}

#[test]
fn a_stage_that_logs_without_end_is_cut_short_and_takes_no_line_from_another() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("loud", &["chatter", "print"], "config = { lines = 20_000 }"));
    let started = Instant::now();
    let mut node = cluster.node("a");
    cluster.run_with_input(&["feed", "loud"], lines(0..10)).succeeded();
    assert_eq!(cluster.pull_all("loud").len(), 10);
    // A node that ends has sent its last lines, and told the last drops.
    assert_eq!(node.stop(), Some(0), "{}", node.stderr());
    let took = started.elapsed();

    let is_line = |(_, message): &&(String, String)| message.starts_with("line ");
    let heard = eventually("each line is there or was told as dropped", || {
        let heard = said(&cluster, &["loud", "--stage", "chatter"]);
        let dropped = heard.iter().filter(|(level, _)| level == "warn").map(|(_, message)| {
            let (count, why) = message.split_once(' ').unwrap();
            assert_eq!(why, "log lines were dropped: on each node a stage may log 1000 lines and 1.0 MiB a second");
            count.parse::<usize>().unwrap()
        });
        (heard.iter().filter(is_line).count() + dropped.sum::<usize>() >= 10 * 20_000).then_some(heard)
    });
    // 1,000 a second, and twice as many at once at the start.
    let (stored, allowed) = (heard.iter().filter(is_line).count(), 2_000 + 1_000 * (took.as_secs() + 1));
    assert!((2_000..=allowed).contains(&(stored as u64)), "{stored} lines in {took:?}");
    assert_eq!(said(&cluster, &["loud", "--stage", "print"]).len(), 10 * SAID.len());
}

#[test]
fn a_line_break_of_a_task_makes_no_line_of_its_own() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("forger", &["obey"], "retry = { attempts = 1 }"));
    cluster.ok(&["feed", "forger", r#""fatal 1\nerror forged""#]);
    cluster.deploy(&probe_chain(
        "maker",
        &["fail_init"],
        "config = { reason = \"no\\nerror forged\" }\nretry = { attempts = 1 }",
    ));
    cluster.ok(&["feed", "maker", "1"]);
    let mut node = cluster.node_with("a", &["--log", "debug", "--until-empty"]);
    assert_eq!(node.ended(), Some(0), "{}", node.stderr());
    let logged = cluster.ok(&["logs", "--no-follow"]);
    for (told, what) in [(node.stderr(), "the node's log"), (logged, "the tasks' lines")] {
        assert!(told.contains("error forged"), "{what}: {told}");
        assert!(!told.lines().any(|line| line.starts_with("error forged")), "{what}: {told}");
    }
}
