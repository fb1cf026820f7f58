//! `pcluster run`

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use pcluster_abi::Level;
use tokio::sync::{mpsc, oneshot};

use super::exit::{Interrupted, Usage};
use super::input::{self, Content, Input, Source};
use super::node::{HostArgs, node_settings};
use super::output::{Output, OutputError, count, seconds};
use super::{Context, build, positive};
use crate::calls::door::{Item, Notes};
use crate::calls::key::Caller;
use crate::client::{Here, item_of_file};
use crate::desk::flow::Gathering;
use crate::desk::outlet::{Outlet, Results};
use crate::desk::stage::DeskStage;
use crate::desk::{Around, Desk, DeskItem, Origin};
use crate::frame::cbor;
use crate::frame::json::{AsJson, to_json};
use crate::frame::large::MAX_WHOLE;
use crate::name::{ChainName, StageName, Topic};
use crate::node::NodeSettings;
use crate::run::call::Calls;
use crate::run::failure::Failure;
use crate::run::item::ItemBytes;
use crate::shutdown;
use crate::text::{visible, visible_line};

/// Results that wait to be written, in pieces.
const PIECES: usize = 64;
/// Items that are ready are run together; a frame is not kept back longer than this for more of them.
const GATHER: Duration = Duration::from_millis(1);
/// The most bytes of a failed item that are shown.
const SHOWN: usize = 200;

/// Run a chain over items in this process, without a server
///
/// The chain is a command in a pipe: items come from standard input, a file or arguments, and results go to standard output, in the
/// order of their items. Nothing is deployed and nothing is kept. Tasks and programs run as on a node, with the attempts, back-off
/// and limits of the manifest, on all cores; memory is bounded, however many items there are. An item that fails for good is told
/// on standard error with its number and reason, and the other items go on.
///
/// The manifest may have what it asks for, programs and grants, without the --allow flags. This machine is reached where a grant
/// names it, as `http://localhost:9000` does, and secrets are variables `PCLUSTER_SECRET_<NAME>`. Buckets, object stores and
/// subjects are in a NATS cluster, so a chain with a grant of these needs `pcluster dev`.
///
/// Exit status: 0 if all items ended well, 1 if some failed or the input was wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pcluster run chain.toml < orders.ndjson > totals.ndjson\n  \
    pcluster run -f orders.csv | jq .total\n  pcluster run chain.toml '{\"n\": 1}' '{\"n\": 2}'\n  \
    pcluster run --unordered -f access.log --format lines --raw")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Args {
    /// The manifest, or a folder with a `chain.toml` [default: chain.toml]
    #[arg(value_name = "CHAIN.TOML", allow_negative_numbers = true)]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    from: input::Flags,
    /// Print results as they come: no item waits for those before it
    #[arg(long)]
    unordered: bool,
    /// Print texts without quotes, and bytes as they are
    #[arg(long)]
    raw: bool,
    /// Try an item at most this often, whatever the manifest says; 1 shows the first failure at once
    #[arg(long, value_name = "N", value_parser = positive::<u32>)]
    attempts: Option<u32>,
    /// Run stages of which one gives what the next does not take
    #[arg(long)]
    no_contracts: bool,
    /// Topic of the items
    #[arg(long, value_name = "TOPIC")]
    topic: Option<Topic>,
    /// Do not say how many items ran, nor what tasks log
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    how: build::How,
    #[command(flatten)]
    pub(super) host: HostArgs,
}

/// What the chain has around it: standard output and standard error.
struct Terminal {
    chain: ChainName,
    output: Output,
    raw: bool,
    quiet: bool,
    results: AtomicU64,
    failed: AtomicU64,
}

/// An item whose calls are made.
struct Told {
    terminal: Arc<Terminal>,
    stage: StageName,
    id: String,
}

impl Item for Told {
    fn sent(&self, _: &str) -> Option<String> {
        None
    }

    fn log(&self, level: Level, line: String) {
        self.terminal.log(&self.stage, &self.id, level, line);
    }
}

impl Around for Terminal {
    type Output = Vec<u8>;

    fn log(&self, stage: &StageName, item: &str, level: Level, line: String) {
        if self.quiet {
            return;
        }
        let item = if item.is_empty() { String::new() } else { format!(" item {item}") };
        // Text after a line break must not look like another line.
        self.output.note(&format!("{:5} {stage}{item}: {}", level.name(), line.replace('\n', "\n    ")));
    }

    fn calls(self: &Arc<Self>, stage: &DeskStage, item: &DeskItem, id: String) -> Option<Arc<dyn Calls>> {
        let door = stage.door.as_ref()?;
        let (chain, fed) = (self.chain.to_string(), format!("run.{}", item.origin.fed));
        let caller = Caller { chain, stage: stage.name.to_string(), fed, item: id.clone() };
        let told = Told { terminal: Arc::clone(self), stage: stage.name.clone(), id };
        Some(door.open(caller, Box::new(told), Notes::default()))
    }

    fn results(&self, items: Vec<DeskItem>) -> Vec<u8> {
        self.results.fetch_add(items.len() as u64, Relaxed);
        let mut lines = Vec::new();
        for item in items {
            match item.bytes.into_whole() {
                Ok(bytes) => write(&bytes, self.raw, &mut lines),
                Err(error) => self.output.note(&format!("error: result {} cannot be read: {error}", item.origin)),
            }
        }
        lines
    }

    fn failed(&self, stage: &StageName, item: &DeskItem, attempt: u64, failure: Failure) {
        self.failed.fetch_add(1, Relaxed);
        if self.output.is_json() {
            return self.output.note(&document(stage, item, attempt, &failure));
        }
        let Failure { kind, reason, backtrace, .. } = failure;
        let attempts = if attempt > 1 { format!(" after {attempt} attempts") } else { String::new() };
        let (number, kind) = (&item.origin, kind.name());
        let reason = visible_line(&reason).into_owned();
        self.output.note(&format!("error: item {number} failed in stage `{stage}`{attempts}: {kind}: {reason}"));
        for line in backtrace.iter().flat_map(|frames| frames.lines()).filter(|_| !self.quiet) {
            self.output.note(&format!("  in {line}"));
        }
        if let Some(shown) = shown(item).filter(|_| !self.quiet) {
            self.output.note(&format!("  the item: {shown}"));
        }
    }
}

/// Returns what became of a failed item, in JSON.
fn document(stage: &StageName, item: &DeskItem, attempt: u64, failure: &Failure) -> String {
    let value = match &item.bytes {
        ItemBytes::Whole(bytes) => cbor::value(bytes).and_then(|value| serde_json::to_value(AsJson(&value)).ok()),
        ItemBytes::File(_) => None,
    };
    let document = serde_json::json!({
        "item": item.origin.to_string(), "stage": stage, "attempts": attempt, "failure": failure.kind.name(),
        "reason": failure.reason, "value": value,
    });
    document.to_string()
}

/// Returns the beginning of an item. `None` if it is in a file.
fn shown(item: &DeskItem) -> Option<String> {
    let ItemBytes::Whole(bytes) = &item.bytes else { return None };
    Some(crate::text::one_line(&to_json(&cbor::value(bytes)?), SHOWN))
}

/// Adds an item as `pull` prints it.
fn write(item: &[u8], raw: bool, lines: &mut Vec<u8>) {
    match cbor::value(item) {
        Some(ciborium::Value::Text(text)) if raw => lines.extend_from_slice(text.as_bytes()),
        Some(ciborium::Value::Bytes(bytes)) if raw => return lines.extend_from_slice(&bytes),
        Some(value) => lines.extend_from_slice(visible(&to_json(&value)).as_bytes()),
        None => lines.extend_from_slice(b"null"),
    }
    lines.push(b'\n');
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let (manifest, source) = source(&args)?;
    let reading = args.from.reading();
    input::check(&source, reading)?;
    let mut here = build::package(&manifest, args.how, context).await?.here(args.no_contracts).await?;
    for stage in &mut here.chain.stages {
        stage.retry.attempts = stage.retry.attempts.min(args.attempts.unwrap_or(u32::MAX));
    }
    let output = &context.output;
    say_granted(&here, args.quiet, output);
    let terminal = Arc::new(Terminal {
        chain: here.chain.name.clone(),
        output: output.clone(),
        raw: args.raw,
        quiet: args.quiet,
        results: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    });
    let settings = settings(&here, context)?;
    let mut stopped = std::pin::pin!(shutdown::requested());
    let desk = tokio::select! {
        desk = Desk::prepare(here, settings, Arc::clone(&terminal)) => Arc::new(desk?),
        signal = &mut stopped => return Err(Interrupted::by(signal).into()),
    };
    let started = Instant::now();
    let mut input = input::open(source, reading, usize::try_from(MAX_WHOLE)?)?;
    let (outlet, results) = Outlet::new(!args.unordered);
    let fed = AtomicU64::new(0);
    let flow = async {
        let fed = feed(&mut input, Gathering::new(Arc::clone(&desk), outlet), &args, &fed);
        let (fed, printed) = tokio::join!(fed, print(results));
        printed.map_err(anyhow::Error::from).and(fed)
    };
    let ended = tokio::select! {
        ended = flow => ended,
        () = output.closed() => Ok(()),
        signal = &mut stopped => Err(Interrupted::at(signal, summary(&terminal, &fed, started.elapsed())).into()),
    };
    desk.end().await;
    ended?;
    let summary = summary(&terminal, &fed, started.elapsed());
    let failed = terminal.failed.load(Relaxed);
    if failed > 0 {
        return Err(anyhow!("{} failed; {summary}", count(failed, "item")));
    }
    if !args.quiet && std::io::stderr().is_terminal() {
        output.note(&summary);
    }
    Ok(())
}

/// Returns the manifest, and where the items come from. An argument that is no file is an item of the usual manifest.
fn source(args: &Args) -> Result<(PathBuf, Source), Usage> {
    let usual = PathBuf::from("chain.toml");
    let (manifest, items) = match &args.manifest {
        Some(manifest) if !manifest.exists() && usual.is_file() && !looks_like_manifest(manifest) => {
            let first = manifest.to_string_lossy().into_owned();
            (usual, std::iter::once(first).chain(args.from.items.iter().cloned()).collect())
        }
        Some(manifest) => (manifest.clone(), args.from.items.clone()),
        None => (usual, args.from.items.clone()),
    };
    let source = match &args.from.file {
        Some(_) if !items.is_empty() => {
            return Err(Usage("items come from arguments or from --file, not from both".to_owned()));
        }
        Some(file) if file.as_os_str() == "-" => Source::Stdin,
        Some(file) => Source::File(file.clone()),
        None if !items.is_empty() => Source::Arguments(items),
        None if std::io::stdin().is_terminal() => {
            let manifest = manifest.display();
            return Err(Usage(format!(
                "nothing to run: give items, as in `pcluster run {manifest} '\"hello\"'`, a file with -f, or pipe something in"
            )));
        }
        None => Source::Stdin,
    };
    Ok((manifest, source))
}

/// Returns `true` if an argument is meant as a manifest, though there is none.
fn looks_like_manifest(argument: &std::path::Path) -> bool {
    let text = argument.to_string_lossy();
    text.ends_with(".toml") || text.ends_with('/') || text.starts_with("./") || text.starts_with("../")
}

/// Returns the settings of a node that may do what the manifest asks for.
pub(super) fn settings(here: &Here, context: &Context) -> anyhow::Result<NodeSettings> {
    let mut settings = node_settings(&context.settings)?;
    let digest = here.deployed.digest.clone();
    Arc::make_mut(&mut settings.ceiling).allow_content(digest.clone());
    settings.allowed.add_content(digest);
    Ok(settings)
}

/// Says what the manifest asks for and gets.
fn say_granted(here: &Here, quiet: bool, output: &Output) {
    for (stage, grants) in here.chain.granted().iter().filter(|_| !quiet) {
        for line in grants.lines() {
            output.note(&format!("stage `{stage}` may, as the manifest asks: {line}"));
        }
    }
}

/// Runs all items of the input.
async fn feed(input: &mut Input, mut frames: Gathering<Terminal>, args: &Args, fed: &AtomicU64) -> anyhow::Result<()> {
    let gone = |_| anyhow::Error::from(OutputError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe)));
    let mut wrong = None;
    loop {
        let content = match tokio::time::timeout(GATHER, input.next()).await {
            Ok(Some(content)) => content,
            Ok(None) => break,
            Err(_) => {
                frames.flush().await.map_err(gone)?;
                let Some(content) = input.next().await else { break };
                content
            }
        };
        let bytes = match whole(content).await {
            Ok(bytes) => bytes,
            Err(error) => {
                // The items before it run.
                wrong = Some(error);
                break;
            }
        };
        let number = fed.fetch_add(1, Relaxed) + 1;
        let item = DeskItem { bytes, topic: args.topic.clone(), origin: Origin::fed(number) };
        frames.add(item).await.map_err(gone)?;
    }
    frames.finish().await.map_err(gone)?;
    wrong.map_or(Ok(()), Err)
}

/// Returns the bytes of an item.
async fn whole(content: anyhow::Result<Content>) -> anyhow::Result<ItemBytes> {
    match content? {
        Content::Item(bytes) => Ok(bytes.into()),
        Content::File(file, form) => Ok(item_of_file(file, form).await?),
    }
}

/// Prints results until the last. A thread writes them, since the reader may stall.
async fn print(mut results: Results<Vec<u8>>) -> Result<(), OutputError> {
    let (lines, mut pieces) = mpsc::channel::<Vec<u8>>(PIECES);
    let (failed, failure) = oneshot::channel();
    std::thread::spawn(move || {
        let mut stdout = std::io::stdout().lock();
        while let Some(piece) = pieces.blocking_recv() {
            if let Err(error) = stdout.write_all(&piece).and_then(|()| stdout.flush()) {
                // The receiver is gone only if the command is ending.
                let _ = failed.send(Err(error));
                return;
            }
        }
        let _ = failed.send(Ok(()));
    });
    while let Some(piece) = results.next().await {
        if lines.send(piece).await.is_err() {
            break;
        }
    }
    drop((lines, results));
    failure.await.unwrap_or(Ok(())).map_err(OutputError::from)
}

/// Returns what became of the items.
fn summary(terminal: &Terminal, fed: &AtomicU64, elapsed: Duration) -> String {
    let (fed, results) = (fed.load(Relaxed), terminal.results.load(Relaxed));
    format!("{fed} fed, {} in {}", count(results, "result"), seconds(elapsed))
}
