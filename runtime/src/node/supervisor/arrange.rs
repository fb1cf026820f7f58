//! Makes the streams of chains agree with their states. A client that died may have left them otherwise, and settings are
//! narrowed once no revision needs the wider ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::broker::BrokerError;
use crate::broker::arrange::{self, Arrange};
use crate::chain::record::State;
use crate::name::ChainName;
use crate::node::supervisor::context::Context;
use crate::node::tasks::Keeper;

/// How long after a change to look. The client that made it is about to do the same.
const AFTER: Duration = Duration::from_millis(1_500);
/// How often to look while a setting waits to be narrowed.
const WAITING: Duration = Duration::from_secs(5);
/// How often to look whether the streams are unchanged. That is one request for each chain.
const EVERY: Duration = Duration::from_secs(20);

/// Chains that are looked at side by side. A slow chain delays no other.
const SIDE_BY_SIDE: usize = 8;

/// When to look at which chain.
#[derive(Debug, Default)]
pub(crate) struct Arranger {
    due: BTreeMap<ChainName, Due>,
    looking: JoinSet<(ChainName, Due)>,
    /// The chains that are being looked at.
    busy: BTreeSet<ChainName>,
}

#[derive(Debug, Clone)]
struct Due {
    at: Instant,
    state: State,
    /// `true` to look at all settings, and not only at the subjects.
    thoroughly: bool,
}

impl Arranger {
    /// Takes note that the state of a chain has changed.
    pub(crate) fn changed(&mut self, chain: &ChainName, state: &State) {
        let due = Due { at: Instant::now() + AFTER, state: state.clone(), thoroughly: true };
        self.due.insert(chain.clone(), due);
    }

    /// Takes note that a chain is gone.
    pub(crate) fn removed(&mut self, chain: &ChainName) {
        self.due.remove(chain);
    }

    /// Looks at the chains that are due, each in a task of its own: the server may be slow.
    pub(crate) fn look(&mut self, context: &Arc<Context>) {
        while let Some(looked) = self.looking.try_join_next() {
            let Ok((chain, next)) = looked else { continue };
            self.busy.remove(&chain);
            // A change that came meanwhile has set its own time.
            if let Some(known) = self.due.get_mut(&chain)
                && known.state == next.state
            {
                *known = next;
            }
        }
        for (chain, due) in self.next(Instant::now()) {
            self.busy.insert(chain.clone());
            let context = Arc::clone(context);
            self.looking.spawn(async move {
                let waits = AtomicBool::new(false);
                let board = Arc::clone(&context.board);
                let keeper = Keeper::of(board, "arrange the streams", &chain, due.state.active);
                keeper.keep(|| look_at(&context, &chain, &due, &waits)).await;
                let waits = waits.into_inner();
                let at = Instant::now() + if waits { WAITING } else { EVERY };
                (chain, Due { at, state: due.state, thoroughly: waits })
            });
        }
    }

    /// Returns the chains that are due, the longest waiting first, and no more than fit beside those that are being looked at.
    fn next(&self, now: Instant) -> Vec<(ChainName, Due)> {
        let is_due =
            |chain: &ChainName, due: &Due| due.at <= now && due.state.is_deployed() && !self.busy.contains(chain);
        let mut next: Vec<_> = self.due.iter().filter(|(chain, due)| is_due(chain, due)).collect();
        next.sort_by_key(|(_, due)| due.at);
        next.truncate(SIDE_BY_SIDE.saturating_sub(self.busy.len()));
        next.into_iter().map(|(chain, due)| (chain.clone(), due.clone())).collect()
    }
}

/// Looks at a chain, and notes whether a setting waits to be narrowed.
async fn look_at(context: &Context, chain: &ChainName, due: &Due, waits: &AtomicBool) {
    match arrange(context, chain, due).await {
        Ok(narrows) => waits.store(narrows, Ordering::Relaxed),
        Err(error) => tracing::debug!(%chain, %error, "the streams were not arranged"),
    }
}

/// Returns `true` if a setting is to be narrowed later.
async fn arrange(context: &Context, chain: &ChainName, due: &Due) -> Result<bool, BrokerError> {
    if !due.thoroughly && arrange::is_arranged(&context.broker, chain, &due.state).await? {
        return Ok(false);
    }
    let Some(marked) = context.registry.state(chain).await? else { return Ok(false) };
    if !marked.state.is_deployed() {
        return Ok(false);
    }
    Ok(context.registry.settle(chain, marked.state, Arrange::default()).await?.waits)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::name::Revision;

    fn state(live: &[u64]) -> State {
        let live = live.iter().map(|number| Revision::new(*number)).collect();
        let (versions, pending) = (BTreeMap::new(), BTreeMap::new());
        State { active: Revision::new(1), live, reset: None, open: true, versions, pending, wire: None }
    }

    #[test]
    fn chains_are_looked_at_in_turn_and_none_twice_at_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut arranger = Arranger::default();
        // The one that has waited for longest comes last by its name.
        for (number, name) in (0..12).map(|number| (number, format!("c{:02}", 11 - number))) {
            let due = Due { at: at(number), state: state(&[1]), thoroughly: false };
            arranger.due.insert(name.parse().expect("valid"), due);
        }
        arranger
            .due
            .insert("first-deploy".parse().expect("valid"), Due { at: start, state: state(&[]), thoroughly: false });
        let next = |arranger: &Arranger, seconds| {
            let next = arranger.next(at(seconds));
            next.into_iter().map(|(chain, _)| chain.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(next(&arranger, 1), ["c11", "c10"]);
        assert_eq!(next(&arranger, 99), ["c11", "c10", "c09", "c08", "c07", "c06", "c05", "c04"]);
        for busy in ["c11", "c09", "c08", "c07", "c06"] {
            arranger.busy.insert(busy.parse().expect("valid"));
        }
        assert_eq!(next(&arranger, 99), ["c10", "c05", "c04"]);
    }
}
