//! Looks up the addresses of hosts.

use std::io::{Error, Result};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;

use tokio::sync::Semaphore;

/// The most look-ups of a node at a time. Each holds a thread, also after its request has ended.
const NODE_MAX: usize = 64;
/// The most look-ups of a stage at a time.
const STAGE_MAX: usize = 16;

/// Looks up the addresses of a host. It blocks.
pub(crate) trait Resolve: Send + Sync {
    /// Returns the addresses of a host name, the best first.
    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>>;
}

/// The resolver of the machine, as all its programs use it.
#[derive(Debug)]
pub(crate) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>> {
        Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
    }
}

/// The look-ups of a stage.
#[derive(Clone)]
pub(crate) struct LookUps {
    resolver: Arc<dyn Resolve>,
    of_node: Arc<Semaphore>,
    of_stage: Arc<Semaphore>,
}

impl LookUps {
    /// Creates the look-ups of a node.
    pub(crate) fn new(resolver: Arc<dyn Resolve>) -> Self {
        let of_stage = Arc::new(Semaphore::new(STAGE_MAX));
        Self { resolver, of_node: Arc::new(Semaphore::new(NODE_MAX)), of_stage }
    }

    /// Returns those of another stage of the node.
    pub(crate) fn of_stage(&self) -> Self {
        Self { of_stage: Arc::new(Semaphore::new(STAGE_MAX)), ..self.clone() }
    }

    /// Looks up the addresses of a host.
    pub(crate) async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>> {
        let of_stage = self.of_stage.clone().acquire_owned().await.map_err(Error::other)?;
        let of_node = self.of_node.clone().acquire_owned().await.map_err(Error::other)?;
        let (resolver, host) = (self.resolver.clone(), host.to_owned());
        let found = tokio::task::spawn_blocking(move || {
            let found = resolver.resolve(&host);
            drop((of_stage, of_node));
            found
        });
        found.await.map_err(Error::other)?
    }
}
