//! What the walk through the stages of a hop needs of a frame, wherever its items come from and its outputs go.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use pcluster_abi::Level;
use tokio::sync::OnceCell;

use super::large::Input;
use crate::chain::{Accepts, Records};
use crate::engine::idle::Instances;
use crate::engine::streaming::StreamingPermit;
use crate::frame::steps::Row;
use crate::name::{StageName, Topic};
use crate::node::frame::steps::Way;
use crate::node::health::HopCounters;
use crate::node::runner::Runner;
use crate::run::budget::Growing;
use crate::run::call::Calls;
use crate::run::failure::{Failure, FailureKind};
use crate::run::output::Outputs;

/// How long an execution waits for the permit to keep its instance.
const STREAMING_PATIENCE: Duration = Duration::from_secs(1);

/// Counts the time of an item's calls, in microseconds.
pub(crate) type Spent = Arc<AtomicU64>;

/// A stage of a hop, as the walk sees it.
pub(crate) struct WalkedStage<'a> {
    /// Its name.
    pub(crate) name: &'a StageName,
    /// What runs its items.
    pub(crate) runner: &'a Runner,
    /// The instances that may run its next item.
    pub(crate) instances: &'a Instances,
    /// Its counters.
    pub(crate) counters: &'a HopCounters,
}

/// An item of a stage, as the frame that it descends from sees it.
pub(crate) struct WalkedItem {
    /// The place of the stage in the hop.
    pub(crate) stage: usize,
    /// The position of the frame's item that it descends from.
    pub(crate) root: usize,
    /// Its own id.
    pub(crate) id: String,
}

/// A frame whose items walk through the stages of a hop.
pub(crate) trait Walked: Send + Sync + Sized + 'static {
    /// Returns the number of stages after the first.
    fn inline_stages(&self) -> usize;

    /// Returns the stage at this place of the hop.
    fn stage(&self, place: usize) -> WalkedStage<'_>;

    /// Returns what the chain records of items.
    fn records(&self) -> Records;

    /// Returns `true` if the frame has only one item.
    fn is_single(&self) -> bool;

    /// Returns the id of the item at this position.
    fn item_id(&self, position: usize) -> String;

    /// Returns the topic of the item at this position. `None` if it has none.
    fn item_topic(&self, position: usize) -> Option<&Topic>;

    /// Returns the number of the attempt. The first is 1.
    fn attempt_number(&self) -> u64;

    /// Returns the bytes of the item at this position.
    fn input(&self, position: usize) -> impl Future<Output = Result<Input, Failure>> + Send;

    /// Returns `true` if the item has failed, is deferred, or is left.
    fn is_settled(&self, position: usize) -> bool;

    /// Notes the failure of an item, unless it is settled already. A failed attempt is told to `log`.
    fn fail(&self, position: usize, failure: Failure, log: impl FnOnce(Level, String));

    /// Defers an item to a frame of its own, or to another time if it has one.
    fn defer(&self, position: usize);

    /// Takes a line that the item of a stage has logged.
    fn log_line(&self, item: &WalkedItem, level: Level, line: String);

    /// Returns what the item of a stage may call. `None` if the stage was granted nothing.
    fn calls_of(&self, item: WalkedItem, spent: Option<Spent>) -> Option<Arc<dyn Calls>>;

    /// Forgets the calls of an item that has ended well.
    fn forget_calls(&self, position: usize);

    /// Returns the reservation for the outputs of the frame. `None` if it has none.
    fn memory(&self) -> Option<Arc<Growing>>;

    /// Passes on outputs of a single item that still runs.
    fn stream_outputs(&self, outputs: Outputs) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Returns where a single item keeps the permit for its instance of the first stage.
    fn permit(&self) -> &OnceCell<StreamingPermit>;

    /// Takes note that the next `outputs` outputs of an item have come this way.
    fn came(&self, position: usize, outputs: usize, way: Way);

    /// Returns the steps up to the failure of an item on its way. `None` if the chain keeps no records.
    fn steps(&self, way: &Way, failure: &Failure, lines: Vec<String>) -> Option<Arc<Vec<Row>>>;

    /// Returns who watches what stages do. `None` if nobody does.
    fn watch(&self) -> Option<&dyn Watch> {
        None
    }
}

/// Watches what the stages of a hop do with the items of a frame. Stages are told by their places in the hop.
pub(crate) trait Watch: Sync {
    /// Takes an output that a stage has given for what descends from the frame's item `root`.
    fn gave(&self, stage: usize, root: usize, output: &[u8]);

    /// Takes note that a stage has ended an item well, with this many outputs.
    fn ended(&self, stage: usize, outputs: usize);

    /// Takes note that what descends from the frame's item `root` has failed in a stage.
    fn failed_in(&self, stage: usize, root: usize);

    /// Returns what comes of an item in place of the program of a stage. `None` if nothing stands in for it.
    fn stand_in(&self, stage: usize, item: &Bytes) -> Option<Result<Vec<Bytes>, Failure>>;
}

/// Holds the bytes of a fed item against what its chain accepts.
pub(crate) fn check_accepted(accepts: &Accepts, item: &[u8]) -> Result<(), Failure> {
    accepts.check(item).map_err(|refused| {
        let reason = format!("it does not fit `[input] schema` of the chain: {refused}");
        Failure::fatal(FailureKind::Error, reason)
    })
}

/// Lets an execution of the hop's stage at this place keep its instance while it waits for later stages. Returns the permit
/// unless there is no later stage, or the frame itself holds the permit.
///
/// An item beside others may not wait: it is deferred.
pub(crate) async fn keep_instance(
    frame: &impl Walked,
    stage: usize,
    position: usize,
) -> Result<Option<StreamingPermit>, Failure> {
    if !frame.is_single() {
        frame.defer(position);
        return Err(Failure::transient(FailureKind::Output, "too many outputs to run beside others"));
    }
    let runner = frame.stage(stage).runner;
    if !runner.keeps_instance() {
        return Ok(None);
    }
    match (stage, runner.after()) {
        (_, 0) => Ok(None),
        (0, _) => frame.permit().get_or_try_init(|| streaming_permit(frame, 0, position)).await.map(|_| None),
        _ => streaming_permit(frame, stage, position).await.map(Some),
    }
}

/// Waits for a permit; defers the item if there is none in time, so that later stages can have its instance.
async fn streaming_permit(frame: &impl Walked, stage: usize, position: usize) -> Result<StreamingPermit, Failure> {
    let WalkedStage { name, runner, .. } = frame.stage(stage);
    let (after, slots) = (runner.after(), runner.instances_max());
    if slots <= after {
        let reason = format!(
            "it gives so much that its outputs go on while it runs: here that takes {} instances at once, and the node has {slots}; \
             start it with a larger `--instances`",
            after + 1
        );
        return Err(Failure::fatal(FailureKind::Output, reason));
    }
    runner.streaming_permit(STREAMING_PATIENCE).await.ok_or_else(|| {
        tracing::debug!(stage = %name, "an item yields its slot to the stages that it waits for");
        frame.defer(position);
        Failure::transient(FailureKind::Output, "it waits for later stages, and all instances are taken")
    })
}
