//! Sends the log lines of tasks to the server. Work never waits for logs. Lines beyond the [`allowance`] of a stage, or beyond
//! what can be sent, are dropped and counted, and the count is logged.

pub mod allowance;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pcluster_abi::Level;
use time::OffsetDateTime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::broker::publish::Publisher;
use crate::lock::lock;
use crate::log::LogRecord;
use crate::name::{ChainName, Revision, StageName};
use crate::node::health::Board;
use crate::node::tasks::Keeper;
use crate::subject;
use allowance::Allowance;

/// The most bytes of lines that wait to be sent.
const ROOM: usize = 16 << 20;
/// The most of these from one stage, so that others have room while the server is away.
const STAGE_ROOM: usize = 2 << 20;
/// The bytes that a waiting line takes besides its text, roughly.
const LINE_OVERHEAD: usize = 256;
/// The most bytes of an item id in a line. A feeder may make an id as long as headers can be.
const ITEM_MAX: usize = 1 << 10;
/// How often to log the number of dropped lines.
const TELL_DROPPED_EVERY: Duration = Duration::from_secs(1);

/// A stage that logs on this node.
#[derive(Debug)]
struct Source {
    chain: ChainName,
    revision: Revision,
    stage: StageName,
    node: Arc<str>,
    allowance: Mutex<Allowance>,
    room: Arc<Semaphore>,
    /// Dropped lines beyond the allowance of the stage.
    too_many: AtomicU64,
    /// Dropped lines that could not be sent.
    unsent: AtomicU64,
}

/// A line to send.
struct Line {
    source: Arc<Source>,
    level: Level,
    json: Bytes,
    /// The room that the line takes until it is sent.
    _room: [OwnedSemaphorePermit; 2],
}

/// Queues lines to send.
#[derive(Clone)]
pub struct LogQueue {
    sender: UnboundedSender<Line>,
    room: Arc<Semaphore>,
    node: Arc<str>,
    sources: Sources,
}

/// All stages that log, or have logged since drops were last logged.
type Sources = Arc<Mutex<Vec<Arc<Source>>>>;

impl LogQueue {
    /// Starts the task that sends lines. It ends once all lines are sent and all queues and stage logs are dropped.
    pub fn start(broker: Broker, node: String, board: &Arc<Board>) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = unbounded_channel();
        let sources = Sources::default();
        let (lines, told) = (Arc::new(tokio::sync::Mutex::new(receiver)), Arc::clone(&sources));
        let keeper = Keeper::new(Arc::clone(board), "send log lines");
        let carrying = keeper.spawn(move || carry(broker.clone(), Arc::clone(&lines), Arc::clone(&told)));
        (Self { sender, room: Arc::new(Semaphore::new(ROOM)), node: node.into(), sources }, carrying)
    }

    /// Returns the log of a stage.
    pub fn sink(&self, chain: &ChainName, revision: Revision, stage: &StageName) -> Arc<StageLog> {
        let source = Arc::new(Source {
            chain: chain.clone(),
            revision,
            stage: stage.clone(),
            node: Arc::clone(&self.node),
            allowance: Mutex::new(Allowance::new(Instant::now())),
            room: Arc::new(Semaphore::new(STAGE_ROOM)),
            too_many: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
        });
        lock(&self.sources).push(Arc::clone(&source));
        Arc::new(StageLog { source, room: Arc::clone(&self.room), sender: self.sender.clone() })
    }
}

/// The log of one stage.
pub struct StageLog {
    source: Arc<Source>,
    room: Arc<Semaphore>,
    sender: UnboundedSender<Line>,
}

impl StageLog {
    /// Queues a line about the item with this id, unless there are too many.
    pub fn log(&self, id: &str, level: Level, message: String) {
        let source = &self.source;
        let allowance = || lock(&source.allowance);
        if !allowance().take_line(Instant::now()) {
            source.too_many.fetch_add(1, Relaxed);
            return;
        }
        let json = source.json(id, level, message);
        allowance().spend(json.len());
        let bytes = u32::try_from(json.len() + LINE_OVERHEAD).unwrap_or(u32::MAX);
        let take = |room: &Arc<Semaphore>| Arc::clone(room).try_acquire_many_owned(bytes).ok();
        let sent = take(&source.room).zip(take(&self.room)).is_some_and(|(of_stage, of_all)| {
            let line = Line { source: Arc::clone(source), level, json, _room: [of_stage, of_all] };
            self.sender.send(line).is_ok()
        });
        if !sent {
            source.unsent.fetch_add(1, Relaxed);
        }
    }
}

impl Source {
    /// Returns a line as it is stored.
    fn json(&self, id: &str, level: Level, message: String) -> Bytes {
        let record = LogRecord {
            time: OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).unwrap_or_default(),
            chain: self.chain.to_string(),
            revision: self.revision.number(),
            stage: self.stage.to_string(),
            level: level.name().to_owned(),
            node: self.node.as_ref().to_owned(),
            item: id[..id.floor_char_boundary(ITEM_MAX)].to_owned(),
            message,
        };
        serde_json::to_vec(&record).unwrap_or_default().into()
    }

    async fn send(&self, broker: &Broker, level: Level, json: Bytes) {
        let subject = subject::log(&self.chain, &self.stage, level);
        if let Err(error) = Publisher::of(broker).send_unconfirmed(subject, json).await {
            tracing::debug!(chain = %self.chain, stage = %self.stage, %error, "a log line was not sent");
            self.unsent.fetch_add(1, Relaxed);
        }
    }

    /// Returns the drops since the last call, in words.
    fn take_dropped(&self) -> Vec<String> {
        let take = |count: &AtomicU64| Some(count.swap(0, Relaxed)).filter(|count| *count > 0);
        let too_many = take(&self.too_many).map(|count| {
            let bytes = bytesize::ByteSize(allowance::BYTES.into()).display().iec();
            let lines = allowance::LINES;
            format!("{count} log lines were dropped: on each node a stage may log {lines} lines and {bytes} a second")
        });
        let unsent = take(&self.unsent)
            .map(|count| format!("{count} log lines were dropped: they came faster than they could be sent"));
        too_many.into_iter().chain(unsent).collect()
    }
}

async fn carry(broker: Broker, lines: Arc<tokio::sync::Mutex<UnboundedReceiver<Line>>>, sources: Sources) {
    let mut lines = lines.lock().await;
    let mut tell = tokio::time::interval(TELL_DROPPED_EVERY);
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => line.source.send(&broker, line.level, line.json).await,
                None => break,
            },
            _ = tell.tick() => tell_dropped(&broker, &sources).await,
        }
    }
    tell_dropped(&broker, &sources).await;
}

/// Logs how many lines each stage dropped, and forgets stages that are gone.
async fn tell_dropped(broker: &Broker, sources: &Sources) {
    let all = {
        let mut sources = lock(sources);
        let all = sources.clone();
        // Only these two lists still hold them, so they drop no more lines.
        sources.retain(|source| Arc::strong_count(source) > 2);
        all
    };
    for source in all {
        for message in source.take_dropped() {
            tracing::warn!(chain = %source.chain, stage = %source.stage, "{message}");
            source.send(broker, Level::Warn, source.json("", Level::Warn, message)).await;
        }
    }
}
