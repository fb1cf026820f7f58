//! The baseline: a relay written by hand with only the client library.
//!
//! It fetches a message, publishes it with an id, waits for the server's answer, and acknowledges. It has no WebAssembly, and no
//! code of pcluster. It runs as a process of its own, as a node does, so that its usage can be compared. The process is this
//! program, started again with `--relay`.

use std::io::Read;
use std::process::{ChildStdin, Command};

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::message::{AckKind, Message};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy};
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use support::{Nats, Process};

use crate::drain::{Drain, Load, Sample, Until};
use crate::stand::Stand;

/// The stream of waiting messages, with a subject for each hop.
const WORK: &str = "RELAY";
/// The stream of relayed messages.
pub const OUT: &str = "RELAY_OUT";
/// The subject of relayed messages.
pub const OUT_SUBJECT: &str = "relay.out";
/// Messages on their way at once while a queue is filled.
const WINDOW: usize = 256;

/// The most messages in hand at once, and their bytes. More or fewer are not faster.
///
/// Measured on two cores: half as many small messages give 0.95 of the rate, four times as many 0.92, and four times the bytes in
/// large messages 0.8.
const IN_HAND: usize = 512;
const BYTES_IN_HAND: usize = 4 << 20;

/// When a message counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ack {
    /// Once it is acknowledged. The relay does not wait for the server's confirmation.
    Sent,
    /// Once the server has confirmed the acknowledgement.
    Confirmed,
    /// Once it is handed out. The stream is no work queue and keeps the message.
    None,
}

/// The settings of a relay.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Relay {
    /// Relays in a row, with a queue before each.
    pub hops: usize,
    /// Messages in hand at once in each relay. Fewer if they are large.
    pub in_hand: usize,
    /// `true` to publish messages with ids, by which the server drops duplicates.
    pub ids: bool,
    pub ack: Ack,
    /// Servers that keep a copy.
    pub replicas: usize,
}

impl Relay {
    /// The relay that all others are compared with.
    pub const BASELINE: Self = Self { hops: 1, in_hand: IN_HAND, ids: true, ack: Ack::Sent, replicas: 1 };

    /// Runs the relay on a server of its own.
    pub fn sample(self, load: &Load) -> Sample {
        self.sample_on(&Stand::start(), load)
    }

    fn with_room_for(self, load: &Load) -> Self {
        let message = load.bytes() / load.items.len() * load.pack;
        Self { in_hand: self.in_hand.min(BYTES_IN_HAND / message).max(1), ..self }
    }

    /// Runs the relay on these servers.
    pub fn sample_on<S: Nats>(self, stand: &Stand<S>, load: &Load) -> Sample {
        let messages = load.messages();
        let relay = self.with_room_for(load).start(stand);
        let until = match self.ack {
            Ack::None => Until::Holds(OUT, messages.len() as u64),
            Ack::Sent | Ack::Confirmed => Until::Empty,
        };
        let drain = Drain {
            jetstream: &stand.jetstream,
            stream: WORK,
            consumer: &consumer(0),
            until,
            servers: &stand.servers(),
            workers: &[relay.process.id()],
        };
        stand.run(drain.run(load, fill(&stand.jetstream, messages)))
    }

    /// Creates the streams, and starts the process.
    pub fn start<S: Nats>(self, stand: &Stand<S>) -> Running {
        stand.run(self.create(&stand.jetstream));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--relay", &serde_json::to_string(&self).unwrap(), "--url", &stand.cluster.server.url()]);
        let (process, stdin) = Process::start_fed(command);
        process.said("ready");
        Running { process, _stdin: stdin }
    }

    /// Creates the streams with the settings of a chain's streams.
    async fn create(self, jetstream: &Context) {
        let keeps = self.ack == Ack::None;
        let work = Config {
            name: WORK.to_owned(),
            subjects: vec![subject_any()],
            retention: if keeps { RetentionPolicy::Limits } else { RetentionPolicy::WorkQueue },
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            max_messages_per_subject: 2_000_000,
            num_replicas: self.replicas,
            allow_atomic_publish: true,
            allow_direct: true,
            ..Config::default()
        };
        let out = Config {
            name: OUT.to_owned(),
            subjects: vec![OUT_SUBJECT.to_owned()],
            num_replicas: self.replicas,
            allow_atomic_publish: true,
            allow_direct: true,
            ..Config::default()
        };
        let stream = jetstream.create_stream(work).await.unwrap();
        jetstream.create_stream(out).await.unwrap();
        for hop in 0..self.hops {
            let config = pull::Config {
                durable_name: Some(consumer(hop)),
                filter_subject: subject(hop),
                ack_policy: if keeps { AckPolicy::None } else { AckPolicy::Explicit },
                max_ack_pending: if keeps { 0 } else { 10_000 },
                ..Default::default()
            };
            stream.create_consumer(config).await.unwrap();
        }
    }

    /// Relays until the parent process is gone. Runs in the process of the relay.
    pub fn serve(self, url: &str) {
        // One thread is fastest, because waking other threads costs more than they gain. Measured on two cores: 60 thousand
        // messages/s with one thread, 40 with one per core. A task for each message is no faster either.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.relay_all(url));
    }

    async fn relay_all(self, url: &str) {
        let jetstream = jetstream::new(async_nats::connect(url.split(',').collect::<Vec<_>>()).await.unwrap());
        for hop in 0..self.hops {
            let consumer = jetstream.get_consumer_from_stream(consumer(hop), WORK).await.unwrap();
            let to = if hop + 1 == self.hops { OUT_SUBJECT.to_owned() } else { subject(hop + 1) };
            tokio::spawn(relay(self, jetstream.clone(), consumer, to));
        }
        eprintln!("ready");
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    }

    async fn pass_on(self, jetstream: &Context, message: Message, to: &str, number: u64) {
        publish(jetstream, to.to_owned(), self.ids.then(|| format!("{to}.{number}")), message.payload.clone()).await;
        match self.ack {
            Ack::Sent => message.ack().await.unwrap(),
            Ack::Confirmed => message.double_ack_with(AckKind::Ack).await.unwrap(),
            Ack::None => {}
        }
    }
}

/// The process of a relay. It ends with its standard input, so that it does not outlive this program.
pub struct Running {
    pub process: Process,
    _stdin: ChildStdin,
}

/// Relays the messages of one hop's queue.
async fn relay(settings: Relay, jetstream: Context, consumer: jetstream::consumer::PullConsumer, to: String) {
    let mut incoming = consumer.stream().max_messages_per_batch(settings.in_hand).messages().await.unwrap();
    let mut in_hand = FuturesUnordered::new();
    for number in 0_u64.. {
        while in_hand.len() >= settings.in_hand {
            in_hand.next().await;
        }
        let message = loop {
            tokio::select! {
                message = incoming.next() => break message.unwrap().unwrap(),
                Some(()) = in_hand.next() => {}
            }
        };
        in_hand.push(settings.pass_on(&jetstream, message, &to, number));
    }
}

/// Returns the subject of a hop's queue.
pub fn subject(hop: usize) -> String {
    format!("relay.work.{hop}")
}

fn subject_any() -> String {
    "relay.work.*".to_owned()
}

fn consumer(hop: usize) -> String {
    format!("hop{hop}")
}

async fn fill(jetstream: &Context, messages: Vec<Bytes>) {
    let publishing = (0_u64..)
        .zip(messages)
        .map(|(number, payload)| publish(jetstream, subject(0), Some(format!("fed.{number}")), payload));
    futures_util::stream::iter(publishing).buffer_unordered(WINDOW).collect::<()>().await;
}

async fn publish(jetstream: &Context, subject: String, id: Option<String>, payload: Bytes) {
    let mut headers = HeaderMap::new();
    if let Some(id) = id {
        headers.insert("Nats-Msg-Id", id);
    }
    jetstream.publish_with_headers(subject, headers, payload).await.unwrap().await.unwrap();
}
