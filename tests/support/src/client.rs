//! A NATS client without any code of pcluster. Programs in other languages are such clients. It reads the streams, and feeds
//! chains by the page of the wire.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{self, pull::OrderedConfig};
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::{self, context};
use async_nats::{ServerAddr, Subscriber};
use bytes::Bytes;
use ciborium::Value;
use futures_util::{StreamExt, TryStreamExt};
use tokio::runtime::Runtime;

use crate::{Cluster, DEADLINE, Nats, eventually};

/// A connection to the server of a test.
pub struct NatsClient {
    runtime: Runtime,
    jetstream: jetstream::Context,
}

/// A message of a stream.
#[derive(Debug, Clone)]
pub struct Message {
    /// The subject of the message.
    pub subject: String,
    /// The first value of each header.
    pub headers: BTreeMap<String, String>,
    /// A sequence of CBOR documents.
    pub payload: Bytes,
}

impl Message {
    fn of(message: &async_nats::Message) -> Self {
        let headers = message.headers.iter().flat_map(async_nats::HeaderMap::iter);
        let headers = headers.map(|(name, values)| (name.to_string(), values[0].to_string()));
        Self { subject: message.subject.to_string(), headers: headers.collect(), payload: message.payload.clone() }
    }

    /// Returns the only CBOR document of the payload.
    pub fn item(&self) -> Value {
        let mut rest = &self.payload[..];
        let item = ciborium::from_reader(&mut rest).unwrap();
        assert!(rest.is_empty(), "more than one item: {:?}", self.payload);
        item
    }

    /// Returns each item as a message.
    pub fn split(&self) -> Vec<Self> {
        let mut rest = &self.payload[..];
        let mut items = Vec::new();
        while !rest.is_empty() {
            let before = rest;
            let _: Value = ciborium::from_reader(&mut rest).unwrap();
            let payload = Bytes::copy_from_slice(&before[..before.len() - rest.len()]);
            items.push(Self { payload, ..self.clone() });
        }
        items
    }

    /// Returns a header that must exist.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header {name} among {:?}", self.headers))
    }
}

impl NatsClient {
    /// Connects to the servers of a test.
    pub fn connect<S: Nats>(cluster: &Cluster<S>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let servers: Vec<ServerAddr> = cluster.server.url().split(',').map(|url| url.parse().unwrap()).collect();
        // The client library ignores a login in a URL.
        let login =
            servers.iter().find_map(|server| Some((server.username()?.to_owned(), server.password()?.to_owned())));
        let options = async_nats::ConnectOptions::new();
        let options = match login {
            Some((user, password)) => options.user_and_password(user, password),
            None => options,
        };
        let jetstream = runtime.block_on(async { jetstream::new(options.connect(servers).await.unwrap()) });
        Self { runtime, jetstream }
    }

    /// Runs requests to the server's streams.
    pub fn with<T>(&self, act: impl AsyncFnOnce(&jetstream::Context) -> T) -> T {
        let act = async { tokio::time::timeout(DEADLINE, act(&self.jetstream)).await };
        self.runtime.block_on(act).expect("NATS did not answer")
    }

    /// Reads from the server's streams. Repeats that until no request fails.
    ///
    /// Servers that have just lost one of them leave requests without an answer.
    #[track_caller]
    pub fn read<T>(&self, read: &impl AsyncFn(&jetstream::Context) -> Result<T, async_nats::Error>) -> T {
        let started = Instant::now();
        loop {
            match self.with(read) {
                Ok(read) => return read,
                Err(error) => assert!(started.elapsed() < DEADLINE, "cannot be read: {error}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Reads the messages of a stream through a consumer with this configuration.
    #[track_caller]
    fn read_all(&self, stream: &str, config: &OrderedConfig) -> Vec<Message> {
        self.read(&async |jetstream| {
            let consumer = jetstream.get_stream(stream).await?.create_consumer(config.clone()).await?;
            let number = usize::try_from(consumer.cached_info().num_pending)?;
            if number == 0 {
                return Ok(Vec::new());
            }
            let messages = consumer.messages().await?;
            Ok(messages.take(number).map_ok(|message| Message::of(&message)).try_collect().await?)
        })
    }

    /// Publishes a message to a subject of a stream.
    ///
    /// # Errors
    ///
    /// If the server refuses the message.
    pub fn publish(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: impl Into<Bytes>,
    ) -> Result<PublishAck, context::PublishError> {
        let map: async_nats::HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let (subject, payload) = (subject.to_owned(), payload.into());
        self.with(async |jetstream| jetstream.publish_with_headers(subject, map, payload).await?.await)
    }

    /// Subscribes to subjects.
    fn hear(&self, subjects: &str) -> Subscriber {
        let subjects = subjects.to_owned();
        self.with(async |jetstream| {
            let heard = jetstream.client().subscribe(subjects).await.unwrap();
            jetstream.client().flush().await.unwrap();
            heard
        })
    }

    /// Returns the reply subject of the next message on these subjects.
    pub fn first_reply(&self, subjects: &str) -> mpsc::Receiver<String> {
        let mut heard = self.hear(subjects);
        let (sender, receiver) = mpsc::channel();
        self.runtime.spawn(async move {
            while let Some(message) = heard.next().await {
                if let Some(reply) = message.reply {
                    let _ = sender.send(reply.to_string());
                    return;
                }
            }
        });
        receiver
    }

    /// Publishes one message of an atomic batch. Returns the server's answer.
    pub fn publish_of_batch(&self, subject: &str, batch: &str, position: u64) -> Bytes {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Batch-Id", batch);
        headers.insert("Nats-Batch-Sequence", position.to_string());
        let subject = subject.to_owned();
        let request = async |jetstream: &jetstream::Context| {
            jetstream.client().request_with_headers(subject.clone(), headers.clone(), Bytes::from("0")).await
        };
        self.with(request).unwrap().payload
    }

    /// Returns a header of each further message on these subjects.
    pub fn hear_header(&self, subjects: &str, name: &'static str) -> mpsc::Receiver<Option<String>> {
        let mut heard = self.hear(subjects);
        let (sender, receiver) = mpsc::channel();
        self.runtime.spawn(async move {
            while let Some(message) = heard.next().await {
                let value = message.headers.as_ref().and_then(|headers| headers.get(name)).map(ToString::to_string);
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        receiver
    }

    /// Returns how many messages a stream holds.
    #[track_caller]
    pub fn count(&self, stream: &str) -> u64 {
        self.read(&async |jetstream| Ok(jetstream.get_stream(stream).await?.cached_info().state.messages))
    }

    /// Returns how many messages of results a chain has stored. Notes stand in the same stream for a while, and do not count.
    #[track_caller]
    pub fn results(&self, chain: &str) -> u64 {
        self.read(&async |jetstream| {
            let stream = jetstream.get_stream(format!("PCLUSTER_{chain}_OUT")).await?;
            let counts = stream.info_with_subjects(">").await?;
            let counts: Vec<(String, usize)> = counts.try_collect().await?;
            let notes = format!("pcluster.{chain}.note");
            Ok(counts.iter().filter(|(subject, _)| *subject != notes).map(|(_, count)| *count as u64).sum())
        })
    }

    /// Waits until a stream holds this many messages. Reads them without taking them.
    #[track_caller]
    pub fn messages(&self, stream: &str, number: usize) -> Vec<Message> {
        eventually(&format!("{stream} holds {number}"), || (self.count(stream) == number as u64).then_some(()));
        let messages = self.read_all(stream, &OrderedConfig::default());
        assert_eq!(messages.len(), number, "{messages:#?}");
        messages
    }

    /// Waits until a stream holds this many items, and reads them. The items may be in any number of messages. Each is returned
    /// as a message with the headers of its own message.
    #[track_caller]
    pub fn items(&self, stream: &str, number: usize) -> Vec<Message> {
        eventually(&format!("{stream} holds {number} items"), || {
            let items = self.all_items(stream);
            (items.len() == number).then_some(items)
        })
    }

    /// Returns how many items a stream holds now.
    pub fn items_now(&self, stream: &str) -> usize {
        self.all_items(stream).len()
    }

    /// Returns the items that a stream holds now. Holder notes among the results are left out.
    pub fn all_items(&self, stream: &str) -> Vec<Message> {
        let messages = self.read_all(stream, &OrderedConfig::default());
        messages
            .iter()
            .filter(|message| message.subject.rsplit('.').next() != Some("note"))
            .flat_map(Message::split)
            .collect()
    }

    /// Reads the messages of a stream under one subject. Uses a consumer with that `filter_subject`.
    pub fn messages_of(&self, stream: &str, filter_subject: &str) -> Vec<Message> {
        let config = OrderedConfig { filter_subject: filter_subject.to_owned(), ..Default::default() };
        self.read_all(stream, &config)
    }

    /// Returns how many messages each subject of a stream has.
    pub fn by_subject(&self, stream: &str) -> BTreeMap<String, usize> {
        self.read(&async |jetstream| {
            let subjects = jetstream.get_stream(stream).await?.info_with_subjects(">").await?;
            Ok(subjects.try_collect().await?)
        })
    }

    /// Returns how many deliveries of a stream's messages were not the first.
    ///
    /// Each message of the stream must have one consumer. Deliveries of a deleted consumer are not counted.
    #[track_caller]
    pub fn handed_out_again(&self, stream: &str) -> u64 {
        eventually(&format!("nothing is stored while {stream} is looked at"), || {
            self.read(&async |jetstream| {
                let stream = jetstream.get_stream(stream).await?;
                let consumers: Vec<_> = stream.consumers().try_collect().await?;
                let of = |consumer: &consumer::Info| consumer.delivered.consumer_sequence + consumer.num_pending;
                let (stored, after) = (stream.cached_info(), stream.get_info().await?);
                let is_same = stored.state.last_sequence == after.state.last_sequence;
                Ok(is_same.then(|| consumers.iter().map(of).sum::<u64>().saturating_sub(after.state.last_sequence)))
            })
        })
    }

    /// Returns the names of a stream's consumers, sorted.
    pub fn consumers(&self, stream: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .read(&async |jetstream| Ok(jetstream.get_stream(stream).await?.consumer_names().try_collect().await?));
        names.sort();
        names
    }
}
