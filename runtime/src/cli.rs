//! The command line. Each command has a file under `cli/`, which defines its flags, calls [`crate::client`] or
//! [`crate::node`], and prints.

pub mod bench;
pub mod build;
pub mod check;
pub mod compile;
pub mod completions;
pub mod config;
pub mod connection;
pub mod dead;
pub mod deploy;
pub mod dev;
pub mod diff;
pub mod exit;
pub mod feed;
pub mod get;
mod hint;
pub mod input;
pub mod inspect;
pub mod intake;
pub mod logs;
pub mod new;
pub mod node;
pub mod nodes;
pub mod output;
pub mod pull;
pub mod replay;
pub mod reset;
pub mod run;
mod save;
pub mod schema;
pub mod server;
pub mod status;
mod suggest;
mod summary;
pub mod test;
mod values;
pub mod wait;
mod waiting;
pub mod watch;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use figment::value::{Dict, Value};
use serde::Serialize;

use crate::broker::Address;
use crate::client::Client;
use crate::config::{self as settings, Settings, Sources};
use crate::program::guard;
use crate::shutdown::{self, Ending};
use exit::{Exit, Interrupted, Usage};
use output::Output;
use values::{duration, positive, size, timeout, whole};
use waiting::{Wait, Waiting};

/// Runs chains of sandboxed WebAssembly tasks and native programs over NATS JetStream.
///
/// A chain is a list of stages. Each stage takes one item and returns none, one or many. A stage is a task in a sandbox,
/// or a program of the machine, such as a Python script. Start with `pcluster dev chain.toml`, which needs nothing else
/// running. On a cluster, run `pcluster node` on as many machines as you like.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100, after_help = format!("{}\n{SETTINGS_HELP}", exit::HELP))]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const SETTINGS_HELP: &str = "Settings come from defaults, pcluster.toml, PCLUSTER_* variables and flags. The later source wins. `pcluster config` shows them.";

/// Flags that every command takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    #[command(flatten)]
    connection: connection::Connection,
    /// Wait at most this long for a server that cannot be reached [default: do not wait; `node`: wait forever]
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,
    /// Settings file [default: ./pcluster.toml, then pcluster/pcluster.toml in the user's configuration folder]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Level of pcluster's own log, on standard error: error, warn, info, debug, trace
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(new::Args),
    Build(build::Args),
    Check(check::Args),
    Dev(dev::Args),
    Run(run::Args),
    Test(test::Args),
    Node(node::Args),
    Deploy(deploy::Args),
    Diff(diff::Args),
    Feed(feed::Args),
    Pull(pull::Args),
    Get(get::Args),
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
    Replay(replay::Args),
    Inspect(inspect::Args),
    Config(config::Args),
    Schema(schema::Args),
    Completions(completions::Args),
    #[command(hide = true, name = compile::NAME)]
    Compile(compile::Args),
}

/// Settings and output of a command.
pub struct Context {
    /// The settings.
    pub settings: Settings,
    /// The output.
    pub output: Output,
    /// The value of `--wait`.
    pub wait: Option<Duration>,
}

impl Context {
    /// Connects to the cluster.
    pub async fn client(&self) -> anyhow::Result<Client> {
        unless_told(Box::pin(self.client_at(&self.settings.address()))).await
    }

    async fn client_at(&self, address: &Address) -> anyhow::Result<Client> {
        let wait = self.wait.map_or(Wait::No, Wait::For);
        let broker = Waiting::new(wait).connect(address, &format!("pcluster-cli {}", self.settings.node)).await?;
        Ok(Client::new(broker))
    }
}

/// Parses the process's arguments and runs the command.
pub fn main() -> ExitCode {
    // Before any thread: the guard forks.
    if std::env::args_os().nth(1).is_some_and(|first| first == guard::ARGUMENT) {
        return guard::main();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return suggest::answer(error),
    };
    if let Command::Compile(args) = &cli.command {
        return compile::run(args);
    }
    let output = Output::new(cli.global.json);
    let ended = run(cli, &output);
    ended.map_or_else(|error| failed(&error, &output), |()| Exit::Done.into())
}

/// Prints an error that the user must be told of, and returns its exit status.
fn failed(error: &anyhow::Error, output: &Output) -> ExitCode {
    if exit::is_worth_saying(error) {
        output.error(error);
        check::show_places(error, output);
    }
    Exit::of(error).into()
}

/// Waits for something, unless a signal comes first.
async fn unless_told<T, E>(wanted: impl Future<Output = Result<T, E>>) -> anyhow::Result<T>
where
    anyhow::Error: From<E>,
{
    tokio::select! {
        wanted = wanted => Ok(wanted?),
        signal = shutdown::requested() => Err(Interrupted::by(signal).into()),
    }
}

fn run(cli: Cli, output: &Output) -> anyhow::Result<()> {
    let environment = environment(std::env::vars_os())?;
    let mistyped = settings::mistyped(&environment);
    let settings = resolve(&cli, environment)?;
    let (default_log, with_time) = match cli.command {
        Command::Node(_) => ("info", true),
        _ => ("warn", false),
    };
    let filter = settings.log.clone().unwrap_or_else(|| default_log.to_owned());
    crate::telemetry::start(&filter, with_time).map_err(exit::Usage)?;
    for (name, meant) in &mistyped {
        output.note(&format!("the environment variable {name} is not a setting; did you mean {meant}?"));
    }
    let context = Context { settings, output: output.clone(), wait: cli.global.wait };
    // One thread is the fastest for the connection to the server. Guests run on other threads.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let ended = runtime.block_on(until_told(cli.command, &context));
    // A blocked read of standard input cannot be canceled, and nothing that still runs matters now.
    runtime.shutdown_background();
    ended
}

impl Command {
    /// Returns how the command ends when a signal comes.
    fn ending(&self) -> Ending {
        match self {
            Self::Node(_) | Self::Dev(_) | Self::Run(_) | Self::Test(_) | Self::Feed(_) | Self::Pull(_) | Self::Bench(_)
            // Stopped halfway, these would leave a chain between its old state and its new state.
            | Self::Deploy(_) | Self::Reset(_) => Ending::InOrder,
            Self::Dead(args) if !args.only_shows() => Ending::InOrder,
            _ => Ending::AtOnce,
        }
    }

    /// Returns `true` if the command only shows data. Such a command ends when its reader has gone.
    fn only_shows(&self) -> bool {
        match self {
            Self::Watch(_) | Self::Logs(_) | Self::Status(_) | Self::Nodes(_) => true,
            Self::Dead(args) => args.only_shows(),
            _ => false,
        }
    }
}

/// Runs a command until it ends, a signal ends it, or the reader of what it shows has gone.
async fn until_told(command: Command, context: &Context) -> anyhow::Result<()> {
    let (ending, only_shows) = (command.ending(), command.only_shows());
    shutdown::listen(ending);
    let told = async {
        match ending {
            Ending::AtOnce => shutdown::requested().await,
            Ending::InOrder => std::future::pending().await,
        }
    };
    let closed = async { if only_shows { context.output.closed().await } else { std::future::pending().await } };
    tokio::select! {
        ended = dispatch(command, context) => ended,
        signal = told => Err(Interrupted::by(signal).into()),
        () = closed => Ok(()),
    }
}

async fn dispatch(command: Command, context: &Context) -> anyhow::Result<()> {
    match command {
        Command::New(args) => new::run(&args, context),
        Command::Build(args) => build::run(args, context).await,
        Command::Check(args) => check::run(args, context).await,
        Command::Dev(args) => Box::pin(dev::run(args, context)).await,
        Command::Run(args) => Box::pin(run::run(args, context)).await,
        Command::Test(args) => Box::pin(test::run(args, context)).await,
        Command::Node(args) => Box::pin(node::run(args, context)).await,
        Command::Deploy(args) => deploy::run(args, context).await,
        Command::Diff(args) => diff::run(args, context).await,
        Command::Feed(args) => feed::run(args, context).await,
        Command::Pull(args) => pull::run(args, context).await,
        Command::Get(args) => get::run(args, context).await,
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
        Command::Replay(args) => Box::pin(replay::run(args, context)).await,
        Command::Inspect(args) => inspect::run(&args, context),
        Command::Config(args) => config::run(&args, context),
        Command::Schema(args) => schema::run(&args, context),
        Command::Completions(args) => completions::run(&args, context),
        // `main` has run it already.
        Command::Compile(_) => Ok(()),
    }
}

/// Returns a folder of the user's: that of a variable, or one below the home folder.
fn user_folder(variable: &str, below_home: &str) -> Option<PathBuf> {
    let given = std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    given.or_else(|| std::env::home_dir().map(|home| home.join(below_home)))
}

/// Returns the folder for what must not go with the cache.
fn data_folder() -> Result<PathBuf, Usage> {
    let folder = user_folder("XDG_DATA_HOME", ".local/share").and_then(|folder| std::path::absolute(folder).ok());
    folder
        .map(|folder| folder.join("pcluster"))
        .ok_or_else(|| Usage("there is no folder for the SDK: set HOME or XDG_DATA_HOME".to_owned()))
}

/// Returns the absolute path of the package for JavaScript, if the user names one.
fn javascript(context: &Context) -> anyhow::Result<Option<PathBuf>> {
    Ok(context.settings.javascript.as_ref().map(std::path::absolute).transpose()?)
}

/// Resolves the settings from flags, environment and the user's folders.
fn resolve(cli: &Cli, environment: BTreeMap<String, String>) -> anyhow::Result<Settings> {
    let text = |key: &str, value: &Option<String>| value.clone().map(|value| (key.to_owned(), value.into()));
    let mut flags = given(&cli.global.connection)?;
    flags.extend(text("log", &cli.global.log));
    match &cli.command {
        Command::Node(args) => flags.extend(given(&args.host)?),
        Command::Run(args) => flags.extend(given(&args.host)?),
        Command::Dev(args) => {
            flags.extend(given(&args.host)?);
            flags.extend(text("nats_server", &args.nats_server));
        }
        _ => {}
    }
    let configuration = user_folder("XDG_CONFIG_HOME", ".config");
    let own = configuration.as_ref().map(|folder| folder.join("pcluster").join(settings::FILE));
    let usual = [Some(settings::FILE.into()), own].into_iter().flatten().find(|file: &PathBuf| file.exists());
    Ok(Settings::resolve(&Sources {
        file: cli.global.config.clone().or(usual),
        environment,
        flags,
        nats: configuration.map(|folder| folder.join("nats")),
        home: std::env::home_dir(),
        cache: user_folder("XDG_CACHE_HOME", ".cache").map(|folder| folder.join("pcluster")),
        node: format!("{}-{}", crate::node::host_name(), std::process::id()),
        memory: crate::node::memory::default_budget(),
    })?)
}

/// Returns the environment variables that may be settings. Other variables need not be UTF-8.
fn environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<BTreeMap<String, String>, Usage> {
    let mut settings = BTreeMap::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(settings::ENVIRONMENT_PREFIX)) else { continue };
        let value = value.into_string().map_err(|_| Usage(format!("the environment variable {name} is not UTF-8")))?;
        settings.insert(name.to_owned(), value);
    }
    Ok(settings)
}

/// Returns the settings among the flags of a command. A flag that was not given has no value.
fn given(flags: &impl Serialize) -> anyhow::Result<Dict> {
    Ok(Value::serialize(flags)?.into_dict().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn only_settings_must_be_text() {
        use std::os::unix::ffi::OsStringExt;

        let wrong = || OsString::from_vec(vec![b'a', 0xff]);
        let of = |name: OsString, value: OsString| environment(std::iter::once((name, value)));
        assert_eq!(of("OTHER".into(), wrong()).expect("not looked at").len(), 0);
        assert_eq!(of(wrong(), "x".into()).expect("not looked at").len(), 0);
        assert_eq!(of("PCLUSTER_NATS".into(), "nats://a".into()).expect("text")["PCLUSTER_NATS"], "nats://a");
        let error = of("PCLUSTER_NATS".into(), wrong()).expect_err("no text");
        assert_eq!(error.to_string(), "the environment variable PCLUSTER_NATS is not UTF-8");
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
