//! Measures one run: processes work off waiting items.
//!
//! The consumer is paused until all items are fed and all processes are ready. So neither feeding nor starting is measured, and
//! several processes begin at the same moment.

use std::time::{Duration, Instant};

use async_nats::datetime;
use async_nats::jetstream::Context;
use bytes::Bytes;

use crate::usage::{Machine, Used};

/// The length of the pause. Feeding must take less.
const PAUSE: Duration = Duration::from_hours(1);
/// The time for the server to notice the end of the pause.
const COUNTDOWN: Duration = Duration::from_millis(100);
/// The server has missed the end of a pause after this long without a delivery.
const NOTICED: Duration = Duration::from_millis(50);
/// The time between two checks, as a part of the elapsed time.
///
/// The error of the figure is at most this part, and the server gets no needless requests.
const LOOK_PART: u32 = 100;
/// The shortest and the longest time between two checks.
const LOOK: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(5));
/// The most time for a run.
const STUCK: Duration = Duration::from_mins(5);

/// The items to feed, and how many of them share a message.
#[derive(Debug, Clone)]
pub struct Load {
    /// The items, each one CBOR data item.
    pub items: Vec<Bytes>,
    /// The number of items in a message.
    pub pack: usize,
}

impl Load {
    /// Creates texts that are this long with their CBOR head.
    pub fn of_texts(items: usize, bytes: usize, pack: usize) -> Self {
        Self { items: vec![text(bytes); items], pack }
    }

    /// Sets the number of items in a message.
    #[must_use]
    pub fn packed(&self, pack: usize) -> Self {
        Self { pack, ..self.clone() }
    }

    /// Returns the payloads of the messages.
    pub fn messages(&self) -> Vec<Bytes> {
        if self.pack == 1 {
            return self.items.clone();
        }
        self.items.chunks(self.pack).map(|items| items.concat().into()).collect()
    }

    /// Returns the size of all items in bytes.
    pub fn bytes(&self) -> usize {
        self.items.iter().map(Bytes::len).sum()
    }
}

/// Returns a CBOR text that is this long with its head.
pub fn text(bytes: usize) -> Bytes {
    let head = [(1 << 16, 5), (256, 3), (24, 2)]
        .iter()
        .find(|(least, head)| bytes >= least + head)
        .map_or(1, |(_, head)| *head);
    let item: Bytes = pcluster::internal::to_cbor(&"x".repeat(bytes - head));
    assert_eq!(item.len(), bytes);
    item
}

/// The figures of a run.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub items: f64,
    pub bytes: f64,
    pub seconds: f64,
    /// Usage of the servers.
    pub server: Used,
    /// Usage of the nodes, or of the relay.
    pub worker: Used,
    /// The part of the machine that other programs have used.
    pub foreign: f64,
}

impl Sample {
    /// Adds the figures of two runs.
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

/// The condition that ends a run.
#[derive(Debug, Clone, Copy)]
pub enum Until<'a> {
    /// The fed stream is empty.
    Empty,
    /// Another stream holds this many messages.
    Holds(&'a str, u64),
}

/// The workers of a run.
pub struct Drain<'a> {
    pub jetstream: &'a Context,
    /// The fed stream.
    pub stream: &'a str,
    /// The consumer of the workers.
    pub consumer: &'a str,
    pub until: Until<'a>,
    pub servers: &'a [u32],
    pub workers: &'a [u32],
}

impl Drain<'_> {
    /// Feeds the items and measures the run. The workers must be ready.
    pub async fn run(&self, load: &Load, feed: impl Future<Output = ()>) -> Sample {
        let stream = self.jetstream.get_stream_no_info(self.stream).await.unwrap();
        let pause = async |pause| {
            let until = datetime::add_std_duration(datetime::now(), pause).unwrap();
            assert!(stream.pause_consumer(self.consumer, until).await.unwrap().paused);
        };
        pause(PAUSE).await;
        feed.await;
        let (machine, own) = (Machine::now(), Used::by(&[std::process::id()]));
        let (server, worker) = (Used::by(self.servers), Used::by_trees(self.workers));
        let before = self.handed_out().await;
        // nats-server 2.15.1 notices that a pause was ended only at the next request. It notices the planned end of a pause by
        // itself, unless its timer fires a little before its clock.
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
        let (server, worker) = (Used::by(self.servers).since(server), Used::by_trees(self.workers).since(worker));
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

    /// Returns how many messages the consumer has handed out.
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

/// Returns how many messages a stream holds.
pub async fn held(jetstream: &Context, stream: &str) -> u64 {
    jetstream.get_stream(stream).await.unwrap().cached_info().state.messages
}
