//! Names of entries and objects in pages.
//!
//! A page is picked from the newest message of each subject, which the server delivers in the order of the stream. So a page costs
//! a pass over all names with its prefix, and holds none but its own: 100,000 keys take 0.3 s a page (nats-server 2.15.1, two
//! cores). The server can list subjects in order too, but only 100,000 at a time, and it does not tell which are deleted.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::super::get::Stored;
use super::super::queue::{Event, Queue};
use super::super::stream::Stream;
use super::super::{Broker, BrokerError};
use super::failure::Place;
use super::{GrantedStores, standing};
use crate::calls::failure::{CallFailure, FailureKind};
use crate::calls::stores::Page;
use crate::calls::stores::names::PageNames;
use crate::frame::Headers;

/// The most names with a prefix.
const NAMES_MAX: u64 = 100_000;
/// How many messages one request asks for, and how many bytes unless one message may have more.
const BATCH: u64 = 1_000;
const BATCH_BYTES: usize = 1 << 20;
/// How many messages are read that were written after a pass began, besides as many as there were.
const CHASED: u64 = 10_000;
/// How soon the server removes the consumer of a listing that was dropped.
const FORGET: Duration = Duration::from_secs(10);

/// Names to list.
pub(super) struct Listing<'a> {
    /// The bucket or store.
    pub(super) place: Place<'a>,
    /// The pattern of the subjects.
    pub(super) pattern: String,
    /// The beginning of the names.
    pub(super) prefix: &'a str,
    /// `true` if the payloads are not needed.
    pub(super) headers_only: bool,
}

/// The newest message of a subject.
pub(super) struct Found<'a> {
    /// The subject.
    pub(super) subject: &'a str,
    /// The headers.
    pub(super) headers: &'a Headers,
    /// The payload. Empty if only headers were asked for.
    pub(super) payload: &'a [u8],
}

/// How far a pass has come.
struct Pass {
    /// The sequence number of the last message that was read.
    last: u64,
    /// How many messages were read.
    read: u64,
    /// How many messages there were when the pass began.
    pending: u64,
}

impl Pass {
    /// Returns `true` if others write so fast that the end is never reached. What is not read yet is newer than the pass.
    fn is_chasing(&self) -> bool {
        self.read > self.pending * 2 + CHASED
    }
}

impl Listing<'_> {
    /// Returns a page, and `true` if more names follow.
    ///
    /// `read` returns the name of a message and its value; no value if it is deleted.
    pub(super) async fn page<T>(
        &self,
        stores: &GrantedStores,
        page: &Page,
        room: u64,
        read: impl Fn(Found<'_>) -> Option<(String, Option<T>)>,
        size: impl Fn(&str, &T) -> usize,
    ) -> Result<(Vec<(String, T)>, bool), CallFailure> {
        let mut names = PageNames::new(page, self.prefix);
        let mut take = |found: Found<'_>| match read(found) {
            Some((name, Some(value))) => names.add(&name, value),
            Some((name, None)) => names.remove(&name),
            None => {}
        };
        self.pass(stores, &mut take).await?;
        names.finish(room, size).map_err(|size| {
            let said = format!("the next name has {size} bytes, and the response has room for {room}");
            CallFailure::new(FailureKind::TooLarge, said)
        })
    }

    /// Reads the newest message of each subject.
    async fn pass(&self, stores: &GrantedStores, take: &mut impl FnMut(Found<'_>)) -> Result<(), CallFailure> {
        let open = stores.connection().await;
        let name = format!("pcluster_list_{}", ulid::Ulid::generate());
        let pending = self.make_consumer(&open, &name).await?;
        let mut pass = Pass { last: 0, read: 0, pending };
        let ended = match pending {
            0 => Ok(true),
            1..=NAMES_MAX => self.deliver(stores, &name, &mut pass, take).await,
            _ => Err(self.too_many()),
        };
        // The server would remove it later.
        let stream = self.place.stream();
        let deleted = Stream::of(&open, &stream).delete_consumer(&name).await;
        tracing::trace!(?deleted, name, "removed the consumer of a listing");
        if ended? { Ok(()) } else { self.walk(stores, &mut pass, take).await }
    }

    /// Reads what a consumer delivers. Returns `false` if its messages broke the connection.
    async fn deliver(
        &self,
        stores: &GrantedStores,
        consumer: &str,
        pass: &mut Pass,
        take: &mut impl FnMut(Found<'_>),
    ) -> Result<bool, CallFailure> {
        let failed = |error: BrokerError| self.place.failure(&error);
        let bytes = BATCH_BYTES.max(standing(&stores.foreign).await.max_payload()) as u64;
        let mut queue: Queue = stores.foreign.queue(&self.place.stream(), consumer, FORGET).await.map_err(failed)?;
        loop {
            if queue.demand() == 0 {
                queue.request_within(BATCH, Some(bytes), Some(Duration::ZERO)).await.map_err(failed)?;
            }
            match queue.next().await {
                Event::Delivery(delivery) if delivery.order == pass.read + 1 => {
                    (pass.last, pass.read) = (delivery.sequence, pass.read + 1);
                    let (subject, headers) = (delivery.subject(), &delivery.headers());
                    take(Found { subject, headers, payload: &delivery.payload });
                    if pass.is_chasing() {
                        return Ok(true);
                    }
                }
                // The server has no more. If it should have, it was away.
                Event::Expired if queue.demand() == 0 => return Ok(pass.read >= pass.pending),
                Event::Expired | Event::Oversized => {}
                Event::Delivery(_) | Event::Broken | Event::Gone | Event::Closed => return Ok(false),
            }
        }
    }

    /// Reads the rest by the server's API, one message at a time.
    async fn walk(
        &self,
        stores: &GrantedStores,
        pass: &mut Pass,
        take: &mut impl FnMut(Found<'_>),
    ) -> Result<(), CallFailure> {
        loop {
            let request = json!({ "seq": pass.last + 1, "next_by_subj": self.pattern });
            let Some(Stored { sequence, subject, block, payload, .. }) = stores.read(self.place, &request).await?
            else {
                return Ok(());
            };
            pass.last = sequence;
            let headers = crate::frame::block::decode(&block);
            take(Found { subject: &subject, headers: &headers, payload: &payload });
        }
    }

    /// Makes a consumer. Returns the number of messages that it will deliver.
    async fn make_consumer(&self, open: &Broker, name: &str) -> Result<u64, CallFailure> {
        #[derive(Deserialize)]
        struct Made {
            #[serde(default)]
            num_pending: u64,
        }
        let stream = self.place.stream();
        let config = json!({
            "name": name,
            "description": "pcluster: a task lists names",
            "ack_policy": "none",
            "deliver_policy": "last_per_subject",
            "filter_subjects": [self.pattern],
            "headers_only": self.headers_only,
            "inactive_threshold": u64::try_from(FORGET.as_nanos()).unwrap_or(u64::MAX),
            "mem_storage": true,
            "num_replicas": 1,
        });
        let request = json!({ "stream_name": stream, "config": config, "action": "create" });
        let what = || format!("list the {}", self.place);
        let made: Result<Made, _> = open.api(format!("CONSUMER.CREATE.{stream}.{name}"), &request, what).await;
        made.map(|made| made.num_pending).map_err(|error| self.place.failure(&error))
    }

    fn too_many(&self) -> CallFailure {
        let remedy = match self.place {
            Place::Bucket(_) => "; list them by a longer prefix that ends with a dot",
            Place::Store(_) => "",
        };
        let said = format!("the {} has more than {NAMES_MAX} names under `{}`{remedy}", self.place, self.pattern);
        CallFailure::new(FailureKind::TooLarge, said)
    }
}
