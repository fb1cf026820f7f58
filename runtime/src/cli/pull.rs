//! `pcluster pull`

use std::time::Duration;

use ciborium::Value;

use super::exit::TimedOut;
use super::output::{Output, count};
use super::{Context, timeout};
use crate::name::ChainName;
use crate::root::{Outcome, Puller, ResultItem, Taken};
use crate::shutdown;

/// Take results, each given to one puller only
///
/// Prints one result per line, as JSON. Waits for results until Ctrl-C, or as long as the flags say.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
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
    /// Take dead letters too, each as it comes; see below
    #[arg(long)]
    with_failures: bool,
    #[command(flatten)]
    form: Form,
}

const AFTER_HELP: &str = "Several `pcluster pull` of the same chain share its results. `pcluster watch` takes none.\n\n\
    --with-failures: a dead letter counts as a result does for -n, -t and --all, and is given to one of the pullers that take \
    them. It is printed as a JSON object with id, chain, version, revision, stage, failure, reason, attempts, item and what else \
    `pcluster dead ls --json` has. With --meta, what has a `failure` is a dead letter and what has none is a result. A dead \
    letter that was taken is still kept: `pcluster dead` shows, retries and drops it.";

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

enum Next<T> {
    Result(Box<Taken<T>>),
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
    let mut puller = context.root().await?.puller(&args.chain).await?;
    if let Some(number) = args.number {
        puller = puller.with_limit(number);
    }
    if args.with_failures {
        pull(puller.with_failures().await?, &args, &context.output).await
    } else {
        pull(puller, &args, &context.output).await
    }
}

async fn pull<T: Shown>(mut puller: Puller<T>, args: &Args, output: &Output) -> anyhow::Result<()> {
    let mut stopped = std::pin::pin!(shutdown::requested());
    let mut taken = 0;
    let ended = loop {
        if args.number.is_some_and(|number| taken >= number) {
            break Ok(());
        }
        let next = tokio::select! {
            next = next(&mut puller, args) => next,
            () = &mut stopped => Ok(Next::Stopped),
        };
        match next {
            Ok(Next::Result(result)) => {
                if let Err(error) = result.result.show(&args.chain, &args.form, output) {
                    result.give_back().await;
                    break Err(error);
                }
                result.ack().await;
                taken += 1;
            }
            Ok(Next::Drained | Next::Stopped) => break Ok(()),
            Ok(Next::TimedOut) => break Err(timed_out(args, taken)),
            Err(error) => break Err(error),
        }
    };
    puller.close().await;
    ended
}

fn timed_out(args: &Args, taken: u64) -> anyhow::Error {
    let timeout = humantime::format_duration(args.timeout.unwrap_or_default());
    let message = if args.with_failures {
        format!("no result and no dead letter for {timeout}; {taken} taken")
    } else {
        format!("no result for {timeout}; {} taken", count(taken, "result"))
    };
    TimedOut(message).into()
}

async fn next<T>(puller: &mut Puller<T>, args: &Args) -> anyhow::Result<Next<T>> {
    let next = async {
        if args.all {
            return puller.next_until_drained().await;
        }
        puller.next().await.map(Some)
    };
    let taken = match args.timeout {
        None => next.await?,
        Some(timeout) => match tokio::time::timeout(timeout, next).await {
            Ok(taken) => taken?,
            Err(_) => return Ok(Next::TimedOut),
        },
    };
    Ok(taken.map_or(Next::Drained, |taken| Next::Result(Box::new(taken))))
}

/// What a puller gives and this command prints.
trait Shown {
    fn show(&self, chain: &ChainName, form: &Form, output: &Output) -> anyhow::Result<()>;
}

impl Shown for ResultItem {
    fn show(&self, chain: &ChainName, form: &Form, output: &Output) -> anyhow::Result<()> {
        show(self, chain, form, output)
    }
}

impl Shown for Outcome {
    fn show(&self, chain: &ChainName, form: &Form, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::Result(result) => show(result, chain, form, output),
            Self::Failure(letter) => Ok(output.line(letter)?),
        }
    }
}

/// Prints a result.
pub(super) fn show(result: &ResultItem, chain: &ChainName, form: &Form, output: &Output) -> anyhow::Result<()> {
    if form.meta {
        return Ok(output.line(&result.with_meta(chain.as_str()))?);
    }
    match &result.item {
        Value::Text(text) if form.raw => output.bytes(format!("{text}\n").as_bytes())?,
        Value::Bytes(bytes) if form.raw => output.bytes(bytes)?,
        _ => output.data(&result.to_json())?,
    }
    Ok(())
}
