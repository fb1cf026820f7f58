//! Uses pcluster as a library: deploys a chain, feeds it, waits, reads what came of it, and resets it.
//!
//! Needs a NATS server and a node: `pcluster dev` gives both and prints the server's URL. Then
//! `cargo run --example library -- nats://127.0.0.1:4222 chain.toml`, for any chain that takes texts.
#![expect(clippy::print_stdout, reason = "a program that shows what it does")]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use pcluster::client::{Client, Item};

/// How many items to feed.
const ITEMS: u32 = 3;
/// How long the chain may take over them.
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let usage = "usage: library NATS_URL CHAIN.TOML";
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().context(usage)?;
    let manifest: PathBuf = arguments.next().context(usage)?.into();
    let client = Client::connect(&url.as_str().into(), "library-example").await?;

    let deployment = client.deploy(&manifest).await?;
    let chain = deployment.chain;
    println!("deployed {chain} {} as {}", deployment.version, deployment.revision);

    let mut feeder = client.feeder(&chain).await?;
    for number in 1..=ITEMS {
        // With an id of its own an item can be fed again without harm, should this program be run a second time.
        feeder.feed(Item::of(&format!("item {number}"))?.with_id(format!("item-{number}"))).await?;
    }
    println!("fed {} items", feeder.finish().await?.accepted);

    client.wait(&chain).timeout(PATIENCE).await?;
    let status = client.status(&chain, client.settled_nodes().await?.as_ref()).await?;
    println!("empty: {} messages of results, {} dead letters", status.result_messages, status.dead);
    let mut puller = client.puller(&chain).await?;
    while let Some(taken) = puller.next_until_drained().await? {
        println!("result {} of {}", taken.result.to_json(), taken.result.id);
        // Until it is confirmed, the server keeps it for another puller.
        taken.ack().await;
    }
    puller.close().await;

    let reset = client.reset(&chain, false).await?;
    println!("reset: {} dropped, goes on as {}", reset.dropped, reset.revision);
    Ok(())
}
