//! An item that a worker holds, and its answer.

use std::io::{BufRead, Read};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Item;
use super::protocol::{Failed, Output};
use crate::frame::large::MAX_WHOLE;
use crate::program::process::here;
use crate::program::spool::Spool;
use crate::program::stdio::OutputError;
use crate::run::failure::{Failure, FailureKind};
use crate::run::output::{MAX_OUTPUT_BYTES, MAX_OUTPUTS};

/// An item that a worker holds.
pub(super) struct Held {
    pub(super) request: u64,
    /// The id of the item.
    pub(super) id: String,
    /// How many bytes of the channel were written before its line. `None` if nothing of the line was.
    pub(super) begin: Option<u64>,
    _keep: Option<Arc<dyn Send + Sync>>,
    began: Instant,
    spool: Spool,
    outputs: usize,
    /// Why it fails even if the worker says that it is done.
    failure: Option<Failure>,
    answer: oneshot::Sender<Answer>,
}

/// What has become of an item.
pub(super) enum Answer {
    /// It is done.
    Done(Answers),
    /// It has failed.
    Failed(Failure),
    /// The worker has ended and had read nothing of it.
    Unread,
}

/// The outputs of an item that is done.
pub(crate) struct Answers {
    /// When the item was handed to the worker.
    pub(crate) began: Instant,
    from: Box<dyn BufRead + Send>,
    left: usize,
}

impl Held {
    /// Creates an item that begins now. Returns its answer beside it.
    pub(super) fn new(request: u64, item: &Item<'_>, spool: Spool) -> (Self, oneshot::Receiver<Answer>) {
        let (answer, receiver) = oneshot::channel();
        let (id, keep, began) = (item.id.to_owned(), item.keep.clone(), Instant::now());
        (Self { request, id, begin: None, _keep: keep, began, spool, outputs: 0, failure: None, answer }, receiver)
    }

    /// Adds an output. Fails if it is one too many.
    pub(super) fn add(&mut self, output: &Output<'_>) -> Result<(), Failure> {
        self.outputs += 1;
        if self.failure.is_some() {
            return Ok(());
        }
        let number = self.outputs;
        if number > MAX_OUTPUTS {
            return Err(OutputError::Many.into());
        }
        let item = match output.item() {
            Ok(item) if item.len() as u64 <= MAX_WHOLE => item,
            Ok(item) => {
                let [size, most] = [item.len() as u64, MAX_WHOLE].map(bytesize::ByteSize);
                return self.wrong(&format!("it has {size}, and an output of a worker has at most {most}"));
            }
            Err(problem) => return self.wrong(&problem),
        };
        let Ok(length) = u32::try_from(item.len()) else { return self.wrong("too long") };
        let kept = self.spool.append(&length.to_le_bytes()).and_then(|()| self.spool.append(&item));
        if let Err(error) = kept {
            self.failure = Some(here("its outputs cannot be kept", &error));
        }
        if self.spool.bytes() > MAX_OUTPUT_BYTES {
            let most = bytesize::ByteSize(MAX_OUTPUT_BYTES);
            let reason = format!("the worker wrote more than the {most} that the outputs of an item may take");
            return Err(Failure::fatal(FailureKind::Output, reason));
        }
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "the worker goes on: it holds to the protocol")]
    fn wrong(&mut self, problem: &str) -> Result<(), Failure> {
        self.failure = Some(Failure::fatal(FailureKind::Output, format!("output {}: {problem}", self.outputs)));
        Ok(())
    }

    /// Returns `true` if the worker has given an output of the item.
    pub(super) fn has_outputs(&self) -> bool {
        self.outputs > 0
    }

    /// Ends the item as done.
    pub(super) fn done(self) {
        let (began, left) = (self.began, self.outputs);
        let answer = match self.failure {
            Some(failure) => Answer::Failed(failure),
            None => match self.spool.into_reader() {
                Ok(from) => Answer::Done(Answers { began, from, left }),
                Err(error) => Answer::Failed(here("its outputs cannot be read back", &error)),
            },
        };
        // If nobody waits for it, the worker is about to end.
        let _ = self.answer.send(answer);
    }

    /// Ends the item as one that the worker says has failed.
    pub(super) fn failed(self, failed: Failed) {
        let retry_after = failed.retry_after();
        self.end(Answer::Failed(Failure {
            fatal: failed.permanent,
            backtrace: failed.trace,
            retry_after,
            ..Failure::transient(FailureKind::Error, failed.message)
        }));
    }

    /// Ends the item.
    pub(super) fn end(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }
}

impl Answers {
    /// Returns the next output. `None` if there is no other.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let mut length = [0; 4];
        let read = self.from.read_exact(&mut length).and_then(|()| {
            let mut item = vec![0; u32::from_le_bytes(length) as usize];
            self.from.read_exact(&mut item).map(|()| item)
        });
        read.map(|item| Some(item.into())).map_err(|error| here("its outputs cannot be read back", &error))
    }
}
