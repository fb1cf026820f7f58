//! Dead letters: listed, shown, dropped, pulled along with results, and reported by `wait`. `retry.rs` requeues them.

use serde_json::{Value, json};
use support::{Cluster, NatsClient, assert_refused, eventually, json_lines, plugin, probe_chain, sequence, with_table};

/// A cluster whose chain `mixed` has four dead letters: the text `x` that is no number, a payload that is no JSON, and 2 and 4
/// that made a task panic. 3 was dropped by a task.
fn mixed() -> (Cluster, NatsClient) {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let manifest = probe_chain("mixed", &["drop_odd", "trap"], "retry = { attempts = 2, backoff = [\"10ms\"] }");
    cluster.deploy(&with_table("[input]\nformat = \"json\"", &manifest));
    let mut node = cluster.node("a");
    cluster.ok(&["feed", "mixed", "--id", "order.7", "x"]);
    client.messages("PCLUSTER_mixed_DEAD", 1);
    client.publish("pcluster.mixed.in", &[("Nats-Msg-Id", "bad"), ("X-Customer", "ada")], "{\"a\": ").unwrap();
    client.messages("PCLUSTER_mixed_DEAD", 2);
    let headers = [("Nats-Msg-Id", "batch"), ("Content-Type", "application/x-ndjson"), ("X-Customer", "ada")];
    client.publish("pcluster.mixed.in", &headers, "2\n3\n4\n").unwrap();
    client.messages("PCLUSTER_mixed_DEAD", 4);
    // A node that ends has sent its last log lines.
    assert_eq!(node.stop(), Some(0), "{}", node.stderr());
    (cluster, client)
}

/// The ids of the letters that a command lists, sorted.
fn ids(cluster: &Cluster, filters: &[&str]) -> Vec<String> {
    let listed = json_lines(&cluster.ok(&[&["dead", "ls", "mixed", "--json"], filters].concat()));
    let mut ids: Vec<String> = listed.iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

/// A chain of one stage that fails for good.
fn failing(name: &str) -> String {
    probe_chain(name, &["fatal"], "")
}

#[test]
fn dead_letters_are_listed_filtered_and_counted() {
    let (cluster, _client) = mixed();
    let cases: [(&[&str], &[&str]); 9] = [
        (&[], &["bad", "batch", "batch#2", "order.7"]),
        (&["--stage", "trap"], &["batch", "batch#2"]),
        (&["--failure", "error"], &["order.7"]),
        (&["--stage", "drop_odd", "--failure", "undecodable"], &["bad"]),
        (&["--id", "order.7"], &["order.7"]),
        (&["--id", "batch"], &["batch", "batch#2"]),
        (&["--id", "batch#2"], &["batch#2"]),
        (&["--since", "1h", "--stage", "trap"], &["batch", "batch#2"]),
        (&["-n", "3"], &["bad", "batch", "batch#2"]),
    ];
    for (filters, expected) in cases {
        assert_eq!(ids(&cluster, filters), expected, "{filters:?}");
    }
    eventually("all letters are older than that", || ids(&cluster, &["--since", "100ms"]).is_empty().then_some(()));

    let table = cluster.ok(&["dead", "ls", "mixed"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NUMBER", "TIME", "STAGE", "FAILURE", "ATTEMPTS", "ID", "REASON"], "{table}");
    assert_eq!((lines[1][0], &lines[1][2..6]), ("1", ["drop_odd", "error", "1", "order.7"].as_slice()), "{table}");
    assert_eq!(lines[2][3..8], ["undecodable", "1", "bad", "not", "JSON:"], "{table}");
    let counts = "STAGE     FAILURE      LETTERS\n\
                  trap      trap               2\n\
                  drop_odd  error              1\n\
                  drop_odd  undecodable        1\n";
    assert!(table.ends_with(&format!("\n\n{counts}")), "{table}");
    assert_eq!(cluster.ok(&["dead", "ls", "mixed", "--count"]), counts);
    let counted = json_lines(&cluster.ok(&["dead", "ls", "mixed", "--count", "--json", "--stage", "trap"]));
    assert_eq!(counted, [json!({"stage": "trap", "failure": "trap", "letters": 2})]);

    let status = cluster.run(&["status", "mixed"]);
    assert!(status.stderr.contains("`pcluster dead ls mixed` shows the dead letters"), "{}", status.stderr);
    for command in ["ls", "show", "retry", "drop"] {
        let run = cluster.run(&["dead", command, "mixed", "--id", "none"]);
        run.failed(0, "mixed has no dead letters that match");
    }
    cluster.deploy(&failing("none"));
    let none = cluster.run(&["dead", "ls", "none"]);
    assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", "none has no dead letters\n"));
    assert!(!cluster.run(&["status", "none"]).stderr.contains("dead"));
    assert_refused(&cluster.run(&["dead", "ls", "mixes"]), 4, &["there is no chain `mixes`"]);
}

#[test]
fn show_tells_all_that_is_known_of_a_letter() {
    let (cluster, _client) = mixed();
    let shown = cluster.ok(&["dead", "show", "mixed", "2"]);
    for said in [
        "dead letter 2 of mixed 1.0 (r1), stage drop_odd\n",
        "  fed as    bad\n",
        " by node a\n",
        "  failure   undecodable, after 1 attempt\n",
        "  reason    not JSON: EOF while parsing a value",
        "  headers:\n    X-Customer: ada\n",
        "  payload as it was fed:\n    {\"a\":\n",
    ] {
        assert!(shown.contains(said), "expected: {said}\n{shown}");
    }
    let shown = cluster.ok(&["dead", "show", "mixed", "1", "3"]);
    assert!(shown.contains("  item:\n    \"x\"\n"), "{shown}");
    assert!(shown.contains("\n\ndead letter 3 of mixed 1.0 (r1), stage trap\n"), "{shown}");

    let shown = json_lines(&cluster.ok(&["dead", "show", "mixed", "--json", "--id", "batch#2"]));
    let letter = &shown[0];
    let place = ["chain", "version", "stage", "node", "failure"].map(|key| letter[key].as_str().unwrap());
    assert_eq!(place, ["mixed", "1.0", "trap", "a", "trap"]);
    assert_eq!((&letter["revision"], &letter["attempts"], &letter["item"]), (&json!(1), &json!(2), &json!(4)));
    assert_eq!(letter["headers"], json!({"X-Customer": "ada"}));
    assert!(letter["reason"].as_str().unwrap().contains("this task always panics"), "{letter}");
    assert_refused(&cluster.run(&["dead", "show", "mixed", "2", "9", "12"]), 4, &["has no dead letter 9, 12"]);
    for command in ["show", "retry", "drop"] {
        let none = cluster.run(&["dead", command, "mixed"]);
        assert_refused(&none, 2, &["say which dead letters: numbers, filters such as --stage, or --all"]);
        let both = cluster.run(&["dead", command, "mixed", "1", "--all"]);
        assert_refused(&both, 2, &["give only one of these"]);
    }
    assert_eq!(ids(&cluster, &[]).len(), 4, "nothing has changed");
}

#[test]
fn show_has_what_the_stage_logged_about_the_item() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("talking", &["print"], ""));
    cluster.ok(&["feed", "talking", "--id", "a", "1", "2"]);
    let mut node = cluster.node_with("a", &["--until-empty"]);
    assert_eq!(node.ended(), Some(0), "{}", node.stderr());
    // As if the task had failed on the second item after all that it says.
    let headers = [("Pcluster-Id", "a-2"), ("Pcluster-Stage", "print"), ("Pcluster-Revision", "1")];
    client.publish("pcluster.talking.dead.print", &headers, "\x02").unwrap();
    let letter = &json_lines(&cluster.ok(&["dead", "show", "talking", "1", "--json"]))[0];
    let lines = letter["logs"].as_array().unwrap();
    assert_eq!(lines.len(), 7, "{letter}");
    assert!(lines.iter().all(|line| line["item"] == "a-2"), "{letter}");
    let shown = cluster.ok(&["dead", "show", "talking", "1"]);
    let log = shown.split("  log:\n").nth(1).unwrap();
    assert!(log.lines().next().unwrap().contains(" print: "), "{shown}");
}

#[test]
fn of_items_that_travelled_together_each_has_its_own_lines_and_keeps_its_id_when_it_is_retried() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let orders = ["echo 1 a", "fatal 1 b", "echo 1 c", "fatal 1 d"];
    for (chain, stages) in [("first", &["obey"][..]), ("second", &["echo", "obey"])] {
        cluster.deploy(&probe_chain(chain, stages, ""));
        client.publish(&format!("pcluster.{chain}.in"), &[("Nats-Msg-Id", "batch")], sequence(orders)).unwrap();
    }
    let logged = |times: usize| {
        // A node that ends has sent its last log lines.
        let mut node = cluster.node_with("a", &["--until-empty"]);
        assert_eq!(node.ended(), Some(0), "{}", node.stderr());
        let mut ids = Vec::new();
        for chain in ["first", "second"] {
            for letter in json_lines(&cluster.ok(&["dead", "show", chain, "--all", "--json"])) {
                let lines = letter["logs"].as_array().unwrap();
                let said = format!("runs {}", letter["item"].as_str().unwrap());
                let failed = format!("attempt 1 of 5: {}; it is not tried again", letter["reason"].as_str().unwrap());
                let expected = vec![[said, failed]; times].concat();
                let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
                assert_eq!(messages, expected, "{letter}");
                ids.push(lines[0]["item"].as_str().unwrap().to_owned());
                assert!(lines.iter().all(|line| line["item"] == ids[ids.len() - 1].as_str()), "{letter}");
            }
        }
        ids.sort();
        ids
    };
    assert_eq!(logged(1), ["batch#1", "batch#3", "batch.0#1", "batch.0#3"]);
    for chain in ["first", "second"] {
        assert_eq!(cluster.ok(&["dead", "retry", chain, "--all"]), "2 dead letters retried\n");
    }
    assert_eq!(logged(2), ["batch#1", "batch#3", "batch.0#1", "batch.0#3"]);
}

#[test]
fn dropped_letters_are_gone_and_no_others() {
    let (cluster, client) = mixed();
    assert_refused(&cluster.run(&["dead", "drop", "mixed", "1", "9"]), 4, &["no dead letter 9"]);
    assert_eq!(cluster.ok(&["dead", "drop", "mixed", "1"]), "1 dead letter dropped\n");
    assert_refused(&cluster.run(&["dead", "drop", "mixed", "1"]), 4, &["no dead letter 1"]);
    let dropped: Value = serde_json::from_str(&cluster.ok(&["dead", "drop", "mixed", "--json", "-n", "1"])).unwrap();
    assert_eq!(dropped, json!({"chain": "mixed", "dropped": 1}));
    assert_eq!(cluster.ok(&["dead", "drop", "mixed", "--stage", "drop_odd"]), "1 dead letter dropped\n");
    assert_eq!(json_lines(&cluster.ok(&["dead", "ls", "mixed", "--json"]))[0]["number"], 3);
    assert_eq!(cluster.ok(&["dead", "drop", "mixed", "--failure", "error"]), "0 dead letters dropped\n");
    assert_eq!(cluster.ok(&["dead", "drop", "mixed", "--all"]), "1 dead letter dropped\n");
    assert_eq!(client.count("PCLUSTER_mixed_DEAD"), 0);
}

#[test]
fn pull_with_failures_takes_dead_letters_as_it_takes_results() {
    let cluster = Cluster::start();
    // Texts fail, odd numbers are dropped, even ones are results.
    cluster.deploy(&probe_chain("pulled", &["drop_odd"], "retry = { attempts = 1 }"));
    let _node = cluster.node("a");
    let mut first = cluster.spawn(&["pull", "pulled", "--with-failures", "-n", "2"]);
    cluster.ok(&["feed", "pulled", "--id", "a", "2", "x", "3"]);
    assert_eq!(first.ended(), Some(0), "{}", first.stderr());
    let (failures, results): (Vec<Value>, Vec<Value>) =
        json_lines(&first.stdout()).into_iter().partition(|each| each.get("failure").is_some());
    assert_eq!(results, [2]);
    let failure = &failures[0];
    for (key, value) in [
        ("id", json!("a-2")),
        ("chain", json!("pulled")),
        ("version", json!("1.0")),
        ("revision", json!(1)),
        ("stage", json!("drop_odd")),
        ("failure", json!("error")),
        ("attempts", json!(1)),
        ("item", json!("x")),
    ] {
        assert_eq!(failure[key], value, "{failure}");
    }
    assert!(!failure["reason"].as_str().unwrap().is_empty());
    let none = cluster.run(&["pull", "pulled", "--with-failures", "-t", "300ms"]);
    none.failed(3, "error: no result and no dead letter for 300ms; 0 taken");
    // It was taken and is still kept.
    assert_eq!(json_lines(&cluster.ok(&["dead", "ls", "pulled", "--json"])).len(), 1);

    // Without the flag nothing of it is seen, and nothing waits for it.
    let mut items = vec!["feed", "pulled"];
    items.extend(["4", "y", "z"].repeat(20));
    cluster.ok(&items);
    assert_eq!(cluster.pull_all("pulled"), vec![json!(4); 20]);

    cluster.ok(&items);
    let mut pulls = [(); 2].map(|()| cluster.spawn(&["pull", "pulled", "--with-failures", "--all", "--meta"]));
    let mut all = Vec::new();
    for pull in &mut pulls {
        assert_eq!(pull.ended(), Some(0), "{}", pull.stderr());
        all.extend(json_lines(&pull.stdout()));
    }
    let (failures, results): (Vec<&Value>, Vec<&Value>) = all.iter().partition(|each| each.get("failure").is_some());
    assert_eq!((results.len(), failures.len()), (20, 80), "each result and dead letter is given to one puller");
    let mut numbers: Vec<u64> = failures.iter().map(|failure| failure["number"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (2..=81).collect::<Vec<_>>());
    assert_eq!(cluster.ok(&["pull", "pulled", "--with-failures", "--all"]), "", "all was taken");
}

#[test]
fn wait_fails_on_dead_letters_only_if_it_shall() {
    let cluster = Cluster::start();
    let plugin = plugin("probe");
    let stage = |name: &str, task: &str| {
        format!("[[stage]]\nname = \"{name}\"\nplugin = \"{plugin}\"\ntask = \"{task}\"\nretry = {{ attempts = 1 }}\n")
    };
    let (first, last) = (stage("numbers", "drop_odd"), stage("last", "fatal"));
    cluster.deploy(&format!("name = \"checked\"\nversion = \"1.0\"\n{first}{last}"));
    let _node = cluster.node("a");
    cluster.ok(&["feed", "checked", "1"]);
    cluster.ok(&["wait", "checked", "--fail-on-dead"]);
    cluster.ok(&["feed", "checked", "2", "4", "x"]);
    cluster.ok(&["wait", "checked"]);
    let refused = cluster.run(&["wait", "checked", "--fail-on-dead"]);
    let says = [
        "chain `checked` has 3 dead letters: 2 of stage last, 1 of stage numbers",
        "`pcluster dead ls checked` shows them",
    ];
    assert_refused(&refused, 1, &says);
    cluster.ok(&["dead", "drop", "checked", "--all"]);
    cluster.ok(&["wait", "checked", "--fail-on-dead"]);
}
