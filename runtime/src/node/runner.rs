//! What runs the items of a stage: a task in a sandbox, or a program of the machine.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pcluster_abi::Level;

use crate::engine::idle::Instances;
use crate::engine::streaming::StreamingPermit;
use crate::engine::task::Task;
use crate::program::run::Program;
use crate::run::budget::Budget;
use crate::run::call::Call;
use crate::run::failure::Failure;
use crate::run::output::FrameOutputs;

/// What runs the items of a stage. Cheap to clone.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "a hop has few runners, and tasks must be quick to reach")]
pub enum Runner {
    /// A task in a sandbox.
    Task(Task),
    /// A program.
    Program(ProgramRunner),
}

/// A program as the runner of a stage.
#[derive(Clone)]
pub struct ProgramRunner {
    pub(crate) program: Arc<Program>,
    /// The memory budget of the node.
    pub(crate) budget: Arc<Budget>,
    /// The number of stages after its own.
    pub(crate) after: usize,
}

impl Runner {
    /// Returns the memory budget of the node.
    pub fn budget(&self) -> &Arc<Budget> {
        match self {
            Self::Task(task) => task.budget(),
            Self::Program(runner) => &runner.budget,
        }
    }

    /// Returns the number of stages after its own.
    pub fn after(&self) -> usize {
        match self {
            Self::Task(task) => task.after(),
            Self::Program(runner) => runner.after,
        }
    }

    /// Returns where the instances of one frame become idle.
    pub fn instances(&self) -> Instances {
        match self {
            Self::Task(task) => task.instances(),
            Self::Program(_) => Instances::none(),
        }
    }

    /// Returns the most instances that may exist at once.
    pub fn slots(&self) -> usize {
        match self {
            Self::Task(task) => task.slots(),
            Self::Program(_) => usize::MAX,
        }
    }

    /// Waits for a permit to keep an instance for later stages. `None` if `patience` ends first, or if there is none to keep: a
    /// program has ended when its outputs are handed on.
    pub async fn streaming_permit(&self, patience: Duration) -> Option<StreamingPermit> {
        match self {
            Self::Task(task) => task.streaming_permit(patience).await,
            Self::Program(_) => None,
        }
    }

    /// Returns `true` if an item that streams outputs keeps an instance meanwhile.
    pub fn keeps_instance(&self) -> bool {
        matches!(self, Self::Task(_))
    }

    /// Runs an item and more of its caller's, as [`Task::run_all`] does.
    ///
    /// # Errors
    ///
    /// The position of the item that failed, and why.
    pub async fn run_all(
        &self,
        item: Bytes,
        call: Call,
        instances: &Instances,
        given: &mut FrameOutputs,
    ) -> Result<(), (usize, Failure)> {
        match self {
            Self::Task(task) => task.run_all(item, call, instances, given).await,
            Self::Program(runner) => runner.run(item, &call, given).await.map_err(|failure| (call.position, failure)),
        }
    }
}

impl ProgramRunner {
    /// Runs one item. Its caller asks for a process for the next.
    async fn run(&self, item: Bytes, call: &Call, given: &mut FrameOutputs) -> Result<(), Failure> {
        let Call { source, position } = call;
        let variables = [("ITEM_ID", source.id(*position)), ("ATTEMPT", source.attempt().to_string())];
        let variables =
            variables.map(|(name, value)| (OsString::from(format!("PCLUSTER_{name}")), value.into())).into();
        let began = Instant::now();
        let log = |line| source.log(*position, Level::Info, line);
        let mut outputs = self.program.run(&item, variables, log).await?;
        let (mut count, mut bytes) = (0, 0);
        while let Some(output) = outputs.next().inspect_err(|_| given.drop_open())? {
            given.push(&output);
            (count, bytes) = (count + 1, bytes + output.len() as u64);
            if given.open().is_full() {
                Arc::clone(source).stream(*position, given.take_open()).await?;
            }
        }
        given.end(*position);
        source.ended(count, bytes, began, Instant::now());
        Ok(())
    }
}
