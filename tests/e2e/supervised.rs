//! Nodes that fail in part or lack permissions: they continue, or report the reason.

use std::time::{Duration, Instant};

use support::{
    Cluster, DEADLINE, NatsClient, Process, RawClient, Run, Server, eventually, probe_chain, recovering, sequence,
};

/// Less than the 30 s of grace that a stopping node has, with much to spare.
const QUICKLY: Duration = Duration::from_secs(15);

/// What nodes show as problems, as one text.
fn problems(cluster: &Cluster, node: &str) -> String {
    let nodes: serde_json::Value = serde_json::from_str(&cluster.ok(&["nodes", "--json"])).unwrap();
    let of = nodes.as_array().unwrap().iter().filter(|each| each["node"] == node);
    of.map(|each| each["problems"].to_string()).collect()
}

#[test]
fn a_task_of_a_node_that_panics_is_shown_and_started_again() {
    let cluster = Cluster::start();
    let tasks = [
        ("serve it", "a"),
        ("watch what is put back", "b"),
        ("follow what is deployed", "c"),
        ("send the counts", "d"),
        ("send log lines", "e"),
        ("answer as a node", "f"),
        ("tell which permissions are missing", "g"),
    ];
    let start = |times: u32| -> Vec<(&str, &str, Process)> {
        let start = |(task, chain): (&'static str, &'static str)| {
            let fault = format!("{task}:{times}");
            (task, chain, cluster.spawn(&["node", "--name", chain, "--chain", chain, "--panic-in", &fault]))
        };
        tasks.into_iter().map(start).collect()
    };
    for (_, chain) in tasks {
        cluster.deploy(&probe_chain(chain, &["print"], ""));
    }
    // They panic for as long as it takes to look.
    for (task, chain, node) in start(1_000) {
        let failed = format!("the task to {task} failed and is started again: told to panic");
        node.said(&failed);
        if task != "answer as a node" {
            eventually(&failed, || problems(&cluster, chain).contains(&failed).then_some(()));
        }
    }
    for (task, chain, node) in &mut start(2) {
        node.said("ready: serving");
        node.said(&format!("the task to {task} works again"));
        cluster.ok(&["feed", chain, "1"]);
        cluster.ok(&["wait", chain]);
        assert_eq!(cluster.pull_all(chain), [1], "{task}");
        cluster.until(chain, "it is counted", |status| status["revisions"][0]["stages"][0]["done"] == 1);
        eventually("its line is there", || {
            cluster.ok(&["logs", chain, "--no-follow"]).contains("to standard output").then_some(())
        });
        assert_eq!(problems(&cluster, chain), "[]", "{task}");
        assert_eq!(node.stop(), Some(0), "{task}: {}", node.stderr());
    }
}

#[test]
fn a_node_that_cannot_go_on_ends_with_a_status_of_its_own() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("a", &["sleep"], "config = { millis = 60_000 }"));
    cluster.ok(&["feed", "a", "1"]);
    let mut panics = cluster.spawn(&["node", "--name", "panics", "--panic-in", "run the node", "--grace", "1s"]);
    assert_eq!(panics.ended(), Some(6), "{}", panics.stderr());
    panics.said("this node cannot go on and must be started again: its main task panicked");
}

#[test]
fn what_others_send_in_the_place_of_answers_ends_no_node_and_harms_no_item() {
    const ITEMS: u64 = 20;
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let task = "config = { millis = 1_500 }\nconcurrency = 2\nretry = { attempts = 1 }";
    cluster.deploy(&recovering(&probe_chain("a", &["sleep", "echo"], task)));
    cluster.deploy(&recovering(&probe_chain("b", &["echo"], "retry = { attempts = 1 }")));
    let answers: [(&[u8], &[u8]); 8] = [
        (b"", b"garbage"),
        (b"NATS/1.0 777 Odd\r\n\r\n", b""),
        (b"NATS/1.0\r\nX Customer: ada\r\n\r\n", b""),
        (b"NATS/1.0 299\r\n\r\n", b"null"),
        (b"", b""),
        (b"NATS/1.0\r\nX: a\rb\r\n\r\n", b"{}"),
        (b"NATS/1.0 404 Not Found\r\nNats-Pending-Messages: 99\r\n\r\n", b"[]"),
        (b"", b"\xff{\x00"),
    ];
    let between = RawClient::connect(&cluster).stand_between("between", &answers.repeat(2));
    let through = |arguments: &[&str]| {
        let mut command = cluster.command(arguments);
        command.env("PCLUSTER_DOMAIN", "between");
        command
    };
    let mut node = Process::start(through(&["node", "--name", "a"]));
    node.said("ready: serving");
    for item in 0..ITEMS {
        client.publish("pcluster.b.in", &[], sequence([item])).unwrap();
    }
    cluster.ok(&["feed", "a", "1", "2"]);
    // To where its answers go, while items run: the library ends the connection over this, and it is made anew.
    let inbox = client.first_reply("$JS.between.API.*.INFO.>");
    cluster.until_begun("a", 0, 2);
    let mut raw = RawClient::connect(&cluster);
    raw.publish_with_reply(
        inbox.recv_timeout(DEADLINE).unwrap().as_bytes(),
        b"nobody",
        b"NATS/1.0\r\nX: a\rb\r\n\r\n",
        b"",
    );
    for chain in ["a", "b"] {
        cluster.ok(&["wait", chain]);
    }
    for arguments in [&["status", "a"][..], &["nodes"], &["dead", "ls", "a"], &["logs", "a", "--no-follow"]] {
        Run::of(through(arguments), b"").succeeded();
    }
    eventually("all answers were given", || (between.left() == 0).then_some(()));

    assert!(!node.has_ended(), "{}", node.stderr());
    for (chain, items) in [("a", 2), ("b", ITEMS)] {
        assert_eq!(client.items_now(&format!("PCLUSTER_{chain}_OUT")) as u64, items, "{chain}");
        assert_eq!(client.count(&format!("PCLUSTER_{chain}_DEAD")), 0, "{chain}");
    }
    node.said("the connection to NATS is back");
    assert_eq!(node.stop(), Some(0), "{}", node.stderr());
}

#[test]
fn a_permission_that_is_missing_is_named_once_and_the_node_stops_at_once() {
    // What the user may not publish to, how the node names it, and whether items can be finished without it.
    let cases = [
        ("out", "pcluster.*.out", "pcluster.out.out", false),
        ("work", "pcluster.*.work.>", "pcluster.work.work.>", false),
        ("retry", "pcluster.*.retry.>", "pcluster.retry.retry.>", false),
        ("dead", "pcluster.*.dead.>", "pcluster.dead.dead.>", false),
        ("ack", "$JS.ACK.>", "$JS.ACK.PCLUSTER_ack.>", false),
        ("log", "pcluster.*.log.>", "pcluster.log.log.>", true),
        ("count", "pcluster.*.count.>", "pcluster.count.count.>", true),
        ("claim", "pcluster.*.claim.>", "pcluster.claim.claim.>", true),
    ];
    let user = |(name, denied, ..): (&str, &str, &str, bool)| {
        format!("{{ user: {name}, password: secret, permissions: {{ publish: {{ deny: [\"{denied}\"] }} }} }}\n")
    };
    let users: String = cases.into_iter().map(user).collect();
    let server = Server::start(&format!("authorization {{ users: [ {{ user: all, password: secret }}\n{users} ] }}"));
    let anonymous = server.url.clone();
    let as_user = |user: &str| anonymous.replacen("nats://", &format!("nats://{user}:secret@"), 1);
    let mut cluster = Cluster::with_server(server);
    cluster.server.url = as_user("all");
    let client = NatsClient::connect(&cluster);
    let mut nodes = Vec::new();
    for (name, _, missing, finishes) in cases {
        cluster.deploy(&probe_chain(name, &["obey", "echo"], "retry = { attempts = 2, backoff = [\"10ms\"] }"));
        let mut command = cluster.command(&["node", "--name", name, "--chain", name]);
        command.env("PCLUSTER_NATS", as_user(name));
        nodes.push((name, missing, finishes, Process::start(command)));
        for item in ["echo", "flaky 1", "fatal"] {
            client.publish(&format!("pcluster.{name}.in"), &[], sequence([item])).unwrap();
        }
    }
    for (name, missing, finishes, node) in &mut nodes {
        let said = format!("no permission to publish to `{missing}`; the server's configuration must allow it");
        node.said(&said);
        cluster.until(name, &said, |status| status["problems"].to_string().contains(&said));
        if *finishes {
            cluster.ok(&["wait", name]);
        }
        let began = Instant::now();
        assert_eq!(node.stop(), Some(0), "{name}: {}", node.stderr());
        assert!(began.elapsed() < QUICKLY, "{name} took {:?} to stop", began.elapsed());
        assert_eq!(node.stderr().matches(&said).count(), 1, "{name}: {}", node.stderr());
    }
}
