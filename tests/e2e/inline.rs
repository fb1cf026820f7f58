//! Inline stages: a chain gives the same results with and without them.

use serde_json::{Value, json};
use support::{Cluster, NatsClient, eventually, json_lines, lines, plugin, sequence};

/// A chain of stages of the probe plugin, with queues between them or inline.
fn chain(name: &str, inline: bool, stages: &[(&str, &str)]) -> String {
    let mut manifest = format!("name = \"{name}\"\nversion = \"1.0\"\n");
    for (position, (task, rest)) in stages.iter().enumerate() {
        let inline = if inline && position > 0 { "inline = true\n" } else { "" };
        let plugin = plugin("probe");
        manifest += &format!("[[stage]]\nname = \"{task}\"\nplugin = \"{plugin}\"\n{rest}\n{inline}");
    }
    manifest
}

/// Deploys the chain both ways, as `queued` and `inline`.
fn both(cluster: &Cluster, stages: &[(&str, &str)]) {
    for (name, inline) in [("queued", false), ("inline", true)] {
        cluster.deploy(&chain(name, inline, stages));
    }
}

/// The results with the ids they were fed under, sorted.
fn results(cluster: &Cluster, name: &str) -> Vec<String> {
    let pulled = json_lines(&cluster.ok(&["pull", name, "--all", "--meta"]));
    let mut results: Vec<String> = pulled.iter().map(|result| format!("{} {}", result["id"], result["item"])).collect();
    results.sort();
    results
}

#[test]
fn inline_stages_give_what_stages_with_queues_give() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    both(&cluster, &[("repeat", "config = { times = 3 }"), ("drop_odd", ""), ("echo", "")]);
    let _nodes = [cluster.node("a"), cluster.node("b")];
    for name in ["queued", "inline"] {
        cluster.run_with_input(&["feed", name, "--id", "n"], lines(0..100)).succeeded();
    }
    let (queued, inline) = (results(&cluster, "queued"), results(&cluster, "inline"));
    assert_eq!(queued.len(), 150);
    assert_eq!(inline, queued);
    // One hop has three consumers; three hops have nine.
    assert_eq!(client.consumers("PCLUSTER_inline"), ["r1-alone_repeat", "r1-retry_repeat", "r1_repeat"]);
    assert_eq!(client.consumers("PCLUSTER_queued").len(), 9);
    for name in ["queued", "inline"] {
        let done = |status: &Value| {
            let stages = status["revisions"][0]["stages"].as_array().unwrap().clone();
            stages.iter().map(|stage| stage["done"].as_u64()).eq([100, 300, 150].map(Some))
        };
        cluster.until(name, "each stage has its own counts", done);
        assert_eq!(client.count(&format!("PCLUSTER_{name}")), 0);
    }
}

#[test]
fn an_item_fails_as_a_whole_and_its_letter_can_be_retried() {
    let cluster = Cluster::start();
    let once = "retry = { attempts = 2, backoff = [\"10ms\"] }";
    cluster.deploy(&chain(
        "inline",
        true,
        &[("repeat", &format!("config = {{ times = 2 }}\n{once}")), ("drop_odd", "")],
    ));
    let _node = cluster.node("a");
    cluster.ok(&["feed", "inline", "2", "\"no number\"", "4"]);
    cluster.ok(&["wait", "inline"]);
    let mut numbers: Vec<u64> = cluster.pull_all("inline").iter().map(|result| result.as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 2, 4, 4]);
    let letters = json_lines(&cluster.ok(&["dead", "ls", "inline", "--json"]));
    assert_eq!(letters.len(), 1);
    // The letter is of the stage with the queue, and holds what that got.
    assert_eq!((&letters[0]["stage"], &letters[0]["item"]), (&json!("repeat"), &json!("no number")));
    let reason = letters[0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("inline stage `drop_odd`: "), "{reason}");

    let mended = chain("inline", true, &[("repeat", "config = { times = 2 }"), ("echo", "")]).replace("1.0", "1.1");
    cluster.deploy(&mended);
    assert_eq!(cluster.ok(&["dead", "retry", "inline", "--all", "--active"]), "1 dead letter retried\n");
    assert_eq!(cluster.pull_all("inline"), ["no number", "no number"]);
}

#[test]
fn every_failure_of_an_inline_stage_is_an_attempt_of_the_whole() {
    let cluster = Cluster::start();
    let retry = "retry = { attempts = 3, backoff = [\"10ms\"] }";
    both(&cluster, &[("echo", retry), ("flaky", "config = { failures = 2 }")]);
    let _node = cluster.node("a");
    for (name, more) in [("queued", "the other stage has its own"), ("inline", "attempts")] {
        cluster.ok(&["feed", name, "1", "2", "3"]);
        let mut pulled = cluster.pull_all(name);
        pulled.sort_by_key(Value::to_string);
        assert_eq!(pulled, [1, 2, 3], "{name}: {more}");
    }
    eventually("no dead letter", || (cluster.status("inline")["dead"] == 0).then_some(()));
}

#[test]
fn what_an_inline_stage_logs_is_its_own() {
    let cluster = Cluster::start();
    cluster.deploy(&chain("inline", true, &[("echo", ""), ("print", "")]));
    let _node = cluster.node("a");
    cluster.ok(&["feed", "inline", "\"said\""]);
    cluster.ok(&["wait", "inline"]);
    let found = eventually("the line is kept", || {
        let lines = json_lines(&cluster.ok(&["logs", "inline", "--stage", "print", "--no-follow", "--json"]));
        lines.first().cloned()
    });
    assert_eq!(found["stage"], "print");
}

#[test]
fn items_that_travel_together_give_what_each_gives_by_itself() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    // `obey` does what its item says: many outputs, one too large to be beside others, none, or a failure.
    let orders: Vec<String> = (0..40)
        .map(|number| match number % 8 {
            0 => format!("repeat 3 {number}"),
            1 => format!("fail {number}"),
            2 => format!("trap {number}"),
            3 if number == 3 => format!("wide 80 {number}"),
            _ => format!("plain {number}"),
        })
        .collect();
    for isolation in ["item", "frame", "worker"] {
        let rest = format!("isolation = \"{isolation}\"\n");
        let (once, twice) =
            (format!("{rest}retry = {{ attempts = 1 }}\n"), format!("{rest}config = {{ times = 2 }}\n"));
        let stages = [("repeat", format!("{twice}retry = {{ attempts = 1 }}\n")), ("obey", once), ("echo", rest)];
        let chain_of = |name: &str, inline: bool| {
            let stages: Vec<(&str, String)> = stages
                .iter()
                // What belongs to a queue cannot be said of a stage that has none.
                .map(|(task, rest)| match *task {
                    "obey" if inline => (*task, rest.replace("retry = { attempts = 1 }\n", "")),
                    _ => (*task, rest.clone()),
                })
                .collect();
            let stages: Vec<(&str, &str)> = stages.iter().map(|(task, rest)| (*task, rest.as_str())).collect();
            chain(name, inline, &stages)
        };
        let names = [format!("queued-{isolation}"), format!("inline-{isolation}")];
        for (name, inline) in [(&names[0], false), (&names[1], true)] {
            cluster.deploy(&chain_of(name, inline));
            client.publish(&format!("pcluster.{name}.in"), &[("Pcluster-Id", "n")], sequence(&orders)).unwrap();
        }
        let _nodes = [cluster.node("a"), cluster.node("b")];
        let all = names.each_ref().map(|name| {
            cluster.ok(&["wait", name]);
            results(&cluster, name)
        });
        assert!(all[0].len() > 80, "{} results", all[0].len());
        assert_eq!(all[1], all[0], "{isolation}");
        let letters = names.each_ref().map(|name| {
            let letters = json_lines(&cluster.ok(&["dead", "ls", name, "--json"]));
            let mut items: Vec<String> = letters.iter().map(|letter| letter["item"].to_string()).collect();
            items.sort();
            // With queues, both copies of an item fail.
            items.dedup();
            items
        });
        assert_eq!(letters[0].len(), 10);
        assert_eq!(letters[1], letters[0], "{isolation}");
    }
}

#[test]
fn generators_in_a_row_pass_their_outputs_on_while_they_run() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    both(&cluster, &[("obey", ""), ("repeat", "config = { times = 6 }"), ("env", "")]);
    let _node = cluster.node_with("a", &["--instances", "3"]);
    for name in ["queued", "inline"] {
        // Six outputs of 864 KiB each are more than a stage may gather.
        let item = format!("wide 6 {}", "y".repeat(800 << 10));
        client.publish(&format!("pcluster.{name}.in"), &[("Pcluster-Id", "n")], sequence([item])).unwrap();
        cluster.ok(&["wait", name]);
    }
    let (queued, inline) = (results(&cluster, "queued"), results(&cluster, "inline"));
    assert_eq!(inline.len(), 36);
    assert_eq!(inline, queued);
}
