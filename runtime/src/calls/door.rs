//! The door of a stage: every call of its items goes through it.
//!
//! A request is read, held against the grants and counted before anything is sent. What comes back is noted for the record of the
//! item, with secrets masked.

mod rules;
mod work;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use ciborium::Value;
use futures_util::future::BoxFuture;
use pcluster_abi::{Level, call};

use super::failure::{CallFailure, FailureKind};
use super::grant::Grants;
use super::http::client::{HttpClient, Sending};
use super::http::request::HttpRequest;
use super::key::{Caller, Keys, digest_of};
use super::memory;
use super::message::{Request, quoted};
use super::secrets::{Mask, SecretRequest, Secrets};
use super::stores::{StoreRequest, Stores};
use crate::dead::calls::{CallRecord, Called, OPEN, RECORD_MAX, Safety};
use crate::lock::lock;
use crate::run::call::{Answer, Calls};
use rules::{check_need, safety_of};
use work::Work;

/// The door of a stage.
pub(crate) struct Door {
    /// What the stage may reach.
    pub(crate) grants: Arc<Grants>,
    /// The groups of calls that its plugin lists.
    pub(crate) lists: BTreeSet<String>,
    /// Its HTTP client.
    pub(crate) http: HttpClient,
    /// The stores of the node.
    pub(crate) stores: Arc<dyn Stores>,
    /// The secrets of the node.
    pub(crate) secrets: Arc<Secrets>,
}

/// What an item tells its door.
pub(crate) trait Item: Send + Sync {
    /// Returns the digest of what the last attempt sent under a key. `None` if that is unknown.
    fn sent(&self, key: &str) -> Option<String>;

    /// Takes a line for the log of the item.
    fn log(&self, level: Level, line: String);
}

/// The door of a stage for one item.
pub(crate) struct ItemDoor {
    door: Arc<Door>,
    /// `None` for the initializer of a task, which has no item.
    caller: Option<(Caller, Box<dyn Item>)>,
    mask: Mask,
    received: AtomicU64,
    state: Mutex<State>,
    notes: Notes,
}

/// Where the calls of an item are noted.
#[derive(Clone, Default)]
pub(crate) struct Notes {
    /// The record. Items of inline stages share that of the item that they descend from.
    pub(crate) record: Arc<Mutex<CallRecord>>,
    /// The id of the item in an inline stage. `None` in a stage with a queue.
    pub(crate) of: Option<String>,
    /// Counts how long the calls take, in microseconds. `None` if that is not recorded.
    pub(crate) spent: Option<Arc<AtomicU64>>,
}

#[derive(Default)]
struct State {
    calls: u32,
    sent: u64,
    keys: Keys,
}

/// A call that has begun.
struct Begun {
    work: Work,
    /// Its place in the record. `None` if there was no room.
    place: Option<usize>,
}

impl Door {
    /// Opens the door for an item.
    pub(crate) fn open(self: &Arc<Self>, caller: Caller, item: Box<dyn Item>, notes: Notes) -> Arc<ItemDoor> {
        self.open_for(Some((caller, item)), notes)
    }

    /// Opens the door for the initializer of the task. It may read stores, and nothing else.
    pub(crate) fn open_for_init(self: &Arc<Self>) -> Arc<ItemDoor> {
        self.open_for(None, Notes::default())
    }

    fn open_for(self: &Arc<Self>, caller: Option<(Caller, Box<dyn Item>)>, notes: Notes) -> Arc<ItemDoor> {
        Arc::new(ItemDoor {
            door: Arc::clone(self),
            caller,
            mask: Mask::default(),
            received: AtomicU64::new(0),
            state: Mutex::default(),
            notes,
        })
    }

    /// Checks that the stage may make a call at all.
    fn check(&self, name: &str) -> Result<(), CallFailure> {
        let group = name.split('.').next().unwrap_or_default();
        if !call::GROUPS.contains(&group) {
            return Err(CallFailure::invalid(format!("there is no call `{}`", quoted(name))));
        }
        if !self.lists.contains(group) {
            let problem = format!(
                "the plugin does not list `{group}` among the calls of this task; list it, as in `#[task(calls({group}))]`"
            );
            return Err(CallFailure::denied(problem));
        }
        if !self.grants.has(group) {
            return Err(CallFailure::denied(format!("the stage grants no `{group}`; grant it in [stage.allow]")));
        }
        Ok(())
    }
}

impl ItemDoor {
    /// Takes note of a call that is not made, because its answer is known. Later calls get the same keys as after a real one.
    pub(crate) fn pass_over(&self, name: &str, request: &[u8]) {
        // A refusal is the answer that is known.
        let _ = self.begin(name, request);
    }

    /// Checks and notes a call that somebody else answers. Returns what it is made to.
    ///
    /// # Errors
    ///
    /// The answer, if the call is refused.
    pub(crate) fn stand_aside(&self, name: &str, request: &[u8]) -> Result<String, Answer> {
        self.begin(name, request).map(|begun| begun.work.target()).map_err(|failure| failure.answer())
    }

    /// Begins a call: reads it, checks it and notes it.
    fn begin(&self, name: &str, request: &[u8]) -> Result<Begun, CallFailure> {
        let mut state = lock(&self.state);
        let limits = &self.door.grants.limits;
        if state.calls >= limits.calls {
            let problem = format!(
                "the item has made {} calls, the most that its stage allows; see `limits` in [stage.allow]",
                limits.calls
            );
            return Err(CallFailure::new(FailureKind::TooLarge, problem));
        }
        state.calls += 1;
        let checked = self.read(name, request, &mut state);
        let (called, work) = match checked {
            Ok((called, work)) => (called, Ok(work)),
            Err(failure) => {
                let target = quoted(name);
                (called(&target, String::new(), Safety::Safe, request), Err(failure))
            }
        };
        self.warn_of_change(&called);
        let called = Called { item: self.notes.of.clone(), ..called };
        let place = lock(&self.notes.record).add(called);
        match work {
            Ok(work) => Ok(Begun { work, place }),
            Err(failure) => {
                if let Some(place) = place {
                    let answer = self.recorded(&failure.encode());
                    lock(&self.notes.record).end(place, failure.kind.name().to_owned(), 0, true, answer);
                }
                Err(failure)
            }
        }
    }

    fn read(&self, name: &str, request: &[u8], state: &mut State) -> Result<(Called, Work), CallFailure> {
        self.door.check(name)?;
        let limit = self.door.grants.limits.sent;
        let mut fields = Request::read(request)?;
        let mut count = |bytes: u64| {
            state.sent = state.sent.saturating_add(bytes);
            if state.sent > limit {
                let problem = format!(
                    "the item has sent more than {limit} bytes, the most that its stage allows; see `limits` in [stage.allow]"
                );
                return Err(CallFailure::new(FailureKind::TooLarge, problem));
            }
            Ok(())
        };
        if self.caller.is_none()
            && !matches!(name, call::KV_GET | call::KV_KEYS | call::OBJECTS_GET | call::OBJECTS_LIST)
        {
            return Err(CallFailure::denied(format!(
                "`{name}` needs an item; an initializer may read kv and objects alone"
            )));
        }
        match name {
            call::HTTP => {
                let http = HttpRequest::read(&mut fields)?;
                fields.end()?;
                count(http.bytes())?;
                if let Some(refusal) = self.door.grants.http_refusal(&http.target) {
                    return Err(CallFailure::denied(refusal.to_string()));
                }
                let (method, url) = (http.method.as_str().to_owned(), http.target.url().to_string());
                let key = http.needs_key().then(|| self.key(state, &method, &url)).flatten();
                let safety = match &key {
                    _ if http.is_safe() => Safety::Safe,
                    None if http.own_key().is_none() => Safety::Unsafe,
                    _ => Safety::Keyed,
                };
                let mut called = called(name, self.masked(&format!("{method} {url}")), safety, request);
                called.key = key.clone().or_else(|| http.own_key().map(|key| self.masked(&key)));
                called.body = called.key.is_some().then(|| digest_of(&http.body));
                Ok((called, Work::Http(Box::new(http), key)))
            }
            call::SECRETS_GET => {
                let secret = SecretRequest::read(&mut fields)?;
                fields.end()?;
                secret.check(&self.door.grants)?;
                Ok((called(name, secret.name.to_string(), Safety::Safe, request), Work::Secret(secret)))
            }
            _ => {
                let store = StoreRequest::read(name, &mut fields)?;
                fields.end()?;
                count(store.bytes() as u64)?;
                check_need(&self.door.grants, store.need())?;
                let target = store.target();
                let key = (name == call::PUBLISH).then(|| self.key(state, name, &target)).flatten();
                let mut called = called(name, target, safety_of(name), request);
                called.body = key.is_some().then(|| digest_of(payload(&store)));
                called.key.clone_from(&key);
                Ok((called, Work::Store(store, key)))
            }
        }
    }

    /// Returns a text as it may be shown.
    fn masked(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.mask.apply(text.as_bytes())).into_owned()
    }

    fn key(&self, state: &mut State, method: &str, target: &str) -> Option<String> {
        self.caller.as_ref().map(|(caller, _)| state.keys.next(caller, method, target))
    }

    /// Tells in the log if a call sends something else under the key of the attempt before.
    fn warn_of_change(&self, called: &Called) {
        let (Some((_, item)), Some(key), Some(body)) = (&self.caller, &called.key, &called.body) else { return };
        if item.sent(key).is_some_and(|before| before != *body) {
            let target = &called.target;
            item.log(
                Level::Warn,
                format!("`{target}` is sent another body than at the attempt before under the same key {key}; the other side may ignore it"),
            );
        }
    }

    /// Returns an answer as it is recorded. `None` if bodies are not recorded.
    fn recorded(&self, answer: &[u8]) -> Option<String> {
        if !self.door.grants.records_bodies {
            return None;
        }
        if answer.len() > RECORD_MAX {
            return Some(String::new());
        }
        let mut answer: Value = ciborium::from_reader(answer).ok()?;
        self.hide(&mut answer);
        let mut masked = Vec::new();
        ciborium::into_writer(&answer, &mut masked).ok()?;
        Some(BASE64_STANDARD.encode(masked))
    }

    /// Hides secrets in all texts and bytes of an answer.
    fn hide(&self, answer: &mut Value) {
        match answer {
            Value::Text(text) => *text = self.masked(text),
            Value::Bytes(bytes) => *bytes = self.mask.apply(bytes).into(),
            Value::Array(values) => values.iter_mut().for_each(|value| self.hide(value)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| self.hide(value)),
            _ => {}
        }
    }

    /// Makes a call that is allowed.
    async fn run(&self, work: Work) -> Result<(Bytes, String), CallFailure> {
        let limits = &self.door.grants.limits;
        let room = limits.received.saturating_sub(self.received.load(Relaxed));
        let ok = |bytes: Bytes| (bytes, "ok".to_owned());
        match work {
            Work::Http(request, key) => {
                let sending = Sending {
                    grants: &self.door.grants,
                    key,
                    room: room.min(limits.body),
                    mask: &self.mask,
                    received: &self.received,
                };
                let response = self.door.http.send(*request, sending).await?;
                let (bytes, outcome) = (response.encode(), response.status.to_string());
                Ok((response.held.keep(bytes), outcome))
            }
            Work::Store(request, key) => {
                // Each byte is there twice for a moment.
                let room = room.min(memory::NODE_MAX as u64 / 2);
                let response = Arc::clone(&self.door.stores).run(request, room, key).await?;
                self.received.fetch_add(response.len() as u64, Relaxed);
                Ok(ok(response))
            }
            Work::Secret(secret) => Ok(ok(secret.answer(&self.door.secrets, &self.mask).await?)),
        }
    }

    async fn finish(&self, Begun { work, place }: Begun) -> Answer {
        let started = Instant::now();
        let _spending = self.notes.spent.as_ref().map(|spent| Spending { spent, started });
        let ran = self.run(work).await;
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (answer, outcome, failed) = match ran {
            Ok((response, outcome)) => (Answer::Response(response), outcome, false),
            Err(failure) => (failure.answer(), failure.kind.name().to_owned(), true),
        };
        if let Some(place) = place {
            let (Answer::Response(bytes) | Answer::Failure(bytes)) = &answer;
            lock(&self.notes.record).end(place, outcome, ms, failed, self.recorded(bytes));
        }
        answer
    }
}

/// Counts the time of a call, also of one that is dropped.
struct Spending<'a> {
    spent: &'a AtomicU64,
    started: Instant,
}

impl Drop for Spending<'_> {
    fn drop(&mut self) {
        self.spent.fetch_add(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl Calls for ItemDoor {
    fn call(self: Arc<Self>, name: &str, request: &[u8]) -> BoxFuture<'static, Answer> {
        let begun = self.begin(name, request);
        Box::pin(async move {
            match begun {
                Ok(begun) => self.finish(begun).await,
                Err(failure) => failure.answer(),
            }
        })
    }

    fn record(&self) -> Option<Arc<CallRecord>> {
        let record = lock(&self.notes.record);
        (!record.calls.is_empty()).then(|| Arc::new(record.clone()))
    }
}

fn called(name: &str, target: String, safety: Safety, request: &[u8]) -> Called {
    Called {
        call: name.to_owned(),
        target,
        outcome: OPEN.to_owned(),
        ms: 0,
        safety,
        key: None,
        request: digest_of(request),
        body: None,
        answer: None,
        answer_cut: false,
        failed: false,
        item: None,
    }
}

/// Returns what a message carries, or nothing.
fn payload(request: &StoreRequest) -> &[u8] {
    match request {
        StoreRequest::Publish(message) => &message.payload,
        _ => &[],
    }
}

#[cfg(test)]
mod tests;
