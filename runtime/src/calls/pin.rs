//! What an initializer read, pinned: the same for every node that makes the state of the same revision.
//!
//! The first node notes each answer. All others answer from these notes, in order, whatever has become of what was read.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::failure::{CallFailure, FailureKind};
use super::key::digest_of;
use super::message::quoted;
use crate::lock::lock;
use crate::run::call::{Answer, Calls};

/// The most bytes of the answers of one initializer. A snapshot has no more either.
const BYTES_MAX: usize = 256 << 20;

/// An answer that an initializer got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PinnedAnswer {
    /// The name of the call.
    call: String,
    /// A digest of the request.
    request: String,
    /// `true` if the call failed.
    failed: bool,
    /// The answer in CBOR.
    #[serde(with = "bytes_as_cbor")]
    answer: Bytes,
}

/// The answers that an initializer got, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pin(Vec<PinnedAnswer>);

impl Pin {
    /// Returns `true` if the initializer called nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the pin in CBOR.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        ciborium::into_writer(self, &mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    /// Reads a pin.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        ciborium::from_reader(bytes).map_err(|error| error.to_string())
    }
}

/// The calls of an initializer, which are noted, or answered from notes.
pub(crate) struct PinnedCalls {
    /// What is called. `None` if all is answered from notes.
    calls: Option<Arc<dyn Calls>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    noted: Vec<PinnedAnswer>,
    bytes: usize,
    left: VecDeque<PinnedAnswer>,
    problem: Option<String>,
}

impl PinnedCalls {
    /// Creates calls whose answers are noted.
    pub(crate) fn note(calls: Arc<dyn Calls>) -> Arc<Self> {
        Arc::new(Self { calls: Some(calls), state: Mutex::default() })
    }

    /// Creates calls that are answered from a pin.
    pub(crate) fn answer(pin: Pin) -> Arc<Self> {
        let state = State { left: pin.0.into(), ..State::default() };
        Arc::new(Self { calls: None, state: Mutex::new(state) })
    }

    /// Returns what was noted.
    ///
    /// # Errors
    ///
    /// If the answers cannot be pinned, or others were called than those of the pin.
    pub(crate) fn end(&self) -> Result<Pin, String> {
        let mut state = lock(&self.state);
        match (state.problem.take(), state.left.front()) {
            (Some(problem), _) => Err(problem),
            (None, Some(left)) => Err(changed(&left.call)),
            (None, None) => Ok(Pin(std::mem::take(&mut state.noted))),
        }
    }

    fn note_answer(&self, call: String, request: String, answer: &Answer) {
        let mut state = lock(&self.state);
        let (failed, answer) = match answer {
            Answer::Response(bytes) => (false, bytes.clone()),
            Answer::Failure(bytes) => (true, bytes.clone()),
        };
        if failed && is_transient(&answer) {
            state.problem = Some(format!("`{call}` failed for now; it is tried again"));
        }
        state.bytes += answer.len();
        if state.bytes > BYTES_MAX {
            state.problem = Some(format!("its initializer reads more than {} MiB", BYTES_MAX >> 20));
            return;
        }
        state.noted.push(PinnedAnswer { call, request, failed, answer });
    }

    fn next(&self, call: &str, request: &str) -> Answer {
        let mut state = lock(&self.state);
        match state.left.pop_front() {
            Some(next) if next.call == call && next.request == request => {
                if next.failed {
                    Answer::Failure(next.answer)
                } else {
                    Answer::Response(next.answer)
                }
            }
            _ => {
                let problem = changed(call);
                state.problem = Some(problem.clone());
                CallFailure::new(FailureKind::Conflict, problem).answer()
            }
        }
    }
}

fn changed(call: &str) -> String {
    format!(
        "its initializer calls something else at `{}` than when it ran first; what it calls must not depend on time or chance",
        quoted(call)
    )
}

fn is_transient(failure: &[u8]) -> bool {
    let flag = super::message::Request::read(failure).and_then(|mut request| request.flag("transient"));
    flag.is_ok_and(|flag| flag == Some(true))
}

impl Calls for PinnedCalls {
    fn call(self: Arc<Self>, name: &str, request: &[u8]) -> BoxFuture<'static, Answer> {
        let (call, digest) = (name.to_owned(), digest_of(request));
        let Some(calls) = &self.calls else {
            let answer = self.next(&call, &digest);
            return Box::pin(std::future::ready(answer));
        };
        let answering = Arc::clone(calls).call(name, request);
        Box::pin(async move {
            let answer = answering.await;
            self.note_answer(call, digest, &answer);
            answer
        })
    }
}

/// Bytes as a CBOR byte string.
mod bytes_as_cbor {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Bytes, D::Error> {
        match ciborium::Value::deserialize(deserializer)? {
            ciborium::Value::Bytes(bytes) => Ok(bytes.into()),
            _ => Err(serde::de::Error::custom("the answer is no byte string")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

    use super::*;

    /// Answers each call with a number that rises.
    #[derive(Default)]
    struct Counter(AtomicU8);

    impl Calls for Counter {
        fn call(self: Arc<Self>, name: &str, _: &[u8]) -> BoxFuture<'static, Answer> {
            let number = self.0.fetch_add(1, Relaxed);
            let answer = match name {
                "away" => CallFailure::unavailable("away").answer(),
                "none" => CallFailure::new(FailureKind::NotFound, "none").answer(),
                _ => Answer::Response(vec![number].into()),
            };
            Box::pin(std::future::ready(answer))
        }
    }

    async fn ask(calls: &Arc<PinnedCalls>, all: &[(&str, &[u8])]) -> Vec<Answer> {
        let mut answers = Vec::new();
        for (name, request) in all {
            answers.push(Arc::clone(calls).call(name, request).await);
        }
        answers
    }

    #[tokio::test]
    async fn every_later_run_gets_the_answers_of_the_first() {
        let asked: &[(&str, &[u8])] = &[("kv.get", b"a"), ("none", b"b"), ("kv.get", b"a")];
        let first = PinnedCalls::note(Arc::<Counter>::default());
        let answers = ask(&first, asked).await;
        let pin = Pin::decode(&first.end().expect("a pin").encode().expect("bytes")).expect("a pin");
        let later = PinnedCalls::answer(pin.clone());
        assert_eq!(ask(&later, asked).await, answers);
        assert_eq!(later.end(), Ok(Pin::default()));
        for other in [&[("kv.get", b"b".as_slice())][..], &asked[..2], &[("kv.keys", b"a")]] {
            let later = PinnedCalls::answer(pin.clone());
            ask(&later, other).await;
            assert!(later.end().expect_err("changed").starts_with("its initializer calls something else"));
        }
    }

    #[tokio::test]
    async fn what_failed_for_now_is_not_pinned() {
        let first = PinnedCalls::note(Arc::<Counter>::default());
        ask(&first, &[("kv.get", b"a"), ("away", b"")]).await;
        assert_eq!(first.end(), Err("`away` failed for now; it is tried again".to_owned()));
    }
}
