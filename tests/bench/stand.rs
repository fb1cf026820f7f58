//! The servers of a run, and connections to them.

use std::sync::LazyLock;

use async_nats::ServerAddr;
use async_nats::jetstream::{self, Context};
use pcluster::client::Client;
use support::{Cluster, Nats, Server, Servers};
use tokio::runtime::Runtime;

/// The runtime of the benchmark's own requests.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// Servers that are started for one run. So earlier runs cannot affect it.
pub struct Stand<S: Nats = Server> {
    pub cluster: Cluster<S>,
    pub jetstream: Context,
    pub client: Client,
    runtime: &'static Runtime,
}

impl Stand {
    /// Starts one server with the repository's configuration.
    pub fn start() -> Self {
        Self::with(Cluster::start())
    }
}

impl Stand<Servers> {
    /// Starts three servers.
    pub fn of_three_servers() -> Self {
        Self::with(Cluster::of_three_servers())
    }
}

impl<S: Nats> Stand<S> {
    fn with(cluster: Cluster<S>) -> Self {
        let url = cluster.server.url();
        let runtime = &RUNTIME;
        let (jetstream, client) = runtime.block_on(async {
            let servers: Vec<ServerAddr> = url.split(',').map(|url| url.parse().unwrap()).collect();
            let jetstream = jetstream::new(async_nats::connect(servers).await.unwrap());
            (jetstream, Client::connect(&url.as_str().into(), "bench").await.unwrap())
        });
        Self { cluster, jetstream, client, runtime }
    }

    /// Returns the processes of the servers.
    pub fn servers(&self) -> Vec<u32> {
        self.cluster.server.processes()
    }

    /// Runs a future to its end.
    pub fn run<T>(&self, act: impl Future<Output = T>) -> T {
        self.runtime.block_on(act)
    }
}
