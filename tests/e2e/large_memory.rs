//! Large items that exceed the memory of their node: several in one message, in several messages and chains at once.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use support::{Cluster, NatsClient, Objects, plugin, probe_chain, sequence, with_table};

const MIB: usize = 1 << 20;
/// The bytes of a large item. A node with [`MEMORY`] has room for less than two of them, and for less than one with its copies.
const SIZE: usize = 36 * MIB;
const MEMORY: &str = "64MiB";
const STAGE: &str = "memory = \"256MiB\"\nconcurrency = 4";

/// Bytes that differ from item to item.
fn content(chain: &str, number: usize) -> Vec<u8> {
    let mut content = format!("{chain} {number:02} ").into_bytes().repeat(SIZE / 8);
    content.truncate(SIZE);
    content
}

/// Feeds large items and small ones in turn, all in one message, as any client can.
fn feed(client: &NatsClient, chain: &str, numbers: std::ops::Range<usize>) {
    let objects = Objects::of(client, chain);
    let large = |number: usize| objects.put(&format!("{chain}-{number}"), "bytes", &content(chain, number));
    let items: Vec<Value> = numbers.flat_map(|number| [large(number), Value::from(number)]).collect();
    let positions: Vec<String> = (0..items.len()).step_by(2).map(|position| position.to_string()).collect();
    let headers = [("Content-Type", "application/cbor-seq"), ("Pcluster-Large", &positions.join(","))];
    client.publish(&format!("pcluster.{chain}.in"), &headers, sequence(items)).unwrap();
}

#[test]
fn items_of_one_message_that_each_exceed_the_memory_of_their_node_all_come_out() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let chains = ["one", "other"];
    for chain in chains {
        let last = format!("[[stage]]\nname = \"last\"\ntask = \"echo\"\nplugin = {:?}\n", plugin("probe"));
        let first = with_table("[queue]\nlarge = \"1KiB\"", &probe_chain(chain, &["echo"], STAGE));
        cluster.deploy(&format!("{first}{last}memory = \"256MiB\"\ninline = true\n"));
        // The first large item makes the store.
        cluster.run_with_input(&["feed", chain, "--format", "text", "--id", "first"], "x".repeat(2_000)).succeeded();
        for numbers in [0..3, 3..5] {
            feed(&client, chain, numbers);
        }
    }
    let mut node = cluster.node_with("a", &["--memory", MEMORY]);
    for chain in chains {
        cluster.ok(&["wait", chain]);
        assert_eq!(cluster.status(chain)["dead"], 0, "{chain}: {}", cluster.ok(&["dead", "ls", chain]));
        cluster.ok(&["pull", chain, "--all", "--output", chain]);
        let saved = fs::read_dir(cluster.path(chain)).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
        let saved: Vec<Vec<u8>> = saved.collect();
        assert_eq!(saved.len(), 11, "{chain}: each comes out once");
        let small = (0..5).map(|number| format!("{number}\n").into_bytes());
        let expected = (0..5).map(|number| content(chain, number)).chain(small).chain([vec![b'x'; 2_000]]);
        assert!(saved.into_iter().collect::<BTreeSet<_>>() == expected.collect(), "{chain}: whole");
    }
    assert!(!node.has_ended());
    assert_eq!(cluster.nodes()[0]["memory"], 64 * MIB, "it has no more");
}
