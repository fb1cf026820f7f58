//! The connections over which the messages of chains come. Each chain that is served has one, shared by its hops and revisions.
//! It opens with the first queue and closes with the last.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::broker::Broker;
use crate::broker::line::{Line, WeakLine};
use crate::lock::lock;
use crate::name::ChainName;

/// The lines of a node, by chain.
#[derive(Debug)]
pub(crate) struct Lines {
    broker: Broker,
    node: String,
    open: Mutex<BTreeMap<ChainName, WeakLine>>,
}

impl Lines {
    pub(crate) fn new(broker: &Broker, node: &str) -> Self {
        Self { broker: broker.clone(), node: node.to_owned(), open: Mutex::default() }
    }

    /// Returns the line of a chain.
    pub(crate) fn of(&self, chain: &ChainName) -> Line {
        let mut open = lock(&self.open);
        open.retain(|_, line| !line.is_closed());
        let line = open.get(chain).and_then(|line| line.upgrade(&self.broker));
        line.unwrap_or_else(|| {
            let line = Line::new(&self.broker, &format!("pcluster-node {} {chain}", self.node));
            open.insert(chain.clone(), line.downgrade());
            line
        })
    }
}
