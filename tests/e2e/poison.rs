//! Poison items, which kill their nodes, and items that break the rules of tasks. Their neighbors are not harmed.

use std::collections::{BTreeMap, BTreeSet};

use ciborium::Value;
use support::{Cluster, Message, NatsClient, eventually, json_lines, plugin, recovering, sequence};

/// The item that nodes die of.
const POISON: &str = "echo 1 poison";

/// A message: its id, and its items.
type Fed = (String, Vec<String>);

/// A chain whose only stage obeys its items.
fn chain(name: &str, rest: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"1.0\"\n[[stage]]\nname = \"only\"\nplugin = \"{}\"\ntask = \"obey\"\n{rest}\n",
        plugin("probe")
    )
}

fn text(message: &Message) -> String {
    ciborium::from_reader::<Value, _>(&message.payload[..]).unwrap().into_text().unwrap()
}

fn feed(client: &NatsClient, chain: &str, id: &str, items: &[String]) {
    client.publish(&format!("pcluster.{chain}.in"), &[("Nats-Msg-Id", id)], sequence(items)).unwrap();
}

/// What each item has left: how many results, and letters.
fn left(client: &NatsClient, chain: &str) -> BTreeMap<String, (usize, usize)> {
    let mut left: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for result in client.all_items(&format!("PCLUSTER_{chain}_OUT")) {
        left.entry(text(&result)).or_default().0 += 1;
    }
    for letter in client.all_items(&format!("PCLUSTER_{chain}_DEAD")) {
        left.entry(text(&letter)).or_default().1 += 1;
    }
    left
}

/// Starts node after node, each of which dies when it meets the poison, until all is done. Says how many died.
fn perish(cluster: &Cluster, client: &NatsClient, chain: &str, fault: &str) -> u32 {
    let mut deaths = 0;
    loop {
        let name = format!("victim-{}", deaths + 1);
        let mut node = cluster.spawn(&["node", "--name", &name, "--chain", chain, "--die-at", fault]);
        let died = eventually("the node dies or all is done", || {
            if node.has_ended() {
                return Some(true);
            }
            (client.count(&format!("PCLUSTER_{chain}")) == 0).then_some(false)
        });
        if !died {
            return deaths;
        }
        deaths += 1;
        assert!(deaths < 20, "{chain}: the nodes die on and on");
    }
}

/// Feeds innocents and the poison among them, and asserts that it alone is a dead letter, after exactly its attempts.
fn outlive(cluster: &Cluster, chain_name: &str, attempts: u32, messages: &[Fed], fault: &str, limit: &str) {
    let client = NatsClient::connect(cluster);
    let rest = format!("concurrency = 8\n{limit}\nretry = {{ attempts = {attempts}, backoff = [\"10ms\"] }}");
    let file = cluster.file(&format!("{chain_name}.toml"), recovering(&chain(chain_name, &rest)));
    cluster.ok(&["deploy", file.to_str().unwrap()]);
    for (id, items) in messages {
        feed(&client, chain_name, id, items);
    }
    let deaths = perish(cluster, &client, chain_name, fault);
    let letters = client.all_items(&format!("PCLUSTER_{chain_name}_DEAD"));
    assert_eq!(letters.iter().map(text).collect::<Vec<_>>(), [POISON], "{chain_name}");
    assert_eq!(letters[0].header("Pcluster-Failure"), "node", "{chain_name}");
    assert_eq!(letters[0].header("Pcluster-Attempts"), attempts.to_string(), "{chain_name}");
    assert_eq!(deaths, attempts, "{chain_name}: one node for each attempt");
    let told = json_lines(letters[0].header("Pcluster-History"))[0].as_array().unwrap().clone();
    for (attempt, number) in told.iter().zip(1..) {
        assert_eq!((&attempt["attempt"], &attempt["failure"]), (&number.into(), &"node".into()), "{told:?}");
        assert_eq!(attempt["node"], format!("victim-{number}"), "{chain_name}: {told:?}");
    }
    assert_eq!(told.len(), attempts as usize, "{told:?}");
    let innocents = messages.iter().flat_map(|(_, items)| items).filter(|item| *item != POISON);
    let mut expected: BTreeMap<String, (usize, usize)> = innocents.map(|item| (item.clone(), (1, 0))).collect();
    expected.insert(POISON.to_owned(), (0, 1));
    assert_eq!(left(&client, chain_name), expected, "{chain_name}");
}

#[test]
fn an_item_that_its_nodes_die_of_is_a_dead_letter_after_its_attempts_and_takes_no_other_with_it() {
    let cluster = Cluster::start();
    let innocents =
        |count: u32, of: &str| -> Vec<String> { (0..count).map(|item| format!("echo 1 {of}-{item}")).collect() };
    let frame = || [innocents(7, "before"), vec![POISON.to_owned()], innocents(12, "after")].concat();
    let fed = |id: &str, items: Vec<String>| -> Fed { (id.to_owned(), items) };
    let bad = |items: Vec<String>| vec![fed("bad", items)];
    let beside = |items: Vec<String>| {
        let singles = |of: &str| innocents(150, of).into_iter().map(|item| (item.replace(' ', "-"), vec![item]));
        let mut all: Vec<Fed> = singles("first").collect();
        all.extend([fed("bad", items), fed("many", innocents(50, "many"))]);
        all.extend(singles("second"));
        all
    };
    std::thread::scope(|scope| {
        let run = |name, attempts, messages: Vec<Fed>, fault| {
            let cluster = &cluster;
            let limit = if name == "limited" { "max_in_flight = 4" } else { "" };
            scope.spawn(move || outlive(cluster, name, attempts, &messages, fault, limit));
        };
        run("limited", 3, bad(frame()), "ran@bad#7");
        run("alone", 3, bad(vec![POISON.to_owned()]), "ran@bad");
        run("frame", 5, bad(frame()), "ran@bad#7");
        run("few", 2, bad(frame()), "ran@bad#7");
        run("beside", 5, beside(vec![POISON.to_owned()]), "ran@bad");
        run("among", 3, beside(frame()), "ran@bad#7");
    });
}

#[test]
fn an_item_whose_nodes_died_before_it_ran_is_not_given_up_before_it_has_run_alone() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    // Of a single attempt, nobody can say that it has not been used.
    for (name, attempts) in [("early", 3), ("single", 1)] {
        let manifest = chain(name, &format!("retry = {{ attempts = {attempts}, backoff = [\"10ms\"] }}"));
        cluster.deploy(&recovering(&manifest));
        feed(&client, name, "bad", &[POISON.to_owned()]);
        for _ in 0..=attempts {
            let mut node = cluster.spawn(&["node", "--name", "victim", "--chain", name, "--die-at", "received@bad"]);
            assert_eq!(node.ended(), None, "{}", node.stderr());
        }
    }
    let _node = cluster.node("heir");
    for name in ["early", "single"] {
        cluster.ok(&["wait", name]);
    }
    assert_eq!(left(&client, "early"), BTreeMap::from([(POISON.to_owned(), (1, 0))]));
    assert_eq!(left(&client, "single"), BTreeMap::from([(POISON.to_owned(), (0, 1))]));
    let letter = &client.all_items("PCLUSTER_single_DEAD")[0];
    assert_eq!((letter.header("Pcluster-Failure"), letter.header("Pcluster-Attempts")), ("node", "1"));
    let told = json_lines(letter.header("Pcluster-History"))[0].as_array().unwrap().clone();
    assert!(told.iter().all(|attempt| attempt["failure"] == "node" && attempt["node"] == "victim"), "{told:?}");
}

#[test]
fn items_that_do_what_a_task_may_not_neither_stop_nor_repeat_their_neighbors() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let limits = "timeout = \"1s\"\nmemory = \"16MiB\"\nretry = { attempts = 2, backoff = [\"10ms\"] }";
    cluster.deploy(&chain("bad", limits));
    let mut node = cluster.node("a");
    let bad = [("trap", "trap"), ("spin", "timeout"), ("allocate", "memory"), ("fail", "error"), ("fatal", "error")];
    let mut items: Vec<Value> = Vec::new();
    for (order, _) in bad {
        items.push(format!("echo 1 before-{}", order.replace(' ', "-")).into());
        items.push(order.into());
    }
    // No text: the task cannot read it.
    items.extend([Value::from(7), "echo 1 last".into()]);
    client.publish("pcluster.bad.in", &[], sequence(&items)).unwrap();
    cluster.ok(&["wait", "bad"]);

    let kind = |letter: &Message| (letter.item(), letter.header("Pcluster-Failure").to_owned());
    let letters: Vec<(Value, String)> = client.all_items("PCLUSTER_bad_DEAD").iter().map(kind).collect();
    for (order, failure) in bad {
        assert!(letters.contains(&(order.into(), failure.to_owned())), "{order}: {letters:?}");
    }
    assert!(letters.contains(&(7.into(), "error".to_owned())), "{letters:?}");
    assert_eq!(letters.len(), bad.len() + 1, "{letters:?}");

    let mut neighbors: Vec<String> = client.all_items("PCLUSTER_bad_OUT").iter().map(text).collect();
    neighbors.sort();
    let echoes = items.iter().filter_map(Value::as_text).filter(|text| text.starts_with("echo"));
    let mut expected: Vec<String> = echoes.map(str::to_owned).collect();
    expected.sort();
    assert_eq!(neighbors, expected);
    assert_eq!(node.stop(), Some(0));
    assert_runs_once(&cluster, "bad", &expected);
}

/// Asserts that these items ran once, by what they logged.
#[track_caller]
fn assert_runs_once(cluster: &Cluster, chain: &str, items: &[String]) {
    let lines = cluster.ok(&["logs", chain, "--no-follow"]);
    let mut runs: Vec<&str> = lines.lines().filter_map(|line| line.split(": runs ").nth(1)).collect();
    runs.retain(|run| items.iter().any(|item| item == run));
    runs.sort_unstable();
    assert_eq!(runs, items, "{chain}");
}

#[test]
fn an_item_that_gives_without_end_is_stopped_and_its_neighbors_come_out_once() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&chain("endless", "retry = { attempts = 2, backoff = [\"10ms\"] }"));
    let mut node = cluster.node("a");
    let neighbors: Vec<String> = ["echo 1 after", "echo 1 before"].map(str::to_owned).into();
    let items = [&neighbors[1], "repeat 10000000", &neighbors[0]];
    client.publish("pcluster.endless.in", &[], sequence(items)).unwrap();
    cluster.ok(&["wait", "endless"]);

    let letters = client.all_items("PCLUSTER_endless_DEAD");
    assert_eq!(letters.iter().map(text).collect::<Vec<_>>(), ["repeat 10000000"]);
    assert_eq!(letters[0].header("Pcluster-Failure"), "output");
    assert_eq!(letters[0].header("Pcluster-Reason"), "more than 1000000 outputs from one item");
    // What it had given out before has gone on, and what it gave at the second attempt was dropped.
    let (theirs, its): (Vec<String>, Vec<String>) =
        client.all_items("PCLUSTER_endless_OUT").iter().map(text).partition(|text| text.starts_with("echo"));
    assert_eq!(theirs.iter().collect::<BTreeSet<_>>(), neighbors.iter().collect::<BTreeSet<_>>());
    assert_eq!(theirs.len(), neighbors.len());
    assert!((900_000..=1_000_000).contains(&its.len()), "{}", its.len());
    assert_eq!(node.stop(), Some(0));
    assert_runs_once(&cluster, "endless", &neighbors);
}
