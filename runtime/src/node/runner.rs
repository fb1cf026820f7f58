//! What runs the items of a stage: a task in a sandbox, or a program of the machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pcluster_abi::Level;

use crate::chain::needs::{Needs, Slot};
use crate::engine::idle::Instances;
use crate::engine::streaming::StreamingPermit;
use crate::engine::task::Task;
use crate::program::process::Place;
use crate::program::run::Program;
use crate::program::stdio;
use crate::program::worker::{Bound, Item, Workers};
use crate::run::budget::Budget;
use crate::run::call::Call;
use crate::run::failure::{Failure, FailureKind};
use crate::run::item::ItemBytes;
use crate::run::output::FrameOutputs;
use crate::slots::SlotSet;

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
    pub(crate) program: ProgramKind,
    /// What an item needs in slots.
    pub(crate) needs: Arc<Needs>,
    /// The memory budget of the node.
    pub(crate) budget: Arc<Budget>,
    /// The number of stages after its own.
    pub(crate) after: usize,
}

/// How the items of a stage get processes.
#[derive(Clone)]
pub(crate) enum ProgramKind {
    /// Each has its own.
    Items(Arc<Program>),
    /// A process takes one after another.
    Workers(Arc<Workers>),
    /// None: what the source of an item says comes of it.
    StoodIn,
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
    pub fn instances_max(&self) -> usize {
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

    /// Returns `true` if a program runs for each item, and ends with it.
    pub(crate) fn exits(&self) -> bool {
        matches!(self, Self::Program(ProgramRunner { program: ProgramKind::Items(_), .. }))
    }

    /// Runs an item and more of its caller's, as [`Task::run_all`] does. `slots` are those of the items.
    ///
    /// # Errors
    ///
    /// The position of the item that failed, and why.
    pub async fn run_all(
        &self,
        item: ItemBytes,
        call: Call,
        slots: Option<&Arc<SlotSet>>,
        instances: &Instances,
        given: &mut FrameOutputs,
    ) -> Result<(), (usize, Failure)> {
        match self {
            Self::Task(task) => {
                let item = in_memory(item, "a task").await.map_err(|failure| (call.position, failure))?;
                task.run_all(item, call, instances, given).await
            }
            Self::Program(runner) => {
                // Boxed, so that the state of items of tasks stays small.
                let run = Box::pin(runner.run(item, &call, slots, given));
                run.await.map_err(|failure| (call.position, failure))
            }
        }
    }
}

impl ProgramRunner {
    /// Runs one item. Its caller asks for a process for the next.
    async fn run(
        &self,
        item: ItemBytes,
        call: &Call,
        slots: Option<&Arc<SlotSet>>,
        given: &mut FrameOutputs,
    ) -> Result<(), Failure> {
        let Call { source, position } = call;
        let of_slots = slots.into_iter().flat_map(|slots| slots.variables(&self.needs));
        let keep = slots.map(|slots| Arc::clone(slots) as Arc<dyn Send + Sync>);
        match &self.program {
            ProgramKind::Items(program) => {
                let _counted = self.budget.reserve(program.whole(&item));
                let variables = [("ITEM_ID", source.id(*position)), ("ATTEMPT", source.attempt().to_string())];
                let variables = variables.map(|(name, value)| (format!("PCLUSTER_{name}"), value));
                let topic = source.topic(*position).map(|topic| ("PCLUSTER_TOPIC".to_owned(), topic.to_string()));
                let variables = variables.into_iter().chain(topic).chain(of_slots);
                let variables = variables.map(|(name, value)| (name.into(), value.into())).collect();
                let processors = slots.map_or(Vec::new(), |slots| slots.processors(&self.needs));
                let place = Place { processors, _keep: keep };
                let began = Instant::now();
                let log = |line| source.log(*position, Level::Info, line);
                let mut outputs = program.run(&item, variables, place, log).await?;
                pass_outputs(call, began, given, || Ok(outputs.next()?)).await
            }
            ProgramKind::Workers(workers) => {
                let of_slots = of_slots.filter(|(name, _)| *name != Slot::Cores.variable());
                let variables = of_slots.map(|(name, value)| (name.into(), value.into())).collect();
                let bound = Bound { variables };
                let bytes = in_memory(item, "a worker").await?;
                let (id, topic) = (source.id(*position), source.topic(*position));
                let item = Item { bytes: &bytes, id: &id, topic: topic.as_ref(), attempt: source.attempt(), keep };
                let mut answers = workers.run(&item, &bound).await?;
                pass_outputs(call, answers.began, given, || Ok(answers.next()?.map(ItemBytes::Whole))).await
            }
            ProgramKind::StoodIn => {
                let (began, item) = (Instant::now(), in_memory(item, "what stands in for a program").await?);
                let nothing = || Failure::fatal(FailureKind::Node, "nothing stands in for the program");
                let outputs = source.stand_in(*position, &item).ok_or_else(nothing)??;
                let mut outputs = outputs.into_iter();
                pass_outputs(call, began, given, || Ok(outputs.next().map(ItemBytes::Whole))).await
            }
        }
    }
}

/// Returns an item in memory. Fails if it is too large for `who`.
async fn in_memory(item: ItemBytes, who: &str) -> Result<Bytes, Failure> {
    match item {
        ItemBytes::Whole(bytes) => Ok(bytes),
        ItemBytes::File(file) => stdio::whole(&file, who).await,
    }
}

/// Hands on the outputs of an item that is done, however many there are.
async fn pass_outputs(
    Call { source, position }: &Call,
    began: Instant,
    given: &mut FrameOutputs,
    mut next: impl FnMut() -> Result<Option<ItemBytes>, Failure>,
) -> Result<(), Failure> {
    let (mut count, mut bytes) = (0, 0);
    while let Some(output) = next().inspect_err(|_| given.drop_open())? {
        count += 1;
        match output {
            ItemBytes::Whole(output) => {
                given.push(&output);
                bytes += output.len() as u64;
            }
            ItemBytes::File(file) => {
                source.filed(*position, file.item_size());
                given.push_file(file);
            }
        }
        if given.open().is_full() {
            Arc::clone(source).stream(*position, given.take_open()).await?;
        }
    }
    given.end(*position);
    source.ended(*position, count, bytes, began, Instant::now());
    Ok(())
}
