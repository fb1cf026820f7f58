//! Makes the state of a task before its first item, from the same data on every node.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::context::Context;
use crate::broker::plugins::Plugins;
use crate::calls::door::{Door, ItemDoor};
use crate::calls::pin::{Pin, PinnedCalls};
use crate::chain::Stage;
use crate::chain::record::{Deployed, Pinned};
use crate::engine::Plugin;
use crate::engine::snapshot::{SnapshotError, Surroundings};
use crate::engine::task::Task;
use crate::name::Digest;
use crate::node::frame::attempts::now;
use crate::node::logs::StageLog;
use crate::run::call::Calls;

/// The state of a stage's task.
pub(crate) struct StateOf<'a> {
    pub(crate) context: &'a Context,
    pub(crate) deployed: &'a Deployed,
    pub(crate) stage: &'a Stage,
    pub(crate) plugin: &'a Plugin,
    pub(crate) name: &'a str,
}

/// Why there is no state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// The snapshot cannot be made.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// What the initializer reads cannot be the same on all nodes.
    #[error("{0}")]
    Pin(String),
}

impl StateOf<'_> {
    /// Returns the task with its state. `None` if it has none. It may take long.
    pub(crate) async fn make(
        &self,
        task: &Task,
        logs: &Arc<StageLog>,
        door: Option<&Arc<Door>>,
    ) -> Result<Option<Task>, StateError> {
        let Some(door) = door.filter(|_| task.has_state()) else { return Ok(self.run(task, logs, None).await?) };
        loop {
            if let Some(pin) = self.pin().await? {
                let calls = PinnedCalls::answer(pin);
                let made = self.run(task, logs, Some(Arc::clone(&calls))).await;
                calls.end().map_err(StateError::Pin)?;
                return Ok(made?);
            }
            let items = door.open_for_init();
            let calls = PinnedCalls::note(Arc::clone(&items) as Arc<dyn Calls>);
            let made = self.run(task, logs, Some(Arc::clone(&calls))).await?;
            let pin = calls.end().map_err(StateError::Pin)?;
            // If another node was first, all go by what that one read.
            if pin.is_empty() || self.add(&pin, &items).await? {
                return Ok(made);
            }
        }
    }

    async fn run(
        &self,
        task: &Task,
        logs: &Arc<StageLog>,
        calls: Option<Arc<PinnedCalls>>,
    ) -> Result<Option<Task>, SnapshotError> {
        let log = Arc::clone(logs);
        let log = Box::new(move |level, line| log.log("", level, line));
        let around = Surroundings { log, calls: calls.map(|calls| calls as Arc<dyn Calls>) };
        let (plugin, name, plain) = (self.plugin.clone(), self.name.to_owned(), task.clone());
        let place = format!("{}.{}", self.deployed.chain, self.stage.name);
        // It runs code of the plugin.
        let mut making = JoinSet::new();
        making.spawn_on(async move { plugin.with_state(&name, &place, &plain, around).await }, &self.context.executor);
        match making.join_next().await {
            Some(Ok(made)) => made,
            Some(Err(error)) => Err(SnapshotError::Unfit(error.to_string())),
            None => Ok(None),
        }
    }

    /// Returns what the initializer reads. `None` if no node has run it.
    async fn pin(&self) -> Result<Option<Pin>, StateError> {
        let Self { context, deployed, stage, .. } = self;
        let failed = |error: String| StateError::Pin(error);
        let pinned = context.registry.pinned(&deployed.chain, deployed.revision, &stage.name).await;
        let Some(pinned) = pinned.map_err(|error| failed(error.to_string()))? else { return Ok(None) };
        let bytes =
            Plugins::pins(&context.broker).get(&pinned.answers).await.map_err(|error| failed(error.to_string()))?;
        Pin::decode(&bytes).map(Some).map_err(failed)
    }

    /// Stores what the initializer read. Returns `true` if no other node has done so.
    async fn add(&self, pin: &Pin, items: &ItemDoor) -> Result<bool, StateError> {
        let Self { context, deployed, stage, .. } = self;
        let bytes = pin.encode().map_err(StateError::Pin)?;
        let answers = Digest::of(&bytes);
        let stored = Plugins::pins(&context.broker).put(&answers, bytes.len() as u64, bytes.as_slice()).await;
        stored.map_err(|error| StateError::Pin(error.to_string()))?;
        let read = items.record().map(|record| {
            record.calls.iter().map(|called| format!("{} {}: {}", called.call, called.target, called.outcome)).collect()
        });
        let pinned = Pinned { answers, read: read.unwrap_or_default(), node: context.node.clone(), time: now() };
        let added = context.registry.add_pinned(&deployed.chain, deployed.revision, &stage.name, &pinned).await;
        added.map_err(|error| StateError::Pin(error.to_string()))
    }
}
