//! Nodes that are paused until other nodes get their items, and then wake up. No item counts twice, whatever both nodes store.

use std::time::{Duration, Instant};

use ciborium::Value;
use serde_json::json;
use support::{Cluster, NatsClient, Process, eventually, probe_chain, recovering, sequence};

use crate::deaths::assert_drawn_once;

/// Other nodes give items up for a node that is silent for 15 seconds, if no attempt is left. A slow machine may take longer to
/// hand out again what a node had in hand, so no pause is longer than this.
const PAUSE_MAX: Duration = Duration::from_secs(7);

/// Pauses a node until the server has handed out again what it had in hand of each chain that is not done.
fn pause(client: &NatsClient, node: &Process, chains: &[&str]) {
    let again = |chain: &str| client.handed_out_again(&format!("PCLUSTER_{chain}"));
    let before: Vec<u64> = chains.iter().map(|chain| again(chain)).collect();
    node.signal("STOP");
    let paused = Instant::now();
    for (chain, before) in chains.iter().zip(before) {
        eventually(&format!("items of {chain} are handed out again"), || {
            let is_done = || client.count(&format!("PCLUSTER_{chain}")) == 0;
            (paused.elapsed() >= PAUSE_MAX || again(chain) > before || is_done()).then_some(())
        });
    }
    node.signal("CONT");
}

/// The texts of a stream's items, sorted.
fn texts(client: &NatsClient, stream: &str) -> Vec<String> {
    let text = |item: Value| item.into_text().unwrap();
    let mut texts: Vec<String> = client.all_items(stream).iter().map(|message| text(message.item())).collect();
    texts.sort();
    texts
}

#[test]
fn what_a_paused_node_had_in_hand_is_done_once_though_it_goes_on_when_it_wakes_up() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let chain = |attempts: u32, stages: [&'static str; 2]| (format!("{}-{attempts}", stages[0]), attempts, stages);
    let chains: Vec<_> = [1, 2, 5]
        .into_iter()
        .flat_map(|attempts| [chain(attempts, ["obey", "echo"]), chain(attempts, ["echo", "obey"])])
        .collect();
    for (name, attempts, stages) in &chains {
        let rest = format!("concurrency = 4\nretry = {{ attempts = {attempts}, backoff = [\"10ms\"] }}");
        cluster.deploy(&recovering(&probe_chain(name, stages, &rest)));
    }
    let first = cluster.node("first");
    // Quick items first, so that the node holds many frames that wait for their turn when the slow ones come.
    let mut expected = Vec::new();
    for (name, ..) in &chains {
        client.publish(&format!("pcluster.{name}.in"), &[], sequence(["quick"; 200])).unwrap();
    }
    for (name, ..) in &chains {
        cluster.ok(&["wait", name]);
    }
    for message in 0..30 {
        let items: Vec<String> =
            (0..if message % 3 == 0 { 4 } else { 1 }).map(|item| format!("sleep 400 {message}-{item}")).collect();
        for (name, ..) in &chains {
            client.publish(&format!("pcluster.{name}.in"), &[], sequence(&items)).unwrap();
        }
        expected.extend(items);
    }
    expected.sort();
    for (name, ..) in &chains {
        cluster.until(name, "some run, unless all did", |status| {
            let stages = status["revisions"][0]["stages"].as_array().unwrap();
            let is_done = client.count(&format!("PCLUSTER_{name}")) == 0;
            is_done || stages.iter().any(|stage| stage["running"].as_u64() >= Some(2))
        });
    }
    let names: Vec<&str> = chains.iter().map(|(name, ..)| name.as_str()).collect();
    let _second = cluster.node("second");
    pause(&client, &first, &names);
    for (name, ..) in &chains {
        cluster.ok(&["wait", name]);
        let (results, letters) = (format!("PCLUSTER_{name}_OUT"), format!("PCLUSTER_{name}_DEAD"));
        let mut all = texts(&client, &results);
        all.retain(|text| text != "quick");
        assert_eq!(texts(&client, &letters), Vec::<String>::new(), "{name}: the node lives");
        assert_eq!(all, expected, "{name}");
    }
}

#[test]
fn two_nodes_that_draw_different_lots_for_an_item_leave_one_of_the_two() {
    const CHANCES: &str = "config = { millis = 30, fail = 20, fatal = 10, outputs = 4 }\nconcurrency = 8\n\
        retry = { attempts = 30, backoff = [\"10ms\"] }";
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let chains = [("early", ["draw", "echo"]), ("late", ["echo", "draw"])];
    for (chain, stages) in chains {
        cluster.deploy(&recovering(&probe_chain(chain, &stages, CHANCES)));
        for first in (0..3_000).step_by(10) {
            if first % 20 == 0 {
                for item in first..first + 10 {
                    client.publish(&format!("pcluster.{chain}.in"), &[], sequence([item])).unwrap();
                }
            } else {
                client.publish(&format!("pcluster.{chain}.in"), &[], sequence(first..first + 10)).unwrap();
            }
        }
    }
    let nodes = [cluster.node("a"), cluster.node("b")];
    for turn in 0..6 {
        pause(&client, &nodes[turn % 2], &chains.map(|(chain, _)| chain));
    }
    for (chain, _) in chains {
        cluster.ok(&["wait", chain]);
        assert_drawn_once(&client, chain, 3_000);
        assert_eq!(cluster.status(chain)["revisions"][0]["stages"][0]["queued_messages"], json!(0));
    }
}
