//! How long an instance lasts, and the state in which it starts.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::{Cluster, NatsClient, json_lines, lines, numbers, probe_chain, sequence};

/// Runs no two items at once, so that no two instances are needed.
const ONE_BY_ONE: &str = "concurrency = 1\nretry = { attempts = 1 }\n";

/// Deploys a chain of one stage, handles these items one after the other, and tells what each of them gave; null: nothing.
fn each(cluster: &Cluster, task: &str, rest: &str, items: &[&str]) -> Vec<Value> {
    cluster.deploy(&probe_chain("each", &[task], &format!("{ONE_BY_ONE}{rest}")));
    let mut node = cluster.node("a");
    let handle = |item: &&str| {
        cluster.ok(&["feed", "each", item]);
        cluster.ok(&["wait", "each"]);
        json_lines(&cluster.ok(&["pull", "each", "--all"])).first().cloned().unwrap_or(Value::Null)
    };
    let given = items.iter().map(handle).collect();
    // A node that ends has sent its last log lines.
    assert_eq!(node.stop(), Some(0), "{}", node.stderr());
    given
}

#[test]
fn an_item_finds_nothing_of_another_unless_its_stage_says_so() {
    let cluster = Cluster::start();
    assert_eq!(each(&cluster, "remember", "", &["a", "b", "c"]), [1, 1, 1]);
}

#[test]
fn the_instance_of_a_worker_handles_item_after_item_until_one_fails() {
    let cluster = Cluster::start();
    let items = ["a", "b", "trap", "c", "d", "fail", "e"];
    let given = each(&cluster, "remember", "isolation = \"worker\"", &items);
    assert_eq!(json!(given), json!([1, 2, null, 1, 2, null, 1]));
}

#[test]
fn the_instance_of_a_worker_handles_no_more_items_than_it_may() {
    let cluster = Cluster::start();
    let given = each(&cluster, "remember", "isolation = \"worker\"\nreuse = 2", &["a", "b", "c", "d", "e"]);
    assert_eq!(given, [1, 2, 1, 2, 1]);
}

#[test]
fn the_instances_of_a_frame_handle_no_item_of_another() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    for (chain, isolation, most) in [("frame", "frame", 20), ("worker", "worker", 40)] {
        let rest = format!("{ONE_BY_ONE}isolation = \"{isolation}\"");
        cluster.deploy(&probe_chain(chain, &["remember"], &rest));
        for _ in 0..2 {
            client.publish(&format!("pcluster.{chain}.in"), &[], sequence(0..20)).unwrap();
        }
        let _node = cluster.node("a");
        cluster.ok(&["wait", chain]);
        let counts = numbers(&cluster.pull_all(chain));
        assert_eq!(counts.len(), 40);
        assert!(counts.iter().all(|count| (1..=most).contains(count)), "{counts:?}");
    }
}

#[test]
fn many_workers_share_no_instance() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("many", &["remember"], "isolation = \"worker\"\nconcurrency = 8"));
    let _nodes = [cluster.node("a"), cluster.node("b")];
    cluster.run_with_input(&["feed", "many", "--pack-items", "10"], lines(0..1000)).succeeded();
    cluster.ok(&["wait", "many"]);
    let counts = numbers(&cluster.pull_all("many"));
    assert_eq!(counts.len(), 1000);
    // Each instance counts from 1 without a gap, and there are at most eight on each node.
    let ones = counts.iter().filter(|count| **count == 1).count();
    assert!((1..=16).contains(&ones), "{ones} instances");
    let different: BTreeSet<u64> = counts.iter().copied().collect();
    assert_eq!(different.last().copied(), u64::try_from(different.len()).ok());
}

#[test]
fn state_is_made_once_and_every_item_starts_with_it() {
    let cluster = Cluster::start();
    let given = each(&cluster, "count_up", "config = { start = 7 }", &["a", "b", "c"]);
    for (counted, item) in given.iter().zip(["a", "b", "c"]) {
        assert_eq!((&counted["item"], &counted["start"], &counted["seen"]), (&json!(item), &json!(7), &json!(1)));
        assert_eq!(counted["seed"], given[0]["seed"], "drawn once for all");
    }
    let logged = json_lines(&cluster.ok(&["logs", "each", "--no-follow", "--json"]));
    let said: Vec<&Value> = logged.iter().map(|line| &line["message"]).collect();
    assert_eq!(said, ["initialized"]);
}

#[test]
fn the_state_of_a_worker_stays_until_its_instance_is_dropped() {
    let cluster = Cluster::start();
    let given = each(&cluster, "count_up", "isolation = \"worker\"\nreuse = 2", &["a", "b", "c"]);
    let seen: Vec<&Value> = given.iter().map(|counted| &counted["seen"]).collect();
    assert_eq!(seen, [1, 2, 1]);
}

#[test]
fn state_that_cannot_be_made_fails_items_and_nothing_else() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("good", &["echo"], ""));
    let given = each(&cluster, "fail_init", "config = { reason = \"no model\" }", &["a"]);
    assert_eq!(given, [Value::Null]);
    let letters = json_lines(&cluster.ok(&["dead", "ls", "each", "--json"]));
    assert_eq!(
        (&letters[0]["failure"], &letters[0]["reason"]),
        (&json!("error"), &json!("cannot be initialized: no model"))
    );
    let node = cluster.node("b");
    cluster.ok(&["feed", "good", "1"]);
    assert_eq!(cluster.ok(&["pull", "good", "-n", "1"]), "1\n");
    assert!(node.stderr().contains("its state is not made ahead: each instance makes its own"), "{}", node.stderr());
}
