//! Items per second through chains, beside the relay.

use std::time::{Duration, Instant};

use bytes::Bytes;
use pcluster::frame::format::to_cbor;
use pcluster::name::ChainName;
use pcluster::root::{Item, Root};

use crate::support::{Cluster, probe_chain, repository};
use crate::{Row, relay, spread};

const ROUNDS: usize = 5;
const ITEMS: usize = 20_000;
/// Times that the text of the repository's licence is fed: 202 lines, 3 877 executions of the three stages.
const COPIES: usize = 8;
/// The length of the text in an item.
const LENGTH: usize = 250;
/// How often to ask how much is left.
const POLL: Duration = Duration::from_millis(5);

/// Measures one stage with single-item frames and the three stages of the text chain, each in turn with the relay.
pub fn run() -> Vec<Row> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let item = to_cbor(&"x".repeat(LENGTH));
    let (mut relays, mut echoes, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let cluster = Cluster::start();
        relays.push(runtime.block_on(relay::rate(&cluster.server.url, ITEMS, &item)));
        cluster.deploy(&probe_chain("echo", &["echo"], ""));
        let items = vec![item.clone(); ITEMS];
        let (seconds, executions) = runtime.block_on(drain(&cluster, "echo", items));
        echoes.push(executions / seconds);

        let cluster = Cluster::start();
        let manifest = repository().join("plugins/text/chain.toml");
        crate::support::plugin("text");
        cluster.ok(&["deploy", manifest.to_str().unwrap()]);
        let license = std::fs::read_to_string(repository().join("LICENSE")).unwrap();
        let lines: Vec<Bytes> = license.lines().map(|line| to_cbor(&line)).collect();
        let items = std::iter::repeat_n(lines, COPIES).flatten().collect();
        let (seconds, executions) = runtime.block_on(drain(&cluster, "text", items));
        texts.push(executions / seconds);
    }
    let ratios = |rates: &[f64]| rates.iter().zip(&relays).map(|(rate, relay)| rate / relay).collect::<Vec<_>>();
    vec![
        Row::new("relay by hand, messages/s (the baseline)", spread(&relays, ""), ""),
        Row::new("one echo stage, single-item frames, items/s", spread(&echoes, ""), ""),
        Row::new("  as a ratio to the relay", spread(&ratios(&echoes), ""), "0.7"),
        Row::new("three-stage text chain, executions/s", spread(&texts, ""), ""),
        Row::new("  as a ratio to the relay", spread(&ratios(&texts), ""), ""),
    ]
}

/// Feeds everything, then starts a node, and measures from the first item it takes until the chain is empty. Returns the
/// seconds and the executions of all stages together.
async fn drain(cluster: &Cluster, chain: &str, items: Vec<Bytes>) -> (f64, f64) {
    let root = Root::connect(&cluster.server.url.as_str().into(), "bench").await.unwrap();
    let chain: ChainName = chain.parse().unwrap();
    let fed = items.len() as u64;
    let mut feeder = root.feeder(&chain).await.unwrap();
    for cbor in items {
        feeder.feed(Item { cbor, id: None }).await.unwrap();
    }
    feeder.finish().await.unwrap();
    let node = cluster.node("bench");
    let mut started = Instant::now();
    let mut running = false;
    loop {
        let left = root.broker().unfinished(&chain).await.unwrap();
        if !running && left != fed {
            (running, started) = (true, Instant::now());
        }
        if left == 0 {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    let done = cluster.run(&["nodes", "--json"]).succeeded();
    let nodes: serde_json::Value = serde_json::from_str(&done).unwrap();
    let executions: u64 = nodes[0]["hops"].as_array().unwrap().iter().map(|hop| hop["done"].as_u64().unwrap()).sum();
    drop(node);
    (seconds, executions as f64)
}
