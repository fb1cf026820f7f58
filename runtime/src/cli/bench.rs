//! `pcluster bench`

mod load;
mod report;
mod run;
mod tally;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use bytesize::ByteSize;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::exit::{Interrupted, TimedOut};
use super::feed::{Pack, tell_waits};
use super::input::{self, Content, InputFormat, Reading, Source};
use super::output::progress::counting;
use super::output::{Output, OutputError, count, seconds};
use super::wait::tell;
use super::{Context, positive, size, timeout};
use crate::client::{ClientError, Packing};
use crate::name::ChainName;
use crate::shutdown;
use load::Load;
use report::{Ending, Latency, Report};
use run::Bench;
use tally::Tally;

/// How often the progress is updated.
const SHOW: Duration = Duration::from_millis(100);

/// Measure a chain: feed it items and time what comes out
///
/// Feeds a deployed chain, waits until it is empty, and prints how many items a second it handled and how long its
/// results took. The chain may drop items, or make many items of one. The run begins once a node serves the chain.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The chain
    chain: ChainName,
    /// Items to feed in turn; each is JSON, or text if it is not JSON. Without items, texts are generated
    #[arg(value_name = "ITEM", allow_negative_numbers = true)]
    items: Vec<String>,
    /// Feed the items of this file in turn, in the formats of `pcluster feed`; - is standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "items")]
    file: Option<PathBuf>,
    /// Format of the file
    #[arg(long, value_name = "FORMAT", requires = "file")]
    format: Option<InputFormat>,
    /// Separator of the columns of a CSV file: a character, or tab [default: ,]
    #[arg(long, value_name = "CHARACTER", value_parser = input::delimiter, requires = "file")]
    delimiter: Option<u8>,
    /// Bytes of each generated text, as in 256 or 4KiB
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["items", "file"], default_value = "256", value_parser = size)]
    size: ByteSize,
    /// How many items to feed
    #[arg(short = 'n', long = "items", id = "number", value_name = "N", default_value_t = 10_000, value_parser = positive::<u64>)]
    number: u64,
    /// Items a second, evenly spaced, each in a message of its own unless a --pack flag is given. Without --rate, items
    /// are fed as fast as the chain takes them
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// Give up with status 3 after this long; in seconds as in 2 or 0.5, or as in 500ms, 30s or 5m; with 0 nothing is
    /// fed
    #[arg(short, long, value_name = "SECONDS", value_parser = timeout)]
    timeout: Option<Duration>,
    /// Leave the results of the run for pullers
    #[arg(long)]
    keep_results: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten, next_help_heading = "Packing")]
    pack: Pack,
}

const AFTER_HELP: &str = "What is measured: the time runs from the first item to the last result or failure, or, if a task \
    drops items, to the moment when the chain is found empty. The latency of a result runs from the moment when its item was \
    handed in, or with --rate was due, to the moment when the result is stored. Without --rate, latency is mostly the time that \
    items wait in queues: measure throughput without --rate, and latency with a rate that the chain can sustain.\n\n\
    What is left behind: the run watches its results without taking them, and removes them at the end unless --keep-results is \
    given. Until then they are results like all others: a puller that runs meanwhile gets some of them, and with \
    `[results] max_bytes` they may push out older results. Dead letters stay, and tell why items failed. The status is 1 if items \
    failed and none gave a result. When a hundred items have failed and none has given a result, no more are fed. Ctrl-C ends \
    the feeding and measures what was fed; a second Ctrl-C ends at once.\n\n\
    Examples:\n  \
    pcluster bench text -n 100000                    how many items a second?\n  \
    pcluster bench text --rate 500 -n 5000           how long does an item take, at 500 a second?\n  \
    pcluster bench orders -f orders.ndjson --json    with items of your own, for a script";

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let output = &context.output;
    let client = context.client().await?;
    let mut bench = Bench::open(&client, &args.chain).await?;
    let started = Instant::now();
    let load = tokio::select! {
        load = load(&args, client.broker().limits().max_item()) => load?,
        () = tokio::time::sleep(args.timeout.unwrap_or_default()), if args.timeout.is_some() => {
            let timeout = humantime::format_duration(args.timeout.unwrap_or_default());
            return Err(TimedOut(format!("not done after {timeout}: the items to feed are not read yet")).into());
        }
    };
    let left = args.timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
    if bench.backlog > 0 {
        let backlog = count(bench.backlog, "unfinished message");
        output.note(&format!("{} already has {backlog}, which the measurement includes", args.chain));
    }
    let bar = if args.quiet { ProgressBar::hidden() } else { counting("results", "results") };
    let (waits, tally) = (bench.feeder.waits(), Arc::clone(&bench.tally));
    let stopped = async {
        shutdown::requested().await;
        bar.suspend(|| output.note("interrupted: waiting for the items that were fed; a second signal ends at once"));
    };
    let ended = tokio::select! {
        ended = bench.run(&load, left, stopped, |notice| tell(&notice, &args.chain, &bar, output)) => {
            ended.map_err(anyhow::Error::from)
        }
        never = tell_waits(&waits, &bar, output, String::new) => match never {},
        never = show(&tally, &bar) => match never {},
    };
    bar.finish_and_clear();
    // Print the report before anything else can fail.
    let printed = match &ended {
        Ok(report) if report.items > 0 => print(report, &args.chain, output),
        _ => Ok(()),
    };
    let is_interrupted = matches!(&ended, Ok(report) if report.ending == Ending::Interrupted);
    let cleaned = clean_up(&mut bench, &args, is_interrupted, output).await;
    let report = ended?;
    judge(&report, &args, output).await?;
    cleaned?;
    Ok(printed?)
}

/// Returns the items to feed. `max` is the most bytes that an item may have.
async fn load(args: &Args, max: usize) -> anyhow::Result<Load> {
    let size = usize::try_from(args.size.as_u64()).unwrap_or(usize::MAX);
    let items = match &args.file {
        // A text that is too large is not even generated.
        None if args.items.is_empty() && size > max => return Err(ClientError::TooLarge { size, max }.into()),
        None if args.items.is_empty() => vec![Load::text(size)],
        None => read(Source::Arguments(args.items.clone()), args, max).await?,
        Some(file) if file.as_os_str() == "-" => read(Source::Stdin, args, max).await?,
        Some(file) => read(Source::File(file.clone()), args, max).await?,
    };
    let alone = Packing { items: 1, ..Packing::default() };
    let default = if args.rate.is_some() { alone } else { Packing::default() };
    Ok(Load { items, number: args.number, rate: args.rate, packing: args.pack.packing().unwrap_or(default) })
}

/// Reads the items of a file or of the arguments. Reads at most as many as the run feeds.
async fn read(source: Source, args: &Args, max: usize) -> anyhow::Result<Vec<bytes::Bytes>> {
    let reading = Reading { format: args.format, delimiter: args.delimiter, is_fixed: args.file.is_none() };
    let mut input = input::open(source, reading, max)?;
    let mut items = Vec::new();
    while (items.len() as u64) < args.number
        && let Some(item) = input.next().await
    {
        match item? {
            Content::Item(item) => items.push(item),
            Content::File(file, _) => {
                let size = usize::try_from(file.metadata()?.len())?;
                return Err(ClientError::TooLarge { size, max }.into());
            }
        }
    }
    if items.is_empty() {
        let file = args.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        bail!("`{file}` has no items");
    }
    Ok(items)
}

async fn show(tally: &Tally, bar: &ProgressBar) -> Infallible {
    loop {
        let now = tally.progress();
        let failures = if now.failures > 0 { format!("{}, ", count(now.failures, "failure")) } else { String::new() };
        bar.set_prefix(format!("{} fed, {failures}results", count(now.items, "item")));
        bar.set_position(now.results);
        tokio::time::sleep(SHOW).await;
    }
}

/// Removes the results of the run, unless `--keep-results` is given or a signal comes. After an interrupted run,
/// another signal ends the process.
async fn clean_up(bench: &mut Bench, args: &Args, is_interrupted: bool, output: &Output) -> Result<(), Interrupted> {
    let results = bench.tally.progress().results;
    if results == 0 {
        return Ok(());
    }
    let (chain, results) = (&args.chain, count(results, "result"));
    if args.keep_results {
        output.note(&format!("{results} kept; `pcluster pull {chain}` takes them"));
        return Ok(());
    }
    let bar = if args.quiet { ProgressBar::hidden() } else { counting("messages of results removed", "messages") };
    let removed = tokio::select! {
        removed = bench.remove_results(|messages| bar.set_position(messages)) => Ok(removed),
        signal = shutdown::requested(), if !is_interrupted => Err(Interrupted::by(signal)),
    };
    bar.finish_and_clear();
    let stay = |error: &dyn Display| output.note(&format!("the results of the run are left for pullers: {error}"));
    match removed {
        Ok(Ok(_)) => output.note(&format!("{results} of the run removed")),
        Ok(Err(error)) => stay(&error),
        Err(interrupted) => {
            stay(&interrupted);
            return Err(interrupted);
        }
    }
    Ok(())
}

/// Returns an error if the run was not a success.
async fn judge(report: &Report, args: &Args, output: &Output) -> anyhow::Result<()> {
    let (chain, failures) = (&args.chain, count(report.failures, "failure"));
    let fed = || format!("{} of {} fed", report.items, count(args.number, "item"));
    match report.ending {
        Ending::TimedOut => {
            let timeout = humantime::format_duration(args.timeout.unwrap_or_default());
            let rest =
                format!("the remaining items still run, without being measured; `pcluster reset {chain}` drops them");
            let rest = if report.items > 0 { format!("; {rest}") } else { String::new() };
            Err(TimedOut(format!("not done after {timeout}: {}{rest}", fed())).into())
        }
        Ending::Interrupted => Err(Interrupted::at(shutdown::requested().await, fed()).into()),
        Ending::Failing => {
            let hint = if args.items.is_empty() && args.file.is_none() {
                "; its task may not take generated texts: give items of your own"
            } else {
                ""
            };
            bail!(
                "{failures} before any result, so feeding stopped after {}; `pcluster dead ls {chain}` tells why{hint}",
                fed()
            )
        }
        Ending::Done if report.failures > 0 && report.results == 0 => {
            bail!("{failures} and no result; `pcluster dead ls {chain}` tells why")
        }
        Ending::Done if report.failures > 0 => {
            output.note(&format!("{failures}; `pcluster dead ls {chain}` tells why"));
            Ok(())
        }
        Ending::Done => Ok(()),
    }
}

fn print(report: &Report, chain: &ChainName, output: &Output) -> Result<(), OutputError> {
    if output.is_json() {
        return output.line(&as_json(report, chain));
    }
    let (items, messages) = (count(report.items, "item"), count(report.messages, "message"));
    #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
    let size = bytes(report.bytes as f64);
    let mut lines = vec![
        ("fed", format!("{items} in {messages}, {size}, in {}", seconds(report.feeding))),
        ("results", report.results.to_string()),
        ("failures", report.failures.to_string()),
    ];
    match (report.unanswered, report.ending) {
        (0, _) => {}
        (items, Ending::TimedOut) => lines.push(("unfinished", format!("{} at most", count(items, "item")))),
        (items, _) => lines.push(("dropped", count(items, "item"))),
    }
    let (inward, outward) = (report.per_second(report.items), report.per_second(report.results));
    lines.push(("time", seconds(report.elapsed)));
    let per_second = bytes(report.per_second(report.bytes));
    lines.push(("rate", format!("{inward:.1} items/s in, {outward:.1} results/s out, {per_second}/s in")));
    if let Some(latency) = &report.latency {
        let shown = named(latency).map(|(name, millis)| format!("{name} {millis:.2}"));
        lines.push(("latency", format!("{} ms", shown.join("  "))));
    }
    for (name, value) in lines {
        output.data(&format!("{name:<10}  {value}"))?;
    }
    Ok(())
}

fn as_json(report: &Report, chain: &ChainName) -> Value {
    let latency = report.latency.as_ref().map(|latency| BTreeMap::from(named(latency)));
    json!({
        "chain": chain,
        "items": report.items,
        "messages": report.messages,
        "bytes": report.bytes,
        "results": report.results,
        "failures": report.failures,
        "unanswered": report.unanswered,
        "feed_seconds": report.feeding.as_secs_f64(),
        "seconds": report.elapsed.as_secs_f64(),
        "items_per_second": report.per_second(report.items),
        "results_per_second": report.per_second(report.results),
        "bytes_per_second": report.per_second(report.bytes),
        "latency_ms": latency,
        "ended": match report.ending {
            Ending::Done => "done",
            Ending::Interrupted => "interrupted",
            Ending::Failing => "all failed",
            Ending::TimedOut => "timed out",
        },
    })
}

/// Formats a number of bytes in the unit with the fewest digits.
fn bytes(number: f64) -> String {
    match number {
        1e9.. => format!("{:.2} GB", number / 1e9),
        1e6.. => format!("{:.2} MB", number / 1e6),
        1e3.. => format!("{:.2} kB", number / 1e3),
        _ => format!("{number:.0} B"),
    }
}

/// Returns each figure with its name, in milliseconds.
fn named(latency: &Latency) -> [(&'static str, f64); 5] {
    let Latency { min, p50, p90, p99, max } = *latency;
    [("min", min), ("p50", p50), ("p90", p90), ("p99", p99), ("max", max)]
        .map(|(name, duration)| (name, f64::from(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)) / 1e3))
}

/// Reads a number of items a second.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("must be more than 0 items a second, as in 500 or 0.5".to_owned()),
    }
}
