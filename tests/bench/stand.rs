//! Where a run takes place: servers of its own, and connections to them.

use std::sync::LazyLock;

use async_nats::ServerAddr;
use async_nats::jetstream::{self, Context};
use pcluster::client::Client;
use support::{Cluster, Nats, Server, Servers};
use tokio::runtime::Runtime;

/// What the benchmark itself does runs here.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// Servers that were started for one run, so that none is slowed down or speeded up by what others have left.
pub struct Stand<S: Nats = Server> {
    pub cluster: Cluster<S>,
    pub jetstream: Context,
    pub client: Client,
    runtime: &'static Runtime,
}

impl Stand {
    /// One server with the repository's configuration.
    pub fn start() -> Self {
        Self::with(Cluster::start())
    }
}

impl Stand<Servers> {
    /// Three servers.
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

    /// The processes of the servers.
    pub fn servers(&self) -> Vec<u32> {
        self.cluster.server.processes()
    }

    /// Waits for something.
    pub fn run<T>(&self, act: impl Future<Output = T>) -> T {
        self.runtime.block_on(act)
    }
}
