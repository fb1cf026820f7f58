//! `pcluster node`

use std::cell::Cell;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use super::exit::{Interrupted, NotFound, Usage};
use super::output::count;
use super::waiting::{Wait, Waiting};
use super::{Context, compile, whole};
use crate::broker::registry::Registry;
use crate::broker::{Broker, BrokerError};
use crate::client::Client;
use crate::config::Settings;
use crate::engine::compiler::{Compiler, CompilerLimits};
use crate::name::{ChainName, nearest};
#[cfg(any(debug_assertions, feature = "failpoints"))]
use crate::node::failpoint::{self, Failpoint, TaskFailpoint};
#[cfg(any(debug_assertions, feature = "failpoints"))]
use crate::node::sweep::Pace;
use crate::node::{Node, NodeSettings};
use crate::report::NodeReport;
use crate::shutdown;

/// Run a node until it is told to stop
///
/// A node serves every chain that is deployed, now or later. Start more nodes, on this machine or on others, to go
/// faster. Stop a node at any time: on SIGTERM or Ctrl-C it takes no new items, finishes the running ones, and gives
/// back those that take longer than the grace period. A second signal ends it at once.
///
/// A node that is started before its server waits for the server: forever, or as long as --wait says.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(super) host: HostArgs,
    /// End when the chains are empty
    #[arg(long)]
    until_empty: bool,
    /// Serve only this chain; may be given several times
    #[arg(long, value_name = "CHAIN")]
    chain: Vec<ChainName>,
    /// End with status 5 if the server cannot be reached at once
    #[arg(long)]
    no_wait: bool,
    #[cfg(any(debug_assertions, feature = "failpoints"))]
    /// Kill this process at a point of a frame's path, as in `stored:3`; for tests
    #[arg(long, value_name = "POINT", hide = true)]
    die_at: Option<Failpoint>,
    #[cfg(any(debug_assertions, feature = "failpoints"))]
    /// Make a task of this process panic when it starts, as in `send the counts:3`; for tests
    #[arg(long, value_name = "TASK", hide = true)]
    panic_in: Option<TaskFailpoint>,
    #[cfg(any(debug_assertions, feature = "failpoints"))]
    /// How often to remove what large items have left, and how old that must be; for tests
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, hide = true)]
    sweep_every: Option<std::time::Duration>,
}

/// The flags of a process that runs tasks. Each field is the setting of the same name.
#[derive(Debug, clap::Args, Serialize)]
pub struct HostArgs {
    /// Name of the node [default: host name and process id]
    #[arg(long = "name", value_name = "NAME")]
    node: Option<String>,
    /// How long running items may take after the node is told to stop; programs then get SIGTERM, and SIGKILL 5 s later [default: 30s]
    #[arg(long, value_name = "DURATION")]
    grace: Option<String>,
    /// WebAssembly instances that may exist at once [default: 1000]
    #[arg(long, value_name = "N", value_parser = whole::<u32>)]
    instances: Option<u32>,
    /// Memory for items: prefetched items, running items and their outputs [default: half of the machine's]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Folder for compiled plugins; empty for none [default: pcluster in the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    cache: Option<String>,
    /// Allow stages to run this program: a name in PATH, a path such as `/opt/sim/bin/*`, or `shipped:CHAIN` for what comes
    /// with a chain; may be given several times
    ///
    /// A program runs outside of any sandbox, as the user of this node. An interpreter allowed is all code allowed. This
    /// replaces `exec` below `[allow]` in pcluster.toml.
    #[arg(long, value_name = "PROGRAM", value_delimiter = ',')]
    #[serde(rename = "allow.exec", skip_serializing_if = "Vec::is_empty")]
    allow_exec: Vec<String>,
    /// Let stages be granted HTTP requests to this target, as in `https://*` or `https://api.example.com/v1`; may be given
    /// several times
    ///
    /// A stage asks for what it needs in its manifest, and is served only where all of it is allowed. Addresses that are not
    /// public are reached only with --allow-networks. This and the flags below each replace a key below `[allow]` in
    /// pcluster.toml.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    #[serde(rename = "allow.http", skip_serializing_if = "Vec::is_empty")]
    allow_http: Vec<String>,
    /// Open a network to the HTTP requests that name this host, as in `api.internal=10.0.3.0/24`; may be given several times
    #[arg(long, value_name = "HOST=NETWORK")]
    #[serde(rename = "allow.networks", skip_serializing_if = "Vec::is_empty")]
    allow_networks: Vec<String>,
    /// Proxy of all HTTP requests of stages [default: none; that of the environment is ignored]
    #[arg(long, value_name = "URL")]
    #[serde(rename = "allow.http_proxy")]
    allow_http_proxy: Option<String>,
    /// Certificates of authorities that HTTP requests of stages trust besides the system's, in PEM
    #[arg(long, value_name = "FILE")]
    #[serde(rename = "allow.http_ca")]
    allow_http_ca: Option<String>,
    /// Let stages be granted this key-value bucket, or with `=read` only to read it; may be given several times
    #[arg(long, value_name = "BUCKET", value_delimiter = ',')]
    #[serde(rename = "allow.kv", skip_serializing_if = "Vec::is_empty")]
    allow_kv: Vec<String>,
    /// Let stages be granted this object store, or with `=read` only to read it; may be given several times
    #[arg(long, value_name = "STORE", value_delimiter = ',')]
    #[serde(rename = "allow.objects", skip_serializing_if = "Vec::is_empty")]
    allow_objects: Vec<String>,
    /// Let stages be granted to publish on these subjects, as in `alerts.>`; may be given several times
    #[arg(long, value_name = "SUBJECTS", value_delimiter = ',')]
    #[serde(rename = "allow.publish", skip_serializing_if = "Vec::is_empty")]
    allow_publish: Vec<String>,
    /// Let stages be granted the secrets in the files of this folder, or in variables `PCLUSTER_SECRET_<NAME>` with `environment`
    #[arg(long, value_name = "FOLDER")]
    #[serde(rename = "allow.secrets")]
    allow_secrets: Option<String>,
    /// Slots that items may use at once, as in `gpu=2,cores=0-7` [default: the cores and the memory of the machine]
    ///
    /// A number of slots, or their numbers. A stage says with `needs` which its items take. A node looks for no devices:
    /// besides cores and memory it has only the kinds that are named here or below `[slots]` in pcluster.toml. Programs are
    /// bound to the cores that they have, so give each of several nodes on one machine cores of its own.
    #[arg(long, value_name = "NAME=N,…")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    slots: Vec<String>,
    /// Label by which stages choose this node with `where`, as in `zone=eu`; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    label: Vec<String>,
}

/// Returns what compiles plugins in a process of its own: this program.
pub(super) fn compiler() -> std::io::Result<Compiler> {
    /// This program, even if its file was replaced after the start.
    const SELF: &str = "/proc/self/exe";
    let program = match std::fs::exists(SELF) {
        Ok(true) => PathBuf::from(SELF),
        _ => std::env::current_exe()?,
    };
    Ok(Compiler::new(program, compile::NAME, CompilerLimits::default()))
}

/// Returns the settings of a node.
pub(super) fn node_settings(settings: &Settings) -> anyhow::Result<NodeSettings> {
    allow_open_files();
    Ok(NodeSettings {
        grace: settings.grace,
        instances: settings.instances,
        memory: settings.memory,
        cache: settings.cache.clone(),
        compiler: Some(Arc::new(compiler()?)),
        allowed: settings.allow.exec.clone(),
        ceiling: Arc::new(settings.ceiling()?),
        slots: settings.slots.clone(),
        labels: settings.label.clone(),
        ..NodeSettings::new(settings.node.clone())
    })
}

/// Raises the limit on open files as far as the system allows. Each loaded plugin is an open file, and the usual limit
/// is often a thousand.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::debug!(%error, "the limit on open files cannot be raised");
    }
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let settings = &context.settings;
    #[cfg(any(debug_assertions, feature = "failpoints"))]
    {
        args.die_at.into_iter().for_each(failpoint::arm);
        args.panic_in.into_iter().for_each(failpoint::arm_task);
    }
    let own = node_settings(settings)?;
    let wait = match (args.no_wait, context.wait) {
        (true, Some(_)) => return Err(Usage("--wait and --no-wait do not go together".to_owned()).into()),
        (true, None) => Wait::No,
        (false, wait) => wait.map_or(Wait::Forever, Wait::For),
    };
    let told = Cell::new(None);
    // A node that is told to stop is done, unless it was to run until the chains are empty.
    let ended = || match told.get() {
        Some(signal) if args.until_empty => Err(Interrupted::by(signal).into()),
        _ => Ok(()),
    };
    let mut shutdown = std::pin::pin!(async {
        told.set(Some(shutdown::requested().await));
        tracing::info!(node = settings.node, "stopping: finishing what is in hand; a second signal ends at once");
    });
    let broker = tokio::select! {
        connected = connect(settings, wait) => connected?,
        () = &mut shutdown => return ended(),
    };
    let url = broker.url().to_owned();
    let node = NodeSettings { chains: args.chain.into_iter().collect(), until_empty: args.until_empty, ..own };
    #[cfg(any(debug_assertions, feature = "failpoints"))]
    let node = match args.sweep_every {
        Some(every) => NodeSettings { sweep: Pace::quick(every), ..node },
        None => node,
    };
    let deployed = Client::new(broker.clone()).chains().await?;
    for missing in node.chains.iter().filter(|chain| !deployed.contains(chain)) {
        let near = nearest(missing.as_str(), deployed.iter().map(ChainName::as_str));
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        if node.until_empty {
            return Err(NotFound(format!("there is no chain `{missing}`{hint}")).into());
        }
        tracing::warn!("there is no chain `{missing}` yet: it is served once it is deployed{hint}");
    }
    let limit = match node.chains.len() {
        0 => "all chains".to_owned(),
        number => count(number as u64, "chain"),
    };
    let ready = || tracing::info!(node = settings.node, "ready: serving {limit} at {url}");
    tokio::select! {
        ended = Node::run_on(broker, node, shutdown, ready) => ended?,
        never = tell_neighbors(settings) => match never {},
    }
    tracing::info!(node = settings.node, "stopped");
    ended()
}

/// Warns of other nodes with this node's name, and of those on this machine that bind programs to the same processors. It has a connection of its own, so that its errors do not disturb the
/// node.
async fn tell_neighbors(settings: &Settings) -> Infallible {
    let asked = async {
        let broker = Waiting::new(Wait::No).connect(&settings.address(), "pcluster-node neighbors").await?;
        let nodes = Client::new(broker.clone()).nodes().await;
        broker.close();
        nodes
    };
    let own = (std::process::id(), crate::node::host_name());
    let nodes = asked.await.map(|nodes| nodes.answered).unwrap_or_default();
    let others: Vec<_> = nodes.iter().filter(|other| (other.pid, &other.host) != (own.0, &own.1)).collect();
    for other in others.iter().filter(|other| other.node == settings.node) {
        tracing::warn!(
            "another node is called `{}` too: process {} on {}; give each its own name with --name, or reports cannot tell them \
             apart",
            other.node,
            other.pid,
            other.host
        );
    }
    let bound = if settings.allow.exec.is_empty() { Vec::new() } else { settings.slots.bound() };
    let is_near =
        |other: &&&NodeReport| other.host == own.1 && other.processors.iter().any(|each| bound.contains(each));
    if let Some(other) = others.iter().find(is_near) {
        tracing::warn!(
            "node `{}` on this machine binds programs to the same cores; give each node its own, as in `--slots cores=0-3` and \
             `--slots cores=4-7`",
            other.node
        );
    }
    std::future::pending().await
}

/// Connects, and waits until JetStream answers.
async fn connect(settings: &Settings, wait: Wait) -> Result<Broker, BrokerError> {
    let mut waiting = Waiting::new(wait);
    let broker = waiting.connect(&settings.address(), &format!("pcluster-node {}", settings.node)).await?;
    waiting.answer(async || Registry::open(&broker).await).await?;
    Ok(broker)
}
