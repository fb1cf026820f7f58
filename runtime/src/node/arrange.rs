//! Making the streams of the chains agree with their states: a client that died may have left them otherwise, and settings are
//! to be narrowed once nothing needs them any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::catalog::{Catalog, Context};
use super::tasks::Keeper;
use crate::broker::BrokerError;
use crate::broker::arrange::Arrange;
use crate::chain::record::State;
use crate::name::ChainName;

/// How long after a change to look: whoever has made it is about to do all that.
const AFTER: Duration = Duration::from_millis(1_500);
/// How often to look while a setting is to be narrowed.
const WAITING: Duration = Duration::from_secs(5);
/// How often to look whether the streams are still as they were left. One request for each chain.
const EVERY: Duration = Duration::from_secs(20);

/// When to look at which chain.
#[derive(Debug, Default)]
pub(super) struct Arranger {
    due: BTreeMap<ChainName, Due>,
    looking: JoinSet<Vec<(ChainName, Due)>>,
}

#[derive(Debug, Clone)]
struct Due {
    at: Instant,
    state: State,
    /// Whether to look at all settings, and not only at the subjects.
    thoroughly: bool,
}

impl Arranger {
    /// A chain's state has changed.
    pub(super) fn changed(&mut self, chain: &ChainName, state: &State) {
        let due = Due { at: Instant::now() + AFTER, state: state.clone(), thoroughly: true };
        self.due.insert(chain.clone(), due);
    }

    /// A chain is gone.
    pub(super) fn removed(&mut self, chain: &ChainName) {
        self.due.remove(chain);
    }
}

impl Catalog {
    /// Looks at the chains whose time has come, in a task of its own: the server may take its time.
    pub(super) fn arrange(&mut self) {
        while let Some(looked) = self.arranger.looking.try_join_next() {
            for (chain, due) in looked.unwrap_or_default() {
                // A change that came meanwhile has its own time.
                if let Some(known) = self.arranger.due.get_mut(&chain)
                    && known.state == due.state
                {
                    *known = due;
                }
            }
        }
        if !self.arranger.looking.is_empty() {
            return;
        }
        let now = Instant::now();
        let due = self.arranger.due.iter().filter(|(_, due)| due.at <= now && due.state.is_deployed());
        let due: Vec<(ChainName, Due)> = due.map(|(chain, due)| (chain.clone(), due.clone())).collect();
        if due.is_empty() {
            return;
        }
        let context = Arc::clone(&self.context);
        self.arranger.looking.spawn(async move {
            let looked = Mutex::default();
            let keeper = Keeper::new(Arc::clone(&context.board), "arrange the streams");
            keeper.keep(|| context.arrange_all(&due, &looked)).await;
            looked.into_inner().unwrap_or_else(PoisonError::into_inner)
        });
    }
}

impl Context {
    /// Looks at chains, and notes when to look at each again.
    async fn arrange_all(&self, due: &[(ChainName, Due)], looked: &Mutex<Vec<(ChainName, Due)>>) {
        for (chain, due) in due {
            let waits = match self.arrange(chain, due).await {
                Ok(waits) => waits,
                Err(error) => {
                    tracing::debug!(%chain, %error, "the streams were not arranged");
                    false
                }
            };
            let at = Instant::now() + if waits { WAITING } else { EVERY };
            let next = Due { at, state: due.state.clone(), thoroughly: waits };
            looked.lock().unwrap_or_else(PoisonError::into_inner).push((chain.clone(), next));
        }
    }

    /// Returns `true` if a setting is to be narrowed later.
    async fn arrange(&self, chain: &ChainName, due: &Due) -> Result<bool, BrokerError> {
        if !due.thoroughly && self.broker.is_arranged(chain, &due.state).await? {
            return Ok(false);
        }
        let Some(marked) = self.registry.state(chain).await? else { return Ok(false) };
        if !marked.state.is_deployed() {
            return Ok(false);
        }
        Ok(self.registry.settle(chain, marked.state, Arrange::default()).await?.waits)
    }
}
