//! `pcluster dev`

mod changes;
mod keys;
mod own;
mod show;
mod sources;
mod watching;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::sync::{mpsc, oneshot, watch};

use super::exit::{Interrupted, Usage};
use super::input::{Content, Reading};
use super::node::{HostArgs, compiler, node_settings};
use super::output::{Output, OutputError, count, seconds};
use super::server::{self, Server};
use super::{Context, build, deploy, input, unless_told};
use crate::broker::stores::make;
use crate::broker::streams::ChainStreams;
use crate::broker::{Address, Broker};
use crate::calls::grant::Grants;
use crate::client::{Client, Item};
use crate::contents::Contents;
use crate::frame::large::MAX_WHOLE;
use crate::name::{ChainName, Digest};
use crate::node::{Node, NodeSettings};
use crate::shutdown;
use own::{Own, check};
use show::{Shown, show};
use watching::{Shared, Watching};

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
    /// Feed the items of this file, in a format that its name or its content tells; - is standard input
    #[arg(long, value_name = "FILE")]
    feed_file: Option<PathBuf>,
    /// Build and deploy again whenever a source, a manifest or the file of --feed-file changes, and feed the items again. The version
    /// need not change: each content has one of its own, as in 1.0-dev.1a2b3c4d. What runs ends. At a terminal, t runs the
    /// cases as `pcluster test` does, and q ends
    #[arg(short, long, conflicts_with = "until_empty")]
    watch: bool,
    /// End when the chains are empty; with status 1 if items became dead letters
    #[arg(long)]
    until_empty: bool,
    /// Keep the server's data in this folder [default: a temporary folder]
    #[arg(long, value_name = "FOLDER")]
    store: Option<PathBuf>,
    /// The port of the server [default: a free one]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The nats-server program [default: the first on the PATH, then in .tools/bin]
    #[arg(long, value_name = "FILE")]
    pub(super) nats_server: Option<String>,
    #[command(flatten)]
    pub(super) how: build::How,
    #[command(flatten)]
    pub(super) host: HostArgs,
}

impl Args {
    fn feeds_nothing(&self) -> bool {
        self.feed.is_empty() && self.feed_file.is_none()
    }
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
    // What is wrong with a manifest that is watched is told when its turn comes.
    let mut own =
        if args.watch { Vec::new() } else { manifests.iter().cloned().map(check).collect::<Result<_, _>>()? };
    let mut node = node_settings(&context.settings)?;
    if args.watch {
        node.compiler = Some(Arc::new(compiler()?.keeping_functions()));
    }
    let program = server::find(context.settings.nats_server.as_deref())?;
    for each in &mut own {
        each.package = build::package(&each.path, args.how, context).await?;
    }
    let server = unless_told(Server::start(&program, args.store.as_deref(), args.port)).await?;
    let ended = with_server(&args, &own, manifests, node, &server.url, context).await;
    server.stop().await?;
    ended
}

fn manifests(args: &Args) -> anyhow::Result<Vec<PathBuf>> {
    let usual = PathBuf::from("chain.toml");
    let manifests = match args.manifests.as_slice() {
        [] if usual.exists() || args.watch => vec![usual],
        given => given.to_vec(),
    };
    if !args.feeds_nothing() && manifests.len() != 1 {
        let flag = if args.feed.is_empty() { "--feed-file" } else { "--feed" };
        return Err(Usage(format!("{flag} goes with exactly one chain, not {}", manifests.len())).into());
    }
    if args.watch && args.feed_file.as_ref().is_some_and(|path| path.as_os_str() == "-") {
        let message = "`--watch` feeds the items again on each change, which standard input cannot give; name a file";
        return Err(Usage(message.to_owned()).into());
    }
    Ok(manifests)
}

async fn with_server(
    args: &Args,
    own: &[Own],
    manifests: Vec<PathBuf>,
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
    let contents = Contents::default();
    if args.watch {
        node_settings.allow_contents(&contents);
    }
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
    let run = async {
        if args.watch {
            // It serves chains as they come.
            let _ = allow.send(Vec::new());
            let shared = Shared { args, client: &client, context, unprinted: &unprinted, contents: &contents };
            return Watching::new(shared, manifests).run().await;
        }
        chains(args, own, &client, &context.output, &unprinted, allow).await
    };
    let ended = tokio::select! {
        ended = run => ended,
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
            "no `chain.toml` is here: start one with `pcluster new NAME`, or name one, as in `pcluster dev my-chain/`; until then, \
             `pcluster deploy` with that --nats deploys a chain",
        );
    }
    let (mut before, mut contents) = (0, Vec::new());
    let mut shown: Vec<(ChainName, Arc<Shown>)> = Vec::new();
    for &Own { ref package, asks, ref grants, .. } in own {
        make_stores(client, grants, output).await?;
        let deployment = client.deploy(package.clone()).await?;
        output.note(&deploy::describe(&deployment));
        before += client.dead_by_stage(&deployment.chain).await?.values().sum::<u64>();
        let results = show(client, &deployment.chain, output, unprinted).await?;
        shown.push((deployment.chain, results));
        if asks {
            contents.push(deployment.digest);
        }
    }
    // The receiver is gone only if the command is ending.
    let _ = allow.send(contents);
    let started = Instant::now();
    let fed = match shown.first() {
        Some((chain, _)) => feed(args, client, chain).await?,
        None => 0,
    };
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

/// Makes the buckets and stores that stages are granted and that are not there.
async fn make_stores(client: &Client, grants: &[Arc<Grants>], output: &Output) -> anyhow::Result<()> {
    for grants in grants {
        for made in make::missing(client.broker(), grants.kv.keys(), grants.objects.keys()).await? {
            output.note(&format!("made the {made}, which was not there"));
        }
    }
    Ok(())
}

/// Feeds the items of the command line and of the file. Returns how many were taken.
async fn feed(args: &Args, client: &Client, chain: &ChainName) -> anyhow::Result<u64> {
    if args.feeds_nothing() {
        return Ok(0);
    }
    let mut feeder = client.feeder(chain).await?;
    let source = |path: PathBuf| if path.as_os_str() == "-" { input::Source::Stdin } else { input::Source::File(path) };
    let file = args.feed_file.clone().map(|path| (source(path), Reading::default()));
    for (source, reading) in [(input::Source::Arguments(args.feed.clone()), READING)].into_iter().chain(file) {
        let mut items = input::open(source, reading, usize::try_from(MAX_WHOLE)?)?;
        while let Some(content) = items.next().await {
            // Without a format of its own, no file is one whole item.
            if let Content::Item(cbor) = content? {
                feeder.feed(Item { cbor, id: None, topic: None }).await?;
            }
        }
    }
    Ok(feeder.finish().await?.accepted)
}
