//! `pcluster dev`

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use futures_util::TryStreamExt;
use tokio::sync::{mpsc, oneshot, watch};

use super::exit::{Interrupted, Usage};
use super::input::{Content, Reading};
use super::node::{HostArgs, node_settings};
use super::output::{Output, OutputError, count, seconds};
use super::server::{self, Server};
use super::{Context, build, deploy, input, logs, unless_told};
use crate::broker::follow::{Follower, StartAt};
use crate::broker::stores::make;
use crate::broker::streams::ChainStreams;
use crate::broker::{Address, Broker};
use crate::calls::grant::Grants;
use crate::chain::{Stage, Work};
use crate::client::large::LargeItems;
use crate::client::{Client, Item, LogFilter, Package};
use crate::frame::header;
use crate::frame::id::FrameId;
use crate::frame::large::MAX_WHOLE;
use crate::name::{ChainName, Digest};
use crate::node::{Node, NodeSettings};
use crate::program::allow;
use crate::{shutdown, subject};

/// How often to check whether the last results are shown.
const LOOK: Duration = Duration::from_millis(20);
/// How the items of the command line are read.
const READING: Reading = Reading { format: None, delimiter: None, is_fixed: true };
/// How long the last results may take to be shown.
const SHOW: Duration = Duration::from_secs(10);

/// Run everything in one process: a NATS server, a node, and your chains
///
/// Starts a nats-server on a free port and a node, and deploys the chains. Until Ctrl-C, it prints results to standard
/// output and log lines to standard error, as they come. Other commands reach the server with the --nats URL that is
/// printed. The node allows what these manifests ask for, programs and grants, without the --allow flags. This machine is
/// reached where a grant names it, as `http://localhost:9000` does, and secrets are variables `PCLUSTER_SECRET_<NAME>`. A
/// failed attempt is not shown before the last one: `retry = { attempts = 1 }` in a stage shows the first reason at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: pcluster dev chain.toml --feed '\"hello world!\"' --until-empty")]
pub struct Args {
    /// Manifests to deploy, or folders with a `chain.toml` [default: chain.toml, if it exists]
    #[arg(value_name = "CHAIN.TOML")]
    manifests: Vec<PathBuf>,
    /// Feed this item to the chain: JSON, or text if it is not JSON; may be given several times
    #[arg(long, value_name = "ITEM", allow_negative_numbers = true)]
    feed: Vec<String>,
    /// End when the chains are empty; with status 1 if items became dead letters
    #[arg(long)]
    until_empty: bool,
    /// Keep the server's data in this folder [default: a temporary folder]
    #[arg(long, value_name = "FOLDER")]
    store: Option<PathBuf>,
    /// The nats-server program [default: the first on the PATH, then in .tools/bin]
    #[arg(long, value_name = "FILE")]
    pub(super) nats_server: Option<String>,
    #[command(flatten)]
    pub(super) how: build::How,
    #[command(flatten)]
    pub(super) host: HostArgs,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    input::check(&input::Source::Arguments(args.feed.clone()), READING)?;
    let manifests = manifests(&args)?;
    if context.settings.source("nats") == "flag --nats" {
        let message =
            "`pcluster dev` starts a server of its own; leave out --nats, or run `pcluster node` on that server";
        return Err(Usage(message.to_owned()).into());
    }
    let mut own = manifests.into_iter().map(check).collect::<Result<Vec<_>, _>>()?;
    let node = node_settings(&context.settings)?;
    let program = server::find(context.settings.nats_server.as_deref())?;
    for each in &mut own {
        each.package = build::package(&each.path, args.how, context).await?;
    }
    let server = unless_told(Server::start(&program, args.store.as_deref())).await?;
    let ended = with_server(&args, &own, node, &server.url, context).await;
    server.stop().await?;
    ended
}

fn manifests(args: &Args) -> anyhow::Result<Vec<PathBuf>> {
    let usual = PathBuf::from("chain.toml");
    let manifests = match args.manifests.as_slice() {
        [] if usual.exists() => vec![usual],
        given => given.to_vec(),
    };
    if !args.feed.is_empty() && manifests.len() != 1 {
        return Err(Usage(format!("--feed goes with exactly one chain, not {}", manifests.len())).into());
    }
    Ok(manifests)
}

/// A manifest that is deployed here.
struct Own {
    path: PathBuf,
    /// The manifest and the plugins that were built for it.
    package: Package,
    /// `true` if it asks for programs or grants.
    asks: bool,
    /// What its stages are granted.
    grants: Vec<Arc<Grants>>,
}

/// Checks a manifest, and that its programs are here: no other node would run them.
fn check(path: PathBuf) -> anyhow::Result<Own> {
    let chain = Package::file(&path).chain()?;
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let (mut asks, mut all_grants) = (false, Vec::new());
    for Stage { name, work, grants, .. } in chain.stages {
        asks |= !grants.is_empty();
        all_grants.push(grants);
        let Work::Program(program) = work else { continue };
        asks = true;
        // Those that come with their stage are checked with its manifest.
        if !program.name.starts_with("./") {
            let found = allow::locate(&program.name, &on_path);
            found.map_err(|problem| anyhow!("chain `{}`: stage `{name}`: {problem}", chain.name))?;
        }
    }
    let package = Package::file(&path);
    Ok(Own { path, package, asks, grants: all_grants })
}

async fn with_server(
    args: &Args,
    own: &[Own],
    mut node_settings: NodeSettings,
    url: &str,
    context: &Context,
) -> anyhow::Result<()> {
    let settings = &context.settings;
    let address = Address::from(url);
    let client = context.client_at(&address).await?;
    let broker = Broker::connect(&address, &format!("pcluster-node {}", settings.node)).await?;
    let (stop, mut stopping) = watch::channel(false);
    let stopped = async move {
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    let (allow, allowed) = oneshot::channel::<Vec<Digest>>();
    let mut node = tokio::spawn(async move {
        // It ends before it has begun if a chain cannot be deployed.
        let Ok(contents) = allowed.await else { return Ok(()) };
        for content in contents {
            Arc::make_mut(&mut node_settings.ceiling).allow_content(content.clone());
            node_settings.allowed.add_content(content);
        }
        Node::run_on(broker, node_settings, stopped, || {}).await
    });
    context.output.note(&format!("NATS is at {url}; other commands reach it with `--nats {url}`"));
    let (unprinted, mut not_printed) = mpsc::unbounded_channel();
    let ended = tokio::select! {
        ended = chains(args, own, &client, &context.output, &unprinted, allow) => ended,
        signal = shutdown::requested() => {
            context.output.note("stopping");
            // A run that is told to stop is done, unless it was to run until the chains are empty.
            if args.until_empty { Err(Interrupted::by(signal).into()) } else { Ok(()) }
        }
        Some(error) = not_printed.recv() => Err(OutputError::into(error)),
        () = context.output.closed() => Ok(()),
        // Only an error ends the node before it is told to stop.
        ended = &mut node => return Ok(ended??),
    };
    stop.send_replace(true);
    let node = node.await.map_err(|error| anyhow!("the node ended: {error}"))?;
    client.broker().close();
    ended.and(node.map_err(Into::into))
}

/// Deploys chains, has the node allow what they ask for, feeds items and shows results. Returns when the chains are empty, with `--until-empty`.
async fn chains(
    args: &Args,
    own: &[Own],
    client: &Client,
    output: &Output,
    unprinted: &mpsc::UnboundedSender<OutputError>,
    allow: oneshot::Sender<Vec<Digest>>,
) -> anyhow::Result<()> {
    if own.is_empty() && args.until_empty {
        let message = "there is no chain to run: no `chain.toml` is here; name a manifest, as in `pcluster dev my-chain/chain.toml`";
        return Err(Usage(message.to_owned()).into());
    }
    if own.is_empty() {
        output.note(
            "no chain is deployed yet, as no `chain.toml` is here; `pcluster deploy` with that --nats deploys one",
        );
    }
    let (mut before, mut contents) = (0, Vec::new());
    let mut shown: Vec<(ChainName, Arc<Shown>)> = Vec::new();
    for &Own { ref package, asks, ref grants, .. } in own {
        for grants in grants {
            for made in make::missing(client.broker(), grants.kv.keys(), grants.objects.keys()).await? {
                output.note(&format!("made the {made}, which was not there"));
            }
        }
        let deployment = client.deploy(package.clone()).await?;
        output.note(&deploy::describe(&deployment));
        before += client.dead_by_stage(&deployment.chain).await?.values().sum::<u64>();
        let results = show_results(client, &deployment.chain, output, unprinted.clone()).await?;
        show_logs(client, &deployment.chain, output).await?;
        show_dead_letters(client, &deployment.chain, output).await?;
        shown.push((deployment.chain, results));
        if asks {
            contents.push(deployment.digest);
        }
    }
    // The receiver is gone only if the command is ending.
    let _ = allow.send(contents);
    let started = Instant::now();
    let mut fed = 0;
    if let (Some((chain, _)), false) = (shown.first(), args.feed.is_empty()) {
        let mut feeder = client.feeder(chain).await?;
        let source = input::Source::Arguments(args.feed.clone());
        let mut items = input::open(source, READING, usize::try_from(MAX_WHOLE)?)?;
        while let Some(content) = items.next().await {
            // An argument is never in a file.
            if let Content::Item(cbor) = content? {
                feeder.feed(Item { cbor, id: None, topic: None }).await?;
            }
        }
        fed = feeder.finish().await?.accepted;
    }
    if !args.until_empty {
        return std::future::pending().await;
    }
    let mut came = 0;
    let mut dead = 0;
    for (chain, results) in &shown {
        client.wait(chain).await?;
        let kept = ChainStreams::of(client.broker(), chain).result_count().await?;
        let all_shown = async {
            while results.messages.load(Relaxed) < kept {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(SHOW, all_shown).await;
        came += results.results.load(Relaxed);
        dead += client.dead_by_stage(chain).await?.values().sum::<u64>();
    }
    // Dead letters of earlier runs do not count.
    let dead = dead.saturating_sub(before);
    let said = if dead > 0 { format!(", {}", count(dead, "dead letter")) } else { String::new() };
    let elapsed = seconds(started.elapsed());
    output.note(&format!("{} fed, {}{said} in {elapsed}", count(fed, "item"), count(came, "result")));
    match dead {
        0 => Ok(()),
        dead => Err(anyhow!("{} of the items that ran", count(dead, "dead letter"))),
    }
}

/// How much was printed of a chain.
#[derive(Default)]
struct Shown {
    results: AtomicU64,
    /// The messages that held these results.
    messages: AtomicU64,
}

/// Prints results as they come, and counts them.
async fn show_results(
    client: &Client,
    chain: &ChainName,
    output: &Output,
    unprinted: mpsc::UnboundedSender<OutputError>,
) -> anyhow::Result<Arc<Shown>> {
    let mut watcher = client.watcher(chain, StartAt::First).await?;
    let (shown, output) = (Arc::new(Shown::default()), output.clone());
    let counted = Arc::clone(&shown);
    let items = LargeItems::of(client, chain).await?;
    tokio::spawn(async move {
        while let Ok(Some(mut result)) = watcher.try_next().await {
            let mut shown = Ok(());
            if let Some(reference) = result.large.take() {
                match items.held(&reference, items.read(&reference)).await {
                    Ok(item) => result.item = item,
                    Err(error) => {
                        output.note(&format!("the result of item {} cannot be shown: {error}", result.id));
                        result.large = Some(reference);
                    }
                }
            }
            if result.large.is_none() {
                shown = output.data(&result.to_json());
            }
            if let Err(error) = shown {
                // The receiver is gone only if the command is ending.
                let _ = unprinted.send(error);
                return;
            }
            counted.results.fetch_add(1, Relaxed);
            counted.messages.store(watcher.messages, Relaxed);
        }
    });
    Ok(shown)
}

async fn show_logs(client: &Client, chain: &ChainName, output: &Output) -> anyhow::Result<()> {
    let filter = LogFilter { chain: Some(chain.clone()), ..LogFilter::default() };
    let (mut lines, output) = (client.logs(&filter).await?, output.clone());
    tokio::spawn(async move {
        while let Ok(Some(record)) = lines.try_next().await {
            output.note(&logs::show(&record, false));
        }
    });
    Ok(())
}

async fn show_dead_letters(client: &Client, chain: &ChainName, output: &Output) -> anyhow::Result<()> {
    let mut letters = Follower::open(client.broker(), &subject::dead_stream(chain), Vec::new(), StartAt::Now).await?;
    let output = output.clone();
    tokio::spawn(async move {
        while let Ok(letter) = letters.next().await {
            let get = |name: &str| letter.headers.get(name).unwrap_or_default();
            if letter.headers.get(header::ITEM_PART).is_some() {
                continue;
            }
            let (stage, id) = (get(header::STAGE), FrameId::from_header(get(header::ID)).root());
            output.note(&format!("dead letter of {stage}: item {id}: {}", get(header::REASON)));
        }
    });
    Ok(())
}
