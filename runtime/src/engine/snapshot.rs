//! State that is made once: the initializer runs in the sandbox before the first item. Its memory becomes the snapshot from which
//! every instance starts. So a fresh instance for each item costs no more with state than without.
//!
//! A snapshot is the memory and the globals of the instance in which the initializer has run. Of a small plugin comes the same module
//! with other data and globals, of a large one an image beside the code, which is compiled already. On the host's side only the start
//! of the clock remains. The image of a state that follows from the plugin and its stage alone is kept for the next start of a
//! node. If a snapshot cannot be made, each instance makes the state itself, and the errors of the initializer appear
//! as failures of items.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use pcluster_abi as abi;

use super::instance::{Exports, Instance};
use super::kept::StateName;
use super::parts::{BYTES_MAX, Outline, PAGE, Parts, State, Value};
use super::task::Task;
use super::template::Template;
use super::{EngineError, Plugin};
use crate::name::Digest;
use crate::run::call::{Call, Calls, ItemSource};
use crate::run::failure::{Failure, FailureKind};
use crate::run::output::Outputs;

/// How snapshots of a plugin are made.
#[derive(Clone)]
pub(super) enum Snapshots {
    /// Its tasks have no state.
    Stateless,
    /// Its state cannot be read and put back, for this reason.
    Unfit(Arc<str>),
    /// As the plugin with another state in it.
    Whole(Arc<Parts>),
    /// As an image beside its code.
    Split(Arc<Outline>),
}

/// Why a task's state was not made before its first item.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The plugin is not fit for a snapshot.
    #[error("no snapshot can be made of the plugin: {0}")]
    Unfit(String),
    /// The snapshot cannot be loaded.
    #[error(transparent)]
    Load(#[from] EngineError),
    /// The initializer failed.
    #[error("the initializer failed: {0}")]
    Failed(String),
}

/// Takes the log lines of an initializer.
pub type Log = Box<dyn Fn(abi::Level, String) + Send + Sync>;

/// What an initializer has around it.
pub struct Surroundings {
    /// Takes its log lines.
    pub log: Log,
    /// What it may call. `None` if nothing.
    pub calls: Option<Arc<dyn Calls>>,
}

impl Surroundings {
    /// Returns surroundings without a log and without calls.
    pub fn silent() -> Self {
        Self { log: Box::new(|_, _| {}), calls: None }
    }
}

/// The source of the initializer's execution. It has no item.
struct Initializing(Surroundings);

impl ItemSource for Initializing {
    fn id(&self, _: usize) -> String {
        String::new()
    }

    fn attempt(&self) -> u64 {
        0
    }

    fn log(&self, _: usize, level: abi::Level, line: String) {
        (self.0.log)(level, line);
    }

    fn calls_of_start(&self) -> Option<Arc<dyn Calls>> {
        self.0.calls.clone()
    }

    fn stream(self: Arc<Self>, _: usize, _: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(std::future::ready(Err(Failure::fatal(FailureKind::Output, "an output was given without an item"))))
    }
}

impl Plugin {
    /// Returns the task with a snapshot of its state. Its instances start from the snapshot. `None` if the task has no state.
    /// `place` tells stages with this task apart. Takes as long as the initializer, at most the task's timeout, and for a small
    /// plugin a compilation.
    ///
    /// # Errors
    ///
    /// If the snapshot cannot be made. The task then works without it.
    pub async fn with_state(
        &self,
        name: &str,
        place: &str,
        task: &Task,
        around: Surroundings,
    ) -> Result<Option<Task>, SnapshotError> {
        if task.exports.init.is_none() {
            return Ok(None);
        }
        if let Snapshots::Unfit(reason) = &self.snapshots {
            return Err(SnapshotError::Unfit(reason.to_string()));
        }
        let state = StateName::of(self, name, place, task);
        let (kept, state) = self.blocking(move |plugin| Ok((plugin.kept_state(&state), state))).await?;
        let (template, clock) = if let Some(template) = kept {
            (template, None)
        } else {
            let instance = self.initialized(task, around).await?;
            let clock = instance.clock();
            // Without the digest of the state: only the newest state of a stage is cached.
            let key = Digest::of([self.digest.as_hex(), name, place].join(":").as_bytes());
            (self.blocking(move |plugin| plugin.snapshot(instance, &key, state)).await?, clock)
        };
        let exports = Exports::find(&template, name)?.started();
        Ok(Some(task.clone().started(template, exports, clock)))
    }

    /// Returns what instances with this state start from, if it was kept. Blocks the thread.
    fn kept_state(&self, name: &StateName) -> Option<Arc<Template>> {
        match (&self.snapshots, &*self.template) {
            (Snapshots::Split(outline), Template::Split(split)) => self.engine.kept_state(name, outline, split.code()),
            _ => None,
        }
    }

    /// Returns an instance in which the initializer of the task has run.
    async fn initialized(&self, task: &Task, around: Surroundings) -> Result<Instance, SnapshotError> {
        let task = task.clone().with_after(0);
        let call = Call { source: Arc::new(Initializing(around)), position: 0 };
        let failed = |failure: Failure| SnapshotError::Failed(failure.reason);
        let slot = Instance::slot(&task).await.map_err(failed)?;
        let mut instance = Instance::new(&task, slot, self.engine.budget.reserve(0));
        instance.initialize(&task, call).await.map_err(failed)?;
        let memory = instance.memory().len() as u64;
        if memory > BYTES_MAX {
            let [memory, most] = [memory, BYTES_MAX].map(|bytes| bytesize::ByteSize(bytes).display().iec().to_string());
            return Err(SnapshotError::Unfit(format!("its state takes {memory} of memory; the most is {most}")));
        }
        Ok(instance)
    }

    /// Returns what instances with the state of this instance start from. Blocks the thread.
    fn snapshot(&self, mut instance: Instance, key: &Digest, name: StateName) -> Result<Arc<Template>, SnapshotError> {
        match (&self.snapshots, &*self.template) {
            (Snapshots::Whole(parts), _) => {
                let globals = globals(&parts.outline, &mut instance)?;
                let bytes = parts.with_state(&state(&instance, globals));
                // Its memory is free for items while the module is compiled.
                drop(instance);
                Ok(self.engine.whole(key, &Digest::of(&bytes), &bytes)?)
            }
            (Snapshots::Split(outline), Template::Split(split)) => {
                let globals = globals(outline, &mut instance)?;
                let image = outline.image(&state(&instance, globals));
                let follows = instance.is_unworldly();
                drop(instance);
                let image = self.engine.image(&image)?;
                if follows {
                    self.engine.keep_state(name, &image);
                }
                Ok(Arc::new(self.engine.split(outline, &image, split.code().clone())?))
            }
            _ => Err(unreadable()),
        }
    }

    /// Runs work that takes long on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, SnapshotError> {
        let plugin = self.clone();
        let worked = tokio::task::spawn_blocking(move || work(&plugin)).await;
        worked.map_err(|error| SnapshotError::Unfit(error.to_string()))?
    }
}

/// Returns the numbers of the globals of an instance that may change.
fn globals(outline: &Outline, instance: &mut Instance) -> Result<Vec<Option<Value>>, SnapshotError> {
    let mut globals = vec![None; outline.globals()];
    for index in outline.changing() {
        globals[index] = Some(instance.global(index).ok_or_else(unreadable)?);
    }
    Ok(globals)
}

fn unreadable() -> SnapshotError {
    SnapshotError::Unfit("its state cannot be read".to_owned())
}

fn state(instance: &Instance, globals: Vec<Option<Value>>) -> State<'_> {
    let memory = instance.memory();
    State { pages: memory.len() as u64 / PAGE, memory, globals }
}

#[cfg(test)]
mod tests;
