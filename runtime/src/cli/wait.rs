//! `pcluster wait`

use std::time::Instant;

use anyhow::bail;
use indicatif::ProgressBar;

use super::output::{Output, count, seconds};
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
    /// End with status 1 if the chain has dead letters then, however old; `pcluster dead drop CHAIN --all` before a run forgets
    /// those of earlier ones
    #[arg(long)]
    fail_on_dead: bool,
}

/// Runs the command.
///
/// # Errors
///
/// If there is no such chain, the time is over, or there are dead letters and there must be none.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let root = context.root().await?;
    let started = Instant::now();
    let bar = context.output.progress("unfinished");
    let chain = &args.chain;
    let waited = root.wait(chain, args.timeout, |notice| match notice {
        Notice::Unfinished(unfinished) => bar.set_position(unfinished),
        notice => tell(&notice, chain, &bar, &context.output),
    });
    let waited = waited.await;
    bar.finish_and_clear();
    waited?;
    context.output.note(&format!("{chain} is empty after {}", seconds(started.elapsed())));
    if args.fail_on_dead {
        let dead = root.dead_by_stage(chain).await?;
        let total: u64 = dead.values().sum();
        if total > 0 {
            let stages: Vec<String> =
                dead.iter().map(|(stage, letters)| format!("{letters} of stage {stage}")).collect();
            let (total, stages) = (count(total, "dead letter"), stages.join(", "));
            bail!("chain `{chain}` has {total}: {stages}; `pcluster dead ls {chain}` shows them");
        }
    }
    Ok(())
}

/// Says what a wait has to tell.
pub(super) fn tell(notice: &Notice, chain: &ChainName, bar: &ProgressBar, output: &Output) {
    let text = match notice {
        // Shown by numbers as they change.
        Notice::Unfinished(_) => return,
        Notice::NoNode(reasons) => {
            let hint =
                if reasons.is_empty() { "start one with `pcluster node`".to_owned() } else { reasons.join("; ") };
            format!("no node serves {chain}: {hint}; waiting")
        }
        Notice::Stuck(reasons) => format!("{chain} cannot go on: {}; waiting", reasons.join("; ")),
        Notice::Served => format!("a node serves {chain}"),
        Notice::Away(reason) => format!("{reason}; waiting"),
        Notice::Back => "the server answers again".to_owned(),
    };
    bar.suspend(|| output.note(&text));
}
