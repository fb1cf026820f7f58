//! Keeps one hop busy: asks its queue for as many frames as there is room to run, and runs each as it comes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::catalog::Phase;
use super::outcome::Hop;
use crate::broker::queue::{Acker, Delivery, Event, Queue};
use crate::subject;

/// The part of `ack_wait` after which the server is told that a frame is being worked on.
const PROGRESS_PART: u32 = 3;
/// How long a little room stays unasked for.
const LINGER: Duration = Duration::from_millis(2);
/// Frames that take less than this many microseconds are quick.
const QUICK: u64 = 10_000;
/// How long to wait before opening a queue again.
const REOPEN: Duration = Duration::from_millis(500);

/// Runs until the phase is over. In [`Phase::Drain`] it returns once the frames in hand are finished.
pub async fn run(hop: Arc<Hop>, mut phase: watch::Receiver<Phase>) {
    let mut worker = Worker::new(hop);
    loop {
        let served = tokio::select! {
            ended = worker.serve(phase.clone()) => ended,
            () = reached(&mut phase, Phase::Interrupt) => Ended::Drained,
        };
        match served {
            Ended::Drained => break,
            Ended::Lost => tokio::select! {
                () = worker.mend() => {}
                () = reached(&mut phase, Phase::Interrupt) => break,
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
async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    let _ = phase.wait_for(|phase| *phase == wanted).await;
}

/// Waits until no more items shall be taken.
pub(super) async fn left_run(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase != Phase::Run).await;
}

/// How long a frame takes at the moment: a moving average in microseconds.
#[derive(Default)]
struct Pace(AtomicU64);

impl Pace {
    fn add(&self, took: Duration) {
        /// The newest frame counts for one part in this many.
        const WEIGHT: u64 = 16;
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / WEIGHT);
        let before = self.0.load(Relaxed);
        self.0.store(before - before / WEIGHT + took / WEIGHT, Relaxed);
    }

    fn is_quick(&self) -> bool {
        (1..QUICK).contains(&self.0.load(Relaxed))
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
    /// A permit for each frame that may run.
    permits: Arc<Semaphore>,
    pace: Arc<Pace>,
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
    fn new(hop: Arc<Hop>) -> Self {
        let permits = Arc::new(Semaphore::new(hop.stage().concurrency as usize));
        Self { hop, permits, pace: Arc::default(), running: JoinSet::new(), in_hand: Arc::default() }
    }

    async fn serve(&mut self, mut phase: watch::Receiver<Phase>) -> Ended {
        let stream = subject::work_stream(&self.hop.chain.name);
        let consumer = subject::consumer(self.hop.revision, &self.hop.stage().name);
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
            let ask = unasked * 4 >= self.room() || unasked > 0 && queue.demand() == 0 && linger.is_elapsed();
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

    /// How many frames may be in hand. When frames are handled in no time, as many again wait in hand as run: the next one
    /// is there when one ends. When they take longer, what waits is better left to other nodes.
    fn room(&self) -> u64 {
        let concurrency = u64::from(self.hop.stage().concurrency);
        if self.pace.is_quick() { concurrency * 2 } else { concurrency }
    }

    /// How many frames there is room for that were not asked for. Asking for many at once is cheaper for the server, so a
    /// quarter of the room is asked for at once, and less than that only after it has been free for a moment.
    fn unasked(&self, queue: &Queue) -> u64 {
        self.room().saturating_sub(self.running.len() as u64).saturating_sub(queue.demand())
    }

    fn start(&mut self, delivery: Delivery) {
        let hop = Arc::clone(&self.hop);
        let running = Arc::clone(&self.permits);
        let pace = Arc::clone(&self.pace);
        let held = Held::new(&self.in_hand, &delivery);
        self.running.spawn(async move {
            let _permit: Option<OwnedSemaphorePermit> = running.acquire_owned().await.ok();
            let started = Instant::now();
            hop.handle(delivery).await;
            pace.add(started.elapsed());
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

    /// Interrupts the frames in hand and gives them back at once.
    async fn give_back(&mut self) {
        let in_hand = self.in_hand.all();
        self.running.shutdown().await;
        for acker in in_hand {
            acker.nak(Duration::ZERO).await;
        }
    }

    /// Makes the queue's consumer again, should it be gone. The frames in hand go on meanwhile.
    async fn mend(&mut self) {
        let hop = &self.hop;
        match hop.broker.create_hop_consumer(&hop.chain, hop.stage(), hop.revision).await {
            Ok(()) => tracing::debug!(chain = %hop.chain.name, stage = %hop.stage().name, "the queue is open again"),
            Err(error) => {
                tracing::warn!(chain = %hop.chain.name, stage = %hop.stage().name, %error, "cannot open the queue again");
                tokio::time::sleep(REOPEN).await;
            }
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
