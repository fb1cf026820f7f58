//! `pcluster wait`

use std::time::Instant;

use super::output::seconds;
use super::{Context, timeout};
use crate::name::ChainName;
use crate::root::wait::Notice;

/// Wait until every item of a chain was handled
///
/// Returns when the chain's queues are empty and nothing runs: each item has become results or a dead letter, or was dropped by
/// a task. If no node serves the chain, it says so and goes on waiting.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The chain
    chain: ChainName,
    /// Give up after this long, with status 3; seconds as in 2 or 0.5, or as in 500ms, 30s or 5m
    #[arg(short, long, value_name = "SECONDS", value_parser = timeout)]
    timeout: Option<std::time::Duration>,
}

/// Runs the command.
///
/// # Errors
///
/// If there is no such chain, or the time is over.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let root = context.root().await?;
    let started = Instant::now();
    let bar = context.output.progress("unfinished");
    let chain = &args.chain;
    let note = |text: &str| bar.suspend(|| context.output.note(text));
    let waited = root.wait(chain, args.timeout, |notice| match notice {
        Notice::Unfinished(unfinished) => bar.set_position(unfinished),
        Notice::NoNode(reasons) => {
            let hint =
                if reasons.is_empty() { "start one with `pcluster node`".to_owned() } else { reasons.join("; ") };
            note(&format!("no node serves {chain}: {hint}; waiting"));
        }
        Notice::Stuck(reasons) => note(&format!("{chain} cannot go on: {}; waiting", reasons.join("; "))),
        Notice::Served => note(&format!("a node serves {chain}")),
        Notice::Away(reason) => note(&format!("{reason}; waiting")),
        Notice::Back => note("the server answers again"),
    });
    let waited = waited.await;
    bar.finish_and_clear();
    waited?;
    context.output.note(&format!("{chain} is empty after {}", seconds(started.elapsed())));
    Ok(())
}
