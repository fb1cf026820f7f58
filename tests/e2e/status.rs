//! `status`: its counts are exact, and unknown counts are shown as unknown.

use std::time::Duration;

use serde_json::{Value, json};
use support::{Cluster, DEADLINE, NatsClient, eventually, lines, probe_chain};

/// How late a node answers: longer than the others are waited for, where nobody knows of more.
const LATE: Duration = Duration::from_millis(600);

/// The counts of the only stage of the chain `counted`.
fn done(cluster: &Cluster) -> (Value, Value) {
    let stage = cluster.status("counted")["revisions"][0]["stages"][0].clone();
    (stage["done"].clone(), stage["failed"].clone())
}

#[test]
fn what_is_done_is_counted_exactly_after_many_deploys_and_while_counters_cannot_be_stored() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("counted", &["obey"], "retry = { attempts = 1 }"));
    // As a thousand deploys before would have left behind.
    for revision in 1_000..1_600 {
        for what in ["done", "failed"] {
            let subject = format!("pcluster.counted.count.{revision}.obey.{what}");
            client.publish(&subject, &[("Nats-Incr", "+1")], "").unwrap();
        }
    }
    let node = cluster.node("a");
    let mut fed = 0;
    for _ in 0..3 {
        cluster
            .run_with_input(&["feed", "counted"], lines(["a", "b", "fatal", "c"].map(|item| json!(item))))
            .succeeded();
        cluster.ok(&["wait", "counted"]);
        fed += 4;
        // Never too few: what the node has not sent within a second is not known.
        let counted = eventually("the node has sent what it has counted", || {
            Some(done(&cluster)).filter(|counted| *counted != (Value::Null, Value::Null))
        });
        assert_eq!(counted, (json!(fed), json!(fed / 4)));
    }

    // What cannot be stored at the moment is counted later, once.
    client.with(async |jetstream| jetstream.delete_stream("PCLUSTER_COUNT").await.unwrap());
    cluster.run_with_input(&["feed", "counted"], lines(["d", "e"].map(|item| json!(item)))).succeeded();
    cluster.ok(&["wait", "counted"]);
    assert_eq!(done(&cluster), (Value::Null, Value::Null), "nobody knows");
    assert!(cluster.ok(&["status", "counted"]).contains(" - "), "{}", cluster.ok(&["status", "counted"]));
    cluster.deploy(&probe_chain("other", &["echo"], ""));
    eventually("the counts are there", || (done(&cluster) == (json!(2), json!(0))).then_some(()));

    // A node that does not answer is not one that is not there.
    node.signal("STOP");
    let status = cluster.status("counted");
    assert_eq!((&status["nodes"], &status["revisions"][0]["stages"][0]["running"]), (&Value::Null, &Value::Null));
    let run = cluster.run(&["status", "counted"]).failed(0, "node a is connected and does not answer");
    assert!(run.stdout.contains("nodes do not answer"), "{}", run.stdout);
    assert_eq!(cluster.run(&["nodes", "--json"]).failed(0, "a is connected and does not answer").stdout, "[]\n");

    // Nor do those that answer stand for all.
    let other = cluster.node("b");
    let status = cluster.status("counted");
    let stage = &status["revisions"][0]["stages"][0];
    assert_eq!((&status["nodes"], &status["silent_nodes"]), (&json!(1), &json!(["a"])));
    assert_eq!([&stage["running"], &stage["done"], &stage["failed"], &stage["rate"]], [&Value::Null; 4]);
    let run = cluster.run(&["status", "counted"]).failed(0, "node a is connected and does not answer");
    assert!(run.stdout.contains(", 1 node and 1 that does not answer, "), "{}", run.stdout);
    node.signal("CONT");
    let is_known = |status: &Value| status["nodes"] == 2 && status["silent_nodes"] == json!([]);
    cluster.until("counted", "it answers again", is_known);

    // One that takes its time to answer is waited for.
    eventually("a late answer counts", || {
        let asked = client.first_reply("$SRV.STATS.pcluster-node");
        other.signal("STOP");
        let mut status = cluster.spawn(&["status", "counted", "--json"]);
        asked.recv_timeout(DEADLINE).unwrap();
        std::thread::sleep(LATE);
        other.signal("CONT");
        assert_eq!(status.ended(), Some(0), "{}", status.stderr());
        is_known(&serde_json::from_str(&status.stdout()).unwrap()).then_some(())
    });

    // The counters of revisions that never come back go with them.
    cluster.ok(&["reset", "counted"]);
    cluster.ok(&["feed", "counted", "g"]);
    assert_eq!(cluster.pull_all("counted").len(), 9 + 2 + 1);
    eventually("old counters are gone", || {
        let left = client.by_subject("PCLUSTER_COUNT");
        left.keys().all(|subject| !subject.starts_with("pcluster.counted.count.1.")).then_some(())
    });
}
