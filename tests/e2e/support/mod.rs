//! What the tests stand on: a nats-server per test, `pcluster` processes, plugins built once. Everything that is started is
//! stopped when its value is dropped, also when the test fails, and what it said is printed then.

mod client;
mod process;
mod proxy;
mod raw;
mod server;

use std::fmt::{Display, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use serde::Serialize;

pub use client::{Client, Message};
pub use process::{Process, Run, assert_refused};
pub use proxy::Proxy;
pub use raw::RawClient;
pub use server::{Nats, Server, Servers, program};

/// Long enough for anything that is not stuck, on a slow machine with other tests beside it.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The path of an example plugin, built once for all tests.
pub fn plugin(name: &str) -> String {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let packages = ["--package=waiting", "--package=text", "--package=probe"];
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--release", "--target=wasm32-wasip1", "--target-dir=target"])
            .args(packages)
            .current_dir(repository())
            .env_remove("CARGO_TARGET_DIR")
            .status();
        assert!(status.unwrap().success(), "the example plugins could not be built");
    });
    repository().join(format!("target/wasm32-wasip1/release/{name}.wasm")).display().to_string()
}

/// A cluster of one test: a server or several, a folder for files, and the processes that were started.
pub struct Cluster<S: Nats = Server> {
    pub server: S,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts a server with the repository's configuration.
    pub fn start() -> Self {
        Self::with_server(Server::start(""))
    }
}

impl Cluster<Servers> {
    /// Starts three servers and waits until each of them can keep a copy of what the others have.
    pub fn of_three_servers() -> Self {
        let cluster = Self::with_server(Servers::start());
        let client = Client::connect(&cluster);
        let config = jetstream::stream::Config { name: "READY".to_owned(), num_replicas: 3, ..Default::default() };
        client.with(async |jetstream| {
            while jetstream.create_stream(config.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            jetstream.delete_stream("READY").await.unwrap();
        });
        cluster
    }
}

impl<S: Nats> Cluster<S> {
    /// A cluster on a server with settings of its own.
    pub fn with_server(server: S) -> Self {
        Self { server, folder: tempfile::tempdir().unwrap() }
    }

    /// A file in the test's folder.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A path in the test's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command `pcluster` with these arguments, in the test's folder, connected to the test's server.
    pub fn command(&self, arguments: &[&str]) -> Command {
        hear_interrupts();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pcluster"));
        command.args(arguments).current_dir(self.folder.path()).env("PCLUSTER_NATS", self.server.url());
        command.env("PCLUSTER_NATS_SERVER", program());
        // Compiled plugins are shared by all tests: a folder that is safe to share is part of what is tested.
        command.env("PCLUSTER_CACHE", std::env::temp_dir().join("pcluster-e2e-cache"));
        command
    }

    /// Runs `pcluster` to its end.
    pub fn run(&self, arguments: &[&str]) -> Run {
        Run::of(self.command(arguments), b"")
    }

    /// Runs `pcluster` to its end with something on its standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Run {
        Run::of(self.command(arguments), input.as_ref())
    }

    /// Runs `pcluster`, which must succeed, and returns its standard output.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).succeeded()
    }

    /// Starts `pcluster` without waiting for its end.
    pub fn spawn(&self, arguments: &[&str]) -> Process {
        Process::start(self.command(arguments))
    }

    /// Starts a node and waits until it is ready.
    pub fn node(&self, name: &str) -> Process {
        self.node_with(name, &[])
    }

    /// Starts a node with more arguments and waits until it is ready.
    pub fn node_with(&self, name: &str, more: &[&str]) -> Process {
        let node = self.spawn(&[&["node", "--name", name], more].concat());
        node.said("ready: serving");
        node
    }

    /// Waits until a chain's status, as `pcluster status --json` gives it, satisfies a condition.
    #[track_caller]
    pub fn until(&self, chain: &str, what: &str, holds: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        eventually(what, || {
            let status = self.status(chain);
            holds(&status).then_some(status)
        })
    }

    /// Deploys a manifest.
    #[track_caller]
    pub fn deploy(&self, manifest: &str) -> String {
        let file = self.file("chain.toml", manifest);
        self.ok(&["deploy", file.to_str().unwrap()])
    }

    /// The status of a chain, as `pcluster status --json` gives it.
    #[track_caller]
    pub fn status(&self, chain: &str) -> serde_json::Value {
        serde_json::from_str(&self.ok(&["status", chain, "--json"])).unwrap()
    }

    /// All results of a chain, once it is drained.
    #[track_caller]
    pub fn pull_all(&self, chain: &str) -> Vec<serde_json::Value> {
        json_lines(&self.ok(&["pull", chain, "--all"]))
    }
}

/// Lets the processes of the tests be interrupted, also where a shell has started the tests in the background: a signal that is
/// ignored stays so in those that are started then.
fn hear_interrupts() {
    #[expect(unsafe_code, reason = "there is no safe way to change what becomes of a signal")]
    // SAFETY: sets what the system does by default, and runs no code of ours.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_DFL);
        libc::signal(libc::SIGHUP, libc::SIG_DFL);
    }
}

/// The manifest of a chain with one stage per task of the probe plugin; `rest` is added to each stage.
pub fn probe_chain(name: &str, tasks: &[&str], rest: &str) -> String {
    let plugin = plugin("probe");
    let mut manifest = format!("name = \"{name}\"\nversion = \"1.0\"\n");
    let inline = std::env::var_os("PCLUSTER_TEST_INLINE").is_some();
    for (position, task) in tasks.iter().enumerate() {
        let rest = if inline && position > 0 { as_inline(rest) } else { rest.to_owned() };
        let _ = writeln!(manifest, "[[stage]]\nname = \"{task}\"\nplugin = \"{plugin}\"\n{rest}");
    }
    manifest
}

/// What is said of a stage, but for what belongs to a queue: that of an inline stage.
fn as_inline(rest: &str) -> String {
    let is_queues = |line: &&str| ["concurrency", "max_in_flight", "retry"].iter().any(|key| line.starts_with(key));
    let lines: Vec<&str> = rest.lines().filter(|line| !is_queues(line)).collect();
    format!("{}\ninline = true", lines.join("\n"))
}

/// The manifest with a table, such as `[queue]`, put before its stages.
pub fn with_table(table: &str, manifest: &str) -> String {
    manifest.replacen("[[stage]]", &format!("{table}\n[[stage]]"), 1)
}

/// The manifest with a short time after which a dead node's items are given to others.
pub fn recovering(manifest: &str) -> String {
    with_table("[queue]\nack_wait = \"1s\"", manifest)
}

/// Items back to back, as one message holds several.
pub fn sequence<T: Serialize>(items: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut payload = Vec::new();
    for item in items {
        ciborium::into_writer(&item, &mut payload).unwrap();
    }
    payload
}

/// A line for each, as `feed` reads them from its standard input.
pub fn lines(items: impl IntoIterator<Item: Display>) -> String {
    items.into_iter().fold(String::new(), |text, item| text + &format!("{item}\n"))
}

/// The numbers that results are, sorted.
#[track_caller]
pub fn numbers(results: &[serde_json::Value]) -> Vec<u64> {
    let mut numbers: Vec<u64> = results.iter().map(|result| result.as_u64().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// The JSON documents in a text, one a line.
pub fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until something holds; `what` names it should it never.
#[track_caller]
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(started.elapsed() < DEADLINE, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
