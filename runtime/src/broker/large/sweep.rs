//! Removes what nothing refers to any more: what crashes have left.
//!
//! A record is stale once the message that it names is gone. An object without any other record goes, unless it is so new that its
//! message may be on its way, or a message of a client that writes no records names it. That is looked for before the records are
//! read for the second time: a node that has taken such a message meanwhile has written a record before it let the message go.

mod listing;

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::BrokerError;
use super::super::error::code;
use super::super::get::Stored;
use super::super::message::StreamMessage;
use super::super::stream::Stream;
use super::head::Head;
use super::places::Places;
use super::{Holder, LargeStore, subject};
use crate::frame::header;
use crate::subject as names;
use listing::{Listed, Listing};
use serde_json::json;

/// How many messages of other streams one pass looks up. The next goes on behind.
const LOOKUPS: usize = 4_000;

/// How old what has no record must be to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grace {
    /// What this program has stored.
    pub(crate) own: Duration,
    /// What other clients have stored. They may write no records.
    pub(crate) foreign: Duration,
}

impl Default for Grace {
    fn default() -> Self {
        Self { own: Duration::from_mins(2), foreign: Duration::from_hours(1) }
    }
}

/// What a pass has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Objects that were removed.
    pub(crate) objects: u64,
    /// Stale records of other objects that were removed.
    pub(crate) records: u64,
    /// Results that were removed because all who wait for them have taken them.
    pub(crate) results: u64,
}

/// How far the clocks of two servers may differ.
const SKEW: Duration = Duration::from_mins(1);

/// The sweep of a chain's store, pass by pass.
#[derive(Debug)]
pub(crate) struct Sweep {
    store: LargeStore,
    grace: Grace,
    /// The name behind which the next pass begins.
    behind: String,
}

/// An object without a live record.
struct Candidate {
    name: String,
    /// Its records, as they were read first.
    records: Vec<String>,
    /// How long ago it was stored. Zero if nothing of it is.
    age: Duration,
}

impl Sweep {
    /// Creates the sweep of a store.
    pub(crate) fn of(store: &LargeStore, grace: Grace) -> Self {
        Self { store: store.clone(), grace, behind: String::new() }
    }

    /// Does as many passes as it takes to come to all objects.
    pub(crate) async fn whole(&mut self) -> Result<Swept, BrokerError> {
        let mut all = self.pass().await?;
        while !self.behind.is_empty() {
            let Swept { objects, records, results } = self.pass().await?;
            all = Swept {
                objects: all.objects + objects,
                records: all.records + records,
                results: all.results + results,
            };
        }
        Ok(all)
    }

    /// Does one pass.
    pub(crate) async fn pass(&mut self) -> Result<Swept, BrokerError> {
        let mut swept = Swept::default();
        let Some(Listing { objects, now }) = Listing::read(&self.store).await? else { return Ok(swept) };
        let (store, behind) = (self.store.clone(), std::mem::take(&mut self.behind));
        let mut places = Places::of(&store).await?;
        let mut candidates = Vec::new();
        for (name, listed) in
            objects.range::<String, _>((std::ops::Bound::Excluded(behind), std::ops::Bound::Unbounded))
        {
            if places.looked >= LOOKUPS {
                break;
            }
            let stale = self.stale(&mut places, listed).await?;
            if stale.len() < listed.records.len() {
                for record in &stale {
                    self.store.stream().purge(Some(record)).await?;
                    swept.records += 1;
                }
            } else if let Some(age) = self.age(name, listed, now).await? {
                candidates.push(Candidate { name: name.clone(), records: self.store.records(name).await?, age });
            }
            if places.looked >= LOOKUPS {
                self.behind.clone_from(name);
            }
        }
        swept.results = places.removed;
        self.keep_named(&mut candidates).await?;
        for candidate in candidates {
            swept.objects += u64::from(self.remove(&candidate, &mut places).await?);
        }
        Ok(swept)
    }

    /// Returns the records of an object whose messages are gone.
    async fn stale(&self, places: &mut Places<'_>, listed: &Listed) -> Result<Vec<String>, BrokerError> {
        let mut stale = Vec::new();
        for (record, holder) in &listed.records {
            // A holder of a newer kind is left alone.
            let Some(holder) = holder else { continue };
            if !places.has(*holder).await? {
                stale.push(record.clone());
            }
        }
        Ok(stale)
    }

    /// Returns how long nothing was stored of an object. `None` if that is not long enough.
    async fn age(&self, name: &str, listed: &Listed, now: OffsetDateTime) -> Result<Option<Duration>, BrokerError> {
        let chain = &self.store.0.chain;
        let chunks = async |upload: &str| self.last(subject::chunks(chain, upload)).await;
        let head = if listed.has_head { self.store.stored_head(name).await? } else { None };
        let upload =
            head.as_ref().and_then(|head| Head::read(&head.payload)).and_then(|head| Some(head.upload()?.to_owned()));
        let newest = match &head {
            Some(head) => Some((head.time.clone(), upload.as_deref() == Some(name))),
            None if listed.has_chunks => {
                let chunk = chunks(name).await?;
                chunk.map(|chunk| (chunk.stored, is_own(&chunk.headers, name)))
            }
            None => None,
        };
        // Stale records alone, or gone meanwhile.
        let Some((stored, is_own)) = newest else { return Ok(Some(Duration::ZERO)) };
        let Ok(stored) = OffsetDateTime::parse(&stored, &Rfc3339) else { return Ok(None) };
        let grace = if is_own { self.grace.own } else { self.grace.foreign };
        Ok((now - stored > grace).then(|| (now - stored).unsigned_abs()))
    }

    async fn last(&self, subject: String) -> Result<Option<StreamMessage>, BrokerError> {
        let what = || "look at large items".to_owned();
        let request = json!({ "last_by_subj": subject });
        let stored = Stored::read(&self.store.0.broker, &self.store.0.stream, &request, what).await?;
        Ok(stored.map(StreamMessage::of))
    }

    /// Keeps the objects that messages without records name, and writes their records.
    ///
    /// Such messages are those of clients that write no records, and those of a node that died right after it had stored them, in
    /// whatever queue, and among results and dead letters. No message is older than an object that a node made for it, and those of
    /// other clients are in queues.
    async fn keep_named(&self, candidates: &mut Vec<Candidate>) -> Result<(), BrokerError> {
        let chain = &self.store.0.chain;
        self.keep_named_in(&names::work_stream(chain), None, Holder::Work, candidates).await?;
        let oldest = candidates.iter().map(|candidate| candidate.age).max().unwrap_or_default();
        if oldest.is_zero() {
            return Ok(());
        }
        // The clocks of two servers may differ.
        let since = Some(oldest + SKEW);
        self.keep_named_in(&names::results_stream(chain), since, Holder::Result, candidates).await?;
        self.keep_named_in(&names::dead_stream(chain), since, Holder::Dead, candidates).await
    }

    async fn keep_named_in(
        &self,
        stream: &str,
        since: Option<Duration>,
        holder: fn(u64) -> Holder,
        candidates: &mut Vec<Candidate>,
    ) -> Result<(), BrokerError> {
        if candidates.is_empty() {
            return Ok(());
        }
        let mut scan = match Stream::of(&self.store.0.broker, stream).scan(">".to_owned(), since).await {
            Err(error) if error.is_not_found() => return Ok(()),
            scan => scan?,
        };
        while let Some(message) = scan.next().await? {
            if message.headers.get(header::LARGE).is_none() {
                continue;
            }
            for candidate in candidates.extract_if(.., |candidate| names_object(&message.payload, &candidate.name)) {
                self.store.write_record(&candidate.name, holder(message.sequence)).await?;
            }
        }
        Ok(())
    }

    /// Removes an object if its records are still as they were. Returns `true` if it did.
    async fn remove(&self, candidate: &Candidate, places: &mut Places<'_>) -> Result<bool, BrokerError> {
        let records = self.store.records(&candidate.name).await?;
        if records != candidate.records {
            return Ok(false);
        }
        // Those that came after the list was made.
        for record in &records {
            let Some(subject::Part::Record(_, Some(holder))) = subject::parse(record) else { return Ok(false) };
            if places.has(holder).await? {
                return Ok(false);
            }
        }
        self.store.delete(&candidate.name).await?;
        Ok(true)
    }
}

/// Returns `true` if a chunk was stored by this program.
fn is_own(headers: &crate::frame::Headers, name: &str) -> bool {
    headers.get_exact(header::MESSAGE_ID).and_then(|id| id.strip_prefix(name)).is_some_and(|rest| rest.starts_with('.'))
}

/// Returns `true` if a payload holds a name. That it is a reference is not certain, and need not be.
fn names_object(payload: &[u8], name: &str) -> bool {
    payload.windows(name.len()).any(|window| window == name.as_bytes())
}

impl LargeStore {
    /// Takes the turn to sweep for a while. Returns `true` if nobody else has it, and there is anything to sweep.
    pub(crate) async fn take_turn(&self, for_: Duration) -> Result<bool, BrokerError> {
        match self.stream().state(None).await {
            Ok(state) if state.state.messages > 0 => {}
            Ok(_) => return Ok(false),
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error),
        }
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        headers.insert(header::TTL, format!("{}s", for_.as_secs().max(1)));
        let what = || "take the turn to remove large items".to_owned();
        match self.0.broker.put(subject::turn(&self.0.chain), headers, Bytes::new(), what).await {
            Err(error) if error.code().is_some_and(|code| code::WRONG_LAST_SEQUENCE.contains(&code)) => Ok(false),
            taken => taken.map(|()| true),
        }
    }
}
