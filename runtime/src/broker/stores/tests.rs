//! Calls against a real server.

mod kv;
mod listing;
mod objects;
mod publish;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ciborium::Value;
use serde_json::json;
use support::Server;

use super::GrantedStores;
use crate::broker::Broker;
use crate::broker::stream::Stream;
use crate::calls::failure::{CallFailure, FailureKind};
use crate::calls::memory::Memory;
use crate::calls::message::{Request, Response};
use crate::calls::stores::{StoreRequest, Stores};

/// Enough for any response of a test.
const ROOM: u64 = 64 << 20;

/// A server, and the stores of a node that is connected to it.
struct World {
    server: Server,
    broker: Broker,
    stores: Arc<GrantedStores>,
}

/// A value of a request.
#[derive(Debug, Clone, Copy)]
enum With<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
    Number(u64),
    Flag(bool),
}

/// The response to a call.
#[derive(Debug)]
struct Answer(Vec<(Value, Value)>);

impl Answer {
    fn of(bytes: &Bytes) -> Self {
        let value: Value = ciborium::from_reader(bytes.as_ref()).expect("CBOR");
        Self(value.into_map().expect("a map"))
    }

    #[track_caller]
    fn get(&self, key: &str) -> &Value {
        &self.0.iter().find(|(each, _)| each.as_text() == Some(key)).expect(key).1
    }

    #[track_caller]
    fn number(&self, key: &str) -> u64 {
        self.get(key).as_integer().and_then(|number| number.try_into().ok()).expect("a number")
    }

    #[track_caller]
    fn bytes(&self, key: &str) -> &[u8] {
        self.get(key).as_bytes().expect("bytes")
    }

    #[track_caller]
    fn texts(&self, key: &str) -> Vec<String> {
        let list = self.get(key).as_array().expect("a list");
        list.iter().map(|text| text.as_text().expect("a text").to_owned()).collect()
    }
}

impl World {
    async fn start(more: &str) -> Self {
        let more = more.to_owned();
        let server = tokio::task::spawn_blocking(move || Server::start(&more)).await.expect("a server");
        let broker = Broker::connect(&server.url.as_str().into(), "calls").await.expect("a connection");
        let stores = GrantedStores::of(&broker, Memory::new());
        Self { server, broker, stores }
    }

    /// Makes a bucket as `nats kv add` does, with more settings.
    async fn bucket(&self, name: &str, more: serde_json::Value) {
        let config = json!({
            "name": format!("KV_{name}"), "subjects": [format!("$KV.{name}.>")], "max_msgs_per_subject": 1, "discard": "new",
            "allow_rollup_hdrs": true, "deny_delete": true, "allow_direct": true, "storage": "file", "num_replicas": 1,
        });
        self.stream(config, more).await;
    }

    /// Makes an object store as `nats object add` does, with more settings.
    async fn object_store(&self, name: &str, more: serde_json::Value) {
        let subjects = [format!("$O.{name}.C.>"), format!("$O.{name}.M.>")];
        let config = json!({
            "name": format!("OBJ_{name}"), "subjects": subjects, "discard": "new", "allow_rollup_hdrs": true,
            "allow_direct": true, "storage": "file", "num_replicas": 1,
        });
        self.stream(config, more).await;
    }

    async fn stream(&self, mut config: serde_json::Value, more: serde_json::Value) {
        for (key, value) in more.as_object().expect("an object") {
            config[key] = value.clone();
        }
        let api = format!("STREAM.CREATE.{}", config["name"].as_str().expect("a name"));
        let _: serde_json::Value = self.broker.api(api, &config, || "make a stream".to_owned()).await.expect("made");
    }

    async fn remove(&self, stream: &str) {
        Stream::of(&self.broker, stream).delete().await.expect("removed");
    }

    /// Returns how many messages a stream has under a pattern.
    async fn count(&self, stream: &str, pattern: &str) -> u64 {
        let state = Stream::of(&self.broker, stream).state(Some((pattern, 0))).await.expect("a state");
        state.state.subjects.values().sum()
    }

    async fn call(&self, name: &str, with: &[(&str, With<'_>)]) -> Result<Answer, CallFailure> {
        self.call_within(name, with, ROOM, None).await
    }

    async fn call_within(
        &self,
        name: &str,
        with: &[(&str, With<'_>)],
        room: u64,
        key: Option<&str>,
    ) -> Result<Answer, CallFailure> {
        let request = request(name, with)?;
        Arc::clone(&self.stores).run(request, room, key.map(str::to_owned)).await.map(|bytes| Answer::of(&bytes))
    }

    /// Stops the server.
    async fn end(self) {
        tokio::task::spawn_blocking(move || drop(self.server)).await.expect("the server is stopped");
    }
}

fn request(name: &str, with: &[(&str, With<'_>)]) -> Result<StoreRequest, CallFailure> {
    let mut response = Response::new();
    for (key, value) in with {
        match value {
            With::Text(text) => response.text(key, text),
            With::Bytes(bytes) => response.bytes(key, bytes),
            With::Number(number) => response.number(key, *number),
            With::Flag(flag) => response.flag(key, *flag),
        }
    }
    let bytes = response.finish();
    let mut request = Request::read(&bytes).expect("a request");
    StoreRequest::read(name, &mut request)
}

/// Publishes a message with any bytes as headers, as other clients can, and waits until the server has it.
fn publish_raw(url: &str, subject: &str, block: &[u8], payload: &[u8]) {
    let mut stream = TcpStream::connect(url.trim_start_matches("nats://")).expect("the server");
    let (headers, all) = (block.len(), block.len() + payload.len());
    let mut said = b"CONNECT {\"verbose\":false,\"headers\":true,\"lang\":\"raw\",\"version\":\"1\"}\r\n".to_vec();
    said.extend_from_slice(format!("HPUB {subject} {headers} {all}\r\n").as_bytes());
    for part in [block, payload, b"\r\nPING\r\n"] {
        said.extend_from_slice(part);
    }
    stream.write_all(&said).expect("sent");
    let mut lines = BufReader::new(stream).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.starts_with("PONG"))), "the server has it");
}

/// Waits until something holds.
async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(started.elapsed() < support::DEADLINE, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[track_caller]
fn assert_failed(answer: Result<Answer, CallFailure>, kind: FailureKind, is_transient: bool, said: &str) {
    let failure = answer.map(|answer| format!("{answer:?}")).expect_err(said);
    assert_eq!((failure.kind, failure.is_transient), (kind, is_transient), "{failure:?}");
    assert!(failure.message.contains(said), "{failure:?}");
}
