//! Nodes that die at each point of a frame's way, in a middle stage and in the last. Each fed item gives its results once, or one
//! dead letter.

use std::collections::BTreeMap;

use ciborium::Value;
use serde_json::json;
use support::{Cluster, NatsClient, Process, eventually, probe_chain, recovering, sequence};

/// More attempts than nodes die here: a slow one may leave an item of a case before to the next, which dies of its own.
const PATIENT: &str = "retry = { attempts = 200, backoff = [\"10ms\"] }";

/// A node that serves one chain and kills itself there.
fn doomed(cluster: &Cluster, chain: &str, fault: &str) -> Process {
    cluster.spawn(&["node", "--name", "doomed", "--chain", chain, "--die-at", fault])
}

/// What is fed: an id, its items, and where the node that gets it dies.
struct Case {
    id: String,
    items: Vec<String>,
    point: &'static str,
    /// When it passes the point for this many times, counted from 1 in the stage that `obey` is.
    times: usize,
}

/// Points to die at, and for which time.
type Points = Vec<(&'static str, usize)>;

/// All cases of a stage. A frame that fails comes by most points a second time.
fn cases(is_last: bool) -> Vec<Case> {
    const ONCE: [(&str, usize); 4] = [("received", 1), ("ran", 1), ("stored", 1), ("acknowledged", 1)];
    const AGAIN: [(&str, usize); 4] = [("received", 2), ("ran", 2), ("stored", 2), ("acknowledged", 2)];
    const BURIED: [(&str, usize); 3] = [("received", 2), ("stored", 2), ("acknowledged", 2)];
    const CLAIMED: (&str, usize) = ("claimed", 1);
    const STREAMED: (&str, usize) = ("streamed", 1);
    let claimed = is_last.then_some(CLAIMED);
    let all = |more: &[(&'static str, usize)]| [&ONCE, more].concat();
    let failing = |more: &[(&'static str, usize)]| [&ONCE[..], more, claimed.as_slice()].concat();
    let table: [(&[&str], Points); 9] = [
        (&["echo"], all(&[])),
        (&["wide 12"], all(&[])),
        (&["flaky 1"], failing(&AGAIN)),
        (&["fatal"], failing(&BURIED)),
        (&["echo", "echo", "echo"], all(&[])),
        (&["flaky 1", "flaky 1", "flaky 1"], failing(&[])),
        (&["repeat 3", "echo", "flaky 1", "fatal", "wide 12", "echo"], failing(&AGAIN)),
        (&["wide 150"], vec![STREAMED, ("streamed", 2), ("stored", 1)]),
        (&["echo", "wide 150", "fatal"], vec![STREAMED, ("stored", 2)]),
    ];
    let mut cases = Vec::new();
    for (row, (orders, points)) in table.into_iter().enumerate() {
        for (point, times) in points {
            let id = format!("{row}-{point}-{times}");
            let items = orders.iter().zip(0..).map(|(order, place)| format!("{order} 1 {id}-{place}"));
            // A verb without a number would take the place of the item for one.
            cases.push(Case { items: items.collect(), id, point, times });
        }
    }
    cases
}

/// The results and the dead letters that items must leave.
fn expected(cases: &[Case]) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
    let (mut results, mut letters) = (BTreeMap::new(), BTreeMap::new());
    for item in cases.iter().flat_map(|case| &case.items) {
        let mut words = item.split(' ');
        let (verb, number) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
        match verb {
            "fatal" => letters.insert(item.clone(), 1),
            "repeat" | "wide" => results.insert(item.clone(), number),
            _ => results.insert(item.clone(), 1),
        };
    }
    (results, letters)
}

/// How often each text is among the items of a stream; what makes some of them long is left out.
fn counted(client: &NatsClient, stream: &str) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for message in client.all_items(stream) {
        let Value::Text(text) = message.item() else { panic!("no text: {:?}", message.payload) };
        let text = text.split(" xxx").next().unwrap_or_default().to_owned();
        *counted.entry(text).or_default() += 1;
    }
    counted
}

/// Feeds each case and lets a node die with it, and then another finish all.
fn die_everywhere(chain: &str, stages: [&str; 2], cases: &[Case]) {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&recovering(&probe_chain(chain, &stages, PATIENT)));
    let before = usize::from(stages[1] == "obey");
    for Case { id, items, point, times } in cases {
        client.publish(&format!("pcluster.{chain}.in"), &[("Nats-Msg-Id", id)], sequence(items)).unwrap();
        // A stage before has the frame pass all but two points once.
        let times = if ["claimed", "streamed"].contains(point) { *times } else { times + before };
        let mut node = doomed(&cluster, chain, &format!("{point}:{times}@{id}"));
        assert_eq!(node.ended(), None, "{id}: it did not die\n{}", node.stderr());
    }
    let _node = cluster.node("heir");
    cluster.ok(&["wait", chain]);
    assert_eq!(client.count(&format!("PCLUSTER_{chain}")), 0);
    let (results, letters) = expected(cases);
    assert_eq!(counted(&client, &format!("PCLUSTER_{chain}_DEAD")), letters);
    assert_eq!(counted(&client, &format!("PCLUSTER_{chain}_OUT")), results);
}

#[test]
fn wherever_a_node_dies_in_a_middle_stage_every_item_comes_out_once() {
    die_everywhere("middle", ["obey", "echo"], &cases(false));
}

#[test]
fn wherever_a_node_dies_in_the_last_stage_every_item_comes_out_once() {
    die_everywhere("last", ["echo", "obey"], &cases(true));
}

#[test]
fn a_node_that_dies_while_it_gives_its_items_back_loses_none() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    for chain in ["given", "dropped"] {
        let stages = if chain == "given" { &["obey", "echo"][..] } else { &["echo", "obey"] };
        cluster.deploy(&recovering(&probe_chain(chain, stages, "concurrency = 40")));
        for number in 0..40 {
            let item = sequence([format!("sleep 1500 {number}")]);
            client.publish(&format!("pcluster.{chain}.in"), &[], item).unwrap();
        }
        // The stage before stores forty frames.
        let fault = if chain == "given" { "stored:10" } else { "stored:50" };
        let mut node = cluster.node_with("doomed", &["--chain", chain, "--die-at", fault, "--grace", "10ms"]);
        eventually("all run, or it has died of what the first have given", || {
            let status = cluster.status(chain);
            let stages = status["revisions"][0]["stages"].as_array().unwrap();
            (node.has_ended() || stages.iter().any(|stage| stage["running"] == 40)).then_some(())
        });
        assert_eq!(node.stop(), None, "{}", node.stderr());
    }
    let _node = cluster.node("heir");
    for chain in ["given", "dropped"] {
        cluster.ok(&["wait", chain]);
        let expected = (0..40).map(|number| (format!("sleep 1500 {number}"), 1)).collect();
        assert_eq!(counted(&client, &format!("PCLUSTER_{chain}_OUT")), expected, "{chain}");
        assert_eq!(client.count(&format!("PCLUSTER_{chain}_DEAD")), 0, "{chain}");
    }
}

/// Asserts that each item from 0 on has left all outputs of one execution of `draw`, or one dead letter.
#[track_caller]
pub fn assert_drawn_once(client: &NatsClient, chain: &str, items: u64) {
    let mut outcomes: BTreeMap<u64, Vec<String>> = (0..items).map(|item| (item, Vec::new())).collect();
    let mut numbers: BTreeMap<(u64, String), Vec<u64>> = BTreeMap::new();
    let mut of = BTreeMap::new();
    for message in client.all_items(&format!("PCLUSTER_{chain}_OUT")) {
        let output: serde_json::Value = ciborium::from_reader(&message.payload[..]).unwrap();
        let (item, run) = (output["item"].as_u64().unwrap(), output["run"].as_str().unwrap().to_owned());
        of.insert(run.clone(), output["of"].as_u64().unwrap());
        numbers.entry((item, run)).or_default().push(output["number"].as_u64().unwrap());
    }
    for ((item, run), mut numbers) in numbers {
        numbers.sort_unstable();
        assert_eq!(numbers, (0..of[&run]).collect::<Vec<_>>(), "{chain}: the outputs of one execution of {item}");
        outcomes.get_mut(&item).unwrap().push(format!("run {run}"));
    }
    for letter in client.all_items(&format!("PCLUSTER_{chain}_DEAD")) {
        let item: u64 = ciborium::from_reader(&letter.payload[..]).unwrap();
        outcomes.get_mut(&item).unwrap().push(format!("letter: {}", letter.header("Pcluster-Reason")));
    }
    let wrong: Vec<_> = outcomes.iter().filter(|(_, outcomes)| outcomes.len() != 1).collect();
    assert!(wrong.is_empty(), "{chain}: {wrong:?}");
}

#[test]
fn an_item_whose_task_leaves_all_to_chance_leaves_what_one_execution_gave() {
    const CHANCES: &str = "config = { fail = 20, fatal = 10, outputs = 4 }\n\
        retry = { attempts = 30, backoff = [\"10ms\"] }";
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let chains = [("early", ["draw", "echo"]), ("late", ["echo", "draw"])];
    for (chain, stages) in chains {
        cluster.deploy(&recovering(&probe_chain(chain, &stages, CHANCES)));
        for first in (0..300).step_by(10) {
            // Alone, and ten in one message.
            if first % 20 == 0 {
                for item in first..first + 10 {
                    client.publish(&format!("pcluster.{chain}.in"), &[], sequence([item])).unwrap();
                }
            } else {
                client.publish(&format!("pcluster.{chain}.in"), &[], sequence(first..first + 10)).unwrap();
            }
        }
    }
    for (chain, _) in chains {
        for fault in ["ran:40", "stored:60", "acknowledged:50", "stored:30", "received:30", "ran:9", "stored:5"] {
            let mut node = doomed(&cluster, chain, fault);
            assert_eq!(node.ended(), None, "{chain}: it did not die at {fault}\n{}", node.stderr());
        }
    }
    let mut node = doomed(&cluster, "late", "claimed");
    eventually("it dies or is done", || {
        (node.has_ended() || cluster.status("late")["revisions"][0]["stages"][1]["queued_messages"] == json!(0))
            .then_some(())
    });
    let _node = cluster.node("heir");
    for (chain, _) in chains {
        cluster.ok(&["wait", chain]);
        assert_drawn_once(&client, chain, 300);
    }
}
