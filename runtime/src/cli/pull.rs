//! `pcluster pull`

pub(super) mod large;
mod printer;
pub(super) mod refs;
mod shown;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use super::exit::{Interrupted, TimedOut};
use super::output::{Output, OutputError, count};
use super::{Context, summary, timeout, unless_told, whole};
use crate::client::{ClientError, PulledResult, Puller, Summary};
use crate::name::{ChainName, Topic};
use crate::shutdown::{self, Signal};
use large::{Desk, Ready};
use printer::{Event, Printed, Printer};
use shown::line;
pub use shown::{Form, Shown};

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
    /// At the end, show percentiles of how long the results waited and ran in each stage; see below
    #[arg(long, requires = "meta")]
    summary: bool,
    /// Take dead letters too, as they come; see below
    #[arg(long)]
    with_failures: bool,
    #[command(flatten)]
    large: Large,
    #[command(flatten)]
    form: Form,
}

/// How results of any size are taken.
#[derive(Debug, clap::Args)]
struct Large {
    /// Save each result as a file of its own in this folder, and print its path; see below
    #[arg(short = 'o', long = "output", value_name = "DIR", conflicts_with = "raw")]
    save: Option<PathBuf>,
    /// Print the references of large results that wait to be taken, one JSON object a line, and take none
    #[arg(long, conflicts_with_all = ["timeout", "all", "with_failures", "raw", "save"])]
    refs: bool,
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
    With --meta, a result of a chain that records steps (`records = \"times\"` or \"all\" in [results]) has them in `record`. \
    --summary shows percentiles of them at standard error, or with --json as a last line `{\"summary\": [...]}`. The steps of \
    what several results descend from count once for each.\n\n\
    With --with-failures, a dead letter counts like a result for -n, -t and --all, and goes to one of the pullers that have \
    this flag. It is printed as a JSON object with id, chain, version, revision, stage, failure, reason, attempts, item and the \
    other fields of `pcluster dead ls --json`. With --meta, a line that has a `failure` is a dead letter, and a line without one \
    is a result. A dead letter that was taken is still stored: `pcluster dead` shows, retries and drops it.\n\n\
    A large result, whose bytes are beside the queue, is fetched and printed like any other, up to 64 MiB. Once it is taken, its bytes \
    go, and `pcluster watch` no longer shows it. One of a topic goes once `pcluster pull` without a topic has taken it, and also \
    `pcluster pull --topic` if somebody pulls that topic by then: a later first pull of the topic does not get it. A chain that is \
    pulled by topic alone keeps its large results until their age ([results] max_age). With --output, a result of any size becomes a file: bytes and texts as they are, any \
    other item as JSON. The name of the file is the id that the item was fed under, percent-encoded, at most 200 bytes and cut if \
    it is longer; a further result of the same id ends in ~2, ~3 and so on. No file is overwritten, and each is whole or absent. A \
    result is taken once its file is on the disk; if it cannot be saved, as on a full disk, it goes back and the command ends with 1. \
    A command that is killed may have saved a result that is not taken yet. With --json or --meta, a line is a JSON object with the \
    id and the file.\n\n\
    `pcluster get CHAIN REF` fetches what --refs prints.";

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    if args.large.refs {
        return unless_told(refs::run(&args, &client, &context.output)).await;
    }
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
    let desk = Desk::new(client.clone(), &args, &context.output)?;
    if args.with_failures {
        let opening = Box::pin(async { opening.await?.with_failures().await });
        Box::pin(Pulling::new(unless_told(opening).await?, &args, &desk, &context.output)?.run()).await
    } else {
        Box::pin(Pulling::new(unless_told(opening).await?, &args, &desk, &context.output)?.run()).await
    }
}

/// Takes results, prints or saves them, and acks each one once its reader has it.
struct Pulling<'a, T> {
    puller: Puller<T>,
    args: &'a Args,
    desk: &'a Desk<'a>,
    output: &'a Output,
    printer: Printer<Line<T>>,
    /// Results that wait for their reader. Of saved results, only lines do.
    unread: u64,
    /// Results that were taken.
    number: u64,
    /// Results that were taken although their bytes are gone.
    lost: u64,
    /// What the results tell of their steps.
    summary: Summary,
}

/// What a printed line is about.
enum Line<T> {
    /// A result that is taken once the line is read.
    Result(PulledResult<T>),
    /// A file that is saved already.
    File,
}

impl<'a, T: Shown> Pulling<'a, T> {
    fn new(puller: Puller<T>, args: &'a Args, desk: &'a Desk<'a>, output: &'a Output) -> anyhow::Result<Self> {
        Ok(Self {
            puller,
            args,
            desk,
            output,
            printer: Printer::start()?,
            unread: 0,
            number: 0,
            lost: 0,
            summary: Summary::default(),
        })
    }

    async fn run(mut self) -> anyhow::Result<()> {
        let mut stopped = std::pin::pin!(shutdown::requested());
        let ended = match Box::pin(self.take(&mut stopped)).await {
            Err(Ended::Interrupted(signal)) => {
                self.printer.stop();
                Err(Ended::Interrupted(signal))
            }
            ended => ended,
        };
        let ended = self.finish_printing(ended, &mut stopped).await;
        Box::pin(self.close(ended)).await
    }

    /// Takes results until enough are taken, none are left, or something ends it.
    async fn take(&mut self, stopped: &mut (impl Future<Output = Signal> + Unpin)) -> Result<(), Ended> {
        let desk = self.desk;
        let mut preparing = FuturesUnordered::new();
        // Why no more are taken. Those at hand are finished first.
        let mut over = None;
        let mut waiting = Instant::now();
        loop {
            let at_hand = self.unread + preparing.len() as u64;
            let is_enough = self.args.number.is_some_and(|wanted| self.number + at_hand >= wanted);
            if preparing.is_empty() && (is_enough || over.is_some()) {
                return over.unwrap_or(Ok(()));
            }
            let takes_more = !is_enough
                && over.is_none()
                && self.printer.pending() < PENDING
                && preparing.len() < desk.side_by_side();
            tokio::select! {
                biased;
                signal = &mut *stopped => return Err(Ended::Interrupted(signal)),
                Some(event) = self.printer.event() => self.settle(event)?,
                Some(ready) = preparing.next(), if !preparing.is_empty() => self.print(ready?),
                next = next(&mut self.puller, self.args, waiting), if takes_more => match self.noted(next) {
                    Ok(Some(taken)) if desk.is_ready(&taken.result) => {
                        let line = taken.result.show(&self.args.chain, &self.args.form)?;
                        self.print(Ready::Line(line, taken));
                    }
                    Ok(Some(taken)) => preparing.push(Box::pin(desk.ready(taken))),
                    Ok(None) => over = Some(Ok(())),
                    Err(ended) => over = Some(Err(ended)),
                },
            }
            waiting = Instant::now();
        }
    }

    /// Takes note of the steps of a result.
    fn noted(&mut self, next: Result<Option<PulledResult<T>>, Ended>) -> Result<Option<PulledResult<T>>, Ended> {
        if let Ok(Some(taken)) = &next
            && let Some(record) = taken.result.record().filter(|_| self.args.summary)
        {
            self.summary.add(record);
        }
        next
    }

    fn print(&mut self, ready: Ready<T>) {
        match ready {
            Ready::Line(line, taken) => {
                self.unread += 1;
                self.printer.print(line, Line::Result(taken));
            }
            Ready::Saved(line, taken) => {
                ack(taken);
                self.number += 1;
                self.printer.print(line, Line::File);
            }
            Ready::Lost(error, taken) => {
                let note =
                    format!("the result of item {} is lost, and taken without its bytes: {error}", taken.result.id());
                self.output.note(&note);
                ack(taken);
                self.number += 1;
                self.lost += 1;
            }
        }
    }

    /// Waits until the reader has all lines.
    async fn finish_printing(
        &mut self,
        mut ended: Result<(), Ended>,
        stopped: &mut (impl Future<Output = Signal> + Unpin),
    ) -> Result<(), Ended> {
        self.printer.finish();
        loop {
            let event = tokio::select! {
                biased;
                event = self.printer.event() => event,
                signal = &mut *stopped, if !self.printer.is_stopped() => {
                    self.printer.stop();
                    ended = ended.and(Err(Ended::Interrupted(signal)));
                    continue;
                }
            };
            match event.map(|event| self.settle(event)) {
                Some(Ok(())) => {}
                Some(Err(error)) => ended = ended.and(Err(error.into())),
                None => return ended,
            }
        }
    }

    /// Acks a result that its reader has.
    fn settle(&mut self, event: Event<Line<T>>) -> Result<(), OutputError> {
        match event {
            Event::Written(Line::Result(pulled)) => {
                ack(pulled);
                self.unread -= 1;
                self.number += 1;
            }
            Event::Unwanted(Line::Result(_)) => self.unread -= 1,
            Event::Written(Line::File) | Event::Unwanted(Line::File) => {}
            Event::Failed(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn close(self, ended: Result<(), Ended>) -> anyhow::Result<()> {
        let Self { puller, args, number, lost, summary, output, .. } = self;
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
        if args.summary && !matches!(ended, Err(Ended::Failed(_))) {
            summary::print_after(&summary, output)?;
        }
        match ended {
            Ok(()) if lost > 0 => Err(anyhow!("{} lost, as told above", count(lost, "result"))),
            Ok(()) => Ok(()),
            Err(Ended::Failed(error)) => Err(error),
            Err(Ended::TimedOut) => Err(timed_out(args, number)),
            Err(Ended::Interrupted(signal)) => Err(Interrupted::at(signal, taken(args, number)).into()),
        }
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

/// Acks a result. Does not wait for the server, which may be away.
fn ack<T>(pulled: PulledResult<T>) {
    // The ack goes out even if nothing waits for its end.
    let _ = pulled.ack().now_or_never();
}

impl<T: Send + 'static> Printed for Line<T> {
    fn is_wanted(&self) -> bool {
        match self {
            Self::Result(pulled) => pulled.is_held(),
            Self::File => true,
        }
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
