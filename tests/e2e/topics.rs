//! Topics: what is fed with a topic and all that comes of it belongs to it, and each puller gets its own.

use serde_json::{Value, json};
use support::{Cluster, NatsClient, Process, RawClient, eventually, json_lines, lines, numbers, plugin, probe_chain};

/// A chain of probe tasks with a node that serves it.
fn served(name: &str, tasks: &[&str], rest: &str) -> (Cluster, NatsClient, Process) {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain(name, tasks, rest));
    let node = cluster.node("a");
    (cluster, client, node)
}

/// What follows `out` in the subjects of the results of a chain.
fn subjects(client: &NatsClient, chain: &str) -> Vec<String> {
    let subjects = client.by_subject(&format!("PCLUSTER_{chain}_OUT")).into_keys();
    subjects.filter_map(|subject| Some(subject.strip_prefix(&format!("pcluster.{chain}.out"))?.to_owned())).collect()
}

/// The numbers that a pull prints until nothing is left to take.
fn pulled(cluster: &Cluster, arguments: &[&str]) -> Vec<u64> {
    numbers(&json_lines(&cluster.ok(&[&["pull"], arguments, &["--all"]].concat())))
}

#[test]
fn each_topic_and_the_plain_pull_get_each_result_once() {
    let (cluster, client, _node) = served("shared", &["repeat", "echo"], "config = { times = 2 }");
    let feed = |topic: &[&str], numbers| {
        cluster.run_with_input(&[&["feed", "shared"], topic].concat(), lines(numbers)).succeeded();
    };
    feed(&["--topic", "ada"], 0..300);
    feed(&["--topic", "bob-2"], 300..400);
    feed(&[], 400..450);
    cluster.ok(&["wait", "shared"]);
    let twice = |numbers: std::ops::Range<u64>| numbers.flat_map(|number| [number, number]).collect::<Vec<_>>();
    assert_eq!(pulled(&cluster, &["shared", "--topic", "ada"]), twice(0..300));
    assert_eq!(pulled(&cluster, &["shared", "--topic", "nobody"]), [0_u64; 0]);
    // Neither takes anything from the other.
    assert_eq!(pulled(&cluster, &["shared"]), twice(0..450));
    assert_eq!(pulled(&cluster, &["shared"]), [0_u64; 0]);
    assert_eq!(pulled(&cluster, &["shared", "--topic", "bob-2"]), twice(300..400));
    assert_eq!(pulled(&cluster, &["shared", "--topic", "ada"]), [0_u64; 0]);
    // Results that come later go to both too.
    feed(&["--topic", "ada"], 500..501);
    cluster.ok(&["wait", "shared", "--topic", "ada"]);
    assert_eq!(pulled(&cluster, &["shared", "--topic", "ada"]), [500, 500]);
    assert_eq!(pulled(&cluster, &["shared"]), [500, 500]);
    let watched = json_lines(&cluster.ok(&["watch", "shared", "--all", "--topic", "bob-2", "-n", "200"]));
    assert_eq!(numbers(&watched), twice(300..400));
    let all = json_lines(&cluster.ok(&["watch", "shared", "--all", "-n", "902"]));
    assert_eq!(all.len(), 902);
    assert_eq!(subjects(&client, "shared"), ["", ".ada", ".bob-2"]);
    let topics: Value = serde_json::from_str(&cluster.ok(&["status", "shared", "--topics", "--json"])).unwrap();
    let topics: Vec<&String> = topics.as_object().unwrap().keys().collect();
    assert_eq!(topics, ["ada", "bob-2"]);
    cluster.ok(&["reset", "shared", "--all"]);
    assert_eq!(cluster.ok(&["status", "shared", "--topics", "--json"]), "{}\n");
}

#[test]
fn what_a_puller_of_a_topic_leaves_of_a_message_goes_to_the_next_of_its_kind_alone() {
    let (cluster, client, _node) = served("halves", &["to_topics"], "");
    let item = json!({"topics": vec!["t"; 10], "value": 0});
    cluster.ok(&["feed", "halves", "--topic", "t", &item.to_string()]);
    cluster.ok(&["wait", "halves"]);
    assert_eq!(
        client.by_subject("PCLUSTER_halves_OUT").into_iter().collect::<Vec<_>>(),
        [("pcluster.halves.out.t".to_owned(), 1)]
    );
    let some = |arguments: &[&str], number: &str| {
        numbers(&json_lines(&cluster.ok(&[&["pull", "halves"], arguments, &["-n", number]].concat())))
    };
    assert_eq!(some(&["--topic", "t"], "3"), [0, 1, 2]);
    assert_eq!(some(&[], "4"), [0, 1, 2, 3]);
    assert_eq!(some(&["--topic", "t"], "2"), [3, 4]);
    assert_eq!(pulled(&cluster, &["halves"]), [4, 5, 6, 7, 8, 9]);
    assert_eq!(pulled(&cluster, &["halves", "--topic", "t"]), [5, 6, 7, 8, 9]);
    let watched = json_lines(&cluster.ok(&["watch", "halves", "--all", "-n", "10", "--meta"]));
    assert!(watched.iter().all(|result| result["topic"] == "t" && result["headers"] == json!({})), "{watched:?}");
}

#[test]
fn a_task_reads_the_topic_and_gives_outputs_others() {
    let cluster = Cluster::start();
    let plugin = plugin("probe");
    let stage = |task: &str, rest: &str| format!("[[stage]]\nname = \"{task}\"\nplugin = \"{plugin}\"\n{rest}\n");
    for (name, rest) in [("queued", ""), ("inlined", "inline = true")] {
        let manifest =
            format!("name = \"{name}\"\nversion = \"1\"\n{}{}", stage("to_topics", ""), stage("topic", rest));
        cluster.deploy(&manifest);
    }
    let _node = cluster.node("a");
    let item = |value: u64| json!({"topics": [null, "own", "x", "own", "x", null], "value": value}).to_string();
    for name in ["queued", "inlined"] {
        let items: String = [10, 20].map(|value| item(value) + "\n").concat();
        cluster.run_with_input(&["feed", name, "--topic", "own"], items).succeeded();
        cluster.ok(&["wait", name]);
        let results = |arguments: &[&str]| {
            let pulled = cluster.ok(&[&["pull", name, "--all", "--meta"], arguments].concat());
            let mut results: Vec<_> = json_lines(&pulled)
                .iter()
                .map(|result| (result["item"][1].as_u64(), result["item"][0].clone(), result["topic"].clone()))
                .collect();
            results.sort_by_key(|(value, ..)| *value);
            results
        };
        let expected = |numbers: &[u64], topic: Value| {
            numbers.iter().map(|number| (Some(*number), topic.clone(), topic.clone())).collect::<Vec<_>>()
        };
        assert_eq!(results(&["--topic", "own"]), expected(&[11, 13, 21, 23], json!("own")), "{name}");
        assert_eq!(results(&["--topic", "x"]), expected(&[12, 14, 22, 24], json!("x")), "{name}");
        assert_eq!(results(&[]).len(), 12, "{name}");
    }
}

#[test]
fn a_topic_that_a_task_cannot_give_fails_its_item_for_good() {
    let (cluster, client, _node) = served("strict", &["to_topics"], "");
    let long = "x".repeat(10_000);
    for topic in ["a.b", "a b", "*", ">", &long] {
        cluster.ok(&["feed", "strict", "--topic", "kept", &json!({"topics": ["fine", topic], "value": 1}).to_string()]);
    }
    cluster.ok(&["wait", "strict"]);
    let letters = client.messages("PCLUSTER_strict_DEAD", 5);
    for letter in &letters {
        assert_eq!((letter.header("Pcluster-Failure"), letter.header("Pcluster-Topic")), ("output", "kept"));
        let reason = letter.header("Pcluster-Reason");
        assert!(reason.contains("128 characters of A-Z, a-z, 0-9, - and _"), "{reason}");
    }
    assert_eq!(subjects(&client, "strict"), [""; 0]);
}

#[test]
fn retries_and_dead_letters_keep_the_topic() {
    let (cluster, client, _node) = served(
        "failing",
        &["flaky", "topic"],
        "config = { failures = 1 }\nretry = { attempts = 2, backoff = [\"10ms\"] }",
    );
    cluster.deploy(&probe_chain("dying", &["fatal"], ""));
    for topic in ["a", "b"] {
        cluster.ok(&["feed", "failing", "--topic", topic, "1", "2", "3"]);
        cluster.ok(&["feed", "dying", "--topic", topic, "1"]);
    }
    for topic in ["a", "b"] {
        cluster.ok(&["wait", "failing", "--topic", topic]);
        let results = cluster.ok(&["pull", "failing", "--topic", topic, "--all"]);
        let expected: Vec<Value> = (1..4).map(|number| json!([topic, number])).collect();
        let mut results = json_lines(&results);
        results.sort_by_key(|result| result[1].as_u64());
        assert_eq!(results, expected);
    }
    cluster.ok(&["wait", "dying"]);
    let topics = |letters: &[Value]| {
        letters.iter().map(|letter| letter["topic"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let letters = || json_lines(&cluster.ok(&["dead", "ls", "dying", "--json"]));
    assert_eq!(topics(&letters()), ["a", "b"]);
    cluster.ok(&["dead", "retry", "dying", "--all"]);
    let again = eventually("both have failed again", || Some(letters()).filter(|letters| letters.len() == 2));
    // They fail in either order.
    let mut again = topics(&again);
    again.sort();
    assert_eq!(again, ["a", "b"]);
    assert_eq!(subjects(&client, "dying"), [""; 0]);
}

#[test]
fn a_topic_that_cannot_be_is_refused_by_commands_and_a_dead_letter_from_others() {
    let (cluster, client, _node) = served("checked", &["echo"], "");
    let long = "x".repeat(10_000);
    let longest = "x".repeat(128);
    let bad = ["", "a.b", ".", "a b", " ", "*", ">", "a.*", "ä", long.as_str()];
    for topic in bad {
        for command in
            [&["feed", "checked", "1"][..], &["pull", "checked"], &["watch", "checked"], &["wait", "checked"]]
        {
            let refused = cluster.run(&[command, &["--topic", topic]].concat());
            assert_eq!(refused.code, Some(2), "{topic:.20}: {}", refused.stderr);
            assert!(
                refused.stderr.contains("128 characters of A-Z, a-z, 0-9, - and _"),
                "{topic:.20}: {}",
                refused.stderr
            );
        }
    }
    for topic in bad {
        client.publish("pcluster.checked.in", &[("Pcluster-Topic", topic)], vec![1]).unwrap();
    }
    let mut raw = RawClient::connect(&cluster);
    raw.publish("pcluster.checked.in", b"NATS/1.0\r\nPCLUSTER-TOPIC: one\r\nPcluster-Topic: two\r\n\r\n", &[7]);
    assert_eq!(raw.stored(), 1);
    client.publish("pcluster.checked.in", &[("Pcluster-Topic", &longest)], vec![8]).unwrap();
    cluster.ok(&["wait", "checked"]);
    let letters = client.messages("PCLUSTER_checked_DEAD", bad.len());
    for letter in &letters {
        assert_eq!(letter.header("Pcluster-Failure"), "undecodable");
        assert!(letter.header("Pcluster-Reason").contains("topic"), "{letter:?}");
    }
    assert_eq!(pulled(&cluster, &["checked", "--topic", &longest]), [8]);
    assert_eq!(pulled(&cluster, &["checked"]), [7, 8]);
}

#[test]
fn a_wait_for_a_topic_ends_when_nothing_of_it_is_left() {
    let (cluster, client, node) = served("waited", &["echo", "nap"], "concurrency = 1");
    cluster.ok(&["feed", "waited", "--topic", "quick", "1", "2", "3"]);
    cluster.ok(&["feed", "waited", "--topic", "slow", "600000"]);
    cluster.until_begun("waited", 1, 1);
    cluster.ok(&["wait", "waited", "--topic", "none"]);
    cluster.run(&["wait", "waited", "--topic", "slow", "-t", "0"]).failed(3, "unfinished");
    drop(node);
    assert!(client.count("PCLUSTER_waited") > 0);
    // Many messages of others are before what is waited for.
    cluster.run_with_input(&["feed", "waited", "--topic", "other", "--pack-items", "1"], lines(0..2_000)).succeeded();
    cluster.ok(&["feed", "waited", "--topic", "last", "1"]);
    cluster.run(&["wait", "waited", "--topic", "last", "-t", "1"]).failed(3, "unfinished");
    cluster.ok(&["wait", "waited", "--topic", "none"]);
}

#[test]
fn programs_see_the_topic_of_their_item() {
    let cluster = Cluster::start();
    let script = r#"cat >/dev/null; printf '"%s"\n' "$(printenv PCLUSTER_TOPIC || echo none)""#;
    cluster.deploy(&format!(
        "name = \"programs\"\nversion = \"1\"\n[[stage]]\nname = \"run\"\nexec = [\"sh\", \"-c\", {script:?}]\n"
    ));
    let _node = cluster.node_with("a", &["--allow-exec", "sh"]);
    cluster.ok(&["feed", "programs", "--topic", "t-1", "1"]);
    cluster.ok(&["feed", "programs", "1"]);
    cluster.ok(&["wait", "programs"]);
    let mut results: Vec<String> = cluster.pull_all("programs").iter().map(Value::to_string).collect();
    results.sort();
    assert_eq!(results, ["\"none\"", "\"t-1\""]);
}

#[test]
fn a_killed_node_loses_no_result_of_a_topic_and_doubles_none() {
    let cluster = Cluster::start();
    cluster.deploy(&support::recovering(&probe_chain("killed", &["echo"], "concurrency = 4")));
    let mut node = Some(cluster.node("a"));
    let _other = cluster.node("b");
    let (command, all) = (cluster.command(&["feed", "killed", "-f", "-", "--topic", "t", "--pack-items", "8"]), 20_000);
    let (mut feeding, mut input) = Process::start_fed(command);
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut input, lines(0..all).as_bytes()).unwrap());
    let client = NatsClient::connect(&cluster);
    eventually("some results are there", || (client.count("PCLUSTER_killed_OUT") > 100).then_some(()));
    if let Some(node) = node.take() {
        node.signal("KILL");
    }
    writing.join().unwrap();
    assert_eq!(feeding.ended(), Some(0), "{}", feeding.stderr());
    cluster.ok(&["wait", "killed", "--topic", "t"]);
    let expected: Vec<u64> = (0..u64::try_from(all).unwrap()).collect();
    assert_eq!(pulled(&cluster, &["killed", "--topic", "t"]), expected);
    assert_eq!(pulled(&cluster, &["killed"]), expected);
}
