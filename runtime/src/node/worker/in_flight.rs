//! The frames in hand of a lane. A task of its own handles each.
//!
//! To reuse tasks saves nothing that can be measured: an echoed single item took 22 µs of the node's time either way.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::broker::queue::{Acker, Delivery};
use crate::counted::Counted;
use crate::lock::lock;
use crate::node::hop::Hop;
use crate::node::memory::FrameMemory;
use crate::node::phase::Phase;
use crate::node::suspicion::holder_notes;
use crate::node::tasks::panic_message;
use crate::node::worker::lane_slots::LaneSlots;
use crate::node::{memory, pipeline};
use crate::run::budget::Exceeding;
use crate::slots::SlotSet;
use crate::subject::Lane;

/// Progress acks are sent this many times in each `ack_wait`.
pub(crate) const PROGRESS_PART: u32 = 3;

/// The tasks that handle the frames of a lane.
pub(crate) struct InFlight {
    work: Work,
    tasks: JoinSet<()>,
    shared: Arc<Shared>,
}

/// What a task needs to handle a frame.
#[derive(Clone)]
struct Work {
    hop: Arc<Hop>,
    lane: Lane,
    /// The phase as the frames in hand see it.
    told: watch::Receiver<Phase>,
}

/// A frame in hand.
struct InHand {
    acker: Acker,
    /// Number of the delivery to this node.
    delivered: u64,
    /// Numbers of later deliveries to this node.
    again: Vec<u64>,
}

struct Shared {
    /// Frames in hand by their sequence in the stream, for progress acks.
    in_hand: Mutex<BTreeMap<u64, InHand>>,
    busy: AtomicUsize,
    done: Notify,
}

impl InFlight {
    pub(crate) fn new(hop: Arc<Hop>, lane: Lane, told: watch::Receiver<Phase>) -> Self {
        let shared = Arc::new(Shared { in_hand: Mutex::default(), busy: AtomicUsize::new(0), done: Notify::new() });
        Self { work: Work { hop, lane, told }, tasks: JoinSet::new(), shared }
    }

    /// Handles frames, after it has noted that this node holds them.
    ///
    /// A frame that is in hand already does not run twice: the server has redelivered it because progress acks were lost. A frame
    /// that must wait goes back at once, without a note. `exceeding` is the permit of the first frame. `slots` are those of the
    /// lane.
    pub(crate) async fn start(
        &mut self,
        mut deliveries: Vec<Delivery>,
        mut exceeding: Option<Exceeding>,
        slots: &mut LaneSlots,
    ) {
        let Work { hop, lane, .. } = &self.work;
        if hop.is_limited() && *lane == Lane::Work {
            for delivery in &deliveries {
                hop.moved.came(Lane::of(delivery.subject()) != Some(Lane::Work), delivery.pending);
            }
        }
        let (came, mut waiting) = (deliveries.len(), Vec::new());
        {
            let mut in_hand = lock(&self.shared.in_hand);
            deliveries.retain(|delivery| {
                let (acker, delivered) = (delivery.acker.clone(), delivery.delivered);
                match in_hand.entry(delivery.sequence) {
                    Entry::Occupied(mut held) => {
                        held.get_mut().acker = acker;
                        held.get_mut().again.push(delivered);
                        false
                    }
                    Entry::Vacant(place) => {
                        if let Some(left) = hop.behind.left_to_wait(delivery, *lane) {
                            waiting.push((acker, left));
                            return false;
                        }
                        place.insert(InHand { acker, delivered, again: Vec::new() });
                        true
                    }
                }
            });
        }
        let all_wait = waiting.len() == came;
        for (acker, left) in waiting {
            acker.nak(left).await;
        }
        if all_wait {
            return;
        }
        let count = |delivery| self.count(delivery, exceeding.take());
        let frames: Vec<(Delivery, Held)> = deliveries.into_iter().map(count).collect();
        self.note_holders().await;
        while self.tasks.try_join_next().is_some() {}
        for (delivery, held) in frames {
            // Boxed: the executor moves what it runs several times, and its state has kilobytes.
            self.tasks.spawn(Box::pin(handle(self.work.clone(), delivery, slots.take(), held)));
        }
    }

    /// Counts a frame as in hand.
    fn count(&self, delivery: Delivery, exceeding: Option<Exceeding>) -> (Delivery, Held) {
        let Work { hop, lane, .. } = &self.work;
        let bytes = delivery.payload.len();
        self.shared.busy.fetch_add(1, SeqCst);
        let held = Held {
            shared: Arc::clone(&self.shared),
            hop: Arc::clone(hop),
            sequence: delivery.sequence,
            // A parked frame is only moved, and needs no permit.
            counted: (*lane != Lane::Parked).then(|| hop.limit.hold(bytes)),
            _memory: memory::hold(hop.task.budget(), bytes, exceeding),
        };
        (delivery, held)
    }

    /// Notes which frames this node holds.
    async fn note_holders(&self) {
        if self.work.lane == Lane::Parked {
            // Parked items do not run, so no node can die of them.
            return;
        }
        let mut held = Vec::new();
        for (sequence, frame) in lock(&self.shared.in_hand).iter() {
            let times = std::iter::once(&frame.delivered).chain(&frame.again);
            held.extend(times.map(|delivered| (*sequence, *delivered)));
        }
        holder_notes::note_holders(&self.work.hop, self.work.lane, held.into_iter()).await;
    }

    /// Returns how many frames are in hand.
    pub(crate) fn busy(&self) -> usize {
        self.shared.busy.load(SeqCst)
    }

    /// Waits until a frame is handled.
    pub(crate) async fn done(&self) {
        self.shared.done.notified().await;
    }

    /// Sends progress acks for the frames in hand, and notes again that this node holds them, as the server may have lost the note.
    pub(crate) async fn send_progress(&self) {
        let in_hand = self.in_hand();
        for acker in &in_hand {
            acker.progress().await;
        }
        if !in_hand.is_empty() && self.work.lane != Lane::Parked {
            self.note_holders().await;
        }
    }

    /// Waits for the frames in hand, and sends progress acks for them.
    pub(crate) async fn finish(&mut self) {
        let mut progress = tokio::time::interval(self.work.hop.route.chain.queue.ack_wait / PROGRESS_PART);
        loop {
            tokio::select! {
                more = self.ended() => if !more { return },
                _ = progress.tick() => self.send_progress().await,
            }
        }
    }

    /// Sends progress acks for the frames in hand until it is dropped.
    pub(crate) async fn keep(&self) {
        let mut progress = tokio::time::interval(self.work.hop.route.chain.queue.ack_wait / PROGRESS_PART);
        loop {
            progress.tick().await;
            self.send_progress().await;
        }
    }

    /// Waits until a task has ended. Returns `false` if there is none.
    pub(crate) async fn ended(&mut self) -> bool {
        self.tasks.join_next().await.is_some()
    }

    /// Waits this long for the frames in hand, and gives the others back.
    pub(crate) async fn give_back(&mut self, patience: Duration) {
        let _ = tokio::time::timeout(patience, async { while self.ended().await {} }).await;
        let in_hand = self.in_hand();
        self.tasks.shutdown().await;
        if !in_hand.is_empty() {
            // The next node must not take this one for dead.
            holder_notes::note_holders(&self.work.hop, self.work.lane, std::iter::empty()).await;
        }
        for acker in in_hand {
            acker.nak(Duration::ZERO).await;
        }
    }

    fn in_hand(&self) -> Vec<Acker> {
        lock(&self.shared.in_hand).values().map(|held| held.acker.clone()).collect()
    }
}

/// Handles a frame to its end.
async fn handle(Work { hop, lane, told }: Work, delivery: Delivery, slots: Option<SlotSet>, _held: Held) {
    let handled = AssertUnwindSafe(pipeline::handle(&hop, &delivery, lane, slots, told));
    let panicked = handled.catch_unwind().await.map_err(|panic| panic_message(panic.as_ref()));
    if let Err(message) = panicked {
        Box::pin(after_panic(&hop, lane, &delivery, &message)).await;
    }
}

/// Fails the items of a frame whose handling has panicked, so that it does not come again and again.
async fn after_panic(hop: &Hop, lane: Lane, delivery: &Delivery, panic: &str) {
    let message = format!("the node itself panicked: {panic}");
    tracing::error!(stage = %hop.stage().name, sequence = delivery.sequence, message, "an item counts as failed");
    let failed = AssertUnwindSafe(pipeline::handle_panic(hop, delivery, lane, &message));
    if !failed.catch_unwind().await.unwrap_or(false) {
        let _ = AssertUnwindSafe(pipeline::dead_letter_as_it_came(hop, delivery, delivery.delivered, &message))
            .catch_unwind()
            .await;
    }
}

/// Counts a frame as in hand until it is dropped.
struct Held {
    shared: Arc<Shared>,
    hop: Arc<Hop>,
    sequence: u64,
    counted: Option<Counted<Arc<AtomicU64>>>,
    _memory: FrameMemory,
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.counted.take());
        lock(&self.shared.in_hand).remove(&self.sequence);
        self.shared.busy.fetch_sub(1, SeqCst);
        self.shared.done.notify_one();
        // The other lanes use the same permits.
        self.hop.limit.notify();
    }
}
