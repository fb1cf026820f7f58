//! Keeps one hop busy: asks its queues for as many frames as there is room to run, and runs each as it comes.

pub(crate) mod demand;
pub(crate) mod in_flight;
pub(crate) mod permits;
pub(crate) mod unread;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::broker::BrokerError;
use crate::broker::queue::{Delivery, Event, Queue, STANDS};
use crate::engine::budget::Stands;
use crate::node::hop::Hop;
use crate::node::memory::Asked;
use crate::node::phase::{Phase, interrupted, left_run, reached};
use crate::node::supervisor::orphan;
use crate::node::worker::demand::KNOWN_AFTER;
use crate::node::worker::in_flight::InFlight;
use crate::node::worker::permits::ConcurrencyLimit;
use crate::node::worker::unread::{Found, Known};
use crate::node::{backlog, pipeline};
use crate::subject;
use crate::subject::Lane;

/// The part of `ack_wait` after which the server is told that a frame is being worked on.
const PROGRESS_PART: u32 = 3;
/// The part of `ack_wait` for which a request for frames stands: less than what is left of it after the last word of progress.
/// So what a paused node had in hand is not handed to the same node again, which would use up another attempt.
const REQUEST_PART: u32 = 2;
/// How long a request stands while others wait to ask.
const STANDS_BRIEFLY: Duration = Duration::from_millis(250);
/// How long a little room stays unasked for.
const LINGER: Duration = Duration::from_millis(2);
/// How often a worker that shall stop looks whether the frames that it has asked for have come. One that is handed out when
/// nobody listens any more goes to another node only after `ack_wait`, and with an attempt less.
const ARRIVE: Duration = Duration::from_millis(10);
/// How long an interrupted worker waits for them.
const ARRIVE_LAST: Duration = Duration::from_millis(400);
/// How long interrupted frames may take to be given back in order.
const GIVE_BACK: Duration = Duration::from_millis(1_500);
/// Messages of what is parked that a node handles at once. None of them runs.
const PARKED_IN_HAND: u64 = 256;
/// How long to wait before opening a queue again.
const REOPEN: Duration = Duration::from_secs(1);
/// How long frames are taken one by one after one was found that cannot be read.
const CAREFUL: Duration = Duration::from_secs(5);

/// Serves all queues of a hop until the phase is over. In [`Phase::Drain`] it returns once the frames in hand are finished.
pub async fn run(hop: Arc<Hop>, phase: watch::Receiver<Phase>) {
    let limit = Arc::clone(&hop.limit);
    let (tell, told) = watch::channel(Phase::Run);
    let served = Lane::served(hop.is_limited());
    let (open, closed) = watch::channel(served.len());
    let lanes = served.iter().map(|&lane| {
        let (hop, limit, open) = (Arc::clone(&hop), Arc::clone(&limit), open.clone());
        serve(
            Worker {
                in_flight: InFlight::new(Arc::clone(&hop), lane, Arc::clone(&limit), told.clone()),
                hop,
                lane,
                limit,
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
        () = forward(phase, closed, tell) => {}
        () = hop.trouble.keeper("watch what is put back").keep(|| backlog::watch::watch(Arc::clone(&hop))) => {}
        () = hop.trouble.keeper("remove orphans").keep(|| orphan::watch(Arc::clone(&hop))) => {}
    }
}

/// Tells the frames in hand that the phase has changed, but not before all queues are closed: what they put back would be
/// handed to this node again.
async fn forward(mut phase: watch::Receiver<Phase>, mut closed: watch::Receiver<usize>, tell: watch::Sender<Phase>) {
    left_run(&mut phase).await;
    tokio::select! {
        _ = closed.wait_for(|open| *open == 0) => {}
        () = interrupted(&mut phase, ARRIVE_LAST) => {}
    }
    tell.send_replace(*phase.borrow());
    reached(&mut phase, Phase::Interrupt).await;
    tell.send_replace(Phase::Interrupt);
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
        // What was asked for does not come any more.
        worker.hop.quarantine.asked(worker.lane, 0);
        match served {
            Ended::Drained => break,
            Ended::Calm => worker.careful_until = None,
            Ended::Lost => tokio::select! {
                () = worker.mend() => {}
                () = worker.keep_in_hand() => {}
                () = left_run(&mut phase) => break,
            },
            Ended::Broken => {
                let mut known = std::mem::take(&mut worker.known);
                let found = tokio::select! {
                    found = worker.look(&mut known) => found,
                    () = worker.keep_in_hand() => Found::Sound,
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
        () = worker.finish() => true,
        () = reached(&mut told, Phase::Interrupt) => false,
    };
    // Frames may have come that nobody has begun to handle.
    worker.in_flight.give_back(if finished { Duration::ZERO } else { GIVE_BACK }).await;
}

fn patience(stands: Stands) -> Option<Duration> {
    match stands {
        Stands::Long => None,
        Stands::Briefly => Some(STANDS_BRIEFLY),
        Stands::Not => Some(Duration::ZERO),
    }
}

enum Ended {
    /// The phase has changed and no more frames come.
    Drained,
    /// The queue is gone.
    Lost,
    /// The line is.
    Broken,
    /// Frames were taken one by one for long enough.
    Calm,
}

struct Worker {
    hop: Arc<Hop>,
    lane: Lane,
    phase: watch::Receiver<Phase>,
    /// What the frames in hand are told of the phase.
    told: watch::Receiver<Phase>,
    limit: Arc<ConcurrencyLimit>,
    in_flight: InFlight,
    /// What has come before it was known whether the server is the same as before.
    unchecked: Vec<Delivery>,
    /// Which frames of the lane are known to be readable.
    known: Known,
    /// Until when frames are taken one by one, each looked at before.
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
                tracing::warn!(consumer, %error, "cannot open the queue");
                return Ended::Lost;
            }
        };
        let mut progress = tokio::time::interval(self.hop.route.chain.queue.ack_wait / PROGRESS_PART);
        progress.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut leaving, mut closed) = (false, false);
        let mut linger = std::pin::pin!(tokio::time::sleep(LINGER));
        let mut asked = Asked::new(hop.task.budget(), hop.task.after(), hop.broker.max_payload());
        loop {
            if !self.unchecked.is_empty() && hop.identity.is_known() {
                self.in_flight.start(std::mem::take(&mut self.unchecked), asked.take_exceeding()).await;
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
            // Before it is known: either this sees that an item is quarantined, or that sees that more may come.
            hop.quarantine.asked(self.lane, queue.demand() + 1);
            let is_known = hop.identity.is_known();
            let asks = !leaving && is_known;
            let mut unasked = if asks { self.unasked(&queue) } else { 0 };
            if unasked == 0 && queue.demand() == 0 {
                self.limit.park(self.lane);
                unasked = if asks { self.unasked(&queue) } else { 0 };
            }
            let mut ask =
                unasked * 4 >= self.reach() && unasked > 0 || unasked > 0 && queue.demand() == 0 && linger.is_elapsed();
            if self.careful_until.is_some() {
                ask = unasked > 0 && queue.demand() == 0;
                unasked = unasked.min(1);
                if ask && !self.look_ahead().await {
                    return Ended::Lost;
                }
            }
            asked.expect(queue.demand(), self.limit.frame_bytes());
            if unasked == 0 {
                asked.pass_on();
            }
            if ask
                && let Some(request) = asked.ask(unasked, self.limit.frame_bytes(), self.limit.is_empty())
                && let Err(error) = queue.request_within(request.frames, request.bytes, patience(request.stands)).await
            {
                tracing::warn!(consumer, %error, "cannot ask for frames");
                return Ended::Lost;
            }
            hop.quarantine.asked(self.lane, queue.demand());
            if ask || unasked == 0 || queue.demand() > 0 {
                linger.as_mut().reset(Instant::now() + LINGER);
            }
            let waits = asked.waits();
            tokio::select! {
                biased;
                () = left_run(&mut phase), if !leaving => leaving = true,
                // Before all that may come thick and fast: a frame that nothing is heard of is given to another node.
                _ = progress.tick() => self.in_flight.tell_progress().await,
                event = queue.next() => match event {
                    Event::Delivery(delivery) => {
                        asked.came();
                        self.unchecked.push(*delivery);
                        self.unchecked.extend(queue.come());
                    }
                    Event::Expired => {}
                    Event::Oversized => asked.found_large(),
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
                () = self.limit.notified(self.lane) => {}
                () = &mut linger, if unasked > 0 && queue.demand() == 0 && !waits => {}
                () = asked.turn(), if waits => {}
                () = tokio::time::sleep(ARRIVE), if leaving && !closed => {}
                // What runs without an end is known better by then.
                () = tokio::time::sleep(KNOWN_AFTER), if unasked == 0 && queue.demand() == 0 && !leaving => {}
                () = hop.backlog.has_room(), if self.lane == Lane::Work => {}
            }
        }
    }

    /// Returns `true` if frames were taken one by one for long enough.
    fn is_calm(&self) -> bool {
        self.careful_until.is_some_and(|until| until < Instant::now())
    }

    /// Makes as sure as can be that the next frame can be read. Returns `false` if that cannot be known, or no more frames shall be taken.
    async fn look_ahead(&mut self) -> bool {
        let (hop, mut phase) = (Arc::clone(&self.hop), self.phase.clone());
        let patience = hop.route.chain.queue.ack_wait / PROGRESS_PART;
        let mut progress = tokio::time::interval_at(Instant::now() + patience, patience);
        let looked = {
            // It is not begun anew meanwhile: a dead letter may wait for room for longer than that.
            let mut looking = std::pin::pin!(unread::look_ahead(&hop, self.lane, &mut self.known));
            loop {
                tokio::select! {
                    looked = &mut looking => break looked,
                    _ = progress.tick() => self.in_flight.tell_progress().await,
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

    /// Looks at what was handed out when the line broke, however long that takes.
    async fn look(&self, known: &mut Known) -> Found {
        loop {
            match unread::look_at_handed_out(&self.hop, self.lane, known).await {
                Ok(found) => return found,
                // Whoever opens the queue next finds that out too, and mends it.
                Err(BrokerError::Gone { .. }) => return Found::Sound,
                Err(error) if error.is_not_found() => return Found::Sound,
                Err(error) => tracing::debug!(lane = ?self.lane, %error, "cannot look at what was handed out"),
            }
            tokio::time::sleep(REOPEN).await;
        }
    }

    /// How many frames there is room for that were not asked for. Asking for many at once is cheaper for the server, so a
    /// quarter of the room is asked for at once, and less than that only after it has been free for a moment.
    fn unasked(&self, queue: &Queue) -> u64 {
        let room = match self.lane {
            Lane::Quarantine => 1_u64.saturating_sub(self.in_flight.busy() as u64),
            // What was put back comes this way too: without it there would never be more room.
            Lane::Work if self.hop.is_limited() => {
                if self.hop.quarantine.is_taken() {
                    0
                } else {
                    self.limit.room()
                }
            }
            Lane::Work => self.limit.room().min(self.hop.backlog.room()),
            Lane::Retry => self.limit.room_for_shared(),
            Lane::Parked => self.hop.moved.room().min(PARKED_IN_HAND).saturating_sub(self.in_flight.busy() as u64),
        };
        room.saturating_sub(queue.demand())
    }

    /// The most frames that could be asked for at once.
    fn reach(&self) -> u64 {
        match self.lane {
            Lane::Work => self.limit.reach().min(self.hop.route.chain.queue.limit),
            Lane::Retry => self.limit.reach(),
            Lane::Quarantine => 1,
            Lane::Parked => self.hop.moved.reach().min(PARKED_IN_HAND),
        }
    }

    /// Waits for the frames in hand, and keeps them this node's meanwhile.
    async fn finish(&mut self) {
        self.in_flight.close();
        let mut progress = tokio::time::interval(self.hop.route.chain.queue.ack_wait / PROGRESS_PART);
        loop {
            tokio::select! {
                more = self.in_flight.ended() => if !more { return },
                _ = progress.tick() => self.in_flight.tell_progress().await,
            }
        }
    }

    /// Makes what the queue comes by again, should it be gone. The frames in hand go on meanwhile.
    async fn mend(&self) {
        let (hop, stage) = (&self.hop, &self.hop.stage().name);
        loop {
            if !hop.identity.holds().await {
                // Another revision has this name now.
                return std::future::pending().await;
            }
            // A server that is still removing a consumer when it is made again can end up with half of one (measured with
            // nats-server 2.15.1).
            tokio::time::sleep(REOPEN).await;
            match pipeline::mend(hop).await {
                Ok(()) => return hop.trouble.queue_open(stage, self.lane),
                Err(error) => hop.trouble.queue_lost(stage, self.lane, &error),
            }
        }
    }

    /// Keeps the frames in hand this node's, until it is dropped.
    async fn keep_in_hand(&self) {
        let mut progress = tokio::time::interval(self.hop.route.chain.queue.ack_wait / PROGRESS_PART);
        loop {
            progress.tick().await;
            self.in_flight.tell_progress().await;
        }
    }
}
