//! Keeps one hop busy: requests as many frames from its queues as the node has room for, and runs each as it comes.

mod average;
pub(crate) mod demand;
pub(crate) mod in_flight;
pub(crate) mod lane_slots;
pub(crate) mod permits;
pub(crate) mod unread;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::broker::BrokerError;
use crate::broker::queue::{Delivery, Event, Queue, STANDS};
use crate::node::health::with_remedy;
use crate::node::hop::Hop;
use crate::node::memory::FrameRequests;
use crate::node::phase::{Phase, interrupted, left_run, reached};
use crate::node::supervisor::orphan;
use crate::node::worker::demand::KNOWN_AFTER;
use crate::node::worker::in_flight::{InFlight, PROGRESS_PART};
use crate::node::worker::lane_slots::LaneSlots;
use crate::node::worker::unread::{Found, Known};
use crate::node::{backlog, pipeline};
use crate::subject::{self, Lane};

/// A request for frames stands for this part of `ack_wait`: less than what is left of it after the last progress ack. So the
/// server does not redeliver the frames of a paused node to the same node, which would use up another attempt.
const REQUEST_PART: u32 = 2;
/// How long a little room may stay without a request.
const LINGER: Duration = Duration::from_millis(2);
/// How often a stopping worker checks whether the requested frames have come. A frame that is delivered to a closed queue goes
/// to another node only after `ack_wait`, and has lost an attempt.
const ARRIVE: Duration = Duration::from_millis(10);
/// How long an interrupted worker waits for these frames.
const ARRIVE_LAST: Duration = Duration::from_millis(400);
/// How long interrupted frames may take to go back in order.
const GIVE_BACK: Duration = Duration::from_millis(1_500);
/// Parked messages that a node handles at once. None of them runs.
const PARKED_IN_HAND: u64 = 256;
/// The wait before a queue is opened again.
const REOPEN: Duration = Duration::from_secs(1);
/// How long frames are taken one by one after an unreadable message was found.
const CAREFUL: Duration = Duration::from_secs(5);

/// Serves all queues of a hop while the node runs. In [`Phase::Drain`], returns once the frames in hand are finished.
pub async fn run(hop: Arc<Hop>, phase: watch::Receiver<Phase>) {
    let (forwarded, told) = watch::channel(Phase::Run);
    let served = Lane::served(hop.is_limited());
    let (open, closed) = watch::channel(served.len());
    let lanes = served.iter().map(|&lane| {
        let (hop, open) = (Arc::clone(&hop), open.clone());
        serve(
            Worker {
                in_flight: InFlight::new(Arc::clone(&hop), lane, told.clone()),
                hop,
                lane,
                unchecked: Vec::new(),
                phase: phase.clone(),
                told: told.clone(),
                known: Known::default(),
                careful_until: None,
            },
            open,
        )
    });
    tokio::select! {
        _ = futures_util::future::join_all(lanes) => {}
        () = forward(phase, closed, forwarded) => {}
        () = hop.conditions.keeper("watch what is put back").keep(|| backlog::watch::watch(Arc::clone(&hop))) => {}
        () = hop.conditions.keeper("remove orphans").keep(|| orphan::watch(Arc::clone(&hop))) => {}
    }
}

/// Forwards the phase to the frames in hand once all queues are closed. Before that, the server would deliver what they requeue
/// to this node again.
async fn forward(
    mut phase: watch::Receiver<Phase>,
    mut closed: watch::Receiver<usize>,
    forwarded: watch::Sender<Phase>,
) {
    left_run(&mut phase).await;
    tokio::select! {
        _ = closed.wait_for(|open| *open == 0) => {}
        () = interrupted(&mut phase, ARRIVE_LAST) => {}
    }
    forwarded.send_replace(*phase.borrow());
    reached(&mut phase, Phase::Interrupt).await;
    forwarded.send_replace(Phase::Interrupt);
    std::future::pending::<()>().await;
}

async fn serve(mut worker: Worker, open: watch::Sender<usize>) {
    let mut phase = worker.phase.clone();
    loop {
        let served = tokio::select! {
            ended = worker.serve() => ended,
            () = interrupted(&mut phase, ARRIVE_LAST) => {
                tracing::debug!(lane = ?worker.lane, "the queue is closed before all that was asked for has come");
                Ended::Drained
            }
        };
        // Frames that were requested do not come any more.
        worker.hop.quarantine.asked(worker.lane, 0);
        match served {
            Ended::Drained => break,
            Ended::Calm => worker.careful_until = None,
            Ended::Lost => tokio::select! {
                () = worker.mend() => {}
                () = worker.in_flight.keep() => {}
                () = left_run(&mut phase) => break,
            },
            Ended::Broken => {
                let mut known = std::mem::take(&mut worker.known);
                let found = tokio::select! {
                    found = unread::look_until_answered(&worker.hop, worker.lane, &mut known) => found,
                    () = worker.in_flight.keep() => Found::Sound,
                    () = left_run(&mut phase) => break,
                };
                worker.known = known;
                if found == Found::Unread {
                    worker.be_careful();
                }
            }
        }
    }
    for delivery in std::mem::take(&mut worker.unchecked) {
        delivery.acker.nak(Duration::ZERO).await;
    }
    open.send_modify(|open| *open -= 1);
    let mut told = worker.told.clone();
    let finished = tokio::select! {
        () = worker.in_flight.finish() => true,
        () = reached(&mut told, Phase::Interrupt) => false,
    };
    // Frames may have come that no task has begun to handle.
    worker.in_flight.give_back(if finished { Duration::ZERO } else { GIVE_BACK }).await;
}

/// Requests frames as far as memory allows.
async fn request(
    hop: &Hop,
    queue: &mut Queue,
    requests: &mut FrameRequests,
    slots: &mut LaneSlots,
    frames: u64,
) -> Result<(), BrokerError> {
    let Some(request) = requests.next(frames, hop.limit.frame_bytes(), hop.limit.is_empty()) else { return Ok(()) };
    let patience = request.patience().into_iter().chain(slots.request()).min();
    queue.request_within(request.frames, request.bytes, patience).await
}

/// Why a queue is no longer served.
enum Ended {
    /// The phase has changed, and no more frames come.
    Drained,
    /// The queue is gone.
    Lost,
    /// The connection is lost.
    Broken,
    /// Frames were taken one by one for long enough.
    Calm,
}

struct Worker {
    hop: Arc<Hop>,
    lane: Lane,
    phase: watch::Receiver<Phase>,
    /// The phase as the frames in hand see it.
    told: watch::Receiver<Phase>,
    in_flight: InFlight,
    /// Frames that came before the server was known to be the same as before.
    unchecked: Vec<Delivery>,
    /// Frames of the lane that are known to be readable.
    known: Known,
    /// Until then, frames are taken one by one, each after a look ahead; `None` if all can be read.
    careful_until: Option<Instant>,
}

impl Worker {
    async fn serve(&mut self) -> Ended {
        let (hop, mut phase) = (Arc::clone(&self.hop), self.phase.clone());
        let stream = subject::work_stream(&self.hop.route.chain.name);
        let consumer = self.lane.consumer(self.hop.route.revision, &self.hop.stage().name);
        let stands = (hop.route.chain.queue.ack_wait / REQUEST_PART).min(STANDS);
        let mut queue = match self.hop.line.queue(&stream, &consumer, stands).await {
            Ok(queue) => queue,
            Err(error) => {
                tracing::warn!(consumer, error = with_remedy(&error), "cannot open the queue");
                return Ended::Lost;
            }
        };
        let mut progress = tokio::time::interval(self.hop.route.chain.queue.ack_wait / PROGRESS_PART);
        progress.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut leaving, mut closed) = (false, false);
        let mut linger = std::pin::pin!(tokio::time::sleep(LINGER));
        let mut requests = FrameRequests::new(hop.task.budget(), hop.task.after(), hop.broker.max_payload());
        let mut slots = LaneSlots::new(&hop, self.lane);
        loop {
            if !self.unchecked.is_empty() && hop.identity.is_known() {
                let came = std::mem::take(&mut self.unchecked);
                self.in_flight.start(came, requests.take_exceeding(), &mut slots).await;
            }
            if leaving && !closed && queue.is_quiet() {
                closed = true;
                if queue.close().await.is_err() {
                    return Ended::Drained;
                }
            }
            if self.is_calm() && queue.demand() == 0 {
                return Ended::Calm;
            }
            // Said before the request: either this task sees the quarantined item, or its task sees that more may come.
            hop.quarantine.asked(self.lane, queue.demand() + 1);
            let is_known = hop.identity.is_known();
            let asks = !leaving && is_known;
            let mut unasked = if asks { self.unasked(&queue) } else { 0 };
            if unasked == 0 && queue.demand() == 0 {
                hop.limit.park(self.lane);
                unasked = if asks { self.unasked(&queue) } else { 0 };
            }
            slots.expect(queue.demand() + self.unchecked.len() as u64);
            unasked = slots.allow(unasked, queue.demand());
            // Slots must not lie idle for a moment.
            let lingered = linger.is_elapsed() || slots.are_needed();
            let mut ask = unasked > 0 && (unasked * 4 >= self.reach() || queue.demand() == 0 && lingered);
            if self.careful_until.is_some() {
                ask = unasked > 0 && queue.demand() == 0;
                unasked = unasked.min(1);
                if ask && !self.look_ahead().await {
                    return Ended::Lost;
                }
            }
            requests.expect(queue.demand(), hop.limit.frame_bytes());
            if unasked == 0 {
                requests.pass_on();
            }
            if ask && let Err(error) = request(&hop, &mut queue, &mut requests, &mut slots, unasked).await {
                tracing::warn!(consumer, %error, "cannot ask for frames");
                return Ended::Lost;
            }
            hop.quarantine.asked(self.lane, queue.demand());
            if ask || unasked == 0 || queue.demand() > 0 {
                linger.as_mut().reset(Instant::now() + LINGER);
            }
            let is_paused = requests.is_paused();
            if is_paused {
                slots.give_back();
            }
            tokio::select! {
                biased;
                () = left_run(&mut phase), if !leaving => leaving = true,
                // First, so that a busy queue cannot starve it: without progress acks the server redelivers.
                _ = progress.tick() => self.in_flight.send_progress().await,
                event = queue.next() => match event {
                    Event::Delivery(delivery) => {
                        requests.came();
                        self.unchecked.push(*delivery);
                        self.unchecked.extend(queue.come());
                    }
                    Event::Expired => {}
                    Event::Oversized => requests.found_large(),
                    Event::Gone if leaving => {}
                    Event::Closed if leaving => return Ended::Drained,
                    Event::Broken => return Ended::Broken,
                    Event::Gone | Event::Closed => return Ended::Lost,
                },
                is_same = hop.identity.holds(), if !is_known => {
                    if !is_same {
                        return Ended::Lost;
                    }
                }
                () = self.in_flight.done() => {}
                () = hop.limit.notified(self.lane) => {}
                () = slots.changed() => {}
                () = &mut linger, if unasked > 0 && queue.demand() == 0 && !is_paused => {}
                () = requests.resumed(), if is_paused => {}
                () = tokio::time::sleep(ARRIVE), if leaving && !closed => {}
                // By then the node knows better how long its items take.
                () = tokio::time::sleep(KNOWN_AFTER), if unasked == 0 && queue.demand() == 0 && !leaving => {}
                () = hop.backlog.has_room(), if self.lane == Lane::Work => {}
            }
        }
    }

    /// Returns `true` if frames were taken one by one for long enough.
    fn is_calm(&self) -> bool {
        self.careful_until.is_some_and(|until| until < Instant::now())
    }

    /// Looks ahead for unreadable messages. Returns `false` if it could not, or if no more frames may be taken.
    async fn look_ahead(&mut self) -> bool {
        let (hop, mut phase) = (Arc::clone(&self.hop), self.phase.clone());
        let patience = hop.route.chain.queue.ack_wait / PROGRESS_PART;
        let mut progress = tokio::time::interval_at(Instant::now() + patience, patience);
        let looked = {
            // Not started again at each tick: a dead letter may wait longer than that for room.
            let mut looking = std::pin::pin!(unread::look_ahead(&hop, self.lane, &mut self.known));
            loop {
                tokio::select! {
                    looked = &mut looking => break looked,
                    _ = progress.tick() => self.in_flight.send_progress().await,
                    () = left_run(&mut phase) => return false,
                }
            }
        };
        match looked {
            Ok(found) => {
                if found == Found::Unread {
                    self.be_careful();
                }
                true
            }
            Err(error) => {
                tracing::debug!(lane = ?self.lane, %error, "cannot look at what comes next");
                false
            }
        }
    }

    /// Takes frames one by one for a while.
    fn be_careful(&mut self) {
        if self.careful_until.replace(Instant::now() + CAREFUL).is_none() {
            let (chain, stage) = (&self.hop.route.chain.name, &self.hop.stage().name);
            tracing::warn!(%chain, %stage, "messages came that no node can take, and are dead letters now");
        }
    }

    /// Returns how many frames the node has room for and has not requested.
    ///
    /// A large request is cheaper for the server than several small ones. So a quarter of the room is requested at once, and less
    /// only after it has been free for a moment.
    fn unasked(&self, queue: &Queue) -> u64 {
        if self.lane != Lane::Parked && !self.hop.fitness.is_fit() {
            return 0;
        }
        let room = match self.lane {
            Lane::Quarantine => 1_u64.saturating_sub(self.in_flight.busy() as u64),
            // Requeued items come this way too: if they stayed out, there would never be more room.
            Lane::Work if self.hop.is_limited() => {
                if self.hop.quarantine.is_taken() {
                    0
                } else {
                    self.hop.limit.room()
                }
            }
            Lane::Work => self.hop.limit.room().min(self.hop.backlog.room()),
            Lane::Retry => self.hop.limit.room_for_shared(),
            Lane::Parked => self.hop.moved.room().min(PARKED_IN_HAND).saturating_sub(self.in_flight.busy() as u64),
        };
        room.saturating_sub(queue.demand())
    }

    /// Returns the most frames that the node could request at once.
    fn reach(&self) -> u64 {
        match self.lane {
            Lane::Work => self.hop.limit.reach().min(self.hop.route.chain.queue.limit),
            Lane::Retry => self.hop.limit.reach(),
            Lane::Quarantine => 1,
            Lane::Parked => self.hop.moved.reach().min(PARKED_IN_HAND),
        }
    }

    /// Creates the consumers again if they are gone. The frames in hand go on meanwhile.
    async fn mend(&self) {
        let (hop, stage) = (&self.hop, &self.hop.stage().name);
        loop {
            if !hop.identity.holds().await {
                // Another revision has this name now.
                return std::future::pending().await;
            }
            // A server that still removes a consumer while it is created again can end up with half of one (measured with
            // nats-server 2.15.1).
            tokio::time::sleep(REOPEN).await;
            match pipeline::mend(hop).await {
                Ok(()) => return hop.conditions.queue_open(stage, self.lane),
                Err(error) => hop.conditions.queue_lost(stage, self.lane, &error),
            }
        }
    }
}
