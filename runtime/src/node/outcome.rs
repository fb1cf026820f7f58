//! What becomes of a frame: its items run, their outputs are stored, and only then is the frame acknowledged.
//!
//! Every message published here has an id made of the frame's place in the stream, the item's place in the frame and the
//! output's place among the item's, so that a frame that is handed out twice leaves its outputs once. A retry has the id of
//! the item's first output: of two different endings of an item, the first that is stored counts. That holds for all stages
//! but the last, whose outputs and retries are in different streams.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::catalog::Phase;
use super::logs::StageLog;
use super::stats::HopStats;
use super::store::Publishes;
use super::trouble::Trouble;
use super::worker::{Turns, left_run, reached};
use crate::broker::Broker;
use crate::broker::publish::{Outgoing, Published};
use crate::broker::queue::Delivery;
use crate::chain::{Chain, Stage};
use crate::engine::task::{Call, Failure, FailureKind, Task};
use crate::frame::format::Format;
use crate::frame::id::{FrameId, Index};
use crate::frame::{Frame, Headers, header, to_header_line};
use crate::name::Revision;
use crate::subject::{self, Lane};

/// The most bytes of a dead letter's reason: with the other headers, less than the room that an item leaves.
const REASON_MAX: usize = 4 << 10;
/// The most bytes of a dead letter's id and content type, which a feeder may have made as long as a message's headers.
const LETTER_HEADER_MAX: usize = 1 << 10;
/// How long a frame waits for its turn before it is left to other nodes, by way of the retry queue. One that comes from there
/// keeps its place, or it would go round for as long as all turns are taken.
const TURN_PATIENCE: Duration = Duration::from_secs(1);
/// What the idempotency keys that nodes make start with.
const NODES_OWN: &str = "pcluster.";

/// A hop of a revision on this node.
pub struct Hop {
    /// The connection.
    pub broker: Broker,
    /// The chain.
    pub chain: Arc<Chain>,
    /// The revision.
    pub revision: Revision,
    /// The stage's place in the chain.
    pub position: usize,
    /// The stage's task.
    pub task: Task,
    /// Where outputs go.
    pub target: String,
    /// Whether outputs are results.
    pub is_last: bool,
    /// This node's name.
    pub node: String,
    /// Takes the stage's log lines.
    pub logs: Arc<StageLog>,
    /// Counts.
    pub stats: Arc<HopStats>,
    /// Where to tell what keeps it from going on.
    pub trouble: Arc<Trouble>,
}

/// A frame that was handed out, and which attempt this is.
struct Taken {
    frame: Frame,
    sequence: u64,
    attempt: u64,
}

/// How one item ended.
struct Ending {
    position: usize,
    outputs: Result<Vec<Bytes>, Failure>,
}

impl Hop {
    /// The hop's stage.
    #[must_use]
    pub fn stage(&self) -> &Stage {
        &self.chain.stages[self.position]
    }

    /// Handles a frame to its end: acknowledges it, or gives it back for another attempt. If dropped meanwhile, nothing of
    /// the frame is lost.
    pub async fn handle(&self, delivery: Delivery, lane: Lane, turns: &Turns, mut phase: watch::Receiver<Phase>) {
        let is_retry = lane == Lane::Retry;
        // Only nodes publish retries; on a fed message the header is the feeder's and means nothing.
        let header = delivery.header(header::ATTEMPT).filter(|_| is_retry);
        let failed: u64 = header.and_then(|text| text.parse().ok()).unwrap_or(0);
        if failed > 0 && delivery.delivered == 1 {
            // The first delivery of an item that failed in a larger frame only makes it wait.
            return delivery.acker.nak(self.stage().retry.wait(to_u32(failed))).await;
        }
        let attempt = failed.saturating_add(delivery.delivered).saturating_sub(u64::from(failed > 0)).max(1);
        let frame = match self.read(&delivery, is_retry) {
            Ok(frame) => frame,
            Err(reason) => return self.bury_undecodable(&delivery, attempt, &reason).await,
        };
        let taken = Taken { frame, sequence: delivery.sequence, attempt };
        let turn = tokio::select! {
            biased;
            turn = turns.take() => turn,
            () = left_run(&mut phase) => return self.give_back(&taken, &delivery).await,
            () = tokio::time::sleep(TURN_PATIENCE), if !is_retry => return self.give_back(&taken, &delivery).await,
        };
        let count = taken.frame.items.len() as u64;
        self.stats.running.fetch_add(count, Relaxed);
        let running = Running { stats: &self.stats, count };
        let endings = tokio::select! {
            biased;
            endings = self.run(&taken) => endings,
            () = reached(&mut phase, Phase::Interrupt) => return self.give_back(&taken, &delivery).await,
        };
        drop((running, turn));
        let alone = endings.len() == 1;
        if let [Ending { outputs: Err(failure), .. }] = endings.as_slice()
            && !self.is_last_attempt(failure, attempt)
        {
            tracing::debug!(stage = %self.stage().name, attempt, reason = failure.reason, "an attempt failed");
            self.stats.retried.fetch_add(1, Relaxed);
            return delivery.acker.nak(self.stage().retry.wait(to_u32(attempt))).await;
        }
        let retried = endings.iter().filter(|ending| match &ending.outputs {
            Err(failure) => !alone && !self.is_last_attempt(failure, attempt),
            Ok(_) => false,
        });
        let (retried, failed) =
            (retried.count() as u64, endings.iter().filter(|ending| ending.outputs.is_err()).count() as u64);
        let publishes = self.publishes(&taken, endings);
        if let Err(refused) = self.store(publishes).await {
            return self.bury(&taken, &Failure::fatal(FailureKind::Output, refused.to_string()), &delivery).await;
        }
        delivery.acker.ack().await;
        self.stats.retried.fetch_add(retried, Relaxed);
        self.stats.failed.fetch_add(failed - retried, Relaxed);
        self.stats.done.fetch_add(count - retried, Relaxed);
    }

    /// Gives back a frame that nothing was stored of: puts it on the retry queue without counting this attempt, so that others
    /// take it at once.
    async fn give_back(&self, taken: &Taken, delivery: &Delivery) {
        let mut headers = taken.frame.headers();
        headers.push(header::ATTEMPT, (taken.attempt - 1).to_string());
        let message = Outgoing {
            subject: subject::retry(&self.chain.name, self.revision, &self.stage().name),
            message_id: self.message_id(taken.sequence, 0, 0),
            headers,
            payload: taken.frame.payload(),
        };
        match self.broker.publish(&message).await {
            Ok(Published::Stored) => delivery.acker.ack().await,
            // An earlier delivery has stored something: the server hands the frame out again, and its outputs are told apart.
            Ok(Published::Duplicate) | Err(_) => delivery.acker.nak(Duration::ZERO).await,
        }
    }

    fn is_last_attempt(&self, failure: &Failure, attempt: u64) -> bool {
        failure.fatal || attempt >= u64::from(self.stage().retry.attempts)
    }

    /// Makes a frame of a message. What was fed is transcoded; what a node has published is taken as it is.
    fn read(&self, delivery: &Delivery, is_retry: bool) -> Result<Frame, String> {
        let is_fed = self.position == 0 && !is_retry;
        let format = match delivery.header(header::CONTENT_TYPE) {
            _ if !is_fed => Format::Cbor,
            Some(text) => Format::from_content_type(text).map_err(|error| error.to_string())?,
            None => self.chain.input,
        };
        let items = format.items(&delivery.payload).map_err(|error| error.to_string())?;
        let index = match delivery.header(header::INDEX) {
            Some(text) => Index::parse(text, items.len()).map_err(|error| error.to_string())?,
            None => Index::in_order(items.len()),
        };
        Ok(Frame { id: frame_id(delivery, is_fed), items, index, inherited: delivery.inherited() })
    }

    /// Runs the items one after the other.
    async fn run(&self, taken: &Taken) -> Vec<Ending> {
        let allowed = u64::from(self.stage().retry.attempts);
        let mut endings = Vec::with_capacity(taken.frame.items.len());
        for (position, item) in taken.frame.items.iter().enumerate() {
            let outputs = if taken.attempt > allowed {
                // The attempts before ended without a word: the nodes that made them are gone.
                Err(Failure::fatal(
                    FailureKind::Node,
                    format!("the node died or was cut off in each of {allowed} attempts"),
                ))
            } else {
                let id = match taken.frame.items.len() {
                    1 => taken.frame.id.as_str().into(),
                    _ => format!("{}#{position}", taken.frame.id.as_str()).into(),
                };
                let logs: Arc<StageLog> = Arc::clone(&self.logs);
                self.task.run(item, Call { id, attempt: taken.attempt, logs }).await
            };
            endings.push(Ending { position, outputs });
        }
        endings
    }

    /// What a frame's endings leave behind.
    fn publishes(&self, taken: &Taken, endings: Vec<Ending>) -> Publishes {
        let mut publishes = Publishes::default();
        let mut k = 0;
        for Ending { position, outputs } in endings {
            match outputs {
                Ok(outputs) => {
                    for (output, number) in outputs.into_iter().zip(0..) {
                        publishes.outputs.push(self.output(taken, (position, number), k, output));
                        k += 1;
                    }
                }
                Err(failure) if self.is_last_attempt(&failure, taken.attempt) => {
                    let frame = taken.part(position, taken.frame.id.clone());
                    publishes.dead.push(self.dead_letter(taken, position, &frame, &failure));
                }
                Err(_) => {
                    publishes.retries.push(self.retry(taken, position, k));
                    k += 1;
                }
            }
        }
        publishes
    }

    fn retry(&self, taken: &Taken, position: usize, k: usize) -> Outgoing {
        let frame = taken.part(position, taken.frame.id.child(k));
        let mut headers = frame.headers();
        headers.push(header::ATTEMPT, taken.attempt.to_string());
        Outgoing {
            subject: subject::retry(&self.chain.name, self.revision, &self.stage().name),
            message_id: self.message_id(taken.sequence, position, 0),
            headers,
            payload: frame.payload(),
        }
    }

    /// The `k`th output of the frame, by its item's position and its number among the item's.
    fn output(&self, taken: &Taken, (position, number): (usize, usize), k: usize, item: Bytes) -> Outgoing {
        let index = Index::of_one(taken.frame.index.get(position));
        let inherited = taken.frame.inherited.clone();
        let frame = Frame { id: taken.frame.id.child(k), items: vec![item], index, inherited };
        let mut headers = frame.headers();
        if self.is_last {
            self.sign(&mut headers);
        }
        Outgoing {
            subject: self.target.clone(),
            message_id: self.message_id(taken.sequence, position, number),
            headers,
            payload: frame.payload(),
        }
    }

    /// Says who finished an item.
    fn sign(&self, headers: &mut Headers) {
        headers.push(header::VERSION, self.chain.version.as_str());
        headers.push(header::REVISION, self.revision.number().to_string());
        headers.push(header::NODE, self.node.as_str());
    }

    /// The revision is part of it for the streams that outlive the work stream, the prefix for the feeders: their keys, which
    /// may look like `1.2.3`, are in the same stream.
    fn message_id(&self, sequence: u64, position: usize, number: usize) -> String {
        format!("{NODES_OWN}{}.{sequence}.{position}.{number}", self.revision.number())
    }

    fn dead_letter(&self, taken: &Taken, position: usize, frame: &Frame, failure: &Failure) -> Outgoing {
        self.letter(taken.sequence, position, frame.headers(), frame.payload(), taken.attempt, failure)
    }

    fn letter(
        &self,
        sequence: u64,
        position: usize,
        mut headers: Headers,
        payload: Bytes,
        attempts: u64,
        failure: &Failure,
    ) -> Outgoing {
        let stage = &self.stage().name;
        self.sign(&mut headers);
        headers.push(header::CHAIN, self.chain.name.as_str());
        headers.push(header::STAGE, stage.as_str());
        headers.push(header::ATTEMPTS, attempts.min(u64::from(self.stage().retry.attempts)).to_string());
        headers.push(header::FAILURE, failure.kind.name());
        headers.push(header::REASON, reason_line(&failure.reason));
        let subject = subject::dead(&self.chain.name, stage);
        let mut letter = Outgoing { subject, message_id: self.message_id(sequence, position, 0), headers, payload };
        // A letter that cannot be stored would keep its item in the queue for ever.
        if !self.broker.fits(&letter) {
            letter.headers = letter.headers.own().cut(LETTER_HEADER_MAX);
        }
        if !self.broker.fits(&letter) {
            let note = format!("; the item of {} bytes leaves no room for this and is not kept", letter.payload.len());
            letter.headers.append(header::REASON, &note);
            letter.payload = Bytes::new();
        }
        letter
    }

    /// Gives up a whole frame.
    async fn bury(&self, taken: &Taken, failure: &Failure, delivery: &Delivery) {
        let letters = (0..taken.frame.items.len()).map(|position| {
            let frame = taken.part(position, taken.frame.id.clone());
            self.dead_letter(taken, position, &frame, failure)
        });
        self.bury_letters(letters.collect(), delivery).await;
    }

    /// Gives up a message that is no frame; the letter holds it as it came.
    async fn bury_undecodable(&self, delivery: &Delivery, attempt: u64, reason: &str) {
        let failure = Failure::fatal(FailureKind::Undecodable, reason);
        let all = delivery.headers();
        let mut headers = all.inherited();
        headers.push(header::ID, frame_id(delivery, self.position == 0).as_str());
        if let Some(text) = all.get(header::CONTENT_TYPE) {
            headers.push(header::CONTENT_TYPE, text);
        }
        let payload = delivery.payload.clone();
        let letter = self.letter(delivery.sequence, 0, headers, payload, attempt, &failure);
        self.bury_letters(vec![letter], delivery).await;
    }

    async fn bury_letters(&self, dead: Vec<Outgoing>, delivery: &Delivery) {
        let count = dead.len() as u64;
        match self.store(Publishes { dead, ..Publishes::default() }).await {
            Ok(()) => {
                delivery.acker.ack().await;
                self.stats.failed.fetch_add(count, Relaxed);
                self.stats.done.fetch_add(count, Relaxed);
            }
            Err(error) => {
                tracing::error!(stage = %self.stage().name, %error, "a dead letter cannot be stored; the item stays in its queue");
                delivery.acker.nak(self.stage().retry.wait(u32::MAX)).await;
            }
        }
    }
}

/// The id that a message carries, or one made of where it is stored.
fn frame_id(delivery: &Delivery, is_fed: bool) -> FrameId {
    match delivery.header(header::ID).or_else(|| delivery.header(header::MESSAGE_ID)) {
        Some(text) if is_fed => FrameId::from_fed(text),
        Some(text) => FrameId::from_header(text),
        None => FrameId::from_stored(delivery.stored_millis, delivery.sequence),
    }
}

/// A reason as a header can have it.
fn reason_line(reason: &str) -> String {
    let mut line = to_header_line(reason);
    if line.len() > REASON_MAX {
        line.truncate(line.floor_char_boundary(REASON_MAX));
        line.push('…');
    }
    line
}

impl Taken {
    /// One item of the frame as a frame of its own.
    fn part(&self, position: usize, id: FrameId) -> Frame {
        Frame {
            id,
            items: vec![self.frame.items[position].clone()],
            index: Index::of_one(self.frame.index.get(position)),
            inherited: self.frame.inherited.clone(),
        }
    }
}

/// Counts items as running until it is dropped.
struct Running<'a> {
    stats: &'a HopStats,
    count: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.stats.running.fetch_sub(self.count, Relaxed);
    }
}

fn to_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
