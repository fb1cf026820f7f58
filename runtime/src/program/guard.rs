//! The guard: a small process that starts the programs of a node, and ends them when the node has gone.
//!
//! The guard makes a shepherd for each program, which is its reaper. A node that is killed leaves no program: its end closes the
//! control streams, and each shepherd ends what it has. Neither the guard nor a shepherd reads what comes of an item except for
//! arguments and variables.

pub(crate) mod message;
mod serve;
mod shepherd;
mod spawn;
mod system;
mod tree;
mod watch;

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
#[cfg(test)]
use std::os::fd::OwnedFd;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};

use rustix::io::ioctl_fionbio;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixDatagram, UnixStream};

use crate::lock::lock;
use message::{Ended, Event, Launch, Order};

/// The argument by which the program `pcluster` becomes a guard.
pub(crate) const ARGUMENT: &str = "--guard";
/// The most descriptors of one program: control, three streams, and two of a worker's protocol.
const DESCRIPTORS_MAX: usize = 6;

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
}

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
pub(crate) struct End(OwnedReadHalf);

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
        Ok(Self { requests: UnixDatagram::from_std(own.into())?, process })
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
        let (own, its) = StdUnixStream::pair().map_err(LaunchError::Refused)?;
        own.set_nonblocking(true).map_err(LaunchError::Refused)?;
        let control = UnixStream::from_std(own).map_err(LaunchError::Refused)?;
        let (mut events, mut orders) = control.into_split();
        {
            let descriptors: Vec<_> = std::iter::once(its.as_fd()).chain(streams).chain(more.iter().copied()).collect();
            let send = || send(self.requests.as_fd(), &descriptors);
            self.requests.async_io(tokio::io::Interest::WRITABLE, send).await.map_err(LaunchError::Guard)?;
        }
        // Its end must show here.
        drop(its);
        let launch = message::encode(launch).map_err(LaunchError::Refused)?;
        orders.write_all(&launch).await.map_err(LaunchError::Guard)?;
        match next(&mut events).await.map_err(LaunchError::Guard)? {
            Event::Started => Ok(Process { end: End(events), orders: Orders(orders) }),
            Event::Refused { errno } => Err(LaunchError::Refused(io::Error::from_raw_os_error(errno))),
            Event::Ended(_) => Err(LaunchError::Guard(io::ErrorKind::InvalidData.into())),
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
        // It ends once the requests are closed and the last program has ended.
        let _ = self.process.try_wait();
    }
}

impl End {
    /// Waits until the program has ended with all its processes. A wait that is dropped cannot be repeated.
    ///
    /// # Errors
    ///
    /// If its shepherd has ended before it: then the guard has ended all of it.
    pub(crate) async fn wait(&mut self) -> io::Result<Ended> {
        match next(&mut self.0).await? {
            Event::Ended(ended) => Ok(ended),
            Event::Started | Event::Refused { .. } => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Waits until nothing of the program is left, whatever it has told.
    pub(crate) async fn gone(mut self) {
        let _ = tokio::io::copy(&mut self.0, &mut tokio::io::sink()).await;
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

/// Sends the descriptors of a program to the guard.
fn send(requests: BorrowedFd<'_>, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(descriptors));
    sendmsg(requests, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Reads an event.
async fn next(control: &mut OwnedReadHalf) -> io::Result<Event> {
    let mut head = [0; 4];
    control.read_exact(&mut head).await?;
    let mut body = vec![0; message::length(head)?];
    control.read_exact(&mut body).await?;
    message::decode(&body)
}

#[cfg(test)]
pub(in crate::program) mod tests;
