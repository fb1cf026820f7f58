//! Keeps one hop busy: asks its queues for as many frames as there is room to run, and runs each as it comes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;

use super::catalog::Phase;
use super::outcome::Hop;
use crate::broker::queue::{Acker, Delivery, Event, Queue};
use crate::subject::{self, Lane};

/// The part of `ack_wait` after which the server is told that a frame is being worked on.
const PROGRESS_PART: u32 = 3;
/// How long a little room stays unasked for.
const LINGER: Duration = Duration::from_millis(2);
/// Frames wait in hand for about this long, in nanoseconds, so that the next is there when one ends.
const AHEAD: u64 = 20_000_000;
/// The most frames that wait in hand. With 32 in hand one echo stage did 18 thousand items a second, with 512 it did 28.
const AHEAD_MAX: u64 = 512;
/// How long interrupted frames may take to be given back in order.
const GIVE_BACK: Duration = Duration::from_millis(1_500);
/// How long to wait before opening a queue again.
const REOPEN: Duration = Duration::from_secs(1);

/// Serves both queues of a hop until the phase is over. In [`Phase::Drain`] it returns once the frames in hand are finished.
pub async fn run(hop: Arc<Hop>, phase: watch::Receiver<Phase>) {
    let turns = Arc::new(Turns::new(hop.stage().concurrency));
    let lanes = Lane::ALL.map(|lane| serve(Worker::new(Arc::clone(&hop), lane, Arc::clone(&turns), phase.clone())));
    futures_util::future::join_all(lanes).await;
}

async fn serve(mut worker: Worker) {
    let mut phase = worker.phase.clone();
    loop {
        let served = tokio::select! {
            ended = worker.serve() => ended,
            () = reached(&mut phase, Phase::Interrupt) => Ended::Drained,
        };
        match served {
            Ended::Drained => break,
            Ended::Lost => tokio::select! {
                () = worker.mend() => {}
                () = worker.keep_in_hand() => {}
                () = left_run(&mut phase) => break,
            },
        }
    }
    let finished = tokio::select! {
        () = worker.finish() => true,
        () = reached(&mut phase, Phase::Interrupt) => false,
    };
    if !finished {
        worker.give_back().await;
    }
}

/// Waits for a phase. A catalog that is gone wants nothing any more.
pub(super) async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    let _ = phase.wait_for(|phase| *phase == wanted).await;
}

/// Waits until no more items shall be taken.
pub(super) async fn left_run(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase != Phase::Run).await;
}

/// Lets as many frames of a hop run at once as its stage allows, and knows how long they take.
pub struct Turns {
    permits: Semaphore,
    concurrency: u64,
    /// A moving average of the time that a frame runs, in nanoseconds; 0 at the start.
    average: AtomicU64,
    /// When a frame last ended, in nanoseconds since `opened`.
    ended: AtomicU64,
    opened: Instant,
}

/// Leave to run, until it is dropped.
pub struct Turn<'a> {
    turns: &'a Turns,
    started: Instant,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Turns {
    fn new(concurrency: u32) -> Self {
        let permits = Semaphore::new(concurrency as usize);
        let (average, ended) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { permits, concurrency: concurrency.into(), average, ended, opened: Instant::now() }
    }

    /// Waits for leave to run.
    pub async fn take(&self) -> Turn<'_> {
        let permit = self.permits.acquire().await.ok();
        Turn { turns: self, started: Instant::now(), _permit: permit }
    }

    /// How many frames may be in hand: those that run, and as many more as keep the node busy for a moment. Frames that take
    /// long are better left to other nodes.
    fn room(&self) -> u64 {
        let average = match self.average.load(Relaxed) {
            0 => 0,
            // When all turns are taken and none has ended for a while, what runs now takes longer than what ran before.
            average if self.permits.available_permits() == 0 => average.max(self.since_ended()),
            average => average,
        };
        let ahead = AHEAD.saturating_mul(self.concurrency).checked_div(average).unwrap_or(0);
        self.concurrency + ahead.min(AHEAD_MAX)
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn since_ended(&self) -> u64 {
        self.nanos().saturating_sub(self.ended.load(Relaxed))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        /// The newest frame counts for one part in this many.
        const WEIGHT: u64 = 16;
        let took = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX / WEIGHT).max(WEIGHT);
        let before = self.turns.average.load(Relaxed);
        let average = if before == 0 { took } else { before - before / WEIGHT + took / WEIGHT };
        self.turns.average.store(average, Relaxed);
        self.turns.ended.store(self.turns.nanos(), Relaxed);
    }
}

enum Ended {
    /// The phase has changed and no more frames come.
    Drained,
    /// The queue is gone.
    Lost,
}

struct Worker {
    hop: Arc<Hop>,
    lane: Lane,
    phase: watch::Receiver<Phase>,
    turns: Arc<Turns>,
    running: JoinSet<()>,
    in_hand: Arc<InHand>,
}

/// The frames in hand by their place in the stream, so that the server can be told that they are worked on.
#[derive(Default)]
struct InHand(Mutex<HashMap<u64, Acker>>);

impl InHand {
    fn with<T>(&self, change: impl FnOnce(&mut HashMap<u64, Acker>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn all(&self) -> Vec<Acker> {
        self.with(|in_hand| in_hand.values().cloned().collect())
    }
}

impl Worker {
    fn new(hop: Arc<Hop>, lane: Lane, turns: Arc<Turns>, phase: watch::Receiver<Phase>) -> Self {
        Self { hop, lane, turns, phase, running: JoinSet::new(), in_hand: Arc::default() }
    }

    async fn serve(&mut self) -> Ended {
        let mut phase = self.phase.clone();
        let stream = subject::work_stream(&self.hop.chain.name);
        let consumer = self.lane.consumer(self.hop.revision, &self.hop.stage().name);
        let mut queue = match self.hop.broker.queue(&stream, &consumer).await {
            Ok(queue) => queue,
            Err(error) => {
                tracing::warn!(consumer, %error, "cannot open the queue");
                return Ended::Lost;
            }
        };
        let mut progress = tokio::time::interval(self.hop.chain.queue.ack_wait / PROGRESS_PART);
        progress.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut draining = false;
        let mut linger = std::pin::pin!(tokio::time::sleep(LINGER));
        loop {
            while self.running.try_join_next().is_some() {}
            let unasked = if draining { 0 } else { self.unasked(&queue) };
            let ask = unasked * 4 >= self.turns.room() || unasked > 0 && queue.demand() == 0 && linger.is_elapsed();
            if ask && let Err(error) = queue.request(unasked).await {
                tracing::warn!(consumer, %error, "cannot ask for frames");
                return Ended::Lost;
            }
            if ask || unasked == 0 || queue.demand() > 0 {
                linger.as_mut().reset(tokio::time::Instant::now() + LINGER);
            }
            tokio::select! {
                biased;
                () = left_run(&mut phase), if !draining => {
                    draining = true;
                    if queue.close().await.is_err() {
                        return Ended::Drained;
                    }
                }
                event = queue.next() => match event {
                    Event::Delivery(delivery) => self.start(*delivery),
                    Event::Expired => {}
                    Event::Gone if draining => {}
                    Event::Closed if draining => return Ended::Drained,
                    Event::Gone | Event::Closed => return Ended::Lost,
                },
                Some(_) = self.running.join_next() => {}
                () = &mut linger, if unasked > 0 && queue.demand() == 0 => {}
                _ = progress.tick() => self.tell_progress().await,
            }
        }
    }

    /// How many frames there is room for that were not asked for. Asking for many at once is cheaper for the server, so a
    /// quarter of the room is asked for at once, and less than that only after it has been free for a moment.
    fn unasked(&self, queue: &Queue) -> u64 {
        self.turns.room().saturating_sub(self.running.len() as u64).saturating_sub(queue.demand())
    }

    fn start(&mut self, delivery: Delivery) {
        let (hop, lane, turns, phase) = (Arc::clone(&self.hop), self.lane, Arc::clone(&self.turns), self.phase.clone());
        let held = Held::new(&self.in_hand, &delivery);
        self.running.spawn(async move {
            hop.handle(delivery, lane, &turns, phase).await;
            drop(held);
        });
    }

    async fn tell_progress(&self) {
        for acker in self.in_hand.all() {
            acker.progress().await;
        }
    }

    /// Waits for the frames in hand, and keeps them this node's meanwhile.
    async fn finish(&mut self) {
        let mut progress = tokio::time::interval(self.hop.chain.queue.ack_wait / PROGRESS_PART);
        loop {
            tokio::select! {
                ended = self.running.join_next() => if ended.is_none() { return },
                _ = progress.tick() => self.tell_progress().await,
            }
        }
    }

    /// Waits for the frames in hand to be given back, which each does by itself, and then gives back what is left.
    async fn give_back(&mut self) {
        let _ = tokio::time::timeout(GIVE_BACK, async { while self.running.join_next().await.is_some() {} }).await;
        let in_hand = self.in_hand.all();
        self.running.shutdown().await;
        for acker in in_hand {
            acker.nak(Duration::ZERO).await;
        }
    }

    /// Makes the queue's consumer again, should it be gone. The frames in hand go on meanwhile.
    async fn mend(&self) {
        let (hop, stage) = (&self.hop, &self.hop.stage().name);
        loop {
            // A server that is still removing a consumer when it is made again can end up with half of one (measured with
            // nats-server 2.15.1).
            tokio::time::sleep(REOPEN).await;
            match hop.broker.create_hop_consumers(&hop.chain, hop.stage(), hop.revision).await {
                Ok(()) => return hop.trouble.queue_open(stage, self.lane),
                Err(error) => hop.trouble.queue_lost(stage, self.lane, &error),
            }
        }
    }

    /// Keeps the frames in hand this node's, until it is dropped.
    async fn keep_in_hand(&self) {
        let mut progress = tokio::time::interval(self.hop.chain.queue.ack_wait / PROGRESS_PART);
        loop {
            progress.tick().await;
            self.tell_progress().await;
        }
    }
}

/// Keeps a frame among those in hand until it is dropped.
struct Held {
    in_hand: Arc<InHand>,
    sequence: u64,
}

impl Held {
    fn new(in_hand: &Arc<InHand>, delivery: &Delivery) -> Self {
        in_hand.with(|all| all.insert(delivery.sequence, delivery.acker.clone()));
        Self { in_hand: Arc::clone(in_hand), sequence: delivery.sequence }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.in_hand.with(|all| all.remove(&self.sequence));
    }
}
