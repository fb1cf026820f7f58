//! The cluster of one test.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use async_nats::jetstream;

use crate::{Nats, NatsClient, Process, Run, Server, Servers, eventually, json_lines, program};

/// The cluster of one test: its servers, a folder, and the processes that it started.
pub struct Cluster<S: Nats = Server> {
    /// The server, or the servers.
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
    /// Starts three servers. Waits until each can keep copies of the others' streams.
    pub fn of_three_servers() -> Self {
        Self::on(Servers::start())
    }

    /// Waits until each of three servers that were started can keep copies of the others' streams.
    pub fn on(servers: Servers) -> Self {
        let cluster = Self::with_server(servers);
        let client = NatsClient::connect(&cluster);
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
    /// Creates a cluster on a server with other settings.
    pub fn with_server(server: S) -> Self {
        Self { server, folder: tempfile::tempdir().unwrap() }
    }

    /// Returns the cluster with its server in another type.
    pub fn map<T: Nats>(self, map: impl FnOnce(S) -> T) -> Cluster<T> {
        let Self { server, folder } = self;
        Cluster { server: map(server), folder }
    }

    /// Writes a file into the folder of the test. Returns its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Returns a path in the folder of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns a `pcluster` command with these arguments. It runs in the folder of the test, connected to its server.
    pub fn command(&self, arguments: &[&str]) -> Command {
        hear_interrupts();
        let mut command = Command::new(pcluster());
        command.args(arguments).current_dir(self.folder.path()).env("PCLUSTER_NATS", self.server.url());
        command.env("PCLUSTER_NATS_SERVER", program());
        // All tests share compiled plugins, because sharing the folder must be safe.
        command.env("PCLUSTER_CACHE", std::env::temp_dir().join("pcluster-e2e-cache"));
        command.env("XDG_DATA_HOME", std::env::temp_dir().join("pcluster-e2e-data"));
        command
    }

    /// Runs `pcluster` to its end.
    pub fn run(&self, arguments: &[&str]) -> Run {
        Run::of(self.command(arguments), b"")
    }

    /// Runs `pcluster` to its end with this standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Run {
        Run::of(self.command(arguments), input.as_ref())
    }

    /// Runs `pcluster`, which must succeed. Returns its standard output.
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

    /// Starts a node with more arguments. Waits until it is ready.
    pub fn node_with(&self, name: &str, more: &[&str]) -> Process {
        let node = self.spawn(&[&["node", "--name", name], more].concat());
        node.said("ready: serving");
        node
    }

    /// Waits until the status of a chain meets a condition. The status is that of `pcluster status --json`.
    #[track_caller]
    pub fn until(&self, chain: &str, what: &str, holds: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        eventually(what, || {
            let status = self.status(chain);
            holds(&status).then_some(status)
        })
    }

    /// Waits until this many items of a stage run or have run. On a busy machine, they may have ended before the first check.
    #[track_caller]
    pub fn until_begun(&self, chain: &str, stage: usize, items: u64) {
        self.until(chain, &format!("{items} items of {chain} run or have run"), |status| {
            let stage = &status["revisions"][0]["stages"][stage];
            let (running, done) = (stage["running"].as_u64(), stage["done"].as_u64());
            running.zip(done).is_some_and(|(running, done)| running + done >= items)
        });
    }

    /// Returns the nodes once each connected node has answered. The nodes are those of `pcluster nodes --json`.
    #[track_caller]
    pub fn nodes(&self) -> Vec<serde_json::Value> {
        eventually("all nodes answer", || {
            let run = self.run(&["nodes", "--json"]);
            let is_complete = !run.stderr.contains("does not answer");
            let nodes = run.succeeded();
            is_complete.then(|| serde_json::from_str(&nodes).unwrap())
        })
    }

    /// Deploys a manifest.
    #[track_caller]
    pub fn deploy(&self, manifest: &str) -> String {
        let file = self.file("chain.toml", manifest);
        self.ok(&["deploy", file.to_str().unwrap()])
    }

    /// Returns the status of a chain, as `pcluster status --json` prints it.
    #[track_caller]
    pub fn status(&self, chain: &str) -> serde_json::Value {
        serde_json::from_str(&self.ok(&["status", chain, "--json"])).unwrap()
    }

    /// Returns all results of a chain once it is drained.
    #[track_caller]
    pub fn pull_all(&self, chain: &str) -> Vec<serde_json::Value> {
        json_lines(&self.ok(&["pull", chain, "--all"]))
    }
}

/// Returns the path of the `pcluster` under test.
///
/// Cargo sets it for the tests and benchmarks that it runs. A test program that was started by hand finds the one beside it.
pub fn pcluster() -> PathBuf {
    let beside = || {
        // target/<profile>/deps/<test program>
        let this = std::env::current_exe().unwrap();
        this.ancestors().nth(2).unwrap().join("pcluster")
    };
    let path = std::env::var_os("CARGO_BIN_EXE_pcluster").map_or_else(beside, PathBuf::from);
    assert!(path.is_file(), "{} is not built; run `cargo build -p pcluster` first", path.display());
    path
}

/// Lets the processes of the tests receive interrupts. A shell that starts the tests in the background ignores interrupts, and
/// all processes below it inherit that.
fn hear_interrupts() {
    #[expect(unsafe_code, reason = "there is no safe way to change what becomes of a signal")]
    // SAFETY: restores the default action of the system, and runs no code of ours.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_DFL);
        libc::signal(libc::SIGHUP, libc::SIG_DFL);
    }
}
