//! Runs a program on one item: one process, from its start until nothing of it is left.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::time::Duration;

use ciborium::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::sync::watch::Receiver;

use super::end::{self, Ending, Kind, Outcome};
use super::guard::message::{Ended, Status};
use super::process::{DRAIN, Executable, PART, Place, Running, here, listen, stop};
use super::spool::Spool;
use super::stdio::{self, Input, OutputError, Outputs};
use super::words::Words;
use crate::chain::arguments::Argument;
use crate::frame::cbor::value;
use crate::frame::format::Format;
use crate::frame::large::{Form, MAX_WHOLE};
use crate::run::failure::{Failure, FailureKind};
use crate::run::item::ItemBytes;
use crate::run::output::MAX_OUTPUT_BYTES;

/// The bytes of a file that are read at once.
const FILE_PART: usize = 512 << 10;

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
    /// The size of an output above which it is handed on in a file, if it is a text or a byte string.
    pub(crate) output_large: u64,
}

impl Program {
    /// Runs the program on an item, and returns its outputs once it has ended well. `log` takes the lines of its standard error.
    ///
    /// Dropping the future ends the program with all its processes.
    pub(crate) async fn run(
        &self,
        item: &ItemBytes,
        variables: Vec<(OsString, OsString)>,
        place: Place,
        log: impl FnMut(String),
    ) -> Result<Outputs, Failure> {
        let arguments = self.arguments(item).await?;
        let input = match self.input {
            Some(format) => stdio::input(format, item).await?,
            None => Input::default(),
        };
        let Some(spool) = self.process(arguments, variables, place, input, log).await? else {
            // The node is about to give the item back. It has neither succeeded nor failed.
            return std::future::pending().await;
        };
        Ok(Outputs::new(self.output, spool, self.output_large).map_err(OutputError::from)?)
    }

    /// Returns the memory that an item in a file takes, in bytes: 0 if it is read in parts.
    pub(crate) fn whole(&self, item: &ItemBytes) -> u64 {
        let is_read = matches!(self.input, Some(Format::Json | Format::Ndjson))
            || self.arguments.iter().any(Argument::has_fields);
        match item {
            // As it is, as a value, and as text.
            ItemBytes::File(file) if is_read && file.size() <= MAX_WHOLE => 3 * file.size(),
            _ => 0,
        }
    }

    /// Returns the arguments with the fields of an item.
    async fn arguments(&self, item: &ItemBytes) -> Result<Vec<OsString>, Failure> {
        let value = if self.arguments.iter().any(Argument::has_fields) { fields(item).await? } else { Value::Null };
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
        input: Input,
        log: impl FnMut(String),
    ) -> Result<Option<Spool>, Failure> {
        let mut must_end = self.executable.processes.must_end.subscribe();
        if *must_end.borrow() {
            return Ok(None);
        }
        // Not in its own folder, where it could fill it.
        let folder = self.executable.processes.folders.path();
        let spool = match self.output {
            Some(Format::Text) => Spool::of(folder, Form::Text),
            Some(Format::Bytes) => Spool::of(folder, Form::Bytes),
            _ => Spool::new(folder),
        };
        let (mut running, streams) = self.executable.start(arguments, variables, place, &[]).await?;
        let (tell_full, is_full) = oneshot::channel();
        let mut ended = std::pin::pin!(watch(&mut running, self.timeout, is_full, &mut must_end));
        let ((input_end, output_end, error_end), keeps) = (streams, self.output.is_some());
        let mut drained = std::pin::pin!(async {
            let input = async {
                let fed = feed(input_end, &input).await;
                fed.map_err(|error| here("the file of a large item cannot be read", &error))
            };
            let words = async { Ok(listen(error_end, Words::new(log)).await) };
            let kept = async {
                let kept = keep(output_end, spool, keeps, tell_full).await;
                kept.map_err(|error| here("standard output cannot be kept", &error))
            };
            tokio::try_join!(kept, words, input).map(|(spool, words, ())| (spool, words))
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

/// Returns the value whose fields arguments take. A text or a byte string has none, whatever its content.
async fn fields(item: &ItemBytes) -> Result<Value, Failure> {
    let bytes = match item {
        ItemBytes::Whole(bytes) => bytes.clone(),
        ItemBytes::File(file) => match file.form() {
            Form::Text => return Ok(Value::Text(String::new())),
            Form::Bytes => return Ok(Value::Bytes(Vec::new())),
            Form::Cbor => stdio::whole(file, "a program with fields in its arguments").await?,
        },
    };
    Ok(value(&bytes).unwrap_or(Value::Null))
}

/// Writes the input of a program. Input that is not read is no failure, and what cannot be read of its file is one.
async fn feed(mut input: pipe::Sender, Input { head, file }: &Input) -> io::Result<()> {
    if input.write_all(head).await.is_err() {
        return Ok(());
    }
    let Some(file) = file else { return Ok(()) };
    let (mut offset, mut part) = (0, vec![0; FILE_PART]);
    while offset < file.size() {
        let file = file.clone();
        let read = tokio::task::spawn_blocking(move || file.read_at(&mut part, offset).map(|bytes| (part, bytes)));
        let bytes;
        (part, bytes) = read.await.map_err(io::Error::other).flatten()?;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if input.write_all(&part[..bytes]).await.is_err() {
            return Ok(());
        }
        offset += bytes as u64;
    }
    Ok(())
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
