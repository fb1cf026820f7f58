//! Headers that the server accepts and the client library cannot read. Each such message becomes a result or a dead letter, and
//! neither the node nor another chain is harmed.

use serde_json::Value;
use support::{Cluster, NatsClient, Process, RawClient, eventually, json_lines, lines, probe_chain, with_table};

/// Blocks that end the library's connection, drop it, or look like what the server says itself.
const ODD: [&[u8]; 22] = [
    b"NATS/1.0\r\nX: a\rb\r\n\r\n",
    b"NATS/1.0\r\nX Customer: ada\r\n\r\n",
    b"NATS/1.0\r\nX: caf\xe9\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"NATS/1.0 404 No Messages\r\n\r\n",
    b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 7\r\n\r\n",
    b"NATS/1.0 409 Consumer Deleted\r\nNats-Pending-Messages: 9999\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0 1\r\n\r\n",
    b"NATS/2.0\r\nX: a\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"\r\n",
    b"X: a",
    b"NATS/1.0",
    b"NATS/1.0\r\n: empty\r\n\r\n",
    b"NATS/1.0\r\n goes on\r\n\r\n",
    b"NATS/1.0\r\nX: a\r\n goes on\r\n\r\n",
    b"NATS/1.0\r\nX: a\x00\x7fb\r\n\r\n",
    "NATS/1.0\r\nKäse: a\r\nY: ü\r\n\r\n".as_bytes(),
    b"NATS/1.0\r\nX: a\nY: b\n\n",
    b"NATS/1.0\r\nPcluster-Id: \r\nPcluster-Index: x\r\n\r\n",
    b"\xff\xfe\x00\x00",
];

/// Counts one more of something, and cannot be read.
const COUNTED: &[u8] = b"NATS/1.0\r\nNats-Incr: +1\r\nX Customer: ada\r\n\r\n";

/// What a random block is made of.
const PARTS: [&[u8]; 16] = [
    b"NATS/1.0",
    b"\r\n",
    b"\r\n\r\n",
    b"\r",
    b"\n",
    b": ",
    b":",
    b" ",
    b"X-A",
    b"value",
    b"\xe4",
    b"\xc3\xa4",
    b"\0",
    b"404",
    b"\t",
    b"Content-Type: application/json\r\n",
];

/// A block of parts, of which most begin as they should; the same for the same number.
fn random_block(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap()
    };
    let mut block = if next() % 4 > 0 { b"NATS/1.0\r\n".to_vec() } else { Vec::new() };
    for _ in 0..next() % 12 {
        block.extend_from_slice(PARTS[next() % PARTS.len()]);
    }
    block
}

fn chain(name: &str, ack_wait: &str) -> String {
    let rest = "isolation = \"worker\"\nretry = { attempts = 1 }";
    with_table(&format!("[queue]\nack_wait = \"{ack_wait}\""), &probe_chain(name, &["echo"], rest))
}

/// What the node says of a chain's hops.
fn reported(cluster: &Cluster, chain: &str) -> Value {
    let nodes: Vec<Value> = serde_json::from_str(&cluster.ok(&["nodes", "--json"])).unwrap();
    nodes[0]["hops"].as_array().unwrap().iter().find(|hop| hop["chain"] == chain).unwrap().clone()
}

fn node_and_clients() -> (Cluster, NatsClient, Process) {
    let cluster = Cluster::start();
    cluster.deploy(&chain("odd", "2s"));
    // A node of a busy machine that says nothing for this long would have its items run twice.
    cluster.deploy(&chain("sound", "20s"));
    let (client, node) = (NatsClient::connect(&cluster), cluster.node("a"));
    (cluster, client, node)
}

#[test]
fn headers_that_cannot_be_read_harm_neither_the_node_nor_another_chain() {
    const GOOD: usize = 20_000;
    const RANDOM: u64 = 300;
    let (cluster, client, mut node) = node_and_clients();
    let command = cluster.command(&["feed", "sound", "-f", "-", "--format", "ndjson"]);
    let (mut feeding, mut input) = Process::start_fed(command);
    let good = std::thread::spawn(move || {
        std::io::Write::write_all(&mut input, lines(0..GOOD).as_bytes()).unwrap();
    });
    let mut raw = RawClient::connect(&cluster);
    let random = (0..RANDOM).map(random_block);
    let mut fed = 0;
    for (number, block) in ODD.iter().map(|block| block.to_vec()).chain(random).enumerate() {
        raw.publish("pcluster.odd.in", &block, &[0x18, u8::try_from(number % 200).unwrap().max(24)]);
        // Beside each, one that is as it should be.
        raw.publish("pcluster.odd.in", b"NATS/1.0\r\n\r\n", b"\xf5");
        fed += 1;
    }
    // The server itself refuses no block.
    assert_eq!(raw.stored(), 2 * fed);
    good.join().unwrap();
    assert_eq!(feeding.ended(), Some(0), "{}", feeding.stderr());
    for chain in ["sound", "odd"] {
        eventually(&format!("{chain} is empty"), || (client.count(&format!("PCLUSTER_{chain}")) == 0).then_some(()));
    }

    assert_eq!(cluster.pull_all("sound").len(), GOOD);
    assert_eq!(client.count("PCLUSTER_sound_DEAD"), 0);
    let hop = reported(&cluster, "sound");
    assert_eq!((&hop["retried"], &hop["duplicates"]), (&0.into(), &0.into()), "{hop}");

    let results = json_lines(&cluster.ok(&["pull", "odd", "--all"]));
    let letters = json_lines(&cluster.ok(&["dead", "ls", "odd", "--json"]));
    assert_eq!(results.iter().filter(|result| **result == true).count(), fed, "of the good ones");
    assert_eq!(results.len() + letters.len(), 2 * fed, "each is a result or a letter");
    assert!(letters.len() > ODD.len() / 2, "{}", letters.len());
    for letter in &letters {
        assert_eq!(letter["failure"], "undecodable", "{letter}");
    }
    assert!(!node.has_ended());
    cluster.ok(&["feed", "odd", "7"]);
    assert_eq!(cluster.pull_all("odd"), [7]);
}

#[test]
fn several_nodes_of_a_hop_bury_what_none_of_them_can_read_and_use_no_attempt() {
    const GOOD: u16 = 1_000;
    const EVERY: u16 = 100;
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&chain("shared", "1s"));
    let _nodes = ["a", "b", "c"].map(|name| cluster.node(name));
    let unreadable: [&[u8]; 3] = [ODD[0], ODD[1], ODD[2]];
    let mut raw = RawClient::connect(&cluster);
    let mut odd = 0;
    for number in 0..GOOD {
        if number % EVERY == 0 {
            odd += 1;
            raw.publish("pcluster.shared.in", unreadable[odd % 3], &[0x18, u8::try_from(100 + odd).unwrap()]);
        }
        let item = [&[0x19][..], &(1_000 + number).to_be_bytes()].concat();
        raw.publish("pcluster.shared.in", b"NATS/1.0\r\n\r\n", &item);
    }
    assert_eq!(raw.stored(), usize::from(GOOD) + odd);
    eventually("the chain is empty", || (client.count("PCLUSTER_shared") == 0).then_some(()));

    // With a single attempt, an item that had lost one would be a letter.
    let letters = client.all_items("PCLUSTER_shared_DEAD");
    let mut buried: Vec<ciborium::Value> = letters.iter().map(support::Message::item).collect();
    buried.sort_by_key(ciborium::Value::as_integer);
    assert_eq!(buried, (0..odd).map(|number| (101 + number as u64).into()).collect::<Vec<ciborium::Value>>());
    assert!(letters.iter().all(|letter| letter.header("Pcluster-Failure") == "undecodable"));
    let mut results = client.all_items("PCLUSTER_shared_OUT");
    results.sort_by_key(|result| result.item().as_integer());
    let results: Vec<ciborium::Value> = results.iter().map(support::Message::item).collect();
    assert_eq!(results, (0..GOOD).map(|number| (1_000 + number).into()).collect::<Vec<ciborium::Value>>());

    // In a stream that is made anew, places begin anew.
    client.with(async |jetstream| jetstream.delete_stream("PCLUSTER_shared").await.unwrap());
    let anew = "the intake of shared is already open\n\
                these streams of the chain were missing and were created again, empty: PCLUSTER_shared";
    cluster.run(&["start", "shared"]).failed(0, anew);
    assert!(cluster.ok(&["start", "shared", "--json"]).contains("\"made\":[]"));
    for block in unreadable {
        raw.publish("pcluster.shared.in", block, b"\x18\x1f");
    }
    assert_eq!(raw.stored(), 3);
    eventually("they are buried", || (client.items_now("PCLUSTER_shared_DEAD") == odd + 3).then_some(()));
}

#[test]
fn what_is_read_without_being_taken_is_read_whatever_its_headers() {
    let (cluster, client, mut node) = node_and_clients();
    let mut raw = RawClient::connect(&cluster);
    cluster.ok(&["feed", "sound", "1"]);
    cluster.pull_all("sound");
    // Beside what the node counts, something that others do; and what answers as a node does, in front of the node.
    eventually("the node has counted", || {
        raw.publish("pcluster.sound.count.1.none.done", COUNTED, b"");
        assert_eq!(raw.stored(), 1);
        let status = cluster.status("sound");
        (status["revisions"][0]["stages"][0]["done"] == 1).then_some(())
    });
    for block in [ODD[0], ODD[1], ODD[4], b"NATS/1.0\r\nX: a\r\n\r\n"] {
        RawClient::connect(&cluster).answer("$SRV.STATS.pcluster-node", block);
    }
    // A name of a chain that is none, beside those that the node follows.
    for (number, block) in ODD.iter().enumerate() {
        raw.publish("pcluster.odd.out", block, &[u8::try_from(number % 24).unwrap()]);
        raw.publish("pcluster.odd.dead.echo", block, b"\x01");
        raw.publish("pcluster.odd.log.echo.info", block, br#"{"time":"2026-01-01T00:00:00Z","chain":"odd","revision":1,"stage":"echo","level":"info","node":"x","item":"","message":"odd"}"#);
        raw.publish("pcluster.odd.log.echo.info", block, b"no line");
        raw.publish("pcluster.odd.log.none", block, b"\xff");
        raw.publish("pcluster.odd.claim.1.echo.work.x", block, b"{}");
        raw.publish(format!("$KV.pcluster_chains.none-{number}"), block, b"{}");
        for subject in ["$SRV.PING", "$SRV.STATS.pcluster-node"] {
            raw.publish_with_reply(subject.as_bytes(), b"no\x0cone", block, b"");
        }
    }
    assert_eq!(raw.stored(), 7 * ODD.len());

    // The node still follows what is deployed, and is found.
    cluster.deploy(&chain("later", "2s"));
    cluster.ok(&["feed", "later", "3"]);
    assert_eq!(cluster.pull_all("later"), [3]);
    eventually("the node is found", || {
        let nodes: Vec<Value> = serde_json::from_str(&cluster.ok(&["nodes", "--json"])).unwrap();
        (nodes.len() == 1).then_some(())
    });
    assert!(!node.has_ended());

    let letters = json_lines(&cluster.ok(&["dead", "ls", "odd", "--json"]));
    assert_eq!(letters.len(), ODD.len());
    cluster.ok(&["dead", "show", "odd", "1"]);
    let logs = cluster.ok(&["logs", "odd", "--no-follow", "--json"]);
    assert_eq!(json_lines(&logs).len(), ODD.len());
    cluster.ok(&["wait", "sound"]);
    cluster.ok(&["status", "odd"]);
    // What a puller can read it gets, and the rest is passed over and stays.
    cluster.ok(&["feed", "odd", "7"]);
    let pulled = cluster.run(&["pull", "odd", "--all"]);
    assert!(pulled.stderr.contains("is passed over"), "{pulled:?}");
    let pulled = json_lines(&pulled.succeeded());
    assert!(pulled.contains(&7.into()) && pulled.len() > ODD.len() / 3, "{pulled:?}");
    assert_eq!(client.count("PCLUSTER_odd_OUT"), ODD.len() as u64 + 1);
    // `watch` sees them all.
    let watch = cluster.spawn(&["watch", "odd", "--all"]);
    eventually("all results are seen", || (watch.stdout().lines().count() == ODD.len() + 1).then_some(()));
}

#[test]
fn no_client_can_use_the_keys_of_nodes_or_turn_the_question_for_them_against_a_queue() {
    let cluster = Cluster::start();
    cluster.deploy(&with_table("[queue]\nack_wait = \"1s\"", &probe_chain("keys", &["echo", "drop_odd"], "")));
    let client = NatsClient::connect(&cluster);
    // What the first node is to store, as far as a client can know it.
    for place in 1..20 {
        for id in [format!("pcluster.1.{place}.0"), format!("pcluster.dead.{place}")] {
            client.publish("pcluster.keys.in", &[("Nats-Msg-Id", &id)], vec![0]).unwrap();
        }
    }
    for stream in ["PCLUSTER_keys", "PCLUSTER_keys_OUT"] {
        client.with(async |jetstream| {
            let mut config = jetstream.get_stream(stream).await.unwrap().cached_info().config.clone();
            config.allow_rollup = true;
            jetstream.update_stream(config).await.unwrap();
        });
    }
    let mut victim = cluster.spawn(&["node", "--name", "victim", "--die-at", "stored:3"]);
    victim.ended();
    let _node = cluster.node("a");
    cluster.ok(&["wait", "keys"]);
    assert_eq!(cluster.pull_all("keys").len(), 38);
}

#[test]
fn names_of_headers_are_read_whatever_their_case() {
    let (cluster, client, _node) = node_and_clients();
    let mut raw = RawClient::connect(&cluster);
    raw.publish(
        "pcluster.odd.in",
        b"NATS/1.0\r\ncontent-type: application/json\r\npcluster-ID: mine\r\nnats-msg-id: x\r\nX-A: 1\r\nx-a: 2\r\nX-A: 3\r\n\r\n",
        br#"{"a":1}"#,
    );
    raw.publish("pcluster.odd.in", b"NATS/1.0\r\nnats-msg-id: x\r\n\r\n", b"\x07");
    assert_eq!(raw.stored(), 2);
    let results = client.items("PCLUSTER_odd_OUT", 2);
    let mine = results.iter().find(|result| result.header("Pcluster-Id") == "mine.0").expect("it has its id");
    assert_eq!(mine.item(), ciborium::Value::Map(vec![("a".into(), 1.into())]));
    assert_eq!((mine.header("X-A"), mine.header("x-a")), ("1", "2"));
    let other = results.iter().find(|result| result.header("Pcluster-Id") != "mine.0").unwrap();
    assert!(!other.header("Pcluster-Id").starts_with('x'), "{other:?}");
    assert_eq!(client.count("PCLUSTER_odd_DEAD"), 0);
}
