//! `pcluster pull`

use std::time::{Duration, Instant};

use ciborium::Value;

use super::exit::TimedOut;
use super::output::{Output, count};
use super::{Context, timeout};
use crate::name::ChainName;
use crate::root::{Puller, ResultItem, Root, Taken};
use crate::shutdown;

/// How often to look whether the chain is drained, with --all.
const LOOK: Duration = Duration::from_millis(100);

/// Take results, each given to one puller only
///
/// Prints one result per line, as JSON. Waits for results until Ctrl-C, or as long as the flags say.
#[derive(Debug, clap::Args)]
#[command(after_help = "Several `pcluster pull` of the same chain share its results. `pcluster watch` takes none.")]
pub struct Args {
    /// The chain
    chain: ChainName,
    /// End after this many results
    #[arg(short = 'n', long, value_name = "N")]
    number: Option<u64>,
    /// Give up when no result came for this long, with status 3; seconds as in 2 or 0.5, or as in 500ms
    #[arg(short, long, value_name = "SECONDS", value_parser = timeout)]
    timeout: Option<Duration>,
    /// End when every item was handled and every result taken
    #[arg(long, conflicts_with = "number")]
    all: bool,
    #[command(flatten)]
    form: Form,
}

/// How results are printed.
#[derive(Debug, clap::Args)]
pub struct Form {
    /// Print each result with the id it was fed under, chain, version, revision, node and headers
    #[arg(long)]
    meta: bool,
    /// Print texts without quotes and bytes as they are
    #[arg(long, conflicts_with = "meta")]
    raw: bool,
}

enum Next {
    Result(Box<Taken>),
    Drained,
    TimedOut,
    Stopped,
}

/// Runs the command.
///
/// # Errors
///
/// If there is no such chain, or the time is over.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let root = context.root().await?;
    let mut puller = root.puller(&args.chain).await?;
    if let Some(number) = args.number {
        puller = puller.with_batch(number);
    }
    let mut stopped = std::pin::pin!(shutdown::requested());
    let mut taken = 0;
    let ended = loop {
        if args.number.is_some_and(|number| taken >= number) {
            break Ok(());
        }
        let next = tokio::select! {
            next = next(&root, &mut puller, &args) => next,
            () = &mut stopped => Ok(Next::Stopped),
        };
        match next {
            Ok(Next::Result(result)) => {
                if let Err(error) = show(&result.result, &args.chain, &args.form, &context.output) {
                    result.give_back().await;
                    break Err(error);
                }
                result.ack().await;
                taken += 1;
            }
            Ok(Next::Drained | Next::Stopped) => break Ok(()),
            Ok(Next::TimedOut) => break Err(timed_out(&args, taken)),
            Err(error) => break Err(error),
        }
    };
    puller.close().await;
    ended
}

fn timed_out(args: &Args, taken: u64) -> anyhow::Error {
    let timeout = humantime::format_duration(args.timeout.unwrap_or_default());
    TimedOut(format!("no result for {timeout}; {} taken", count(taken, "result"))).into()
}

async fn next(root: &Root, puller: &mut Puller, args: &Args) -> anyhow::Result<Next> {
    let started = Instant::now();
    let look = async || {
        tokio::time::sleep(LOOK).await;
        root.is_drained(&args.chain).await
    };
    let mut looking = Box::pin(look());
    loop {
        let patience = match args.timeout {
            Some(timeout) => timeout.saturating_sub(started.elapsed()),
            None => Duration::MAX,
        };
        tokio::select! {
            biased;
            taken = puller.next() => return Ok(Next::Result(Box::new(taken?))),
            () = tokio::time::sleep(patience), if args.timeout.is_some() => return Ok(Next::TimedOut),
            drained = &mut looking, if args.all => match drained {
                Ok(true) => return Ok(Next::Drained),
                Err(error) if !error.is_passing() => return Err(error.into()),
                _ => looking = Box::pin(look()),
            }
        }
    }
}

/// Prints a result.
pub(super) fn show(result: &ResultItem, chain: &ChainName, form: &Form, output: &Output) -> anyhow::Result<()> {
    if form.meta {
        return Ok(output.line(&result.with_meta(chain.as_str()))?);
    }
    match &result.item {
        Value::Text(text) if form.raw => output.data(text)?,
        Value::Bytes(bytes) if form.raw => output.bytes(bytes)?,
        _ => output.data(&result.to_json())?,
    }
    Ok(())
}
