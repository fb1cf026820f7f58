//! Runs the items of a frame.
//!
//! One permit runs them one after the other. A frame that takes long gets help: first from this node's free permits, then from
//! other nodes, to which the items that have not begun go back.

pub(crate) mod gauge;
pub(crate) mod inline;
pub(crate) mod large;
mod measured;
pub(crate) mod running;
pub(crate) mod walked;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OnceCell, watch};
use tokio::task::JoinSet;

use crate::counted::Counted;
use crate::node::execute::gauge::Gauge;
use crate::node::execute::running::{Outcomes, Running};
use crate::node::execute::walked::Walked;
use crate::node::frame::inbound::InboundFrame;
use crate::node::frame::plan::to_u32;
use crate::node::frame::steps::Measured;
use crate::node::hop::Hop;
use crate::node::phase::{Phase, reached};
use crate::node::runner::Runner;
use crate::node::worker::permits::Permit;
use crate::run::budget::Growing;
use crate::run::call::{Call, ItemSource};
use crate::run::output::FrameOutputs;
use crate::slots::SlotSet;

/// A frame that takes longer than this gets the help of the node's other permits.
const HELP_AFTER: Duration = Duration::from_millis(2);
/// Items walk together through inline stages for about this long, so that others can take the rest.
const WALK_TIME: Duration = Duration::from_millis(10);

/// What has become of a frame.
pub(crate) struct Execution {
    /// What has become of its items.
    pub(crate) outcomes: Outcomes,
    /// Number of messages made so far of a single item's outputs.
    pub(crate) streamed: usize,
    /// Memory that is counted for all this until it is stored.
    pub(crate) memory: Arc<Growing>,
}

/// Runs the items of a frame until all have ended, or the rest goes back.
pub(crate) async fn run(
    hop: &Arc<Hop>,
    inbound: &Arc<InboundFrame>,
    mut permit: Permit,
    phase: &mut watch::Receiver<Phase>,
) -> Execution {
    // Outputs are expected to be as large as the items.
    let bytes: usize = inbound.frame.items.iter().map(Bytes::len).sum();
    let last = hop.inline.last().map_or(hop.task.after(), |stage| stage.task.after());
    let memory = Arc::new(hop.task.budget().growing(bytes as u64).across(last..=hop.task.after()));
    let stamp = hop.stamp();
    let measured = stamp.map(|stamp| Measured { stamp, ways: BTreeMap::new() });
    let running = Arc::new(Running {
        hop: Arc::clone(hop),
        inbound: Arc::clone(inbound),
        instances: std::iter::once(&hop.task)
            .chain(hop.inline.iter().map(|stage| &stage.task))
            .map(Runner::instances)
            .collect(),
        started: Instant::now(),
        next: AtomicUsize::new(0),
        unbegun: Mutex::new(permit.take_unbegun()),
        stopped: AtomicBool::new(false),
        gathered: AtomicUsize::new(0),
        unkept: AtomicUsize::new(0),
        most: hop.large.most(inbound, hop.broker.limits()),
        memory: Arc::clone(&memory),
        exceeding: Arc::default(),
        outcomes: Mutex::new(Outcomes { measured, ..Outcomes::default() }),
        streamed: AtomicUsize::new(0),
        permit: OnceCell::new(),
        records: Mutex::default(),
        gauge: Gauge::new(hop.route.chain.retention.records, inbound.len(), hop.task.exits()),
        stamp,
        slots: permit.slots().map(Arc::downgrade),
    });
    let _message = Counted::new(&hop.counters.messages);
    let mut helpers = JoinSet::new();
    let (begun, all_begun) = watch::channel(false);
    let all = async {
        {
            let mut own = std::pin::pin!(async {
                let _waiting = hop.doors.permit().await;
                work(&running, permit.slots()).await;
            });
            let help = tokio::time::sleep(HELP_AFTER);
            tokio::select! {
                biased;
                () = &mut own => return,
                () = help, if inbound.len() > 1 => call_for_help(&running, &all_begun, &mut helpers),
            }
            own.await;
        }
        // Helpers that still wait for a permit may be waiting for this one.
        drop(permit);
        begun.send_replace(true);
        while helpers.join_next().await.is_some() {}
    };
    tokio::select! {
        biased;
        () = all => {}
        () = reached(phase, Phase::Interrupt) => {}
    }
    helpers.shutdown().await;
    let outcomes = std::mem::take(&mut *running.outcomes());
    if outcomes.left.is_empty() && outcomes.outputs.iter().any(|outputs| outputs.ended() > 0) {
        hop.prove_fitness(running.started);
    }
    Execution { outcomes, streamed: running.streamed.load(Relaxed), memory }
}

/// Runs items as long as there are some that have not begun. If dropped, the outputs of its items are lost.
async fn work(running: &Arc<Running>, slots: Option<&Arc<SlotSet>>) {
    let items = &running.inbound.frame.items;
    let mut outputs = FrameOutputs::with_capacity(items.len(), items.iter().map(Bytes::len).sum());
    let _running = Counted::new(&running.hop.counters.running);
    loop {
        let started = Instant::now();
        let Some(position) = running.begin(started) else { break };
        if !running.hop.inline.is_empty() {
            walk(running, position, started, slots, &mut outputs).await;
            continue;
        }
        let input = match running.input(position).await {
            Ok(input) => input,
            Err(failure) => {
                running.fail(position, failure, |level, entry| running.log(position, level, entry));
                continue;
            }
        };
        let (before, bytes) = (outputs.ended(), outputs.bytes());
        let call = Call { source: Arc::clone(running) as Arc<dyn ItemSource>, position };
        let ran = running.hop.task.run_all(input.item, call, slots, &running.instances[0], &mut outputs).await;
        if let Err((position, failure)) = ran {
            if outputs.ended() == before {
                // Otherwise it is unknown when this item began: others ran before it in the same instance.
                running.hop.limit.ran(started, Instant::now());
            }
            running.fail(position, failure, |level, entry| running.log(position, level, entry));
        }
        running.keep_outputs(&mut outputs, bytes).await;
    }
    running.outcomes().outputs.push(outputs);
}

/// Runs this item through inline stages, and with it as many others as take a moment.
async fn walk(
    running: &Arc<Running>,
    first: usize,
    started: Instant,
    slots: Option<&Arc<SlotSet>>,
    outputs: &mut FrameOutputs,
) {
    let is_small = running.inbound.frame.large.is_empty();
    let time = running.hop.limit.time().filter(|_| is_small);
    let most = time.map_or(1, |time| WALK_TIME.as_nanos() / time.as_nanos().max(1));
    let mut positions = vec![first];
    while (positions.len() as u128) < most {
        let Some(position) = running.begin(started) else { break };
        positions.push(position);
    }
    let (items, before) = (to_u32(positions.len() as u64), outputs.bytes());
    inline::run(running, positions, slots, outputs).await;
    let now = Instant::now();
    let each = now.saturating_duration_since(started) / items;
    running.hop.limit.ran(now.checked_sub(each).unwrap_or(started), now);
    running.gather(outputs.bytes() - before);
    running.keep_outputs(outputs, before).await;
}

/// Lets free permits run items of the frame until all have begun.
fn call_for_help(running: &Arc<Running>, begun: &watch::Receiver<bool>, helpers: &mut JoinSet<()>) {
    let waiting = running.inbound.len().saturating_sub(running.next.load(Relaxed));
    for _ in 0..waiting.min(usize::try_from(running.hop.limit.concurrency()).unwrap_or(usize::MAX) - 1) {
        let (running, mut begun) = (Arc::clone(running), begun.clone());
        helpers.spawn(async move {
            let permits = async { (running.hop.limit.take(None).await, running.hop.doors.permit().await) };
            let (permit, waiting) = tokio::select! {
                permits = permits => permits,
                _ = begun.wait_for(|begun| *begun) => return,
            };
            work(&running, permit.slots()).await;
            drop((permit, waiting));
        });
    }
}
