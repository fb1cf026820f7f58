//! The state of a world, and its answers.

use std::collections::{BTreeMap, VecDeque};

use pcluster_abi::call::{self, FailureKind};

use super::stores::Buckets;
use super::{Answer, Published, Sent, denied};
use crate::CallError;
use crate::cbor::fields::{Field, Writer, field};

/// The most names of a page unless the request says less.
const PAGE_MAX: usize = 1000;

/// All that a world knows.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The answers to each method and URL that are left.
    answers: BTreeMap<(String, String), VecDeque<Answer>>,
    pub(super) buckets: Buckets,
    pub(super) objects: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    pub(super) secrets: BTreeMap<String, String>,
    pub(super) requests: Vec<Sent>,
    pub(super) published: Vec<Published>,
}

/// A request as the world reads it.
pub(super) struct Asked<'a>(&'a [u8]);

impl<'a> Asked<'a> {
    /// Returns a text. Empty if there is none.
    pub(super) fn text(&self, key: &str) -> &'a str {
        match field(self.0, key) {
            Some(Field::Text(text)) => text,
            _ => "",
        }
    }

    /// Returns bytes. Empty if there are none.
    pub(super) fn bytes(&self, key: &str) -> &'a [u8] {
        match field(self.0, key) {
            Some(Field::Bytes(bytes)) => bytes,
            _ => self.text(key).as_bytes(),
        }
    }

    /// Returns a number. `None` if there is none.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        match field(self.0, key) {
            Some(Field::Number(number)) => Some(number),
            _ => None,
        }
    }

    /// Returns the `Idempotency-Key`. `None` if the request carries none.
    fn key(&self, method: &str) -> Option<&'a str> {
        match field(self.0, "idempotency") {
            Some(Field::Text(key)) => Some(key),
            None if !["GET", "HEAD", "OPTIONS", "TRACE"].contains(&method) => Some("{key}"),
            _ => None,
        }
    }

    fn headers(&self) -> Vec<(String, String)> {
        match field(self.0, "headers") {
            Some(Field::List(headers)) => headers.filter_map(header).collect(),
            _ => Vec::new(),
        }
    }

    /// Returns a page of names in their order, and whether more follow.
    pub(super) fn page<'n>(&self, names: impl Iterator<Item = &'n String>) -> (Vec<&'n String>, bool) {
        let (prefix, after) = (self.text("prefix"), self.text("after"));
        let most = self.number("limit").map_or(PAGE_MAX, |limit| usize::try_from(limit).unwrap_or(PAGE_MAX));
        let mut page: Vec<&String> =
            names.filter(|name| name.starts_with(prefix) && name.as_str() > after).take(most + 1).collect();
        let more = page.len() > most;
        page.truncate(most);
        (page, more)
    }
}

impl State {
    pub(super) fn add_answer(&mut self, method: &str, url: &str, answer: Answer) {
        self.answers.entry((method.to_owned(), url.to_owned())).or_default().push_back(answer);
    }

    /// Answers a call.
    pub(super) fn answer(&mut self, name: &str, request: &[u8]) -> Result<Writer, CallError> {
        let asked = Asked(request);
        match name {
            call::HTTP => self.http(&asked),
            call::KV_GET => self.buckets.get(&asked),
            call::KV_PUT | call::KV_CREATE | call::KV_UPDATE => self.buckets.write(name, &asked),
            call::KV_DELETE => self.buckets.delete(&asked),
            call::KV_KEYS => self.buckets.keys(&asked),
            call::OBJECTS_GET => self.object(&asked),
            call::OBJECTS_PUT => self.put_object(&asked),
            call::OBJECTS_LIST => self.list_objects(&asked),
            call::PUBLISH => Ok(self.publish(&asked)),
            call::SECRETS_GET => self.secret(&asked),
            _ => Err(CallError::new(FailureKind::Invalid, format!("there is no call `{name}`"))),
        }
    }

    fn http(&mut self, asked: &Asked<'_>) -> Result<Writer, CallError> {
        let (method, url) = (asked.text("method").to_owned(), asked.text("url").to_owned());
        let (mut headers, body) = (asked.headers(), asked.bytes("body").to_vec());
        headers.extend(asked.key(&method).map(|key| ("idempotency-key".to_owned(), key.to_owned())));
        self.requests.push(Sent { method: method.clone(), url: url.clone(), headers, body });
        let unknown = || {
            let line = format!(".http({method:?}, {url:?}, http::Response::for_test(200, \"…\"))");
            denied(format!("the world of this test does not answer {method} {url}: add `{line}`"))
        };
        let answers = self.answers.get_mut(&(method.clone(), url.clone())).ok_or_else(unknown)?;
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        answer.ok_or_else(unknown)?.0.map(|response| response.write(&url))
    }

    fn store(&mut self, asked: &Asked<'_>) -> Result<&mut BTreeMap<String, Vec<u8>>, CallError> {
        let store = asked.text("store");
        let line = format!(".object({store:?}, \"name\", \"data\")");
        let unknown = || denied(format!("the world of this test has no store `{store}`: add `{line}`"));
        self.objects.get_mut(store).ok_or_else(unknown)
    }

    fn object(&mut self, asked: &Asked<'_>) -> Result<Writer, CallError> {
        let name = asked.text("name");
        let absent = || CallError::new(FailureKind::NotFound, format!("there is no object `{name}`"));
        let data = self.store(asked)?.get(name).ok_or_else(absent)?;
        let at = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).min(data.len());
        let from = asked.number("from").unwrap_or(0);
        let to = asked.number("length").map_or(u64::MAX, |length| from.saturating_add(length));
        let mut answer = Writer::new();
        answer.bytes("data", &data[at(from)..at(to)]);
        describe(&mut answer, data);
        Ok(answer)
    }

    fn put_object(&mut self, asked: &Asked<'_>) -> Result<Writer, CallError> {
        let data = asked.bytes("data");
        self.store(asked)?.insert(asked.text("name").to_owned(), data.to_vec());
        let mut answer = Writer::new();
        describe(&mut answer, data);
        Ok(answer)
    }

    fn list_objects(&mut self, asked: &Asked<'_>) -> Result<Writer, CallError> {
        let store = self.store(asked)?;
        let (page, more) = asked.page(store.keys());
        let mut objects = Vec::new();
        for name in &page {
            let mut object = Writer::new();
            object.text("name", name);
            describe(&mut object, &store[*name]);
            objects.extend_from_slice(&object.finish());
        }
        let mut answer = Writer::new();
        answer.list("objects", page.len() as u64, &objects);
        answer.flag("more", more);
        Ok(answer)
    }

    fn publish(&mut self, asked: &Asked<'_>) -> Writer {
        let (subject, payload) = (asked.text("subject").to_owned(), asked.bytes("payload").to_vec());
        self.published.push(Published { subject, payload, headers: asked.headers() });
        let mut answer = Writer::new();
        if field(asked.0, "wait") == Some(Field::Flag(true)) {
            answer.text("stream", "test");
            answer.number("sequence", self.published.len() as u64);
            answer.flag("duplicate", false);
        }
        answer
    }

    fn secret(&self, asked: &Asked<'_>) -> Result<Writer, CallError> {
        let name = asked.text("name");
        let unknown =
            || denied(format!("the world of this test has no secret `{name}`: add `.secret({name:?}, \"…\")`"));
        let mut answer = Writer::new();
        answer.bytes("value", self.secrets.get(name).ok_or_else(unknown)?.as_bytes());
        Ok(answer)
    }
}

/// Adds the size and a digest. The digest only tells objects apart.
fn describe(answer: &mut Writer, data: &[u8]) {
    let fnv = data
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    answer.number("size", data.len() as u64);
    answer.text("digest", &format!("TEST={fnv:016x}"));
}

/// Returns a header with its secret, if it has one, as a name in braces.
fn header(pair: Field<'_>) -> Option<(String, String)> {
    let Field::List(mut pair) = pair else { return None };
    let Some(Field::Text(name)) = pair.next() else { return None };
    let value = match pair.next()? {
        Field::Text(text) => text.to_owned(),
        Field::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Field::Map(secret) => secret_text(&Asked(secret)),
        _ => return None,
    };
    Some((name.to_ascii_lowercase(), value))
}

fn secret_text(secret: &Asked<'_>) -> String {
    let name = secret.text("secret");
    match secret.text("basic") {
        "" => format!("{}{{{name}}}", secret.text("prefix")),
        user => format!("Basic {user}:{{{name}}}"),
    }
}
