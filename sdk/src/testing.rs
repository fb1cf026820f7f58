//! A world for native tests of tasks that call.
//!
//! ```
//! use pcluster_sdk::testing::World;
//! use pcluster_sdk::{CallError, Error, FailureKind, http, kv, task};
//!
//! /// Returns the length of a page, and fetches each page once.
//! #[task(calls(http, kv))]
//! fn length(url: String) -> Result<usize, Error> {
//!     let cache = kv::bucket("lengths");
//!     if let Some(entry) = cache.get("page")? {
//!         return Ok(entry.text()?.parse()?);
//!     }
//!     let length = http::get(&url).send()?.error_for_status()?.body().len();
//!     cache.put("page", length.to_string())?;
//!     Ok(length)
//! }
//!
//! // In a `#[test]`, with no cluster:
//! const URL: &str = "https://example.com/page";
//! let world = World::new().http("GET", URL, http::Response::for_test(200, "four")).kv("lengths", &[]);
//! assert_eq!(world.run(|| length(URL.to_owned())).unwrap(), 4);
//! assert_eq!(world.run(|| length(URL.to_owned())).unwrap(), 4);
//! assert_eq!(world.requests().len(), 1);
//! assert_eq!(world.entry("lengths", "page").as_deref(), Some(&b"4"[..]));
//!
//! let away = CallError::for_test(FailureKind::Unavailable, "connection refused");
//! let world = World::new().http("GET", URL, away).kv("lengths", &[]);
//! assert!(!world.run(|| length(URL.to_owned())).unwrap_err().is_fatal());
//! ```
//!
//! A call that the world does not know is denied, as one that is not granted is on a node.

mod state;
mod stores;

use std::cell::RefCell;
use std::rc::Rc;

use pcluster_abi::call::FailureKind;

use self::state::State;
use crate::CallError;
use crate::cbor::fields::Writer;
use crate::http::Response;

/// What the calls of a test meet, and what they have done.
///
/// Clones share one world.
#[derive(Debug, Clone, Default)]
pub struct World(Rc<RefCell<State>>);

/// A request that a task has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// The method, such as `GET`.
    pub method: String,
    /// The URL.
    pub url: String,
    /// The headers in their order, with names in lower case. A secret shows as its name in braces, as in `Bearer {api_token}`, and
    /// the node's `Idempotency-Key` as `{key}`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// A message that a task has published.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The subject.
    pub subject: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// The headers in their order.
    pub headers: Vec<(String, String)>,
}

/// What an HTTP request is answered with: a [`Response`] or a [`CallError`].
#[derive(Debug, Clone)]
pub struct Answer(Result<Response, CallError>);

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self(Ok(response))
    }
}

impl From<CallError> for Answer {
    fn from(error: CallError) -> Self {
        Self(Err(error))
    }
}

thread_local! {
    /// The world of the code that runs.
    static CURRENT: RefCell<Option<World>> = const { RefCell::new(None) };
}

impl World {
    /// Creates a world that knows no calls.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers requests with this method and URL. Several answers are given one after the other, and the last for good.
    pub fn http(self, method: &str, url: &str, answer: impl Into<Answer>) -> Self {
        self.with(|state| state.add_answer(method, url, answer.into()))
    }

    /// Adds a bucket with these entries.
    pub fn kv(self, bucket: &str, entries: &[(&str, &str)]) -> Self {
        self.with(|state| state.buckets.add(bucket, entries))
    }

    /// Adds an object, and its store if there is none.
    pub fn object(self, store: &str, name: &str, data: impl Into<Vec<u8>>) -> Self {
        self.with(|state| state.objects.entry(store.to_owned()).or_default().insert(name.to_owned(), data.into()))
    }

    /// Adds a secret that tasks may reveal. One that only headers name needs not be here.
    pub fn secret(self, name: &str, value: &str) -> Self {
        self.with(|state| state.secrets.insert(name.to_owned(), value.to_owned()))
    }

    /// Runs code whose calls this world answers, such as a task.
    pub fn run<T>(&self, code: impl FnOnce() -> T) -> T {
        struct Restored(Option<World>);
        impl Drop for Restored {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _before = Restored(CURRENT.replace(Some(self.clone())));
        code()
    }

    /// Returns the HTTP requests so far, in their order.
    pub fn requests(&self) -> Vec<Sent> {
        self.0.borrow().requests.clone()
    }

    /// Returns the published messages so far, in their order.
    pub fn published(&self) -> Vec<Published> {
        self.0.borrow().published.clone()
    }

    /// Returns the value of an entry. `None` if there is none.
    pub fn entry(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        self.0.borrow().buckets.value(bucket, key)
    }

    /// Returns the data of an object. `None` if there is none.
    pub fn stored(&self, store: &str, name: &str) -> Option<Vec<u8>> {
        self.0.borrow().objects.get(store)?.get(name).cloned()
    }

    fn with<T>(self, change: impl FnOnce(&mut State) -> T) -> Self {
        change(&mut self.0.borrow_mut());
        self
    }
}

impl Sent {
    /// Returns the first header of this name, in any case. `None` if there is none.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(each, _)| each.eq_ignore_ascii_case(name))?;
        Some(value)
    }
}

/// Answers a call of a native test as a node would.
pub(crate) fn answer(name: &str, request: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    let answer = match CURRENT.with_borrow(Clone::clone) {
        Some(world) => world.0.borrow_mut().answer(name, request),
        None => Err(denied(format!(
            "nothing answers `{name}` in a test without a world: run the task within `testing::World::run`"
        ))),
    };
    answer.map(Writer::finish).map_err(|error| failure(&error))
}

fn denied(message: String) -> CallError {
    CallError::new(FailureKind::Denied, message)
}

/// Returns a failure in CBOR.
fn failure(error: &CallError) -> Vec<u8> {
    let mut failure = Writer::new();
    failure.text("kind", error.kind().name());
    failure.text("message", error.message());
    failure.flag("transient", error.is_transient());
    if let Some(delay) = error.retry_after() {
        failure.number("retry_after_ms", u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
    }
    failure.finish()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Secret, http, kv, objects, publish, secrets};

    const URL: &str = "https://a.example/x";

    #[test]
    fn a_call_without_a_world_or_that_it_does_not_know_is_denied_and_says_how() {
        let error = kv::bucket("cache").get("k").expect_err("an error");
        assert_eq!((error.kind(), error.is_transient()), (FailureKind::Denied, false));
        assert!(error.message().ends_with("run the task within `testing::World::run`"), "{error}");
        let world = World::new();
        let errors = world.run(|| {
            [
                kv::bucket("cache").get("k").expect_err("an error"),
                objects::store("models").get("m").expect_err("an error"),
                secrets::reveal("token").expect_err("an error"),
                http::get(URL).send().expect_err("an error"),
            ]
        });
        let lines = [".kv(\"cache\", &[])", ".object(\"models\"", ".secret(\"token\"", ".http(\"GET\""];
        for (error, line) in errors.iter().zip(lines) {
            assert_eq!(error.kind(), FailureKind::Denied);
            assert!(error.message().contains(line), "{error}");
        }
        assert!(kv::bucket("cache").get("k").is_err_and(|error| error.message().contains("without a world")));
    }

    #[test]
    fn requests_are_answered_in_turn_and_kept() {
        let busy = http::Response::for_test(503, "").with_header("Retry-After", "2");
        let good = http::Response::for_test(200, "hello").with_header("ETag", "7");
        let world = World::new().http("POST", URL, busy).http("POST", URL, good);
        let ask = || {
            let token = Secret("token").bearer();
            http::post(URL).header("Authorization", token).header("X", Secret("p").basic("ada")).body("b").send()
        };
        let response = world.run(ask).expect("a response");
        assert_eq!((response.status(), response.retry_after()), (503, Some(Duration::from_secs(2))));
        let error = response.error_for_status().expect_err("an error");
        assert_eq!(error.message(), "POST https://a.example/x answered 503");
        for _ in 0..2 {
            let response = world.run(ask).expect("a response");
            assert_eq!((response.status(), response.text()), (200, Ok("hello")));
            assert_eq!((response.header("etag"), response.url(), response.body()), (Some("7"), URL, &b"hello"[..]));
        }
        let sent = &world.requests()[2];
        assert_eq!((sent.method.as_str(), sent.url.as_str(), &*sent.body), ("POST", URL, &b"b"[..]));
        assert_eq!(sent.header("Authorization"), Some("Bearer {token}"));
        assert_eq!(sent.header("x"), Some("Basic ada:{p}"));
        assert_eq!(sent.header("idempotency-key"), Some("{key}"));
    }

    #[test]
    fn requests_that_are_not_safe_carry_a_key() {
        let answer = || http::Response::for_test(204, "");
        let world = World::new().http("PUT", URL, answer()).http("HEAD", URL, answer());
        for (request, key) in [
            (http::put(URL), Some("{key}")),
            (http::put(URL).idempotency_key("order-7"), Some("order-7")),
            (http::put(URL).idempotency(false), None),
            (http::head(URL), None),
        ] {
            world.run(|| request.send()).expect("a response");
            assert_eq!(world.requests().last().expect("a request").header("Idempotency-Key"), key);
        }
    }

    #[test]
    fn entries_have_revisions() -> Result<(), CallError> {
        let world = World::new().kv("cache", &[("a", "1")]);
        world.run(|| {
            let cache = kv::bucket("cache").ttl(Duration::from_mins(1));
            let entry = cache.get("a")?.expect("an entry");
            assert_eq!(entry.value, b"1");
            let revision = cache.update("a", "2", entry.revision)?;
            let error = cache.update("a", "3", entry.revision).expect_err("an error");
            assert_eq!((error.kind(), error.is_transient()), (FailureKind::Conflict, false));
            assert_eq!(cache.create("a", "4").map_err(|error| error.kind()), Err(FailureKind::Conflict));
            assert!(cache.create("b", "")? > revision);
            assert_eq!(cache.get("b")?.map(|entry| entry.value), Some(vec![]));
            assert!(cache.delete_revision("a", 99).is_err());
            cache.delete_revision("a", revision)?;
            cache.delete("a")?;
            assert_eq!(cache.get("a")?, None);
            cache.put("a", b"5").map(|_| ())
        })?;
        assert_eq!((world.entry("cache", "a"), world.entry("cache", "z")), (Some(b"5".to_vec()), None));
        Ok(())
    }

    #[test]
    fn keys_come_in_pages_and_in_order() {
        let keys: Vec<String> = (0..2500).map(|number| format!("k.{number:04}")).collect();
        let mut entries: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "")).collect();
        entries.push(("other", ""));
        let world = World::new().kv("cache", &entries);
        let listed: Result<Vec<String>, CallError> = world.run(|| kv::bucket("cache").keys("k.").collect());
        assert_eq!(listed, Ok(keys));
        assert_eq!(world.run(|| kv::bucket("cache").keys("").count()), 2501);
        assert_eq!(world.run(|| kv::bucket("cache").keys("none").count()), 0);
        let mut failing = world.run(|| kv::bucket("no").keys("").collect::<Vec<_>>()).into_iter();
        assert!(failing.next().is_some_and(|key| key.is_err()) && failing.next().is_none());
    }

    #[test]
    fn objects_are_read_whole_and_in_ranges() -> Result<(), CallError> {
        let world = World::new().object("models", "m/1", "hello");
        world.run(|| {
            let models = objects::store("models");
            let whole = models.get("m/1")?.expect("an object");
            assert_eq!((&*whole.data, whole.size), (&b"hello"[..], 5));
            let part = models.get_range("m/1", 1..3)?.expect("an object");
            assert_eq!((&*part.data, part.size, &part.digest), (&b"el"[..], 5, &whole.digest));
            assert_eq!(models.get("m/2")?, None);
            let info = models.put("m/2", "hello")?;
            assert_eq!((info.size, &info.digest), (5, &whole.digest));
            let listed: Result<Vec<_>, _> = models.list("m/").map(|info| info.map(|info| info.name)).collect();
            assert_eq!(listed?, ["m/1", "m/2"]);
            Ok(())
        })?;
        assert_eq!(world.stored("models", "m/2").as_deref(), Some(&b"hello"[..]));
        Ok(())
    }

    #[test]
    fn messages_and_secrets() -> Result<(), CallError> {
        let world = World::new().secret("token", "s3cret");
        world.run(|| {
            publish::publish("alerts.a", "one")?;
            let stored = publish::message("alerts.b", "two").header("X", "1").wait()?;
            assert_eq!((stored.stream.as_str(), stored.sequence, stored.duplicate), ("test", 2, false));
            assert_eq!(secrets::reveal("token")?, "s3cret");
            Ok(())
        })?;
        let published = world.published();
        assert_eq!((published[0].subject.as_str(), &*published[0].payload), ("alerts.a", &b"one"[..]));
        assert_eq!(published[1].headers, [("x".to_owned(), "1".to_owned())]);
        Ok(())
    }
}
