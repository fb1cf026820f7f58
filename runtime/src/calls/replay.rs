//! The calls of an item that runs again, answered from the record of its dead letter.
//!
//! Each call is held against the one that the last attempt made at this place. At the first that differs, or whose answer is not
//! recorded, the replay stops, or all further calls are made for real.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::door::ItemDoor;
use super::key::digest_of;
use super::message::quoted;
use crate::dead::calls::{CallRecord, Called, RECORD_MAX};
use crate::lock::lock;
use crate::run::call::{Answer, Calls};

/// Why a call is not answered from the record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Departure {
    /// The letter has no record, because the last attempt ended with its node.
    #[error("call {number}, `{call}`: the last attempt ended with its node, and nothing is known of what it called")]
    Lost {
        /// The number of the call, from 1.
        number: usize,
        /// The name of the call.
        call: String,
    },
    /// The last attempt made another call.
    #[error("call {number} differs: it is `{call}`{as_well}, and the last attempt made {recorded}")]
    Other {
        /// The number of the call, from 1.
        number: usize,
        /// The name of the call.
        call: String,
        /// Tells that the names are equal. Empty if they are not.
        as_well: &'static str,
        /// What the last attempt called.
        recorded: String,
    },
    /// The last attempt made no further call.
    #[error(
        "call {number} differs: it is `{call}`, and the last attempt made no call there, as far as its letter tells"
    )]
    Further {
        /// The number of the call, from 1.
        number: usize,
        /// The name of the call.
        call: String,
    },
    /// The record has no room for further calls.
    #[error("call {number}, `{call}`: the record was cut before it; a letter has room for {} KiB of calls", RECORD_MAX >> 10)]
    Cut {
        /// The number of the call, from 1.
        number: usize,
        /// The name of the call.
        call: String,
    },
    /// The attempt ended before the call had an answer.
    #[error("call {number}, {recorded}: the last attempt ended before it had an answer")]
    Open {
        /// The number of the call, from 1.
        number: usize,
        /// What the last attempt called.
        recorded: String,
    },
    /// The record has no room for the answer.
    #[error("call {number}, {recorded}: its answer was cut from the record; a letter has room for {} KiB of calls", RECORD_MAX >> 10)]
    AnswerCut {
        /// The number of the call, from 1.
        number: usize,
        /// What the last attempt called.
        recorded: String,
    },
    /// The stage records no answers.
    #[error(
        "call {number}, {recorded}: its answer is not recorded; set `record = \"bodies\"` in the `[stage.allow]` of stage \
         `{stage}`, and letters of the next version have answers"
    )]
    NotRecorded {
        /// The number of the call, from 1.
        number: usize,
        /// What the last attempt called.
        recorded: String,
        /// The stage.
        stage: String,
    },
}

/// What happens in a replay.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// A call was answered from the record.
    Recorded(&'a Called),
    /// A call was made for real.
    Live(&'a Called),
    /// All further calls are made for real.
    Departed(&'a Departure),
}

/// Takes what happens in a replay.
type Tell = Box<dyn Fn(Event<'_>) + Send + Sync>;

/// The calls of a replay, over all its stages.
pub(crate) struct Replay {
    state: Mutex<State>,
    departure: watch::Sender<Option<Departure>>,
    tell: Tell,
}

#[derive(Default)]
struct State {
    /// The recorded calls that were not made again, by item. `None` names the stage with a queue.
    left: BTreeMap<Option<String>, VecDeque<Called>>,
    is_cut: bool,
    is_lost: bool,
    is_live: bool,
    made: Vec<Called>,
    begun: usize,
}

/// What an item of a replay may call.
pub(crate) struct ReplayedCalls {
    /// The replay.
    pub(crate) replay: Arc<Replay>,
    /// The id of the item in an inline stage. `None` in the stage with a queue.
    pub(crate) item: Option<String>,
    /// The stage.
    pub(crate) stage: String,
    /// Makes calls for real. `None` if none is.
    pub(crate) live: Option<Arc<ItemDoor>>,
}

impl Replay {
    /// Creates the calls of a replay. `record` is that of the letter. `is_lost`: the last attempt ended with its node.
    pub(crate) fn new(record: Option<&CallRecord>, is_lost: bool, tell: Tell) -> Arc<Self> {
        let mut state = State { is_lost: is_lost && record.is_none(), ..State::default() };
        for called in record.map(|record| record.calls.as_slice()).unwrap_or_default() {
            state.left.entry(called.item.clone()).or_default().push_back(called.clone());
        }
        state.is_cut = record.is_some_and(|record| record.left_off > 0);
        Arc::new(Self { state: Mutex::new(state), departure: watch::Sender::new(None), tell })
    }

    /// Waits for the call at which the replay stops.
    pub(crate) async fn departure(&self) -> Departure {
        let mut departure = self.departure.subscribe();
        loop {
            if let Some(departure) = departure.borrow_and_update().clone() {
                return departure;
            }
            if departure.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Returns the calls so far in order, with their answers.
    pub(crate) fn made(&self) -> Vec<Called> {
        lock(&self.state).made.clone()
    }

    /// Returns how many recorded calls were not made again.
    pub(crate) fn left(&self) -> usize {
        lock(&self.state).left.values().map(VecDeque::len).sum()
    }

    fn note(&self, called: &Called) {
        lock(&self.state).made.push(called.clone());
    }
}

impl ReplayedCalls {
    /// Returns the recorded answer to a call. `None` if the replay has left the record already.
    fn recorded(&self, name: &str, request: &[u8]) -> Option<Result<(Called, Answer), Departure>> {
        let mut state = lock(&self.replay.state);
        state.begun += 1;
        if state.is_live {
            return None;
        }
        let (number, call) = (state.begun, quoted(name));
        let next = state.left.get_mut(&self.item).and_then(VecDeque::pop_front);
        let Some(called) = next else {
            return Some(Err(match (state.is_lost, state.is_cut) {
                (true, _) => Departure::Lost { number, call },
                (_, true) => Departure::Cut { number, call },
                _ => Departure::Further { number, call },
            }));
        };
        Some(self.answer(called, number, name, request))
    }

    fn answer(&self, called: Called, number: usize, name: &str, request: &[u8]) -> Result<(Called, Answer), Departure> {
        let recorded = format!("`{} {}`", called.call, called.target);
        if called.call != name || called.request != digest_of(request) {
            let as_well = if called.call == name { " with another request" } else { "" };
            return Err(Departure::Other { number, call: quoted(name), as_well, recorded });
        }
        let answer = called.answer.as_ref().and_then(|answer| BASE64_STANDARD.decode(answer).ok()).map(Bytes::from);
        match answer {
            Some(answer) if called.failed => Ok((called, Answer::Failure(answer))),
            Some(answer) => Ok((called, Answer::Response(answer))),
            None if called.is_open() => Err(Departure::Open { number, recorded }),
            None if called.answer_cut => Err(Departure::AnswerCut { number, recorded }),
            None => Err(Departure::NotRecorded { number, recorded, stage: self.stage.clone() }),
        }
    }

    /// Leaves the record.
    fn depart(&self, departure: Departure) {
        if self.live.is_none() {
            self.replay.departure.send_replace(Some(departure));
            return;
        }
        lock(&self.replay.state).is_live = true;
        (self.replay.tell)(Event::Departed(&departure));
    }
}

impl Calls for ReplayedCalls {
    fn call(self: Arc<Self>, name: &str, request: &[u8]) -> BoxFuture<'static, Answer> {
        match self.recorded(name, request) {
            Some(Ok((called, answer))) => {
                if let Some(door) = &self.live {
                    door.pass_over(name, request);
                }
                (self.replay.tell)(Event::Recorded(&called));
                self.replay.note(&called);
                return Box::pin(std::future::ready(answer));
            }
            Some(Err(departure)) => self.depart(departure),
            None => {}
        }
        // Without a door, the replay stops here: whoever waits for the departure drops the run.
        let Some(door) = self.live.clone() else { return Box::pin(std::future::pending()) };
        let (call, digest) = (name.to_owned(), digest_of(request));
        let answering = Arc::clone(&door).call(name, request);
        Box::pin(async move {
            let answer = answering.await;
            // One call of an item at a time, so the last that is noted is this one, if there was room.
            let record = door.record();
            let last = record.as_ref().and_then(|record| record.calls.last());
            if let Some(called) = last.filter(|last| last.call == call && last.request == digest) {
                (self.replay.tell)(Event::Live(called));
                self.replay.note(called);
            }
            answer
        })
    }
}

#[cfg(test)]
mod tests;
