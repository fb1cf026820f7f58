//! The command line: one command a file under `cli/`; each parses, calls [`crate::root`] or [`crate::node`], and prints.

pub mod bench;
pub mod compile;
pub mod completions;
pub mod config;
pub mod connection;
pub mod dead;
pub mod deploy;
pub mod dev;
pub mod exit;
pub mod feed;
pub mod input;
pub mod inspect;
pub mod intake;
pub mod logs;
pub mod node;
pub mod nodes;
pub mod output;
pub mod pull;
pub mod reset;
pub mod server;
pub mod status;
pub mod wait;
pub mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::broker::Address;
use crate::broker::waiting::{Wait, Waiting};
use crate::config::{self as settings, Settings, Sources};
use crate::root::Root;
use exit::Exit;
use output::Output;

/// Runs chains of sandboxed WebAssembly tasks over NATS JetStream.
///
/// A chain is a list of stages. Each stage takes one item and gives none, one or many. Start with `pcluster dev chain.toml`,
/// which needs nothing else running; on a cluster, run `pcluster node` on as many machines as you like.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Exit status: 0 done, 1 failed, 2 wrong usage, 3 timed out, 4 not found, 5 cannot reach NATS,\n6 a node that cannot go on and must be started again.\n\
    Settings come from defaults, pcluster.toml, PCLUSTER_* and flags, in this order; `pcluster config` shows them.";

/// Flags that every command takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    #[command(flatten)]
    connection: connection::Connection,
    /// Wait this long for a server that cannot be reached [default: not at all; `node`: until it is there]
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,
    /// Settings file [default: ./pcluster.toml, then pcluster/pcluster.toml in the user's configuration folder]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,
    /// What pcluster says of itself on standard error: error, warn, info, debug, trace
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Args),
    Node(node::Args),
    Deploy(deploy::Args),
    Feed(feed::Args),
    Pull(pull::Args),
    Watch(watch::Args),
    Logs(logs::Args),
    Wait(wait::Args),
    Bench(bench::Args),
    Status(status::Args),
    Nodes(nodes::Args),
    Stop(intake::StopArgs),
    Start(intake::StartArgs),
    Reset(reset::Args),
    Dead(dead::Args),
    Inspect(inspect::Args),
    Config(config::Args),
    Completions(completions::Args),
    #[command(hide = true, name = compile::NAME)]
    Compile(compile::Args),
}

/// What every command works with.
pub struct Context {
    /// The settings.
    pub settings: Settings,
    /// Where to print.
    pub output: Output,
    /// How long to wait for the server, if that was said.
    pub wait: Option<Duration>,
}

impl Context {
    /// Connects to the cluster.
    ///
    /// # Errors
    ///
    /// If no usable server answers.
    pub async fn root(&self) -> anyhow::Result<Root> {
        self.root_at(&self.settings.address).await
    }

    async fn root_at(&self, address: &Address) -> anyhow::Result<Root> {
        let wait = self.wait.map_or(Wait::No, Wait::For);
        let broker = Waiting::new(wait).connect(address, &format!("pcluster-cli {}", self.settings.node)).await?;
        Ok(Root::new(broker))
    }
}

/// Parses the process's arguments and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Compile(args) = &cli.command {
        return compile::run(args);
    }
    let output = Output::new(cli.global.json);
    let ended = run(cli, &output);
    match ended {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            let exit = Exit::of(&error);
            if !output::is_closed_pipe(&error) {
                output.error(&error);
            }
            exit.into()
        }
    }
}

fn run(cli: Cli, output: &Output) -> anyhow::Result<()> {
    let settings = resolve(&cli)?;
    let (default_log, with_time) = match cli.command {
        Command::Node(_) => ("info", true),
        _ => ("warn", false),
    };
    let filter = settings.log.clone().unwrap_or_else(|| default_log.to_owned());
    crate::telemetry::start(&filter, with_time).map_err(exit::Usage)?;
    let context = Context { settings, output: output.clone(), wait: cli.global.wait };
    // One thread talks to the server fastest; guests have threads of their own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let ended = runtime.block_on(dispatch(cli.command, &context));
    // Reading standard input cannot be interrupted, and nothing that still runs matters any more.
    runtime.shutdown_background();
    ended
}

async fn dispatch(command: Command, context: &Context) -> anyhow::Result<()> {
    match command {
        Command::Dev(args) => dev::run(args, context).await,
        Command::Node(args) => node::run(args, context).await,
        Command::Deploy(args) => deploy::run(args, context).await,
        Command::Feed(args) => feed::run(args, context).await,
        Command::Pull(args) => pull::run(args, context).await,
        Command::Watch(args) => watch::run(args, context).await,
        Command::Logs(args) => logs::run(args, context).await,
        Command::Wait(args) => wait::run(args, context).await,
        Command::Bench(args) => bench::run(args, context).await,
        Command::Status(args) => status::run(args, context).await,
        Command::Nodes(args) => nodes::run(&args, context).await,
        Command::Stop(args) => intake::stop(args, context).await,
        Command::Start(args) => intake::start(args, context).await,
        Command::Reset(args) => reset::run(args, context).await,
        Command::Dead(args) => dead::run(args, context).await,
        Command::Inspect(args) => inspect::run(&args, context),
        Command::Config(args) => config::run(&args, context),
        Command::Completions(args) => completions::run(&args, context),
        // It needs no context.
        Command::Compile(_) => Ok(()),
    }
}

/// The one place where the process's environment is read.
fn resolve(cli: &Cli) -> anyhow::Result<Settings> {
    let environment: BTreeMap<String, String> =
        std::env::vars().filter(|(name, _)| name.starts_with(settings::ENVIRONMENT_PREFIX)).collect();
    let folder = |variable: &str, below_home: &str| {
        let given = std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        given.or_else(|| std::env::home_dir().map(|home| home.join(below_home)))
    };
    let mut files = vec![PathBuf::from(settings::FILE)];
    files.extend(folder("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("pcluster").join(settings::FILE)));
    let mut flags = BTreeMap::new();
    let path = |path: &PathBuf| path.display().to_string();
    cli.global.connection.flags(&mut flags);
    flags.extend(cli.global.log.clone().map(|value| ("log", value)));
    match &cli.command {
        Command::Node(args) => args.host.flags(&mut flags),
        Command::Dev(args) => {
            args.host.flags(&mut flags);
            flags.extend(args.nats_server.as_ref().map(|value| ("nats_server", path(value))));
        }
        _ => {}
    }
    let nats = folder("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("nats"));
    let home = std::env::home_dir();
    let sources = Sources { file: cli.global.config.clone(), files, environment, flags, nats, home };
    let node = format!("{}-{}", crate::node::host_name(), std::process::id());
    let cache = folder("XDG_CACHE_HOME", ".cache");
    Ok(Settings::resolve(&sources, &settings::defaults(cache.as_deref(), node, crate::node::memory::default_budget()))?)
}

/// Reads a duration as people write it.
fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "not a duration; write one like 500ms, 30s or 5m".to_owned())
}

/// Reads a number of seconds, or a duration as people write it.
fn timeout(text: &str) -> Result<Duration, String> {
    match text.parse().map(Duration::try_from_secs_f64) {
        Ok(Ok(seconds)) => Ok(seconds),
        Ok(Err(_)) => Err("must be zero or more seconds".to_owned()),
        Err(_) => duration(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
