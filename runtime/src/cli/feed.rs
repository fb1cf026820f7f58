//! `pcluster feed`

mod dry_run;

use std::convert::Infallible;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde_json::json;

use super::exit::{Interrupted, TimedOut, Usage};
use super::input::{self, Content, FileBytes, Input, InputFormat, Source};
use super::output::progress::{Outlook, counting};
use super::output::{Output, count, seconds};
use super::{Context, duration, positive, size, timeout};
use crate::client::{ClientError, Fed, Feeder, Item, Packing, Waits};
use crate::frame::Headers;
use crate::frame::id::check_fed_id;
use crate::frame::large::MAX_WHOLE;
use crate::name::{ChainName, Topic};
use crate::shutdown;

/// How long the server may take to confirm items when feeding is interrupted.
const ABANDON: Duration = Duration::from_secs(1);

/// How often the progress of feeding is checked.
const LOOK: Duration = Duration::from_millis(100);
/// How long feeding waits before the user is told.
const TELL_AFTER: Duration = Duration::from_secs(3);

/// Feed items into a chain, from arguments, files or standard input
///
/// An argument that begins with { or [ must be JSON. A JSON string, number, true, false or null is JSON too. Every
/// other argument is text. A file may be large: it is read while it is fed. An item from a slow source is fed as soon
/// as it is complete. While the chain's queue is full, or the server is away or has no room, feeding waits and says so.
/// At a terminal it shows how many items are fed, how much of a file is read, and the time left.
#[derive(Debug, clap::Args)]
#[command(after_help = FORMATS)]
pub struct Args {
    /// The chain
    chain: ChainName,
    #[command(flatten)]
    from: input::Flags,
    /// Show the format, the number of items and the first item, and feed nothing. Needs no server
    #[arg(long)]
    dry_run: bool,
    /// Id of the item. Several items get the ids ID-1, ID-2 and so on. An item that is fed again under the same id is
    /// dropped
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Topic of the items and of all that comes of them: 1 to 128 characters of A-Z, a-z, 0-9, - and _. `pull --topic`,
    /// `watch --topic` and `wait --topic` are about the items of one topic. A chain that an earlier pcluster has deployed
    /// takes none
    #[arg(long, value_name = "TOPIC")]
    topic: Option<Topic>,
    /// A header for each item, which comes back with its results and dead letters; may be given several times, for 4 KiB in all
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Give up with status 3 when no item was taken for this long, whatever feeding waits for; in seconds as in 2 or
    /// 0.5, or as in 500ms, 30s or 5m; 0 means a tenth of a second
    #[arg(short, long, value_name = "SECONDS", value_parser = timeout)]
    timeout: Option<Duration>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten, next_help_heading = "Packing (with --id each item is a message of its own)")]
    pack: Pack,
}

/// How items are packed into messages.
#[derive(Debug, clap::Args)]
pub struct Pack {
    #[arg(id = "pack-items", long = "pack-items", value_name = "N", value_parser = positive::<usize>, help = Pack::items_help())]
    items: Option<usize>,
    #[arg(id = "pack-bytes", long = "pack-bytes", value_name = "SIZE", value_parser = size, help = Pack::bytes_help())]
    bytes: Option<bytesize::ByteSize>,
    #[arg(id = "pack-wait", long = "pack-wait", value_name = "DURATION", value_parser = duration, help = Pack::wait_help())]
    wait: Option<Duration>,
}

impl Pack {
    /// Returns the packing that the flags ask for; `None` if no flag was given.
    pub(super) fn packing(&self) -> Option<Packing> {
        let default = Packing::default();
        let bytes = self.bytes.map(|bytes| usize::try_from(bytes.as_u64()).unwrap_or(usize::MAX));
        (self.items.is_some() || bytes.is_some() || self.wait.is_some()).then_some(Packing {
            items: self.items.unwrap_or(default.items),
            bytes: bytes.unwrap_or(default.bytes),
            wait: self.wait.unwrap_or(default.wait),
        })
    }

    fn items_help() -> String {
        format!("Most items in a message; 1 for no packing [default: {}]", Packing::default().items)
    }

    fn bytes_help() -> String {
        let default = bytesize::ByteSize(Packing::default().bytes as u64);
        format!("Most bytes of a message, as in 64KiB; a larger item goes alone [default: {default}]")
    }

    fn wait_help() -> String {
        let default = humantime::format_duration(Packing::default().wait);
        format!("How long an item waits for others, as in 5ms [default: {default}]")
    }
}

const FORMATS: &str = "Formats: ndjson (a JSON document on each line), json (documents that may span lines; the elements \
    of an array are items), lines (each line is a text), csv (with a header line; each row is a record of texts; a blank row is \
    skipped, but is an empty text in a file of one column), cbor (a CBOR sequence), text (the whole file is one text), bytes (the \
    whole file is one byte string). Text is UTF-8.\n\n\
    An item may have up to 64 MiB, and with text or bytes, which are never in memory as a whole, up to 1 GiB. An item that does not \
    fit in a message, or has more bytes than `large` in the manifest says, goes beside the queue, into the chain's object store.\n\n\
    Without --format, the extension of the file decides. For other files and standard input, the first bytes decide \
    between JSON and lines; csv, cbor, text and bytes must be named then, as in --format csv. Input that begins with { or [ is JSON that may \
    span lines: an array is one item if it ends on its first line, else its elements are items. If the first line is a JSON \
    string, number, true, false or null, each line must be JSON. Everything else is lines. Input that later breaks the rules of \
    its format is an error with its line, and nothing after it is fed. An object or row that has a name twice is refused. \
    Integers are exact at any size.\n\n\
    Examples:\n  \
    pcluster feed example '\"hello world!\"'\n  pcluster feed orders -f orders.csv --id orders-2026-01\n  \
    pcluster feed orders -f orders.csv --delimiter ';' --dry-run\n  pcluster feed scans -f scan.tiff --format bytes --id scan-17\n  tail -f app.log | pcluster feed logs --format lines";

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    if let Some(id) = &args.id {
        check_fed_id(id).map_err(|error| Usage(error.to_string()))?;
    }
    let source = source(&args)?;
    let reading = args.from.reading();
    input::check(&source, reading)?;
    for file in files_as_texts(&args) {
        let say = format!("{file} is fed as a text; to feed the content of the file of this name, give `-f {file}`");
        context.output.note(&say);
    }
    if args.dry_run {
        return dry_run::run(source, reading, args.timeout, &context.output).await;
    }
    let client = context.client().await?;
    let feeder = tokio::select! {
        feeder = client.feeder(&args.chain) => feeder?,
        signal = shutdown::requested() => return Err(Interrupted::at(signal, fed_so_far(Fed::default())).into()),
    };
    let mut headers = Headers::new();
    args.headers.iter().for_each(|(name, value)| headers.push(name.clone(), value));
    let mut feeder = feeder.with_packing(args.pack.packing().unwrap_or_default()).with_headers(headers)?;
    let started = Instant::now();
    let from = if matches!(source, Source::Stdin) { "standard input" } else { "the input" };
    let mut input = input::open(source, reading, usize::try_from(MAX_WHOLE)?)?;
    let bar = if args.quiet { ProgressBar::hidden() } else { counting("fed", "items") };
    let mut stopped = std::pin::pin!(shutdown::requested());
    let waits = feeder.waits();
    let mut file = input.file().cloned().map(|file| (Outlook::of(file.all), file));
    let how_far = || {
        let share = |(outlook, file): &mut (Outlook, FileBytes)| share_read(outlook, started.elapsed(), file.left());
        file.as_mut().map(share).unwrap_or_default()
    };
    let ended = tokio::select! {
        ended = feed(&args, &mut feeder, &mut input) => ended.map(Ok),
        never = tell_waits(&waits, &bar, &context.output, how_far) => match never {},
        never = show(&waits, &bar) => match never {},
        timed_out = out_of_time(&waits, args.timeout, from) => Err(timed_out.into()),
        signal = &mut stopped => Ok(Err(signal)),
    };
    let fed = match ended {
        Ok(Ok(fed)) => fed,
        _ => feeder.abandon(ABANDON).await,
    };
    bar.finish_and_clear();
    let elapsed = started.elapsed();
    let has_fed = fed != Fed::default();
    let mut told = Ok(());
    // With `--json`, feeding that stopped early prints its counts too.
    if context.output.is_json() && (ended.is_ok() || has_fed) {
        let seconds = elapsed.as_secs_f64();
        told = context.output.line(&json!({ "fed": fed.accepted, "duplicates": fed.duplicates, "seconds": seconds }));
    }
    match ended {
        Ok(Ok(_)) => {
            if !context.output.is_json() {
                report(fed, elapsed, &context.output);
            }
            Ok(told?)
        }
        Ok(Err(signal)) => Err(Interrupted::at(signal, fed_so_far(fed)).into()),
        Err(error) => {
            if has_fed {
                context.output.note(&fed_so_far(fed));
            }
            Err(error)
        }
    }
}

/// Reads a header of the command line.
fn header(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    pair.ok_or_else(|| format!("`{text}` has no `=`; write a header as in `-H customer=ada`"))
}

/// Returns the items that are fed as texts but name an existing file. The user may have meant the file.
fn files_as_texts(args: &Args) -> impl Iterator<Item = &String> {
    let is_file = |item: &&String| item.contains('.') && std::path::Path::new(item).is_file();
    args.from.items.iter().filter(|_| args.from.format.is_none()).filter(is_file)
}

fn source(args: &Args) -> anyhow::Result<Source> {
    match &args.from.file {
        Some(file) if file.as_os_str() == "-" => Ok(Source::Stdin),
        Some(file) => Ok(Source::File(file.clone())),
        None if !args.from.items.is_empty() => Ok(Source::Arguments(args.from.items.clone())),
        None if std::io::stdin().is_terminal() => Err(Usage(format!(
            "nothing to feed: give items, as in `pcluster feed {} '\"hello\"'`, a file with -f, or pipe something in",
            args.chain
        ))
        .into()),
        None => Ok(Source::Stdin),
    }
}

async fn feed(args: &Args, feeder: &mut Feeder, input: &mut Input) -> anyhow::Result<Fed> {
    let single = args.from.items.len() == 1 || args.from.format.is_some_and(InputFormat::is_whole);
    let mut number = 0_u64;
    while let Some(content) = input.next().await {
        number += 1;
        let content = match content {
            Ok(content) => content,
            Err(error) => return finish_before(feeder, error).await,
        };
        let id = args.id.as_ref().map(|id| if single { id.clone() } else { format!("{id}-{number}") });
        let topic = args.topic.clone();
        let fed = match content {
            Content::Item(cbor) => feeder.feed(Item { cbor, id, topic }).await,
            Content::File(file, form) => feeder.feed_file(file, form, id, topic).await,
        };
        match fed {
            Ok(()) => {}
            Err(ClientError::NotUtf8(at)) => {
                let error = anyhow::anyhow!("not UTF-8 after byte {at}; feed it with --format bytes");
                return finish_before(feeder, error).await;
            }
            Err(error) if single || !is_of_item(&error) => return Err(of_file(args, error)),
            Err(error) => {
                let error = anyhow::Error::new(error).context(format!("item {number}"));
                return finish_before(feeder, error).await;
            }
        }
    }
    feeder.finish().await.map_err(|error| of_file(args, error))
}

/// Names the file that an error is about.
fn of_file(args: &Args, error: ClientError) -> anyhow::Error {
    let is_of_file = matches!(error, ClientError::ItemFile { .. });
    let error = anyhow::Error::new(error);
    match args.from.file.as_ref().filter(|file| is_of_file && file.as_os_str() != "-") {
        Some(file) => error.context(format!("`{}`", file.display())),
        None => error,
    }
}

/// Returns `true` if an error says what is wrong with one item.
fn is_of_item(error: &ClientError) -> bool {
    let is_too_large = matches!(error, ClientError::TooLarge { .. } | ClientError::Oversized { .. });
    is_too_large || matches!(error, ClientError::ItemFile { .. })
}

/// Shows how many items the server has.
async fn show(waits: &Waits, bar: &ProgressBar) -> Infallible {
    loop {
        let fed = waits.fed();
        bar.set_position(fed.accepted + fed.duplicates);
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until no item was taken for `timeout`, because the chain took none or `from` gave none.
async fn out_of_time(waits: &Waits, timeout: Option<Duration>, from: &str) -> TimedOut {
    let Some(timeout) = timeout else { return std::future::pending().await };
    loop {
        // A timeout of 0 still lets the input give what it has.
        let left = timeout.max(LOOK).saturating_sub(waits.idle());
        if left.is_zero() {
            break;
        }
        tokio::time::sleep(left).await;
    }
    let reason = match waits.now() {
        Some(waiting) => waiting.reason,
        None if waits.is_sending() => "no answer from the server".to_owned(),
        None => format!("nothing came from {from}"),
    };
    TimedOut(format!("no item was taken for {}: {reason}", humantime::format_duration(timeout)))
}

/// Returns the share of a file that is read, and the time left. It is shown after the number of items.
fn share_read(outlook: &mut Outlook, elapsed: Duration, left: u64) -> String {
    format!("(of the file {})", outlook.with(elapsed, left))
}

/// Tells the user what feeding waits for, once it has waited for a while. Else shows `how_far`.
pub(super) async fn tell_waits(
    waits: &Waits,
    bar: &ProgressBar,
    output: &Output,
    mut how_far: impl FnMut() -> String,
) -> Infallible {
    let mut is_told = false;
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(waiting) = waits.now() else {
            bar.set_message(how_far());
            if std::mem::take(&mut is_told) {
                bar.suspend(|| output.note("feeding continues"));
            }
            continue;
        };
        bar.set_message(format!("waiting: {}", waiting.reason));
        // The connection reports its own loss.
        if waiting.since.elapsed() >= TELL_AFTER && !waiting.is_lost && !std::mem::replace(&mut is_told, true) {
            bar.suspend(|| output.note(&format!("waiting: {}", waiting.reason)));
        }
    }
}

/// Feeds the items before one that cannot be fed, then fails with the reason.
async fn finish_before(feeder: &mut Feeder, error: anyhow::Error) -> anyhow::Result<Fed> {
    feeder.finish().await?;
    Err(error)
}

fn fed_so_far(fed: Fed) -> String {
    let accepted = count(fed.accepted, "item");
    let duplicates = if fed.duplicates > 0 { format!(", {} fed before", fed.duplicates) } else { String::new() };
    format!("{accepted} fed{duplicates}")
}

fn report(fed: Fed, elapsed: Duration, output: &Output) {
    let duplicates = match fed.duplicates {
        0 => String::new(),
        number => format!("; {} dropped: fed before under the same id", count(number, "item")),
    };
    output.note(&format!("fed {} in {}{duplicates}", count(fed.accepted, "item"), seconds(elapsed)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_file_the_share_and_the_time_left_are_shown() {
        let mut outlook = Outlook::of(4_000);
        let second = Duration::from_secs;
        assert_eq!(share_read(&mut outlook, second(0), 4_000), "(of the file 0 %)");
        assert_eq!(share_read(&mut outlook, second(2), 3_000), "(of the file 25 %, 6s left)");
        assert_eq!(share_read(&mut outlook, second(8), 0), "(of the file 100 %, 0s left)");
    }
}
