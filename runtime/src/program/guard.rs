//! The guard: a small process that starts the programs of a node, and ends them when the node has gone.
//!
//! The guard makes a shepherd for each program, which is its reaper, and is used again afterwards. A node that is killed leaves no program: its end closes the
//! control streams, and each shepherd ends what it has. Neither the guard nor a shepherd reads what comes of an item except for
//! arguments and variables.

pub(crate) mod message;
mod pass;
mod serve;
mod shepherd;
mod spawn;
mod system;
mod tree;
mod watch;

use std::io;
#[cfg(test)]
use std::os::fd::OwnedFd;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixDatagram, UnixStream};

use crate::lock::lock;
use message::{Ended, Event, Launch, Order};

/// The argument by which the program `pcluster` becomes a guard.
pub(crate) const ARGUMENT: &str = "--guard";
/// The most shepherds that are kept without a program.
const IDLE_MAX: usize = 32;

/// Runs this process as a guard. Its standard input is the socket of its node.
pub(crate) fn main() -> ExitCode {
    let served = io::stdin().as_fd().try_clone_to_owned().and_then(|requests| {
        // Otherwise a second descriptor would keep the connection open.
        let null = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(null)?;
        serve::serve(requests)
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// A guard.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Packets in order, with an end: datagrams over a connection.
    requests: UnixDatagram,
    process: Child,
    idle: Arc<Idle>,
}

/// The shepherds of a guard that have no program. `None` once the guard is given up.
#[derive(Debug)]
struct Idle(Mutex<Option<Vec<UnixStream>>>);

/// A program that runs. Dropping all of it ends all its processes.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its end.
    pub(crate) end: End,
    /// What it can be told.
    pub(crate) orders: Orders,
}

/// The end of a program.
#[derive(Debug)]
pub(crate) struct End {
    events: OwnedReadHalf,
    /// What was read of the next event.
    read: Vec<u8>,
    has_ended: bool,
    idle: Arc<Idle>,
}

/// Orders to a program.
#[derive(Debug)]
pub(crate) struct Orders(OwnedWriteHalf);

/// Why a program has not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The system refuses to execute it.
    #[error("{0}")]
    Refused(io::Error),
    /// The guard has ended.
    #[error("the guard of the node's programs has ended: {0}")]
    Guard(#[source] io::Error),
    /// Its shepherd has ended, perhaps after it had started it. Another start would share its streams.
    #[error("the process that watches over it was killed while it began: {0}")]
    Lost(#[source] io::Error),
}

impl Guard {
    /// Starts a guard: this program again, with other arguments.
    pub(crate) fn start() -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("pcluster").arg(ARGUMENT);
        Self::start_as(command)
    }

    fn start_as(mut command: Command) -> io::Result<Self> {
        let (own, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        ioctl_fionbio(&own, true)?;
        // What it inherits could hold secrets, and it needs none of it.
        command.env_clear().current_dir("/");
        let process = command.stdin(Stdio::from(its)).stdout(Stdio::null()).spawn()?;
        let idle = Arc::new(Idle(Mutex::new(Some(Vec::new()))));
        Ok(Self { requests: UnixDatagram::from_std(own.into())?, process, idle })
    }

    /// Returns the id of its process.
    #[cfg(test)]
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Starts a program with these streams. It inherits `more` under their own numbers.
    ///
    /// # Errors
    ///
    /// If the guard has ended, or the system refuses to execute the program.
    pub(crate) async fn launch(
        &self,
        launch: &Launch,
        streams: [BorrowedFd<'_>; 3],
        more: &[BorrowedFd<'_>],
    ) -> Result<Process, LaunchError> {
        if self.has_ended() {
            return Err(LaunchError::Guard(io::ErrorKind::BrokenPipe.into()));
        }
        let messages = [message::encode(&Order::Launch), message::encode(launch)];
        let [order, launch] = messages.map(|message| message.map_err(LaunchError::Refused));
        let messages = [order?, launch?].concat();
        let descriptors: Vec<_> = streams.into_iter().chain(more.iter().copied()).collect();
        while let Some(shepherd) = self.idle.take() {
            match self.begin(shepherd, &messages, &descriptors).await {
                // It was killed while it had no program.
                Err(LaunchError::Guard(error)) => tracing::debug!(%error, "a shepherd has ended"),
                begun => return begun,
            }
        }
        self.begin(self.shepherd().await?, &messages, &descriptors).await
    }

    /// Starts a shepherd. Returns its control stream.
    async fn shepherd(&self) -> Result<UnixStream, LaunchError> {
        let (own, its) = StdUnixStream::pair().map_err(LaunchError::Refused)?;
        own.set_nonblocking(true).map_err(LaunchError::Refused)?;
        let control = UnixStream::from_std(own).map_err(LaunchError::Refused)?;
        // Its end must show here once it is sent.
        let its = [its.as_fd()];
        let send = || pass::send(self.requests.as_fd(), &[0], &its);
        self.requests.async_io(Interest::WRITABLE, send).await.map_err(LaunchError::Guard)?;
        Ok(control)
    }

    /// Lets a shepherd begin a program.
    async fn begin(
        &self,
        shepherd: UnixStream,
        messages: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Process, LaunchError> {
        let begin = || pass::send(shepherd.as_fd(), messages, descriptors);
        let sent = shepherd.async_io(Interest::WRITABLE, begin).await.map_err(LaunchError::Guard)?;
        let (events, mut orders) = shepherd.into_split();
        orders.write_all(&messages[sent..]).await.map_err(LaunchError::Guard)?;
        let mut end = End { events, read: Vec::new(), has_ended: false, idle: Arc::clone(&self.idle) };
        let orders = Orders(orders);
        let event = end.next().await.map_err(|error| match error.kind() {
            // It has not read all of the launch, so nothing has begun.
            io::ErrorKind::ConnectionReset => LaunchError::Guard(error),
            _ => LaunchError::Lost(error),
        })?;
        match event {
            Event::Started => Ok(Process { end, orders }),
            Event::Refused { errno } => {
                end.has_ended = true;
                end.release(orders);
                Err(LaunchError::Refused(io::Error::from_raw_os_error(errno)))
            }
            Event::Grown(_) | Event::Ended(_) => Err(LaunchError::Lost(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Returns `true` if the process has ended.
    fn has_ended(&self) -> bool {
        let mut ready = [PollFd::new(&self.requests, PollFlags::empty())];
        let polled = poll(&mut ready, Some(&Timespec::default()));
        polled.is_ok() && ready[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }
}

impl Idle {
    fn take(&self) -> Option<UnixStream> {
        lock(&self.0).as_mut()?.pop()
    }

    fn add(&self, shepherd: UnixStream) {
        if let Some(idle) = &mut *lock(&self.0)
            && idle.len() < IDLE_MAX
        {
            idle.push(shepherd);
        }
    }
}

/// The guard of a node, started again if it has ended.
#[derive(Debug)]
pub(crate) struct Guards {
    start: fn() -> io::Result<Guard>,
    guard: Mutex<Option<Arc<Guard>>>,
}

impl Guards {
    /// Starts the guard.
    pub(crate) fn start() -> io::Result<Self> {
        Self::start_by(Guard::start)
    }

    fn start_by(start: fn() -> io::Result<Guard>) -> io::Result<Self> {
        Ok(Self { start, guard: Mutex::new(Some(Arc::new(start()?))) })
    }

    /// Starts a program, as [`Guard::launch`] does. If the guard has ended, a new one does.
    pub(crate) async fn launch(
        &self,
        launch: &Launch,
        streams: [BorrowedFd<'_>; 3],
        more: &[BorrowedFd<'_>],
    ) -> Result<Process, LaunchError> {
        let guard = self.guard().map_err(LaunchError::Guard)?;
        match guard.launch(launch, streams, more).await {
            Err(LaunchError::Guard(error)) => {
                tracing::warn!(%error, "the guard of the node's programs has ended; another one is started");
                lock(&self.guard).take_if(|kept| Arc::ptr_eq(kept, &guard));
                self.guard().map_err(LaunchError::Guard)?.launch(launch, streams, more).await
            }
            launched => launched,
        }
    }

    fn guard(&self) -> io::Result<Arc<Guard>> {
        let mut guard = lock(&self.guard);
        match &mut *guard {
            Some(guard) => Ok(Arc::clone(guard)),
            none => Ok(Arc::clone(none.insert(Arc::new((self.start)()?)))),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        lock(&self.idle.0).take();
        // It ends once the requests are closed and the last program has ended.
        let _ = self.process.try_wait();
    }
}

impl End {
    /// Waits until the program has ended with all its processes.
    ///
    /// # Errors
    ///
    /// If its shepherd has ended before it: then the guard has ended all of it.
    pub(crate) async fn wait(&mut self) -> io::Result<Ended> {
        self.wait_noting(|_| {}).await
    }

    /// Waits as [`Self::wait`] does. `grown` receives the memory of the program once it has grown past what is told.
    ///
    /// # Errors
    ///
    /// As for [`Self::wait`].
    pub(crate) async fn wait_noting(&mut self, mut grown: impl FnMut(u64)) -> io::Result<Ended> {
        loop {
            match self.next().await? {
                Event::Ended(ended) => {
                    self.has_ended = true;
                    return Ok(ended);
                }
                Event::Grown(bytes) => grown(bytes),
                Event::Started | Event::Refused { .. } => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    /// Waits until nothing of the program is left, whatever was told.
    pub(crate) async fn gone(&mut self) {
        if !self.has_ended {
            let _ = self.wait().await;
        }
    }

    /// Returns `true` if the program has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Keeps the shepherd of a program that has ended for the next one. A program that still runs ends.
    pub(crate) fn release(self, orders: Orders) {
        if self.has_ended
            && let Ok(shepherd) = self.events.reunite(orders.0)
        {
            self.idle.add(shepherd);
        }
    }

    /// Reads an event. Nothing is lost if this is dropped.
    async fn next(&mut self) -> io::Result<Event> {
        loop {
            if let Some((head, rest)) = self.read.split_first_chunk()
                && let Some(body) = rest.get(..message::length(*head)?)
            {
                let event = message::decode(body)?;
                let length = head.len() + body.len();
                self.read.drain(..length);
                return Ok(event);
            }
            if self.events.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl Orders {
    /// Asks all processes of the program to end.
    pub(crate) fn terminate(&self) {
        self.order(Order::Terminate);
    }

    /// Ends all processes of the program.
    pub(crate) fn kill(&self) {
        self.order(Order::Kill);
    }

    fn order(&self, order: Order) {
        if let Ok(bytes) = message::encode(&order) {
            // The shepherd reads at once; if it has gone, so has the program.
            let _ = self.0.try_write(&bytes);
        }
    }
}

#[cfg(test)]
pub(in crate::program) mod tests;
