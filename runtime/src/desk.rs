//! Runs the items of a chain in this process, without a server: nothing is kept.
//!
//! An item goes the way that it goes on a node: the same tasks and programs, the same walk through the stages of a hop, the same
//! attempts. In place of queues there are frames that begin others: the outputs of a frame's items are the items of frames of the
//! next hop. How many there may be is bounded, so memory is, however many items there are.
//!
//! | module | contents |
//! |---|---|
//! | [`stage`] | the stages, ready to run |
//! | [`frame`] | items that walk through a hop together |
//! | [`flow`] | frames and those that they begin, until there are results |
//! | [`outlet`] | where results go, in order or as they come |

pub(crate) mod flow;
mod frame;
pub(crate) mod outlet;
pub(crate) mod stage;

use std::sync::Arc;

use bytes::Bytes;
use pcluster_abi::Level;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::calls::door::Door;
use crate::name::{StageName, Topic};
use crate::node::executor::Executor;
use crate::node::programs::Programs;
use crate::run::call::Calls;
use crate::run::failure::Failure;
use crate::run::item::ItemBytes;
use stage::{DeskHop, DeskStage};

/// The most items of a hop that wait for their back-off. They hold nothing but their bytes.
const RETRIES_MAX: usize = 10_000;

/// A chain in this process.
pub(crate) struct Desk<A> {
    hops: Arc<[DeskHop]>,
    around: A,
    retries: Arc<Semaphore>,
    programs: Arc<Programs>,
    executor: Arc<Executor>,
}

/// What a chain in this process has around it.
pub(crate) trait Around: Send + Sync + 'static {
    /// What becomes of results that come together.
    type Output: Send + 'static;

    /// Takes a line that an item of a stage has logged. `item` is empty for an initializer.
    fn log(&self, stage: &StageName, item: &str, level: Level, line: String);

    /// Returns what an item of a stage may call. `None` if nothing.
    fn calls(self: &Arc<Self>, stage: &DeskStage, item: &DeskItem, id: String) -> Option<Arc<dyn Calls>>;

    /// Returns what becomes of results.
    fn results(&self, items: Vec<DeskItem>) -> Self::Output;

    /// Takes note of an item that has failed for good in the hop of this stage.
    fn failed(&self, stage: &StageName, item: &DeskItem, attempt: u64, failure: Failure);

    /// Returns who watches all stages and stands in for the world. `None` if calls and programs are real.
    fn stand_in(&self) -> Option<&dyn StandIn> {
        None
    }
}

/// Watches all stages, and stands in for the world: no call leaves this process, and no program starts.
pub(crate) trait StandIn: Send + Sync {
    /// Returns what the initializer of a stage may call.
    fn init_calls(&self, stage: &StageName, door: &Arc<Door>) -> Arc<dyn Calls>;

    /// Returns what comes of an item in place of the program of a stage. `None` if nothing stands in for it.
    fn program(&self, stage: &StageName, item: &Bytes) -> Option<Result<Vec<Bytes>, Failure>>;

    /// Returns how many items a frame has.
    fn frame_items(&self) -> usize;

    /// Returns the number of the first attempt.
    fn first_attempt(&self) -> u64;

    /// Returns the id of an item.
    fn id(&self, origin: &Origin) -> String;

    /// Takes the outputs that a stage gave for what descends from an item, once no attempt of the item follows.
    fn gave(&self, stage: &StageName, item: &DeskItem, outputs: Vec<Bytes>);

    /// Takes note that a stage has ended an item well, with this many outputs.
    fn ended(&self, stage: &StageName, outputs: usize);
}

/// An item. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct DeskItem {
    /// Its bytes.
    pub(crate) bytes: ItemBytes,
    /// Its topic.
    pub(crate) topic: Option<Topic>,
    /// Where it comes from.
    pub(crate) origin: Origin,
}

/// Where an item comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    /// The number of the fed item. The first is 1.
    pub(crate) fed: u64,
    /// Of each hop that it went through, its number among the outputs of one item.
    pub(crate) way: Arc<[u32]>,
}

impl Origin {
    /// Returns the origin of a fed item.
    pub(crate) fn fed(number: u64) -> Self {
        Self { fed: number, way: Arc::default() }
    }

    /// Returns the origin of an output.
    fn child(&self, number: usize) -> Self {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        Self { fed: self.fed, way: self.way.iter().copied().chain([number]).collect() }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.fed)?;
        self.way.iter().try_for_each(|number| write!(formatter, ".{number}"))
    }
}

impl<A: Around> Desk<Arc<A>> {
    /// Returns what runs guests.
    pub(crate) fn executor(&self) -> Handle {
        self.executor.handle()
    }

    /// Returns the same chain, ready to run, with something else around it.
    pub(crate) fn with<B: Around>(&self, around: Arc<B>) -> Desk<Arc<B>> {
        Desk {
            hops: Arc::clone(&self.hops),
            around,
            retries: Arc::clone(&self.retries),
            programs: Arc::clone(&self.programs),
            executor: Arc::clone(&self.executor),
        }
    }

    /// Ends the programs that still run.
    pub(crate) async fn end(&self) {
        self.programs.end_all().await;
        self.programs.gone().await;
    }
}

/// Why a chain cannot run in this process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeskError {
    /// A stage cannot be made ready.
    #[error("stage `{stage}`: {problem}")]
    Stage {
        /// The stage.
        stage: StageName,
        /// The problem.
        problem: String,
    },
    /// A stage needs what only a cluster has.
    #[error(
        "stage `{stage}`: {what} is in a NATS cluster, and this runs without one; `pcluster dev` starts one for the chain"
    )]
    NeedsCluster {
        /// The stage.
        stage: StageName,
        /// What it needs.
        what: String,
    },
    /// This machine does not let the engine or the programs start.
    #[error("{0}")]
    Start(String),
}

impl DeskError {
    fn start(error: impl std::fmt::Display) -> Self {
        Self::Start(error.to_string())
    }
}
