//! `pcluster pull`

mod printer;

use std::time::{Duration, Instant};

use ciborium::Value;
use futures_util::FutureExt;

use super::exit::{Interrupted, TimedOut};
use super::output::{OutputError, count};
use super::{Context, timeout, unless_told, whole};
use crate::client::{ClientError, Outcome, PulledResult, Puller, ResultItem};
use crate::name::{ChainName, Topic};
use crate::shutdown::{self, Signal};
use crate::text::visible;
use printer::{Event, Printed, Printer};

/// How many results may wait for their reader.
const PENDING: usize = 1_024;
/// How long the server may take to tell whether a result is there.
const LOOK: Duration = Duration::from_secs(5);
/// How long the last acks may take after a signal or a timeout.
const CLOSE: Duration = Duration::from_secs(1);

/// Take results; each result goes to one puller only
///
/// Prints one result per line, as JSON. Waits for results until Ctrl-C, or as long as the flags say.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The chain
    chain: ChainName,
    /// Take the results of this topic alone, beside the pullers of all topics; see below
    #[arg(long, value_name = "TOPIC", conflicts_with = "with_failures")]
    topic: Option<Topic>,
    /// End after this many results
    #[arg(short = 'n', long, value_name = "N", value_parser = whole::<u64>)]
    number: Option<u64>,
    /// Give up with status 3 when no result came for this long; in seconds as in 2 or 0.5, or as in 500ms; 0 takes the
    /// results that are there
    #[arg(short, long, value_name = "SECONDS", value_parser = timeout)]
    timeout: Option<Duration>,
    /// End when every item is handled and every result is taken
    #[arg(long, conflicts_with = "number")]
    all: bool,
    /// Take dead letters too, as they come; see below
    #[arg(long)]
    with_failures: bool,
    #[command(flatten)]
    form: Form,
}

const AFTER_HELP: &str = "Several `pcluster pull` of one chain share its results. `pcluster watch` takes none.\n\n\
    A result is taken once it is written. If standard output is a pipe, on Linux, a result is taken once the reader has read it \
    from the pipe. When the reader ends early, the results that it left in the pipe go to the next puller; results that it read \
    but did not use are lost. A result that is still in the pipe a second after the last one was written counts as taken. So \
    for a few results give -n rather than `| head`, which may read more lines than it shows.\n\n\
    All `pcluster pull --topic TOPIC` of one topic share its results, also those that were stored before the first of them. They \
    take nothing from `pcluster pull` without a topic, which takes the results of all topics, and it takes nothing from them: \
    each result is given once there and once here. A topic that nobody pulls costs nothing but the room of its results, which go \
    at their age ([results] max_age) whoever has taken them. If a topic was not pulled for a day, its next pull begins anew with \
    all results that are still stored. With --topic, --all ends when every item of the topic is handled; see \
    `pcluster wait --help` for what that costs. Dead letters are not told apart by topic here.\n\n\
    With --with-failures, a dead letter counts like a result for -n, -t and --all, and goes to one of the pullers that have \
    this flag. It is printed as a JSON object with id, chain, version, revision, stage, failure, reason, attempts, item and the \
    other fields of `pcluster dead ls --json`. With --meta, a line that has a `failure` is a dead letter, and a line without one \
    is a result. A dead letter that was taken is still stored: `pcluster dead` shows, retries and drops it.";

/// How results are printed.
#[derive(Debug, clap::Args)]
pub struct Form {
    /// Print each result with the id it was fed under, chain, version, revision, node, topic and headers
    #[arg(long)]
    meta: bool,
    /// Print texts without quotes, and bytes as they are
    #[arg(long, conflicts_with = "meta")]
    raw: bool,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    let opening = Box::pin(async {
        let mut puller = match &args.topic {
            None => client.puller(&args.chain).await?,
            Some(topic) => client.topic_puller(&args.chain, topic).await?,
        };
        if let Some(number) = args.number {
            puller = puller.with_limit(number);
        }
        Ok::<_, ClientError>(puller)
    });
    if args.with_failures {
        let opening = Box::pin(async { opening.await?.with_failures().await });
        pull(unless_told(opening).await?, &args).await
    } else {
        pull(unless_told(opening).await?, &args).await
    }
}

/// Prints results, and acks each one once its reader has it.
async fn pull<T: Shown>(mut puller: Puller<T>, args: &Args) -> anyhow::Result<()> {
    let mut stopped = std::pin::pin!(shutdown::requested());
    let mut printer = Printer::start()?;
    let mut number = 0;
    let mut waiting = Instant::now();
    let mut ended = loop {
        let wanted = args.number.map_or(u64::MAX, |wanted| wanted - number);
        if printer.pending() as u64 >= wanted {
            break Ok(());
        }
        tokio::select! {
            biased;
            signal = &mut stopped => {
                printer.stop();
                break Err(Ended::Interrupted(signal));
            }
            Some(event) = printer.event() => match settle(event) {
                Ok(taken) => number += taken,
                Err(error) => break Err(error.into()),
            },
            next = next(&mut puller, args, waiting), if printer.pending() < PENDING => match next {
                Ok(Some(taken)) => match taken.result.show(&args.chain, &args.form) {
                    Ok(line) => printer.print(line, taken),
                    Err(error) => break Err(error.into()),
                },
                Ok(None) => break Ok(()),
                Err(ended) => break Err(ended),
            },
        }
        waiting = Instant::now();
    };
    printer.finish();
    loop {
        let event = tokio::select! {
            biased;
            event = printer.event() => event,
            signal = &mut stopped, if !printer.is_stopped() => {
                printer.stop();
                ended = ended.and(Err(Ended::Interrupted(signal)));
                continue;
            }
        };
        match event.map(settle) {
            Some(Ok(taken)) => number += taken,
            Some(Err(error)) => ended = ended.and(Err(error.into())),
            None => break,
        }
    }
    let late = async {
        if !matches!(ended, Err(Ended::Interrupted(_) | Ended::TimedOut)) {
            shutdown::requested().await;
        }
        tokio::time::sleep(CLOSE).await;
    };
    tokio::select! {
        () = puller.close() => {}
        () = late => tracing::warn!("the server may not have received the last acks; it then hands out those results again"),
    }
    match ended {
        Ok(()) => Ok(()),
        Err(Ended::Failed(error)) => Err(error),
        Err(Ended::TimedOut) => Err(timed_out(args, number)),
        Err(Ended::Interrupted(signal)) => Err(Interrupted::at(signal, taken(args, number)).into()),
    }
}

/// Why pulling ends early.
enum Ended {
    Failed(anyhow::Error),
    TimedOut,
    Interrupted(Signal),
}

impl<E: Into<anyhow::Error>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Acks a result that its reader has. Returns how many results were taken.
///
/// Does not wait for the server, which may be away.
fn settle<T>(event: Event<PulledResult<T>>) -> Result<u64, OutputError> {
    match event {
        Event::Written(pulled) => {
            // The ack goes out even if nothing waits for its end.
            let _ = pulled.ack().now_or_never();
            Ok(1)
        }
        Event::Unwanted(_) => Ok(0),
        Event::Failed(error) => Err(error.into()),
    }
}

impl<T: Send + 'static> Printed for PulledResult<T> {
    fn is_wanted(&self) -> bool {
        self.is_held()
    }
}

fn timed_out(args: &Args, number: u64) -> anyhow::Error {
    let timeout = humantime::format_duration(args.timeout.unwrap_or_default());
    let nothing = if args.with_failures { "no result and no dead letter" } else { "no result" };
    TimedOut(format!("{nothing} for {timeout}; {}", taken(args, number))).into()
}

/// Returns how far pulling got.
fn taken(args: &Args, number: u64) -> String {
    if args.with_failures { format!("{number} taken") } else { format!("{} taken", count(number, "result")) }
}

/// Returns the next result; `None` if all are taken. No result has come since `waiting`.
async fn next<T>(puller: &mut Puller<T>, args: &Args, waiting: Instant) -> Result<Option<PulledResult<T>>, Ended> {
    let is_for_what_is_there = args.timeout.is_some_and(|timeout| timeout.is_zero());
    let next = async {
        if is_for_what_is_there {
            return puller.next_at_once().await?.map(Some).ok_or(Ended::TimedOut);
        }
        if args.all {
            return Ok(puller.next_until_drained().await?);
        }
        Ok(Some(puller.next().await?))
    };
    // The server needs a moment to say that nothing is there.
    let timeout = if is_for_what_is_there { Some(LOOK) } else { args.timeout };
    match timeout.and_then(|timeout| waiting.checked_add(timeout)) {
        None => next.await,
        Some(deadline) => tokio::time::timeout_at(deadline.into(), next).await.unwrap_or(Err(Ended::TimedOut)),
    }
}

/// A result or dead letter that is printed.
pub(super) trait Shown: Send + 'static {
    /// Returns the bytes to print, with the end of the line.
    fn show(&self, chain: &ChainName, form: &Form) -> anyhow::Result<Vec<u8>>;
}

impl Shown for ResultItem {
    fn show(&self, chain: &ChainName, form: &Form) -> anyhow::Result<Vec<u8>> {
        if form.meta {
            return Ok(line(&serde_json::to_string(&self.with_meta(chain.as_str()))?));
        }
        Ok(match &self.item {
            Value::Text(text) if form.raw => format!("{text}\n").into_bytes(),
            Value::Bytes(bytes) if form.raw => bytes.clone(),
            _ => line(&self.to_json()),
        })
    }
}

impl Shown for Outcome {
    fn show(&self, chain: &ChainName, form: &Form) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Result(result) => result.show(chain, form),
            Self::Failure(letter) => Ok(line(&serde_json::to_string(letter)?)),
        }
    }
}

fn line(text: &str) -> Vec<u8> {
    format!("{}\n", visible(text)).into_bytes()
}
