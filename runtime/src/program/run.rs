//! Runs a program on one item: one process, from its start until nothing of it is left.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use ciborium::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::sync::watch::Receiver;

use super::end::{self, Ending, Kind, Outcome};
use super::guard::message::{Ended, Status};
use super::process::{DRAIN, Executable, PART, Place, Running, here, listen, stop};
use super::spool::Spool;
use super::stdio::{self, OutputError, Outputs};
use super::words::Words;
use crate::chain::arguments::Argument;
use crate::frame::cbor::value;
use crate::frame::format::Format;
use crate::run::failure::{Failure, FailureKind};
use crate::run::output::MAX_OUTPUT_BYTES;

/// A program of a stage, as a node runs it.
#[derive(Debug)]
pub(crate) struct Program {
    /// What is executed.
    pub(crate) executable: Executable,
    /// The arguments. The first is the name that it is called by.
    pub(crate) arguments: Vec<Argument>,
    /// `true` if a field may make an argument an option.
    pub(crate) options: bool,
    /// The format of standard input. `None` for an empty one.
    pub(crate) input: Option<Format>,
    /// The format of standard output. `None` if nothing in it is an output.
    pub(crate) output: Option<Format>,
    /// The most time that an item may take.
    pub(crate) timeout: Duration,
    /// The exit statuses after which an item fails for good.
    pub(crate) permanent: BTreeSet<u8>,
    /// The most bytes of one output.
    pub(crate) output_max: u64,
}

impl Program {
    /// Runs the program on an item, and returns its outputs once it has ended well. `log` takes the lines of its standard error.
    ///
    /// Dropping the future ends the program with all its processes.
    pub(crate) async fn run(
        &self,
        item: &Bytes,
        variables: Vec<(OsString, OsString)>,
        place: Place,
        log: impl FnMut(String),
    ) -> Result<Outputs, Failure> {
        let arguments = self.arguments(item)?;
        let input = self.input.map_or(Ok(Bytes::new()), |format| stdio::input(format, item));
        let input = input.map_err(|reason| Failure::fatal(FailureKind::Error, reason))?;
        let Some(spool) = self.process(arguments, variables, place, input, log).await? else {
            // The node is about to give the item back. It has neither succeeded nor failed.
            return std::future::pending().await;
        };
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

    /// Runs the process. Returns what it has written if it ended well, and `None` if all processes of the node must end.
    async fn process(
        &self,
        arguments: Vec<OsString>,
        variables: Vec<(OsString, OsString)>,
        place: Place,
        input: Bytes,
        log: impl FnMut(String),
    ) -> Result<Option<Spool>, Failure> {
        let mut must_end = self.executable.processes.must_end.subscribe();
        if *must_end.borrow() {
            return Ok(None);
        }
        // Not in its own folder, where it could fill it.
        let spool = Spool::new(self.executable.processes.folders.path());
        let (mut running, streams) = self.executable.start(arguments, variables, place, &[]).await?;
        let (tell_full, is_full) = oneshot::channel();
        let mut ended = std::pin::pin!(watch(&mut running, self.timeout, is_full, &mut must_end));
        let ((input_end, output_end, error_end), keeps) = (streams, self.output.is_some());
        let mut drained = std::pin::pin!(async {
            let input = async {
                feed(input_end, &input).await;
                Ok(())
            };
            let words = async { Ok(listen(error_end, Words::new(log)).await) };
            let kept = tokio::try_join!(keep(output_end, spool, keeps, tell_full), words, input);
            kept.map(|(spool, words, ())| (spool, words))
                .map_err(|error| here("standard output cannot be kept", &error))
        });
        let mut kept = None;
        let ended = loop {
            tokio::select! {
                biased;
                // What cannot be kept ends the program.
                all = &mut drained, if kept.is_none() => kept = Some(all?),
                ended = &mut ended => break ended,
            }
        };
        let (kept, words) = match kept {
            Some((spool, words)) => (Some(spool), words),
            // No process is left, so the streams have ended, unless one was handed to a stranger.
            None => match tokio::time::timeout(DRAIN, drained).await {
                Ok(all) => all.map(|(spool, words)| (Some(spool), words))?,
                Err(_) => (None, String::new()),
            },
        };
        let ended = ended.map_err(|error| {
            // The program may have done it, so it is an attempt.
            let reason = format!("the program was ended, since the process that watches over it was killed: {error}");
            Failure::transient(FailureKind::Trap, reason)
        })?;
        let Some((ended, ending)) = ended else { return Ok(None) };
        match end::outcome(&ended, ending, &self.permanent) {
            Outcome::Done => {}
            Outcome::Failed { kind, reason, fatal } => {
                let failure = Failure { fatal, exit: exit_of(&ended), ..Failure::transient(kind.into(), reason) };
                return Err(failure.with_words(&words));
            }
        }
        let open = || {
            let reason = "the program ended, but another process has its standard output and goes on";
            Failure::transient(FailureKind::Output, reason)
        };
        kept.ok_or_else(open).map(Some)
    }
}

/// Returns the exit status of a program. `None` if a signal ended it.
fn exit_of(ended: &Ended) -> Option<i32> {
    match ended.status {
        Status::Exit(status) => Some(status),
        Status::Signal(_) => None,
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

/// Waits for the end of a program. Ends it when its time is over, it has written too much, or all must end: then, returns `None`.
async fn watch(
    running: &mut Running,
    timeout: Duration,
    is_full: oneshot::Receiver<Ending>,
    must_end: &mut Receiver<bool>,
) -> io::Result<Option<(Ended, Option<Ending>)>> {
    let (end, orders) = running.parts();
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
        ended = &mut ended => return Ok(Some((ended?, None))),
        ending = full => Some(ending),
        () = tokio::time::sleep(timeout) => Some(Ending::Timeout(timeout)),
        _ = must_end.wait_for(|must_end| *must_end) => None,
    };
    let ended = stop(ended, orders).await?;
    Ok(ending.map(|ending| (ended, Some(ending))))
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

#[cfg(test)]
mod tests;
