//! The library: a Rust program can do everything that the command line does.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::task::Poll;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use pcluster::client::{
    Address, Client, DeadFilter, DeadLetter, Feeder, Item, Items, LogFilter, LogRecord, Package, Packing, PulledResult,
    Puller, StartAt, Watcher,
};
use pcluster::error::{ClientError, ErrorKind, NodeError};
use pcluster::manifest::Manifest;
use pcluster::name::ChainName;
use pcluster::node::{Node, NodeSettings};
use support::{Cluster, NatsClient, Run, numbers, plugin, probe_chain, with_table};

/// An example of the package, which `cargo test` builds next to the program.
fn example(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_pcluster")).with_file_name("examples").join(name);
    assert!(path.exists(), "run `cargo build -p pcluster --example {name}` first; plain `cargo test` does");
    path
}

#[test]
fn the_library_deploys_feeds_reads_waits_and_resets() {
    let cluster = Cluster::start();
    let manifest = cluster.file("chain.toml", probe_chain("embedded", &["repeat"], "config = { times = 2 }"));
    let _node = cluster.node("a");
    let mut command = Command::new(example("library"));
    command.arg(&cluster.server.url).arg(manifest);
    let printed = Run::of(command, b"").succeeded();
    let mut lines: Vec<&str> = printed.lines().collect();
    // Results come in any order.
    lines[3..9].sort_unstable();
    let expected = [
        "deployed embedded 1.0 as r1",
        "fed 3 items",
        "empty: 3 messages of results, 0 dead letters",
        r#"result "item 1" of item-1"#,
        r#"result "item 1" of item-1"#,
        r#"result "item 2" of item-2"#,
        r#"result "item 2" of item-2"#,
        r#"result "item 3" of item-3"#,
        r#"result "item 3" of item-3"#,
        "reset: 0 dropped, goes on as r2",
    ];
    assert_eq!(lines, expected);
}

/// Polls a future so many times, and drops it then if it is not done.
async fn polled<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..times {
        let polled = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    None
}

/// Feeds numbers, each until it is taken, and drops what it waits for again and again.
async fn feed_with_drops(feeder: &mut Feeder, numbers: std::ops::Range<u64>, with_id: bool) {
    for number in numbers {
        let item = Item::of(&number).unwrap();
        let item = if with_id { item.with_id(format!("n-{number}")) } else { item };
        let mut tries = 0;
        while polled(1 + tries % 3, feeder.feed(item.clone())).await.transpose().unwrap().is_none() {
            tries += 1;
        }
        if number % 5 == 0 {
            polled(1, feeder.flush()).await;
        }
    }
}

#[test]
fn feeding_that_is_dropped_in_the_middle_loses_nothing_and_ends() {
    let cluster = Cluster::start();
    // With a full queue, what is fed waits at each point where it can.
    cluster.deploy(&with_table("[queue]\nlimit = 30", &probe_chain("dropped", &["echo"], "")));
    let client = NatsClient::connect(&cluster);
    let mut node = None;
    let fed = client.with(async |_| {
        let client = Client::connect(&cluster.server.url.as_str().into(), "dropping").await.unwrap();
        let mut feeder = client.feeder(&"dropped".parse().unwrap()).await.unwrap();
        assert!(feeder.feed(Item::of(&1).unwrap().with_id("pcluster.1.9.0")).await.is_err());
        // The queue and what is on its way have room for 542 messages; what is behind them waits for a node.
        let mut packing = Packing::default();
        (packing.items, packing.wait) = (3, Duration::from_millis(2));
        feeder = feeder.with_packing(packing);
        feed_with_drops(&mut feeder, 0..700, false).await;
        feed_with_drops(&mut feeder, 700..900, true).await;
        assert!(polled(3, feeder.finish()).await.is_none(), "there is no room for all");
        node = Some(cluster.node("a"));
        feed_with_drops(&mut feeder, 900..1_500, true).await;
        feed_with_drops(&mut feeder, 1_500..2_000, false).await;
        loop {
            if let Some(fed) = polled(2, feeder.finish()).await {
                return fed.unwrap();
            }
        }
    });
    assert_eq!((fed.accepted, fed.duplicates), (2_000, 0));
    assert_eq!(numbers(&cluster.pull_all("dropped")), (0..2_000).collect::<Vec<_>>());
}

#[test]
fn a_node_a_deploy_from_memory_waits_streams_and_kinds_of_errors_work_without_any_file_or_command() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    client.with(async |_| {
        let address = Address::from(cluster.server.url.as_str());
        let client = Client::connect(&address, "embedding").await.unwrap();
        let (chain, other) = ("memory".parse().unwrap(), "other".parse().unwrap());
        let unknown = client.status(&other, None).await.unwrap_err();
        assert_eq!((unknown.kind(), unknown.to_string().contains("pcluster")), (ErrorKind::NotFound, false));

        let manifest = |file: &str| {
            let stages = "[[stage]]\nname = \"echo\"\nplugin = ";
            Manifest::from_toml(&format!("name = \"memory\"\nversion = \"1.0\"\n{stages}\"{file}\"")).unwrap()
        };
        let missing = client.deploy(Package::new(manifest("none.wasm"))).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        let broken = Package::new(manifest("probe.wasm")).with_plugin("probe.wasm", *b"no plugin");
        let broken = client.deploy(broken).await.unwrap_err();
        assert_eq!(broken.kind(), ErrorKind::InvalidManifest);
        assert!(std::error::Error::source(&broken).is_some());
        let package =
            Package::new(manifest("probe.wasm")).with_plugin("probe.wasm", std::fs::read(plugin("probe")).unwrap());
        assert!(client.deploy(package).await.unwrap().is_new);

        let mut feeder = client.feeder(&chain).await.unwrap();
        feeder.feed(Item::of(&"hello").unwrap()).await.unwrap();
        feeder.finish().await.unwrap();
        let late = client.wait(&chain).timeout(Duration::ZERO).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        // A wait and a stream that are dropped in the middle change nothing.
        assert!(polled(2, client.wait(&chain).into_future()).await.is_none());
        let mut watcher = client.watcher(&chain, StartAt::First).await.unwrap();
        assert!(polled(2, watcher.try_next()).await.is_none());

        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let until = async { stopped.await.unwrap_or_default() };
        let node = async { Node::run(&address, NodeSettings::new("embedded"), until, || {}).await.unwrap() };
        let used = async {
            client.wait(&chain).await.unwrap();
            assert_eq!(watcher.try_next().await.unwrap().unwrap().to_json(), "\"hello\"");
            // Watching takes nothing, and what is dropped is given again.
            let mut puller = client.puller(&chain).await.unwrap();
            drop(StreamExt::next(&mut puller).await.unwrap().unwrap());
            StreamExt::next(&mut puller).await.unwrap().unwrap().ack().await;
            assert!(puller.next_at_once().await.unwrap().is_none());
            puller.close().await;
            let mut filter = LogFilter::default();
            (filter.from, filter.follow) = (StartAt::First, false);
            assert!(client.logs(&filter).await.unwrap().try_next().await.unwrap().is_none());
            let letters = client.dead_letters(&chain, &DeadFilter::default()).await.unwrap();
            assert_eq!(letters.count().await, 0);
            drop(stop);
        };
        tokio::join!(node, used);
    });
}

/// Checked by the compiler alone: values go from thread to thread, and futures and streams can be spawned.
#[expect(dead_code, reason = "it need not run")]
fn handles_cross_threads(
    client: &Client,
    chain: &ChainName,
    address: &Address,
    feeder: &mut Feeder,
    puller: &mut Puller,
) {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>(_: T) {}
    shared::<(Client, Feeder, Puller, PulledResult, ClientError, NodeError)>();
    sent::<Option<(Watcher, Items<LogRecord>, Items<DeadLetter>)>>(None);
    sent((client.wait(chain).into_future(), client.deploy("chain.toml"), client.status(chain, None), client.nodes()));
    sent((feeder.flush(), puller.next(), client.reset(chain, false), client.puller(chain), client.feeder(chain)));
    sent(Node::run(address, NodeSettings::new("sent"), std::future::ready(()), || {}));
}
