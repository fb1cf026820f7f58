//! Runs items in workers: processes of a stage that stay and take one item after another.
//!
//! A worker is started when an item wants one and none has room. It ends when it has handled `reuse` items, has had none for a
//! while, breaks the protocol, or its stage is left. The page `WORKERS.md` describes the protocol for authors of workers.

mod held;
mod life;
mod lines;
mod past;
mod pool;
mod protocol;

use std::ffi::OsString;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pcluster_abi::Level;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};

use super::process::Executable;
use super::spool::Spool;
use crate::lock::lock;
use crate::name::Topic;
use crate::run::failure::{Failure, FailureKind};
pub(crate) use held::Answers;
use held::{Answer, Held};
use life::Cause;
use pool::{Pool, Starting};
use protocol::Form;

/// What a worker is bound to for its life: the slots of the items that it takes, but for processors. Those are alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bound {
    /// The variables that name the slots.
    pub(crate) variables: Vec<(OsString, OsString)>,
}

/// An item to run.
pub(crate) struct Item<'a> {
    /// The item.
    pub(crate) bytes: &'a Bytes,
    /// Its id.
    pub(crate) id: &'a str,
    /// Its topic. `None` if it has none.
    pub(crate) topic: Option<&'a Topic>,
    /// The number of the attempt.
    pub(crate) attempt: u64,
    /// What must be kept until it has ended, and its worker too if that ends with it.
    pub(crate) keep: Option<Arc<dyn Send + Sync>>,
}

/// Takes entries of the log: the id of an item or an empty text, the level, and a line.
pub(crate) type Log = Box<dyn Fn(&str, Level, String) + Send + Sync>;

/// What the workers of a stage have in common.
pub(crate) struct Settings {
    /// What is executed.
    pub(crate) executable: Executable,
    /// The arguments. The first is the name that it is called by.
    pub(crate) arguments: Vec<OsString>,
    /// The most time that an item may take.
    pub(crate) timeout: Duration,
    /// The most items that a worker handles. `None` sets no limit.
    pub(crate) reuse: Option<u32>,
    /// How many workers may live. Of more, idle ones end.
    pub(crate) most: usize,
    /// Where the workers are listened to.
    pub(crate) runtime: Handle,
    /// The log of the stage.
    pub(crate) log: Log,
    /// How long a worker without items stays.
    pub(crate) idle: Duration,
    /// How long a worker has for its first message.
    pub(crate) start: Duration,
}

/// The workers of a stage. Dropping it ends them.
pub(crate) struct Workers(Arc<Stage>);

/// The workers of a stage.
struct Stage {
    settings: Settings,
    pool: Mutex<Pool>,
    /// Notified when an item that waits for a worker must look again.
    changed: Notify,
    /// The number of items that wait for a worker.
    waiting: AtomicU64,
    /// Notified when the stage is left.
    left: Notify,
}

/// A worker that is ready.
struct Worker {
    bound: Bound,
    form: Form,
    at_once: u32,
    /// The end of its channel that takes items. `None` once it is closed.
    channel: tokio::sync::Mutex<Option<pipe::Sender>>,
    /// The bytes that were written to the channel.
    written: AtomicU64,
    state: Mutex<State>,
    /// Why it must end.
    ends: mpsc::UnboundedSender<Cause>,
}

/// What a worker does at the moment.
struct State {
    /// `false` once it takes no more items.
    is_open: bool,
    /// `true` once nothing of it is left, and nobody answers.
    is_gone: bool,
    /// How many places for items are taken.
    taken: u32,
    /// How many items it was given.
    used: u32,
    held: Vec<Held>,
    /// The number of the next request.
    next: u64,
    has_answered: bool,
    /// When a place was last freed.
    freed: Instant,
}

/// A place for an item in a worker. Dropping it while the worker holds the item ends the worker: nobody waits for its answer.
struct Place {
    stage: Arc<Stage>,
    worker: Arc<Worker>,
    request: Option<u64>,
}

impl Workers {
    /// Creates the workers of a stage. None is started before an item wants it.
    pub(crate) fn new(settings: Settings) -> Self {
        let (pool, changed, waiting, left) = (Mutex::new(Pool::new()), Notify::new(), AtomicU64::new(0), Notify::new());
        Self(Arc::new(Stage { settings, pool, changed, waiting, left }))
    }

    /// Runs an item in a worker, and returns its outputs once it is done.
    ///
    /// Dropping the future ends the worker.
    pub(crate) async fn run(&self, item: &Item<'_>, bound: &Bound) -> Result<Answers, Failure> {
        loop {
            let place = self.0.place(bound).await?;
            match place.run(item).await {
                Answer::Done(answers) => return Ok(answers),
                Answer::Failed(failure) => return Err(failure),
                // It has ended between two items.
                Answer::Unread => {}
            }
        }
    }
}

impl Stage {
    /// Begins the life of a worker.
    fn begin(&self, starting: Starting) {
        self.settings.runtime.spawn(life::live(starting));
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut pool = lock(&self.0.pool);
        pool.is_closed = true;
        for worker in &pool.workers {
            if worker.close() {
                worker.end(Cause::Retired);
            }
        }
        drop(pool);
        self.0.left.notify_waiters();
    }
}

impl State {
    /// Returns the state of a worker that has no item yet.
    fn first() -> Self {
        Self {
            is_open: true,
            is_gone: false,
            taken: 0,
            used: 0,
            held: Vec::new(),
            next: 0,
            has_answered: false,
            freed: Instant::now(),
        }
    }

    /// Returns the place of a request among those held.
    fn place_of(&self, request: u64, name: &'static str) -> Result<usize, Cause> {
        let place = self.held.iter().position(|held| held.request == request);
        place.ok_or_else(|| {
            let why =
                if request == 0 || request > self.next { "which no item has" } else { "which it has answered already" };
            Cause::Fault(format!("the worker sent `{name}` for request {request}, {why}"))
        })
    }
}

impl Worker {
    /// Returns since when it has no item. `None` if it has one.
    fn idle_since(&self) -> Option<Instant> {
        let state = lock(&self.state);
        (state.taken == 0).then_some(state.freed)
    }

    /// Takes a place for an item. Returns `false` if there is none.
    fn take(&self) -> bool {
        let mut state = lock(&self.state);
        let has_room = state.is_open && state.taken < self.at_once;
        if has_room {
            state.taken += 1;
        }
        has_room
    }

    /// Takes no more items. Returns `true` if it has none.
    fn close(&self) -> bool {
        let mut state = lock(&self.state);
        state.is_open = false;
        state.taken == 0
    }

    /// Returns `true` if it is ending and has answered no item.
    fn ends_unproven(&self) -> bool {
        let state = lock(&self.state);
        !state.is_open && !state.has_answered && state.used == 0
    }

    /// Takes no more items if it has none. Returns `true` if that is so.
    fn close_if_idle(&self) -> bool {
        let mut state = lock(&self.state);
        let is_idle = state.is_open && state.taken == 0;
        state.is_open &= !is_idle;
        is_idle
    }

    /// Ends the worker.
    fn end(&self, cause: Cause) {
        // If it has ended already, nobody listens.
        let _ = self.ends.send(cause);
    }

    /// Writes the line of a request.
    async fn write(&self, request: u64, line: &[u8]) {
        struct Whole<'a>(&'a Worker, bool);
        impl Drop for Whole<'_> {
            fn drop(&mut self) {
                if !self.1 {
                    // The next line would be read as the rest of this one.
                    self.0.end(Cause::Dropped);
                }
            }
        }
        let mut channel = self.channel.lock().await;
        let Some(channel) = &mut *channel else { return };
        if let Some(held) = lock(&self.state).held.iter_mut().find(|held| held.request == request) {
            held.begin = Some(self.written.load(SeqCst));
        }
        let mut whole = Whole(self, false);
        let mut rest = line;
        while !rest.is_empty() {
            match channel.write(rest).await {
                Ok(bytes) => {
                    self.written.fetch_add(bytes as u64, SeqCst);
                    rest = &rest[bytes..];
                }
                // It has ended, which its listener sees too.
                Err(_) => return,
            }
        }
        whole.1 = true;
    }
}

impl Place {
    /// Runs an item in this place.
    async fn run(mut self, item: &Item<'_>) -> Answer {
        let (line, mut answer) = match self.hold(item) {
            Ok(held) => held,
            Err(answer) => return answer,
        };
        let (worker, request) = (&self.worker, self.request.unwrap_or_default());
        let exchange = async {
            tokio::select! {
                biased;
                () = worker.write(request, &line) => {}
                // It ends before it has read all of the line.
                answer = &mut answer => return answer,
            }
            (&mut answer).await
        };
        let timeout = self.stage.settings.timeout;
        let answer = if let Ok(answer) = tokio::time::timeout(timeout, exchange).await {
            answer
        } else {
            self.worker.end(Cause::Timeout(request));
            // Comes once nothing of the worker is left.
            answer.await
        };
        self.request = None;
        match answer {
            Ok(answer) => answer,
            // The node is about to give the item back. It has neither succeeded nor failed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Makes the worker hold an item. Returns the line that tells it, and where its answer comes. An error is its answer already.
    fn hold(&mut self, item: &Item<'_>) -> Result<(Vec<u8>, oneshot::Receiver<Answer>), Answer> {
        let request = {
            let mut state = lock(&self.worker.state);
            state.next += 1;
            state.next
        };
        let line = protocol::item(self.worker.form, request, item);
        let line = line.map_err(|reason| Answer::Failed(Failure::fatal(FailureKind::Error, reason)))?;
        let settings = &self.stage.settings;
        let spool = Spool::new(settings.executable.processes.folders.path());
        let (held, answer) = Held::new(request, item, spool);
        let mut state = lock(&self.worker.state);
        if state.is_gone {
            return Err(Answer::Unread);
        }
        state.used = state.used.saturating_add(1);
        if settings.reuse.is_some_and(|reuse| state.used >= reuse) {
            state.is_open = false;
        }
        state.held.push(held);
        drop(state);
        self.request = Some(request);
        Ok((line, answer))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.request.is_some() {
            self.worker.end(Cause::Dropped);
        }
        let mut state = lock(&self.worker.state);
        state.taken -= 1;
        state.freed = Instant::now();
        let is_over = !state.is_open && state.taken == 0;
        drop(state);
        if is_over {
            self.worker.end(Cause::Retired);
        }
        if self.stage.waiting.load(SeqCst) > 0 {
            self.stage.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
