//! The settings of a node, and why one ends.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::memory;
use super::sweep::Pace;
use crate::broker::BrokerError;
use crate::calls::grant::Ceiling;
use crate::contents::Contents;
use crate::engine::EngineError;
use crate::engine::compiler::Compiler;
use crate::kind::ErrorKind;
use crate::machine;
use crate::name::ChainName;
use crate::program::allow::Allowed;
use crate::slots::capacity::{Capacity, Labels};

/// The settings of a node.
///
/// ```
/// let mut settings = pcluster::node::NodeSettings::new("worker-1");
/// settings.instances = 100;
/// settings.cache = Some("/var/cache/my-program".into());
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeSettings {
    /// The name. It must be unique among the nodes of the cluster.
    pub name: String,
    /// How long items in hand may take when the node is told to stop.
    pub grace: Duration,
    /// The chains to serve. Empty: all.
    pub chains: BTreeSet<ChainName>,
    /// Ends the node when all chains served are empty.
    pub until_empty: bool,
    /// WebAssembly instances that may exist at once.
    pub instances: u32,
    /// Memory for items, in bytes.
    pub memory: u64,
    /// The folder that keeps compiled plugins. `None` keeps none.
    pub cache: Option<PathBuf>,
    /// Compiles plugins in a process of its own. `None`: this process compiles them.
    pub(crate) compiler: Option<Arc<Compiler>>,
    /// The programs that stages may run. If there are any, the program of this process must serve as their guard.
    pub(crate) allowed: Allowed,
    /// What stages may be granted.
    pub(crate) ceiling: Arc<Ceiling>,
    /// What the items may use at once.
    pub(crate) slots: Capacity,
    /// The labels by which stages choose the node.
    pub(crate) labels: Labels,
    /// How often what large items have left is removed.
    pub(crate) sweep: Pace,
}

impl NodeSettings {
    /// Returns the settings of a node that serves all chains.
    ///
    /// It has a grace of 30 seconds, 1,000 instances and half of the machine's memory, and keeps no compiled plugins.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            grace: Duration::from_secs(30),
            chains: BTreeSet::new(),
            until_empty: false,
            instances: 1_000,
            memory: memory::default_budget(),
            cache: None,
            compiler: None,
            allowed: Allowed::default(),
            ceiling: Arc::default(),
            slots: Capacity::of_machine(machine::memory()),
            labels: Labels::of_machine(),
            sweep: Pace::default(),
        }
    }

    /// Allows all that the revisions with these contents ask for, of which there may be more later.
    pub(crate) fn allow_contents(&mut self, contents: &Contents) {
        Arc::make_mut(&mut self.ceiling).contents = contents.clone();
        self.allowed.add_contents(contents.clone());
    }
}

/// Why a node ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The server does not let it do its work.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The machine does not let the engine start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Its main task ended. It must be started again.
    #[error("this node cannot go on and must be started again: {0}")]
    CannotGoOn(String),
}

impl NodeError {
    /// Returns the kind of failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Broker(error) => error.kind(),
            Self::Engine(error) => error.kind(),
            Self::CannotGoOn(_) => ErrorKind::NodeFailed,
        }
    }
}
