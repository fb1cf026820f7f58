//! Runs a program on one item: one process, from its start until nothing of it is left.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use ciborium::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::end::{self, Ending, Kind, Outcome};
use super::folder::{Folder, Folders};
use super::guard::message::{Bounds, Ended, Launch};
use super::guard::{End, Guards, LaunchError, Orders, Process};
use super::spool::Spool;
use super::stdio::{self, OutputError, Outputs};
use super::words::Words;
use crate::chain::arguments::Argument;
use crate::frame::cbor::value;
use crate::frame::format::Format;
use crate::run::failure::{Failure, FailureKind};
use crate::run::output::MAX_OUTPUT_BYTES;

/// How long a program that was asked to end has before it is ended.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes read at once.
const PART: usize = 64 << 10;
/// How long the streams of a program may take to end after its last process.
const DRAIN: Duration = Duration::from_secs(1);

/// A program of a stage, as a node runs it.
#[derive(Debug)]
pub(crate) struct Program {
    /// The file, after all links.
    pub(crate) file: PathBuf,
    /// The arguments. The first is the name that it is called by.
    pub(crate) arguments: Vec<Argument>,
    /// `true` if a field may make an argument an option.
    pub(crate) options: bool,
    /// The format of standard input. `None` for an empty one.
    pub(crate) input: Option<Format>,
    /// The format of standard output. `None` if nothing in it is an output.
    pub(crate) output: Option<Format>,
    /// The environment, apart from the variables of an item.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// The most time that an item may take.
    pub(crate) timeout: Duration,
    /// The bounds of all its processes together.
    pub(crate) bounds: Bounds,
    /// The exit statuses after which an item fails for good.
    pub(crate) permanent: BTreeSet<u8>,
    /// The most bytes of one output.
    pub(crate) output_max: u64,
    /// The path of its cgroups, to which the number of each is added. `None` if none can be made.
    pub(crate) cgroups: Option<PathBuf>,
    /// The guard of the node's programs.
    pub(crate) guards: Arc<Guards>,
    /// The working folders of the node.
    pub(crate) folders: Arc<Folders>,
    /// How many processes were started: each has a number of its own.
    pub(crate) started: Arc<AtomicU64>,
}

/// The node's ends of a program's three streams.
type Streams = (pipe::Sender, pipe::Receiver, pipe::Receiver);

/// A program that runs in its folder. If it is dropped, the program ends and the folder is removed.
struct Running {
    /// `None` once it is dropped.
    parts: Option<(End, Orders, Folder)>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some((end, orders, folder)) = self.parts.take() else { return };
        drop(orders);
        let Ok(runtime) = Handle::try_current() else { return };
        // It may write until its last process has ended.
        runtime.spawn(async move {
            end.gone().await;
            remove(folder).await;
        });
    }
}

impl Program {
    /// Runs the program on an item, and returns its outputs once it has ended well. `log` takes the lines of its standard error.
    ///
    /// Dropping the future ends the program with all its processes.
    pub(crate) async fn run(
        &self,
        item: &Bytes,
        variables: Vec<(OsString, OsString)>,
        log: impl FnMut(String),
    ) -> Result<Outputs, Failure> {
        let arguments = self.arguments(item)?;
        let input = self.input.map_or(Ok(Bytes::new()), |format| stdio::input(format, item));
        let input = input.map_err(|reason| Failure::fatal(FailureKind::Error, reason))?;
        let folder = self.folders.create().map_err(|error| here("a working folder cannot be made", &error))?;
        let spool = self.process(arguments, variables, input, folder, log).await?;
        let from = spool.into_reader().map_err(OutputError::from)?;
        Ok(Outputs::new(self.output, from, self.output_max))
    }

    /// Returns the arguments with the fields of an item.
    fn arguments(&self, item: &Bytes) -> Result<Vec<OsString>, Failure> {
        let value = if self.arguments.iter().any(Argument::has_fields) { value(item) } else { None };
        let value = value.unwrap_or(Value::Null);
        let fill = |argument: &Argument| argument.fill(&value, self.options).map(OsString::from);
        let filled = self.arguments.iter().map(fill).collect::<Result<_, _>>();
        filled.map_err(|error| Failure::fatal(FailureKind::Error, error.to_string()))
    }

    /// Runs the process. Returns what it has written if it ended well.
    async fn process(
        &self,
        arguments: Vec<OsString>,
        variables: Vec<(OsString, OsString)>,
        input: Bytes,
        folder: Folder,
        log: impl FnMut(String),
    ) -> Result<Spool, Failure> {
        // Not in its own folder, where it could fill it.
        let spool = Spool::new(self.folders.path());
        let (mut running, streams) = self.start(arguments, variables, folder).await?;
        let Running { parts: Some((end, orders, _)) } = &mut running else { unreachable!("taken on drop alone") };
        let (tell_full, is_full) = oneshot::channel();
        let mut ended = std::pin::pin!(watch(end, orders, self.timeout, is_full));
        let ((input_end, output_end, error_end), keeps) = (streams, self.output.is_some());
        let mut drained = std::pin::pin!(async {
            let streams = tokio::join!(
                feed(input_end, &input),
                keep(output_end, spool, keeps, tell_full),
                listen(error_end, Words::new(log))
            );
            (streams.1, streams.2)
        });
        let mut kept = None;
        let ended = loop {
            tokio::select! {
                biased;
                all = &mut drained, if kept.is_none() => kept = Some(all),
                ended = &mut ended => break ended,
            }
        };
        let kept = match kept {
            Some(kept) => Ok(kept),
            // No process is left, so the streams have ended, unless one was handed to a stranger.
            None => tokio::time::timeout(DRAIN, drained).await,
        };
        let (ended, ending) = ended.map_err(|error| {
            let reason = format!("the process that watches over the program has ended: {error}");
            Failure::transient(FailureKind::Node, reason)
        })?;
        let (kept, words) = match kept {
            Ok((kept, words)) => (Some(kept), words),
            Err(_) => (None, String::new()),
        };
        match end::outcome(&ended, ending, &self.permanent, &words) {
            Outcome::Done => {}
            Outcome::Failed { kind, reason, fatal } => {
                return Err(Failure { kind: kind.into(), reason, fatal, backtrace: None });
            }
        }
        let open = || {
            let reason = "the program ended, but another process has its standard output and goes on";
            Failure::transient(FailureKind::Output, reason)
        };
        kept.ok_or_else(open)?.map_err(|error| here("standard output cannot be kept", &error))
    }

    /// Starts the process. Returns it with the other ends of its three streams.
    async fn start(
        &self,
        arguments: Vec<OsString>,
        variables: Vec<(OsString, OsString)>,
        folder: Folder,
    ) -> Result<(Running, Streams), Failure> {
        let home = folder.path().as_os_str().to_owned();
        // A later value of a variable replaces an earlier one.
        let mut environment = vec![("HOME".into(), home.clone()), ("TMPDIR".into(), home.clone())];
        environment.extend(self.environment.iter().cloned().chain(variables));
        let number = self.started.fetch_add(1, Relaxed);
        let launch = Launch {
            file: self.file.as_os_str().to_owned(),
            arguments,
            environment,
            folder: home,
            cgroup: self.cgroups.as_ref().map(|path| path.with_added_extension(number.to_string()).into_os_string()),
            cores: Vec::new(),
            bounds: self.bounds,
        };
        let pipes = || -> io::Result<_> {
            let (input, output, error) = (io::pipe()?, io::pipe()?, io::pipe()?);
            let its: [OwnedFd; 3] = [input.0.into(), output.1.into(), error.1.into()];
            let input = pipe::Sender::from_owned_fd(input.1.into())?;
            let output = pipe::Receiver::from_owned_fd(output.0.into())?;
            let error = pipe::Receiver::from_owned_fd(error.0.into())?;
            Ok((its, (input, output, error)))
        };
        let (its, streams) = pipes().map_err(|error| here("its pipes cannot be made", &error))?;
        let launched = self.guards.launch(&launch, its.each_ref().map(OwnedFd::as_fd), &[]).await;
        drop(its);
        match launched {
            Ok(Process { end, orders }) => Ok((Running { parts: Some((end, orders, folder)) }, streams)),
            Err(error) => {
                remove(folder).await;
                Err(refused(&self.file, &error))
            }
        }
    }
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Spool(_) => Self::transient(FailureKind::Node, error.to_string()),
            _ => Self::fatal(FailureKind::Output, error.to_string()),
        }
    }
}

impl From<Kind> for FailureKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Error => Self::Error,
            Kind::Signal => Self::Trap,
            Kind::Timeout => Self::Timeout,
            Kind::Memory => Self::Memory,
            Kind::Output => Self::Output,
        }
    }
}

/// Waits for the end of a program. Ends it when its time is over or it has written too much.
async fn watch(
    end: &mut End,
    orders: &Orders,
    timeout: Duration,
    is_full: oneshot::Receiver<Ending>,
) -> io::Result<(Ended, Option<Ending>)> {
    let mut ended = std::pin::pin!(end.wait());
    let full = async {
        match is_full.await {
            Ok(ending) => ending,
            // Its output has ended within the limit.
            Err(_) => std::future::pending().await,
        }
    };
    let ending = tokio::select! {
        biased;
        ended = &mut ended => return Ok((ended?, None)),
        ending = full => ending,
        () = tokio::time::sleep(timeout) => Ending::Timeout(timeout),
    };
    orders.terminate();
    tokio::select! {
        biased;
        ended = &mut ended => return Ok((ended?, Some(ending))),
        () = tokio::time::sleep(GRACE) => orders.kill(),
    }
    Ok((ended.await?, Some(ending)))
}

/// Writes the input of a program. Input that is not read is no failure.
async fn feed(mut input: pipe::Sender, bytes: &[u8]) {
    let _ = input.write_all(bytes).await;
}

/// Reads the output of a program to its end, and keeps it if it `keeps`.
async fn keep(
    mut output: pipe::Receiver,
    mut spool: Spool,
    keeps: bool,
    full: oneshot::Sender<Ending>,
) -> io::Result<Spool> {
    let (mut part, mut full) = (vec![0; PART], Some(full).filter(|_| keeps));
    loop {
        let bytes = output.read(&mut part).await?;
        if bytes == 0 {
            return Ok(spool);
        }
        if full.is_some() {
            spool.append(&part[..bytes])?;
        }
        if spool.bytes() > MAX_OUTPUT_BYTES
            && let Some(full) = full.take()
        {
            let _ = full.send(Ending::Outputs(MAX_OUTPUT_BYTES));
        }
    }
}

/// Reads what a program says to its end. Returns its last words.
async fn listen(mut error: pipe::Receiver, mut words: Words<impl FnMut(String)>) -> String {
    let mut part = vec![0; PART];
    while let Ok(bytes @ 1..) = error.read(&mut part).await {
        words.add(&part[..bytes]);
    }
    words.finish();
    words.last()
}

/// Removes a working folder.
async fn remove(folder: Folder) {
    let removed = tokio::task::spawn_blocking(move || folder.remove()).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(%error, "the working folder of a program cannot be removed");
    }
}

/// Returns the failure of an item for which this node lacks something.
fn here(what: &str, error: &dyn std::error::Error) -> Failure {
    let separator = if what.is_empty() { "" } else { ": " };
    Failure::transient(FailureKind::Node, format!("{what}{separator}{error}"))
}

/// Returns the failure of an item whose program was not started.
fn refused(file: &Path, error: &LaunchError) -> Failure {
    let file = file.display();
    match error {
        LaunchError::Refused(error) if error.raw_os_error() == Some(libc::E2BIG) => Failure::fatal(
            FailureKind::Error,
            format!("`{file}`: its arguments and variables together are longer than the system takes"),
        ),
        LaunchError::Refused(error) => {
            Failure::transient(FailureKind::Node, format!("`{file}` cannot be executed on this node: {error}"))
        }
        LaunchError::Guard(_) => Failure::transient(FailureKind::Node, format!("`{file}` was not started: {error}")),
    }
}

#[cfg(test)]
mod tests;
