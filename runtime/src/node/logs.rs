//! Carries the log lines of guests to the server. Work never waits for logs: when they come faster than they can be sent,
//! lines are dropped, counted, and the count is logged.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use pcluster_abi::Level;
use tokio::sync::mpsc;

use crate::broker::Broker;
use crate::log::LogRecord;
use crate::name::{ChainName, Revision, StageName};
use crate::subject;

/// Lines that may wait to be sent.
const CAPACITY: usize = 10_000;
/// How often to say how many lines were dropped.
const TELL_DROPPED_EVERY: Duration = Duration::from_millis(500);
/// How long the last lines may take when the node ends.
const FINISH: Duration = Duration::from_secs(2);

/// Which stage a line comes from.
#[derive(Debug)]
struct Source {
    chain: ChainName,
    revision: Revision,
    stage: StageName,
    dropped: AtomicU64,
}

struct Line {
    source: Arc<Source>,
    level: Level,
    item: String,
    message: String,
    time: time::OffsetDateTime,
}

/// Where lines are handed in.
#[derive(Clone)]
pub struct LogQueue {
    sender: mpsc::Sender<Line>,
    sources: Sources,
}

/// All stages that may log.
type Sources = Arc<Mutex<Vec<Weak<Source>>>>;

/// The task that sends lines.
pub struct Carrying(tokio::task::JoinHandle<()>);

impl LogQueue {
    /// Starts to carry lines to the server.
    #[must_use]
    pub fn start(broker: Broker, node: String) -> (Self, Carrying) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        let sources = Sources::default();
        let carrying = tokio::spawn(carry(broker, node, receiver, Arc::clone(&sources)));
        (Self { sender, sources }, Carrying(carrying))
    }

    /// The sink of a stage.
    #[must_use]
    pub fn sink(&self, chain: &ChainName, revision: Revision, stage: &StageName) -> Arc<StageLog> {
        let source = Source { chain: chain.clone(), revision, stage: stage.clone(), dropped: AtomicU64::new(0) };
        let source = Arc::new(source);
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&source));
        Arc::new(StageLog { source, sender: self.sender.clone() })
    }
}

impl Carrying {
    /// Waits until the lines that were handed in are sent. All queues and sinks must be gone.
    pub async fn finish(self) {
        if tokio::time::timeout(FINISH, self.0).await.is_err() {
            tracing::warn!("the last log lines were not sent in time");
        }
    }
}

/// The sink of one stage.
pub struct StageLog {
    source: Arc<Source>,
    sender: mpsc::Sender<Line>,
}

impl StageLog {
    /// Takes a line about the item of this id, unless there are too many.
    pub fn log(&self, item: String, level: Level, message: String) {
        let time = time::OffsetDateTime::now_utc();
        let line = Line { source: Arc::clone(&self.source), level, item, message, time };
        if self.sender.try_send(line).is_err() {
            self.source.dropped.fetch_add(1, Relaxed);
        }
    }
}

async fn carry(broker: Broker, node: String, mut lines: mpsc::Receiver<Line>, sources: Sources) {
    let mut tell = tokio::time::interval(TELL_DROPPED_EVERY);
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => send(&broker, &node, &line).await,
                None => break,
            },
            _ = tell.tick() => tell_dropped(&broker, &node, &sources).await,
        }
    }
    tell_dropped(&broker, &node, &sources).await;
}

/// Says how many lines of each stage were dropped, and forgets the stages that are gone.
async fn tell_dropped(broker: &Broker, node: &str, sources: &Sources) {
    let all: Vec<Arc<Source>> = {
        let mut sources = sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|source| source.strong_count() > 0);
        sources.iter().filter_map(Weak::upgrade).collect()
    };
    for source in all {
        let dropped = source.dropped.swap(0, Relaxed);
        if dropped > 0 {
            let message = format!("{dropped} log lines were dropped: they came faster than they could be sent");
            tracing::warn!(chain = %source.chain, stage = %source.stage, "{message}");
            let (item, time) = (String::new(), time::OffsetDateTime::now_utc());
            send(broker, node, &Line { source, level: Level::Warn, item, message, time }).await;
        }
    }
}

async fn send(broker: &Broker, node: &str, line: &Line) {
    let source = &line.source;
    let record = LogRecord {
        time: line.time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default(),
        chain: source.chain.to_string(),
        revision: source.revision.number(),
        stage: source.stage.to_string(),
        level: line.level.name().to_owned(),
        node: node.to_owned(),
        item: line.item.clone(),
        message: line.message.clone(),
    };
    let json = serde_json::to_vec(&record).unwrap_or_default();
    broker.send_unconfirmed(subject::log(&source.chain, &source.stage, line.level), json.into()).await;
}
