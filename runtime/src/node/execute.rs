//! Running the items of a frame.
//!
//! One turn runs them one after the other. When that takes long, others are asked for help: first this node's free turns, then
//! the other nodes, by leaving the items that nobody has begun.

pub(crate) mod inline;
pub(crate) mod running;
pub(crate) mod together;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::engine::budget::Growing;
use crate::engine::failure::Failure;
use crate::engine::output::FrameOutputs;
use crate::engine::task::Task;
use crate::node::execute::running::{Ended, Running};
use crate::node::frame::inbound::InboundFrame;
use crate::node::frame::plan::to_u32;
use crate::node::hop::Hop;
use crate::node::phase::{Phase, reached};
use crate::node::worker::permits::{ConcurrencyLimit, Permit};

/// A frame that takes longer than this asks for the node's other turns.
const HELP_AFTER: Duration = Duration::from_millis(2);
/// Items go together through inline stages for about this long, so that others can take the rest.
const TOGETHER: Duration = Duration::from_millis(10);

/// What came of a frame's items.
pub(crate) struct Execution {
    /// What those have given that have ended well.
    pub(crate) given: Vec<FrameOutputs>,
    /// Those that have failed.
    pub(crate) failed: Vec<(usize, Failure)>,
    /// Items to be run each in a frame of its own; one that is in such a frame already, another time.
    pub(crate) left: Vec<usize>,
    /// Messages made of a single item's outputs so far.
    pub(crate) streamed: usize,
    /// What is counted for all this, until it is stored.
    pub(crate) memory: Arc<Growing>,
}

/// Runs the items of a frame, until all have ended or the rest is to be left.
pub(crate) async fn run(
    hop: &Arc<Hop>,
    inbound: &Arc<InboundFrame>,
    limit: &Arc<ConcurrencyLimit>,
    permit: Permit,
    phase: &mut watch::Receiver<Phase>,
) -> Execution {
    // There is as much room for outputs from the start.
    let bytes: usize = inbound.frame.items.iter().map(Bytes::len).sum();
    let memory = Arc::new(hop.task.budget().growing(bytes as u64));
    let running = Arc::new(Running {
        hop: Arc::clone(hop),
        inbound: Arc::clone(inbound),
        limit: Arc::clone(limit),
        instances: std::iter::once(&hop.task)
            .chain(hop.inline.iter().map(|stage| &stage.task))
            .map(Task::instances)
            .collect(),
        started: Instant::now(),
        next: AtomicUsize::new(0),
        stopped: AtomicBool::new(false),
        gathered: AtomicUsize::new(0),
        memory: Arc::clone(&memory),
        ended: Mutex::default(),
        streamed: AtomicUsize::new(0),
        leave: tokio::sync::OnceCell::new(),
    });
    let _message = hop.stats.run_message();
    let mut helpers = JoinSet::new();
    let (begun, all_begun) = watch::channel(false);
    let all = async {
        {
            let mut own = std::pin::pin!(work(&running));
            let help = tokio::time::sleep(HELP_AFTER);
            tokio::select! {
                biased;
                () = &mut own => return,
                () = help, if inbound.len() > 1 => call_for_help(&running, &all_begun, &mut helpers),
            }
            own.await;
        }
        // Helpers that still wait for a turn may be waiting for this one.
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
    let Ended { given, mut failed, left } = std::mem::take(&mut *running.so_far());
    failed.sort_by_key(|(position, _)| *position);
    Execution { given, failed, left, streamed: running.streamed.load(Relaxed), memory }
}

/// Runs items as long as there are some that nobody has begun. If dropped, what they have given so far is as if they had not
/// run.
async fn work(running: &Arc<Running>) {
    let items = &running.inbound.frame.items;
    let mut given = FrameOutputs::with_capacity(items.len(), items.iter().map(Bytes::len).sum());
    let _running = running.hop.stats.run();
    loop {
        let started = Instant::now();
        let Some(position) = running.begin(started) else { break };
        if running.inbound.len() > 1 && !running.hop.inline.is_empty() {
            work_together(running, position, started, &mut given).await;
            continue;
        }
        let before = given.ended();
        if let Err((position, failure)) = inline::run(running, position, &mut given).await {
            if given.ended() == before {
                // Otherwise others ran in the same go, and nobody knows when this one began.
                running.limit.ran(started, Instant::now());
            }
            let mut ended = running.so_far();
            if !ended.left.contains(&position) {
                ended.failed.push((position, failure));
            }
        }
    }
    running.so_far().given.push(given);
}

/// Runs this item and others through several stages, as many as take a moment.
async fn work_together(running: &Arc<Running>, first: usize, started: Instant, given: &mut FrameOutputs) {
    let most = running.limit.time().map_or(1, |time| TOGETHER.as_nanos() / time.as_nanos().max(1));
    let mut positions = vec![first];
    while (positions.len() as u128) < most {
        let Some(position) = running.begin(started) else { break };
        positions.push(position);
    }
    let before = given.bytes();
    let lost = together::run(running, &positions, given).await;
    let now = Instant::now();
    let each = now.saturating_duration_since(started) / to_u32(positions.len() as u64);
    running.limit.ran(now.checked_sub(each).unwrap_or(started), now);
    running.gather(given.bytes() - before);
    let mut ended = running.so_far();
    ended.failed.extend(lost.failed);
    ended.left.extend(lost.large);
}

/// Lets free turns run items of the frame, until all have begun.
fn call_for_help(running: &Arc<Running>, begun: &watch::Receiver<bool>, helpers: &mut JoinSet<()>) {
    let left = running.inbound.len().saturating_sub(running.next.load(Relaxed));
    for _ in 0..left.min(usize::try_from(running.limit.concurrency()).unwrap_or(usize::MAX) - 1) {
        let (running, mut begun) = (Arc::clone(running), begun.clone());
        helpers.spawn(async move {
            let permit = tokio::select! {
                permit = running.limit.take() => permit,
                _ = begun.wait_for(|begun| *begun) => return,
            };
            work(&running).await;
            drop(permit);
        });
    }
}
