//! Reads a stream without taking its messages: watched results, log lines, changes of chains.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::get::Stored;
use super::line::Line;
use super::queue::{Event, Queue, STANDS};
use super::stream::Stream;
use super::{Broker, BrokerError, Outage};
use crate::frame::Headers;
use crate::frame::record::unix_millis;

/// How many messages one request asks for.
const BATCH: u64 = 512;
/// How soon the server removes the consumer of a reader that is gone.
const FORGET: Duration = Duration::from_mins(1);
/// The key of a consumer's configuration that names the start.
const START_SEQUENCE: &str = "opt_start_seq";
/// How long to wait before the next try to open a stream.
const REOPEN: Duration = Duration::from_millis(500);

/// Where to start reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartAt {
    /// At the oldest message.
    First,
    /// At the newest message of each subject.
    Newest,
    /// At the next message to be stored.
    Now,
    /// At the first message stored since this long ago.
    Ago(Duration),
    /// At the first message after this sequence number.
    Behind(u64),
}

/// A message that was read.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The subject that it was published to.
    pub subject: String,
    /// Its headers.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
    /// Its sequence number in the stream.
    pub sequence: u64,
    /// When it was stored, in milliseconds since the Unix epoch. 0 if that is unknown.
    pub stored_millis: u64,
}

impl Seen {
    fn of(stored: Stored) -> Self {
        let headers = stored.headers();
        let Stored { subject, sequence, payload, time, .. } = stored;
        let stored_millis = unix_millis(&time).unwrap_or(0);
        Self { subject, headers, payload: payload.into(), sequence, stored_millis }
    }
}

/// The next event of a stream being read.
pub(super) enum Step {
    /// A message.
    Seen(Seen),
    /// The stream was removed and made anew. Its messages follow from the start.
    Renewed,
}

/// Reads a stream in order and without gaps, across restarts of the server and changes of leader.
///
/// The server keeps the position in an ephemeral consumer. If the consumer is lost, another one starts after the last message that
/// was read. If the line is lost, one of the requested messages may be unreadable: then as many as were requested are read by the
/// server's API, one by one.
pub struct Follower {
    broker: Broker,
    stream: String,
    subjects: Vec<String>,
    start: Value,
    queue: Queue,
    /// How many messages the consumer has delivered.
    order: u64,
    /// The sequence number of the last message that was read; 0 before the first.
    last: u64,
    /// When the stream was made.
    created: String,
    pending: u64,
    /// Messages that were read by the API in advance.
    ahead: VecDeque<Seen>,
    /// How many messages are still to be read by the API.
    by_api: u64,
    outage: Outage,
}

/// A consumer that was made to read a stream.
struct Opened {
    queue: Queue,
    created: String,
    pending: u64,
}

impl Opened {
    /// Makes a consumer with this start.
    async fn new(broker: &Broker, stream: &str, subjects: &[String], start: &Value) -> Result<Self, BrokerError> {
        #[derive(Deserialize)]
        struct Made {
            #[serde(default)]
            num_pending: u64,
        }
        let created = Stream::of(broker, stream).created().await?;
        let name = format!("reader_{}", ulid::Ulid::generate());
        let mut config = start.clone();
        config["name"] = json!(name);
        config["description"] = json!("pcluster: reads without taking");
        config["ack_policy"] = json!("none");
        config["filter_subjects"] = json!(subjects);
        config["inactive_threshold"] = json!(u64::try_from(FORGET.as_nanos()).unwrap_or(u64::MAX));
        config["mem_storage"] = json!(true);
        config["num_replicas"] = json!(1);
        let request = json!({ "stream_name": stream, "config": config, "action": "create" });
        let what = || format!("read the stream `{stream}`");
        let made: Made = broker.api(format!("CONSUMER.CREATE.{stream}.{name}"), &request, what).await?;
        Ok(Self {
            queue: Line::reading(broker).queue(stream, &name, STANDS).await?,
            created,
            pending: made.num_pending,
        })
    }
}

/// Returns the moment this long ago, as the server reads it. `None` if no message is that old.
pub(super) fn moment(ago: Duration) -> Option<String> {
    let time = SystemTime::now().checked_sub(ago).filter(|time| *time > SystemTime::UNIX_EPOCH)?;
    OffsetDateTime::from(time).format(&Rfc3339).ok()
}

/// Returns the start after a sequence number.
fn after(sequence: u64) -> Value {
    json!({ "deliver_policy": "by_start_sequence", START_SEQUENCE: sequence + 1 })
}

impl Follower {
    /// Opens a stream to read it in order.
    pub async fn open(
        broker: &Broker,
        stream: &str,
        subjects: Vec<String>,
        from: StartAt,
    ) -> Result<Self, BrokerError> {
        let start = match from {
            StartAt::First => json!({ "deliver_policy": "all" }),
            StartAt::Newest => json!({ "deliver_policy": "last_per_subject" }),
            StartAt::Now => after(Stream::of(broker, stream).last_place().await?),
            StartAt::Behind(sequence) => after(sequence),
            StartAt::Ago(ago) => match moment(ago) {
                Some(time) => json!({ "deliver_policy": "by_start_time", "opt_start_time": time }),
                None => json!({ "deliver_policy": "all" }),
            },
        };
        let Opened { queue, created, pending } = Opened::new(broker, stream, &subjects, &start).await?;
        let (stream, outage) = (stream.to_owned(), Outage::default());
        Ok(Self {
            broker: broker.clone(),
            stream,
            subjects,
            start,
            queue,
            order: 0,
            last: 0,
            created,
            pending,
            ahead: VecDeque::new(),
            by_api: 0,
            outage,
        })
    }

    /// Returns how many messages the stream held when it was opened.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// Returns when the stream was made, as the server writes it. Sequence numbers mean nothing in a stream made at another time.
    pub fn created(&self) -> &str {
        &self.created
    }

    /// Waits for the next message.
    pub async fn next(&mut self) -> Result<Seen, BrokerError> {
        loop {
            if let Step::Seen(seen) = self.step().await? {
                return Ok(seen);
            }
        }
    }

    pub(super) async fn step(&mut self) -> Result<Step, BrokerError> {
        loop {
            if let Some(seen) = self.ahead.pop_front() {
                self.last = self.last.max(seen.sequence);
                return Ok(Step::Seen(seen));
            }
            if self.by_api > 0 {
                self.by_api -= 1;
                if self.read_by_api().await? {
                    continue;
                }
                self.by_api = 0;
                if self.reopen().await? {
                    return Ok(Step::Renewed);
                }
            }
            if self.queue.demand() <= BATCH / 2 {
                self.queue.request(BATCH - self.queue.demand()).await?;
            }
            match self.queue.next().await {
                Event::Delivery(delivery) if delivery.order == self.order + 1 => {
                    (self.order, self.last) = (delivery.order, delivery.sequence);
                    return Ok(Step::Seen(Seen {
                        headers: delivery.headers(),
                        subject: delivery.subject().to_owned(),
                        sequence: delivery.sequence,
                        stored_millis: delivery.stored_millis,
                        payload: delivery.payload,
                    }));
                }
                Event::Expired | Event::Oversized => {}
                Event::Broken => self.by_api = BATCH,
                // Messages were missed, or the server has lost the position.
                Event::Delivery(_) | Event::Gone | Event::Closed => {
                    if self.reopen().await? {
                        return Ok(Step::Renewed);
                    }
                }
            }
        }
    }

    /// Reads the next messages by the server's API. Returns `false` if there are none, or if the stream was replaced.
    async fn read_by_api(&mut self) -> Result<bool, BrokerError> {
        let what = format!("read the stream `{}`", self.stream);
        loop {
            match self.try_read_by_api().await {
                Ok(read) => {
                    self.outage.over(&what);
                    self.ahead.extend(read);
                    return Ok(!self.ahead.is_empty());
                }
                Err(error) if error.is_transient() => self.outage.met(&self.broker, &what, &error),
                Err(error) => return Err(error),
            }
            tokio::time::sleep(REOPEN).await;
        }
    }

    async fn try_read_by_api(&self) -> Result<Vec<Seen>, BrokerError> {
        let (broker, stream) = (&self.broker, &self.stream);
        if Stream::of(broker, stream).created().await? != self.created {
            return Ok(Vec::new());
        }
        let what = || format!("read the stream `{stream}`");
        let mut read: Vec<Stored> = Vec::new();
        let is_newest = self.start["deliver_policy"] == "last_per_subject";
        for pattern in self.patterns() {
            if self.last == 0 && is_newest {
                for subject in Stream::of(broker, stream).subjects(pattern).await? {
                    read.extend(Stored::read(broker, stream, &json!({ "last_by_subj": subject }), what).await?);
                }
            } else {
                let mut request = json!({ "next_by_subj": pattern });
                if self.last == 0 && !self.start["opt_start_time"].is_null() {
                    request["start_time"] = self.start["opt_start_time"].clone();
                } else {
                    let first = self.start[START_SEQUENCE].as_u64().unwrap_or(1);
                    request["seq"] = json!(if self.last == 0 { first } else { self.last + 1 });
                }
                read.extend(Stored::read(broker, stream, &request, what).await?);
            }
        }
        read.sort_unstable_by_key(|stored| stored.sequence);
        if !is_newest || self.last > 0 {
            read.truncate(1);
        }
        Ok(read.into_iter().map(Seen::of).collect())
    }

    /// Returns the patterns of the subjects to read.
    fn patterns(&self) -> Vec<&str> {
        if self.subjects.is_empty() { vec![">"] } else { self.subjects.iter().map(String::as_str).collect() }
    }

    /// Continues after the last message, as soon as the server allows it. Returns `true` if the stream was replaced.
    async fn reopen(&mut self) -> Result<bool, BrokerError> {
        let what = format!("read the stream `{}`", self.stream);
        let mut is_renewed = false;
        let opened = loop {
            let start = if self.last == 0 { self.start.clone() } else { after(self.last) };
            match Opened::new(&self.broker, &self.stream, &self.subjects, &start).await {
                Ok(opened) if opened.created == self.created => break opened,
                Ok(Opened { created, .. }) => {
                    (is_renewed, self.created, self.last) = (true, created, 0);
                    if self.start.get(START_SEQUENCE).is_some() {
                        // Sequence numbers of the old stream mean nothing in the new one.
                        self.start = json!({ "deliver_policy": "all" });
                    }
                    continue;
                }
                Err(error) if error.is_transient() => self.outage.met(&self.broker, &what, &error),
                Err(error) => return Err(error),
            }
            tokio::time::sleep(REOPEN).await;
        };
        self.outage.over(&what);
        (self.queue, self.order) = (opened.queue, 0);
        Ok(is_renewed)
    }
}
