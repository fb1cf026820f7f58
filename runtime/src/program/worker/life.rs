//! The life of one worker: its start, its messages, and its end.

use std::io::{self, PipeReader};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pcluster_abi::Level;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::held::{Answer, Held};
use super::lines::Lines;
use super::past::{Past, UNHEARD};
use super::pool::Starting;
use super::protocol::{Entry, Hello, Message};
use super::{Bound, Stage, State, Worker};
use crate::lock::lock;
use crate::program::guard::Orders;
use crate::program::guard::message::Ended;
use crate::program::process::{DRAIN, GRACE, Place, Running, here, listen, stop};
use crate::program::stdio::TEXT_MAX;
use crate::program::words::Words;
use crate::run::failure::{Failure, FailureKind};

/// The room in a line beside an output.
const ENVELOPE: u64 = 64 << 10;

/// Why a worker ends.
#[derive(Debug)]
pub(super) enum Cause {
    /// By itself.
    Ended,
    /// It broke the protocol.
    Fault(String),
    /// The item of this request took too long.
    Timeout(u64),
    /// The item of this request gave more than it may.
    Outputs(u64, Box<Failure>),
    /// An item that it holds is not wanted any more.
    Dropped,
    /// It is not needed any more, and holds no item.
    Retired,
    /// All processes of the node must end.
    NodeStops,
}

/// The process of a worker.
struct Process {
    running: Running,
    /// The worker's end of the channel of items. Shows what the worker has not read.
    unread: PipeReader,
    /// Listens to its standard output and error. Returns its last words.
    words: JoinHandle<String>,
}

/// Starts a worker, and serves it until nothing of it is left.
pub(super) async fn live(starting: Starting) {
    let stage = Arc::clone(&starting.0);
    let mut must_end = stage.settings.executable.processes.must_end.subscribe();
    let ready = {
        let mut left = std::pin::pin!(stage.left.notified());
        left.as_mut().enable();
        if lock(&stage.pool).is_closed {
            return;
        }
        tokio::select! {
            ready = ready(&stage, &starting.1) => ready,
            // What has started ends with this.
            () = left => return,
            _ = must_end.wait_for(|must_end| *must_end) => return,
        }
    };
    match ready {
        Ok((process, lines, channel, hello)) => serve(starting, process, (lines, channel), &hello, must_end).await,
        Err(reason) => stage.not_started(reason),
    }
}

/// Starts a worker, and returns it once it takes items. The error says why it does not.
async fn ready(stage: &Arc<Stage>, bound: &Bound) -> Result<(Process, Lines, pipe::Sender, Hello), String> {
    let (process, mut lines, channel) = start(stage, bound).await.map_err(|failure| failure.reason)?;
    let patience = stage.settings.start;
    let problem = match tokio::time::timeout(patience, hello(stage, &mut lines)).await {
        Ok(Ok(Some(hello))) => return Ok((process, lines, channel, hello)),
        Ok(Ok(None)) => None,
        Ok(Err(problem)) => Some(problem),
        Err(_) => Some(format!("it said no `hello` within {}{UNHEARD}", humantime::format_duration(patience))),
    };
    let past = process.end(if problem.is_some() { &Cause::Dropped } else { &Cause::Ended }).await;
    Err(match problem {
        Some(problem) => past.fault(&problem).reason,
        None => past.failure().reason,
    })
}

/// Starts the process of a worker. Returns it with what it says and the node's end of the channel of items.
async fn start(stage: &Arc<Stage>, bound: &Bound) -> Result<(Process, Lines, pipe::Sender), Failure> {
    let settings = &stage.settings;
    let pipes = || -> io::Result<_> {
        let (items, answers) = (io::pipe()?, io::pipe()?);
        let own = (pipe::Sender::from_owned_fd(items.1.into())?, pipe::Receiver::from_owned_fd(answers.0.into())?);
        Ok((own, items.0, answers.1))
    };
    let ((channel, answers), unread, its) = pipes().map_err(|error| here("its pipes cannot be made", &error))?;
    let more = [("PCLUSTER_WORKER_IN", unread.as_fd()), ("PCLUSTER_WORKER_OUT", its.as_fd())];
    let started =
        settings.executable.start(settings.arguments.clone(), bound.variables.clone(), Place::default(), &more).await;
    drop(its);
    let (running, (_, output, error)) = started?;
    let listening = Arc::clone(stage);
    let words = tokio::spawn(async move {
        let log = |line| (listening.settings.log)("", Level::Info, line);
        tokio::join!(listen(output, Words::new(log)), listen(error, Words::new(log))).1
    });
    let lines = Lines::new(answers, usize::try_from(TEXT_MAX + ENVELOPE).unwrap_or(usize::MAX));
    Ok((Process { running, unread, words }, lines, channel))
}

/// Reads the first message of a worker. `None` if it ends before. The error says what is wrong with what it has said.
async fn hello(stage: &Stage, lines: &mut Lines) -> Result<Option<Hello>, String> {
    let mut hello = None;
    while hello.is_none() && lines.read().await.unwrap_or(false) {
        lines.each(|line| {
            match read(line)? {
                None => {}
                Some(Message::Hello(first)) if hello.is_none() => hello = Some(first.checked()?),
                Some(Message::Log(entry)) => stage.log("", entry),
                Some(other) => return Err(format!("the worker sent `{}` before it had an item", other.name())),
            }
            Ok(())
        })?;
    }
    Ok(hello)
}

/// Reads a line. `None` if it is blank. The error says what is wrong with it.
fn read(line: Result<&[u8], usize>) -> Result<Option<Message<'_>>, String> {
    match line {
        Ok(line) if line.iter().all(u8::is_ascii_whitespace) => Ok(None),
        Ok(line) => Message::read(line).map(Some),
        Err(most) => Err(format!("the worker wrote a line of more than {most} bytes")),
    }
}

/// Serves a worker that takes items until nothing of it is left.
async fn serve(
    starting: Starting,
    process: Process,
    (mut lines, channel): (Lines, pipe::Sender),
    hello: &Hello,
    mut must_end: watch::Receiver<bool>,
) {
    let stage = Arc::clone(&starting.0);
    let (ends, mut causes) = mpsc::unbounded_channel();
    let worker = Arc::new(Worker {
        bound: starting.1.clone(),
        form: hello.items,
        at_once: hello.at_once,
        channel: tokio::sync::Mutex::new(Some(channel)),
        written: AtomicU64::new(0),
        state: Mutex::new(State::first()),
        ends,
    });
    stage.add(&worker);
    drop(starting);
    let Process { mut running, unread, words } = process;
    let (end, orders) = running.parts();
    let mut ended = std::pin::pin!(end.wait_noting(|bytes| stage.grown(&worker, bytes)));
    let mut idle = std::pin::pin!(tokio::time::sleep(stage.settings.idle));
    let mut told = None;
    let cause = loop {
        tokio::select! {
            biased;
            Some(cause) = causes.recv() => break cause,
            _ = must_end.wait_for(|must_end| *must_end) => break Cause::NodeStops,
            more = lines.read() => {
                if !more.unwrap_or(false) {
                    break Cause::Ended;
                }
                if let Err(cause) = lines.each(|line| stage.hear(&worker, line)) {
                    break cause;
                }
            }
            result = &mut ended, if told.is_none() => {
                told = Some(result);
                // What it has written has come by now.
                idle.as_mut().reset((Instant::now() + DRAIN).into());
            }
            () = &mut idle => match worker.idle_since() {
                _ if told.is_some() => break Cause::Ended,
                Some(since) if since.elapsed() >= stage.settings.idle => {
                    if worker.close_if_idle() {
                        break Cause::Retired;
                    }
                }
                since => {
                    let since = since.unwrap_or_else(Instant::now);
                    idle.as_mut().reset((since + stage.settings.idle).into());
                }
            },
        }
    };
    worker.close();
    if matches!(cause, Cause::Retired) {
        // By this it sees that no other item comes.
        worker.channel.lock().await.take();
    }
    let (ended, by_itself) = match told {
        Some(ended) => (ended, true),
        None => end_of(ended, orders, &cause).await,
    };
    let past = Past::new(ended, by_itself, words, &unread).await;
    let cause = match cause {
        Cause::Ended if !past.by_itself => {
            Cause::Fault("the worker closed its end of the channel, and went on".to_owned())
        }
        cause => cause,
    };
    stage.bury(&worker, &cause, &past);
}

/// Waits for the end of a process, and ends it if it does not. Returns `true` beside it if it ended by itself.
async fn end_of(
    mut ended: Pin<&mut impl Future<Output = io::Result<Ended>>>,
    orders: &Orders,
    cause: &Cause,
) -> (io::Result<Ended>, bool) {
    let patience = if matches!(cause, Cause::Ended | Cause::Retired) { GRACE } else { Duration::ZERO };
    match tokio::time::timeout(patience, &mut ended).await {
        Ok(ended) => (ended, true),
        Err(_) => (stop(ended, orders).await, false),
    }
}

impl Process {
    /// Ends the process. Returns once nothing of it is left.
    async fn end(mut self, cause: &Cause) -> Past {
        let (end, orders) = self.running.parts();
        let (ended, by_itself) = end_of(std::pin::pin!(end.wait()), orders, cause).await;
        Past::new(ended, by_itself, self.words, &self.unread).await
    }
}

impl Stage {
    /// Adds a worker that takes items.
    fn add(&self, worker: &Arc<Worker>) {
        let mut pool = lock(&self.pool);
        pool.at_once = Some(worker.at_once);
        pool.workers.push(Arc::clone(worker));
        if pool.is_closed {
            worker.close();
        }
    }

    /// Takes note that a worker has grown close to its `memory`: it takes no other item.
    fn grown(&self, worker: &Worker, bytes: u64) {
        let bytes = bytesize::ByteSize(bytes);
        let reason = format!("a worker takes {bytes}, close to its `memory`: it is replaced before the next item");
        (self.settings.log)("", Level::Info, reason);
        if worker.close() {
            worker.end(Cause::Retired);
        }
    }

    /// Takes a line of a worker. The error is why the worker must end.
    fn hear(&self, worker: &Worker, line: Result<&[u8], usize>) -> Result<(), Cause> {
        let message = read(line).map_err(Cause::Fault)?;
        match message {
            None => Ok(()),
            Some(Message::Hello(_)) => Err(Cause::Fault("the worker said `hello` twice".to_owned())),
            Some(Message::Output(output)) => {
                let mut state = lock(&worker.state);
                let place = state.place_of(output.request, "output")?;
                let added = state.held[place].add(&output);
                added.map_err(|failure| Cause::Outputs(output.request, Box::new(failure)))
            }
            Some(Message::Done(done)) => self.release(worker, done.request, "done").map(Held::done),
            Some(Message::Error(failed)) => {
                self.release(worker, failed.request, "error").map(|held| held.failed(failed))
            }
            Some(Message::Log(entry)) => {
                let state = lock(&worker.state);
                let held = state.held.iter().find(|held| Some(held.request) == entry.request);
                self.log(held.map_or("", |held| &held.id), entry);
                Ok(())
            }
        }
    }

    /// Takes the item of a request from a worker that has answered it.
    fn release(&self, worker: &Worker, request: u64, name: &'static str) -> Result<Held, Cause> {
        let mut state = lock(&worker.state);
        let place = state.place_of(request, name)?;
        let held = state.held.swap_remove(place);
        let is_first = !std::mem::replace(&mut state.has_answered, true);
        drop(state);
        if is_first {
            self.started();
        }
        Ok(held)
    }

    fn log(&self, id: &str, entry: Entry) {
        (self.settings.log)(id, entry.level(), entry.message);
    }

    /// Ends what a worker held that has ended.
    fn bury(&self, worker: &Arc<Worker>, cause: &Cause, past: &Past) {
        lock(&self.pool).workers.retain(|each| !Arc::ptr_eq(each, worker));
        let read = worker.written.load(SeqCst).saturating_sub(past.unread);
        let (all, has_answered) = {
            let mut state = lock(&worker.state);
            state.is_gone = true;
            (std::mem::take(&mut state.held), state.has_answered)
        };
        if matches!(cause, Cause::NodeStops) {
            // The items are about to be given back. They have neither succeeded nor failed.
            return;
        }
        let answer = |held: Held| {
            let answer = match cause {
                Cause::Timeout(request) if *request == held.request => {
                    Answer::Failed(past.too_long(self.settings.timeout, has_answered || held.has_outputs()))
                }
                Cause::Outputs(request, failure) if *request == held.request => Answer::Failed((**failure).clone()),
                _ if held.begin.is_none_or(|begin| begin >= read) => Answer::Unread,
                Cause::Ended | Cause::Retired | Cause::NodeStops => Answer::Failed(past.failure()),
                Cause::Fault(reason) => Answer::Failed(past.fault(reason)),
                Cause::Timeout(_) => another("took longer than its timeout"),
                Cause::Outputs(..) => another("gave more than it may"),
                Cause::Dropped => another("was given back"),
            };
            (held, answer)
        };
        let answers: Vec<_> = all.into_iter().map(answer).collect();
        match cause {
            Cause::Fault(reason) => {
                let reason = format!("a worker is replaced: {}", past.fault(reason).reason);
                (self.settings.log)("", Level::Error, reason);
            }
            Cause::Ended if answers.iter().all(|(_, answer)| matches!(answer, Answer::Unread)) => {
                let reason = past.failure().reason;
                if has_answered {
                    (self.settings.log)("", Level::Warn, format!("a worker ended between items: {reason}"));
                } else {
                    self.not_started(reason);
                }
            }
            _ => {}
        }
        for (held, answer) in answers {
            held.end(answer);
        }
        self.changed.notify_waiters();
    }
}

/// Returns the answer of an item whose worker was ended for another item.
fn another(what: &str) -> Answer {
    Answer::Failed(Failure::transient(
        FailureKind::Error,
        format!("its worker was ended: another of the items that it held {what}"),
    ))
}
