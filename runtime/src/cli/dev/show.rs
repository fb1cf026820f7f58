//! Shows what comes of a chain: results, log lines and dead letters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures_util::TryStreamExt;
use tokio::sync::mpsc;

use crate::broker::follow::{Follower, StartAt};
use crate::cli::logs;
use crate::cli::output::{Output, OutputError};
use crate::client::large::LargeItems;
use crate::client::{Client, LogFilter};
use crate::frame::header;
use crate::frame::id::FrameId;
use crate::name::ChainName;
use crate::subject;

/// Shows all that comes of a chain from now on, and its results from the first on. Returns how much of these was printed.
pub(super) async fn show(
    client: &Client,
    chain: &ChainName,
    output: &Output,
    unprinted: &mpsc::UnboundedSender<OutputError>,
) -> anyhow::Result<Arc<Shown>> {
    let results = show_results(client, chain, output, unprinted.clone()).await?;
    show_logs(client, chain, output).await?;
    show_dead_letters(client, chain, output).await?;
    Ok(results)
}

/// How much was printed of a chain.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) results: AtomicU64,
    /// The messages that held these results.
    pub(super) messages: AtomicU64,
}

/// Prints results as they come, and counts them.
async fn show_results(
    client: &Client,
    chain: &ChainName,
    output: &Output,
    unprinted: mpsc::UnboundedSender<OutputError>,
) -> anyhow::Result<Arc<Shown>> {
    let mut watcher = client.watcher(chain, StartAt::First).await?;
    let (shown, output) = (Arc::new(Shown::default()), output.clone());
    let counted = Arc::clone(&shown);
    let items = LargeItems::of(client, chain).await?;
    tokio::spawn(async move {
        while let Ok(Some(mut result)) = watcher.try_next().await {
            let mut shown = Ok(());
            if let Some(reference) = result.large.take() {
                match items.held(&reference, items.read(&reference)).await {
                    Ok(item) => result.item = item,
                    Err(error) => {
                        output.note(&format!("the result of item {} cannot be shown: {error}", result.id));
                        result.large = Some(reference);
                    }
                }
            }
            if result.large.is_none() {
                shown = output.data(&result.to_json());
            }
            if let Err(error) = shown {
                // The receiver is gone only if the command is ending.
                let _ = unprinted.send(error);
                return;
            }
            counted.results.fetch_add(1, Relaxed);
            counted.messages.store(watcher.messages, Relaxed);
        }
    });
    Ok(shown)
}

/// Prints log lines as they come.
async fn show_logs(client: &Client, chain: &ChainName, output: &Output) -> anyhow::Result<()> {
    let filter = LogFilter { chain: Some(chain.clone()), ..LogFilter::default() };
    let (mut lines, output) = (client.logs(&filter).await?, output.clone());
    tokio::spawn(async move {
        while let Ok(Some(record)) = lines.try_next().await {
            output.note(&logs::show(&record, false));
        }
    });
    Ok(())
}

/// Prints dead letters as they come.
async fn show_dead_letters(client: &Client, chain: &ChainName, output: &Output) -> anyhow::Result<()> {
    let mut letters = Follower::open(client.broker(), &subject::dead_stream(chain), Vec::new(), StartAt::Now).await?;
    let output = output.clone();
    tokio::spawn(async move {
        while let Ok(letter) = letters.next().await {
            let get = |name: &str| letter.headers.get(name).unwrap_or_default();
            if letter.headers.get(header::ITEM_PART).is_some() {
                continue;
            }
            let (stage, id) = (get(header::STAGE), FrameId::from_header(get(header::ID)).root());
            output.note(&format!("dead letter of {stage}: item {id}: {}", get(header::REASON)));
        }
    });
    Ok(())
}
