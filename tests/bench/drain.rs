//! One measured run: items wait, and processes work them off.
//!
//! The server hands nothing out until all is fed and all processes are ready, because the consumer is paused until then: so
//! neither feeding nor starting is measured, and several processes begin at the same moment.

use std::time::{Duration, Instant};

use async_nats::datetime;
use async_nats::jetstream::Context;
use bytes::Bytes;

use crate::usage::{Machine, Used};

/// Longer than feeding takes.
const PAUSE: Duration = Duration::from_hours(1);
/// Long enough for the server to hear that the pause is about to end.
const COUNTDOWN: Duration = Duration::from_millis(100);
/// The server is taken to have missed the end of a pause when it has handed out nothing for this long.
const NOTICED: Duration = Duration::from_millis(50);
/// How long to wait between two looks at how much is left, as a part of the time since the start: the figure is then wrong by no
/// more than that part, and the server is not asked more often than it must.
const LOOK_PART: u32 = 100;
/// The least and the most of it.
const LOOK: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(5));
/// A run that takes longer has got stuck.
const STUCK: Duration = Duration::from_mins(5);

/// What is fed: items, and how many of them share a message.
#[derive(Debug, Clone)]
pub struct Load {
    /// Each one CBOR data item.
    pub items: Vec<Bytes>,
    /// Items in a message.
    pub pack: usize,
}

impl Load {
    /// As many texts, each this long with its CBOR head.
    pub fn of_texts(items: usize, bytes: usize, pack: usize) -> Self {
        Self { items: vec![text(bytes); items], pack }
    }

    /// The same items, so many to a message.
    #[must_use]
    pub fn packed(&self, pack: usize) -> Self {
        Self { pack, ..self.clone() }
    }

    /// The payloads of the messages.
    pub fn messages(&self) -> Vec<Bytes> {
        if self.pack == 1 {
            return self.items.clone();
        }
        self.items.chunks(self.pack).map(|items| items.concat().into()).collect()
    }

    /// Bytes of all items.
    pub fn bytes(&self) -> usize {
        self.items.iter().map(Bytes::len).sum()
    }
}

/// A CBOR text that takes this many bytes with its head.
pub fn text(bytes: usize) -> Bytes {
    let head = [(1 << 16, 5), (256, 3), (24, 2)]
        .iter()
        .find(|(least, head)| bytes >= least + head)
        .map_or(1, |(_, head)| *head);
    let item: Bytes = pcluster::internal::to_cbor(&"x".repeat(bytes - head));
    assert_eq!(item.len(), bytes);
    item
}

/// What a run has taken.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub items: f64,
    pub bytes: f64,
    pub seconds: f64,
    /// By the servers.
    pub server: Used,
    /// By the nodes, or the relay.
    pub worker: Used,
    /// The part of the machine that others have used meanwhile.
    pub foreign: f64,
}

impl Sample {
    /// Two runs as one.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let both = |one: Used, two: Used| Used { seconds: one.seconds + two.seconds, peak: one.peak.max(two.peak) };
        let seconds = self.seconds + other.seconds;
        Self {
            items: self.items + other.items,
            bytes: self.bytes + other.bytes,
            seconds,
            server: both(self.server, other.server),
            worker: both(self.worker, other.worker),
            foreign: (self.foreign * self.seconds + other.foreign * other.seconds) / seconds,
        }
    }
}

/// How a run is known to be over.
#[derive(Debug, Clone, Copy)]
pub enum Until<'a> {
    /// The stream that was fed is empty.
    Empty,
    /// This other stream holds as many messages.
    Holds(&'a str, u64),
}

/// What works on the items.
pub struct Drain<'a> {
    pub jetstream: &'a Context,
    /// The stream that is fed.
    pub stream: &'a str,
    /// The consumer that they are taken from.
    pub consumer: &'a str,
    pub until: Until<'a>,
    pub servers: &'a [u32],
    pub workers: &'a [u32],
}

impl Drain<'_> {
    /// Feeds and measures. The workers must be ready.
    pub async fn run(&self, load: &Load, feed: impl Future<Output = ()>) -> Sample {
        let stream = self.jetstream.get_stream_no_info(self.stream).await.unwrap();
        let pause = async |pause| {
            let until = datetime::add_std_duration(datetime::now(), pause).unwrap();
            assert!(stream.pause_consumer(self.consumer, until).await.unwrap().paused);
        };
        pause(PAUSE).await;
        feed.await;
        let (machine, own) = (Machine::now(), Used::by(&[std::process::id()]));
        let (server, worker) = (Used::by(self.servers), Used::by(self.workers));
        let before = self.handed_out().await;
        // A pause that is ended is only noticed at the next request (tried with nats-server 2.15.1); one that runs out is noticed
        // by itself, unless the server's timer goes off a little before its clock says so.
        let started = loop {
            let started = Instant::now() + COUNTDOWN;
            pause(COUNTDOWN).await;
            tokio::time::sleep_until(started.into()).await;
            while self.handed_out().await == before && started.elapsed() < NOTICED {
                tokio::time::sleep(LOOK.0).await;
            }
            if self.handed_out().await > before {
                break started;
            }
        };
        while !self.is_over().await {
            let elapsed = started.elapsed();
            assert!(elapsed < STUCK, "the stream {} does not run empty", self.stream);
            tokio::time::sleep((elapsed / LOOK_PART).clamp(LOOK.0, LOOK.1)).await;
        }
        let seconds = started.elapsed().as_secs_f64();
        let (server, worker) = (Used::by(self.servers).since(server), Used::by(self.workers).since(worker));
        let ours = server.seconds + worker.seconds + Used::by(&[std::process::id()]).since(own).seconds;
        Sample {
            items: load.items.len() as f64,
            bytes: load.bytes() as f64,
            seconds,
            server,
            worker,
            foreign: Machine::now().foreign_since(machine, ours),
        }
    }

    /// How many messages the consumer has handed out.
    async fn handed_out(&self) -> u64 {
        let stream = self.jetstream.get_stream_no_info(self.stream).await.unwrap();
        stream.consumer_info(self.consumer).await.unwrap().delivered.consumer_sequence
    }

    async fn is_over(&self) -> bool {
        match self.until {
            Until::Empty => held(self.jetstream, self.stream).await == 0,
            Until::Holds(stream, messages) => held(self.jetstream, stream).await >= messages,
        }
    }
}

/// How many messages a stream holds.
pub async fn held(jetstream: &Context, stream: &str) -> u64 {
    jetstream.get_stream(stream).await.unwrap().cached_info().state.messages
}
