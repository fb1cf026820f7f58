//! Removes large items that nothing refers to any more, chain by chain. One node at a time does it for a chain.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::broker::BrokerError;
use crate::broker::large::sweep::{Grace, Sweep, Swept};
use crate::name::ChainName;
use crate::node::supervisor::context::Context;
use crate::node::tasks::Keeper;

/// How often a node looks whether it is its turn.
const EVERY: Duration = Duration::from_secs(30);

/// How often to sweep, and what to spare.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How often a chain is swept.
    pub(crate) every: Duration,
    /// How old what nothing refers to must be.
    pub(crate) grace: Grace,
}

impl Default for Pace {
    fn default() -> Self {
        Self { every: EVERY, grace: Grace::default() }
    }
}

impl Pace {
    /// Returns a pace for tests, which cannot wait long.
    #[cfg(any(debug_assertions, feature = "failpoints"))]
    pub(crate) fn quick(every: Duration) -> Self {
        Self { every, grace: Grace { own: every, foreign: every } }
    }

    /// Returns how long a turn lasts. The server counts it in seconds.
    fn turn(self) -> Duration {
        Duration::from_secs((self.every.as_secs() * 5 / 6).max(1))
    }
}

/// Sweeps the chains that a node serves.
pub(crate) struct Sweeper {
    pace: Pace,
    next: Instant,
    running: Option<JoinHandle<()>>,
    sweeps: Arc<Mutex<BTreeMap<ChainName, Sweep>>>,
}

impl Sweeper {
    /// Creates a sweeper whose first sweep is due after one pause.
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, next: Instant::now() + pace.every, running: None, sweeps: Arc::default() }
    }

    /// Begins to sweep these chains if that is due, and nothing is swept at the moment.
    pub(crate) fn look(&mut self, context: &Arc<Context>, chains: impl Iterator<Item = ChainName>) {
        if Instant::now() < self.next || self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            return;
        }
        self.next = Instant::now() + self.pace.every;
        let (context, sweeps, pace) = (Arc::clone(context), Arc::clone(&self.sweeps), self.pace);
        let chains: Vec<ChainName> = chains.collect();
        let keeper = Keeper::new(Arc::clone(&context.board), "remove large items that are left over");
        self.running = Some(tokio::spawn(async move {
            keeper.keep(|| sweep_all(&context, &chains, &sweeps, pace)).await;
        }));
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

async fn sweep_all(context: &Context, chains: &[ChainName], sweeps: &Mutex<BTreeMap<ChainName, Sweep>>, pace: Pace) {
    let mut sweeps = sweeps.lock().await;
    sweeps.retain(|chain, _| chains.contains(chain));
    for chain in chains {
        match sweep(context, chain, &mut sweeps, pace).await {
            Ok(swept) if swept == Swept::default() => {}
            Ok(Swept { objects, records, results }) => {
                tracing::debug!(%chain, objects, records, results, "removed what large items have left");
            }
            Err(error) => tracing::debug!(%chain, %error, "large items were not swept"),
        }
    }
}

async fn sweep(
    context: &Context,
    chain: &ChainName,
    sweeps: &mut BTreeMap<ChainName, Sweep>,
    pace: Pace,
) -> Result<Swept, BrokerError> {
    let Some(marked) = context.registry.state(chain).await? else { return Ok(Swept::default()) };
    let active = marked.state.active;
    let Some((_, checked)) = context.registry.checked(chain, active).await? else { return Ok(Swept::default()) };
    let store = context.large.store(&checked);
    if !store.take_turn(pace.turn()).await? {
        return Ok(Swept::default());
    }
    store.settle().await?;
    let sweep = sweeps.entry(chain.clone()).or_insert_with(|| Sweep::of(&store, pace.grace));
    sweep.pass().await
}
