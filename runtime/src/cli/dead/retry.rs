//! `pcluster dead retry`

use std::cell::Cell;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::anyhow;
use serde_json::json;

use super::{Selected, none_matches};
use crate::cli::Context;
use crate::cli::exit::Interrupted;
use crate::cli::output::count;
use crate::cli::output::progress::counting;
use crate::client::RetryOptions;
use crate::name::ChainName;
use crate::shutdown;

/// How long the server may take to finish after the command is told to stop.
const STOP: Duration = Duration::from_secs(3);

/// Put the items of dead letters back into the chain, with fresh attempts
///
/// Each item goes into the queue of the stage and the revision in which it failed, so the same plugin runs it. Nodes
/// serve that revision again until it is empty. With --active, the item goes to the stage of the same name in the
/// active revision: fix the task, deploy a new version, and retry. A letter is removed once its item is queued. A
/// letter that cannot be retried stays; the command retries the others and then fails.
///
/// On Ctrl-C the command queues no more items and removes the letters of the queued ones, for which the server has
/// three seconds. If the server is away, the command ends with status 5.
///
/// Retrying twice is harmless: the server drops an item that it already has. A chain with a closed intake finishes the
/// retried items, and its intake stays closed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pcluster dead retry orders 17 18\n  pcluster dead retry orders --failure timeout --since 1h\n  \
    pcluster dead retry orders --stage enrich --active"
)]
pub struct Args {
    /// The chain
    chain: ChainName,
    #[command(flatten)]
    selected: Selected,
    /// Retry in the active revision, not in the revision in which the item failed
    #[arg(long)]
    active: bool,
    /// Let the calls of the items carry other idempotency keys, so that an API takes them for new ones
    ///
    /// Without it they carry the keys that they had: what an API has done already it does not do again.
    #[arg(long)]
    fresh_keys: bool,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let (chain, output) = (&args.chain, &context.output);
    let is_filtered = args.selected.filters.are_given();
    let selection = args.selected.selection()?;
    let client = context.client().await?;
    let bar = counting("retried", "letters");
    let told = Cell::new(0);
    let stop = AtomicBool::new(false);
    let options = RetryOptions { active: args.active, fresh_keys: args.fresh_keys };
    let retry = client.retry_dead(chain, &selection, options, &stop, |retried| {
        told.set(retried);
        bar.set_position(retried);
    });
    let mut retry = pin!(retry);
    let (retried, signal) = tokio::select! {
        retried = &mut retry => (Some(retried), None),
        signal = shutdown::requested() => {
            // So no letter is both retried and kept, unless the server is away.
            stop.store(true, Relaxed);
            (tokio::time::timeout(STOP, retry).await.ok(), Some(signal))
        }
    };
    bar.finish_and_clear();
    let so_far = || format!("{} retried", count(told.get(), "dead letter"));
    let retried = match (retried, signal) {
        (Some(Ok(retried)), _) => retried,
        (Some(Err(_)) | None, Some(signal)) => {
            let said =
                format!("{}; the server has confirmed no more, and an item that is retried again runs once", so_far());
            return Err(Interrupted::at(signal, said).into());
        }
        (Some(Err(error)), None) => {
            if told.get() > 0 {
                output.note(&so_far());
            }
            return Err(error.into());
        }
        // Without a signal there is always a result.
        (None, None) => return Ok(()),
    };
    if output.is_json() {
        let refused = retried.refused.iter().map(|(number, reason)| json!({ "number": number, "reason": reason }));
        let refused: Vec<_> = refused.collect();
        output.line(&json!({ "chain": chain, "retried": retried.retried, "refused": refused }))?;
    } else {
        output.data(&format!("{} retried", count(retried.retried, "dead letter")))?;
        for (number, reason) in &retried.refused {
            output.note(&format!("dead letter {number} stays: {reason}"));
        }
    }
    if is_filtered && signal.is_none() && retried.retried == 0 && retried.refused.is_empty() {
        output.note(&none_matches(chain));
    }
    match (signal, retried.refused.len() as u64) {
        (Some(signal), _) => Err(Interrupted::by(signal).into()),
        (None, 0) => Ok(()),
        (None, refused) => Err(anyhow!("{} of chain `{chain}` cannot be retried", count(refused, "dead letter"))),
    }
}
