//! Removes what nothing refers to any more: what crashes have left.
//!
//! A record is stale once the message that it names is gone. An object keeps its stale records as long as it has any other, because
//! a node that has handled the message may have died before it wrote the records of what it had stored. An object with stale records
//! alone goes, unless it is so new that its message may be on its way, or a message without a record names it. That is looked for
//! before the records are read for the second time: a node that has taken such a message meanwhile has written a record before it
//! let the message go.

mod candidates;
mod listing;
pub(super) mod removal;

use std::ops::Bound;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::BrokerError;
use super::super::error::code;
use super::super::get::Stored;
use super::super::message::StreamMessage;
use super::super::object_head::ObjectHead;
use super::places::Places;
use super::{Holder, LargeStore, subject};
use crate::frame::header;
use candidates::Candidate;
use listing::{Listed, Listing};

/// How many messages of other streams one pass looks up. The next goes on behind.
const LOOKUPS: usize = 4_000;
/// How many requests are made side by side.
const SIDE_BY_SIDE: usize = 16;
/// How many stale records an object keeps beside others. More of them are worth a look at all messages.
pub(super) const MOST_STALE: usize = 8;

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

/// The sweep of a chain's store, pass by pass.
#[derive(Debug)]
pub(crate) struct Sweep {
    store: LargeStore,
    grace: Grace,
    /// The name behind which the next pass begins.
    behind: String,
}

/// An object without live records, or with many stale ones.
#[derive(Debug)]
struct Doubtful {
    name: String,
    has_head: bool,
    has_chunks: bool,
    /// Who its stale records name.
    stale: Vec<Holder>,
    /// `true` if it has no other records.
    is_free: bool,
}

/// When something was stored, and by whom.
#[derive(Debug, Clone, Copy)]
struct Origin {
    stored: OffsetDateTime,
    /// `true` if this program has stored it.
    is_own: bool,
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
        let Some(Listing { objects, now }) = Listing::read(&self.store).await? else { return Ok(Swept::default()) };
        let (store, behind) = (self.store.clone(), std::mem::take(&mut self.behind));
        let mut places = Places::of(&store).await?;
        let mut doubtful = Vec::new();
        for (name, listed) in objects.range::<String, _>((Bound::Excluded(behind), Bound::Unbounded)) {
            if places.looked >= LOOKUPS {
                break;
            }
            let stale = stale(&mut places, listed).await?;
            let is_free = stale.len() == listed.records.len();
            if is_free || stale.len() > MOST_STALE {
                let (has_head, has_chunks) = (listed.has_head, listed.has_chunks);
                doubtful.push(Doubtful { name: name.clone(), has_head, has_chunks, stale, is_free });
            }
            if places.looked >= LOOKUPS {
                self.behind.clone_from(name);
            }
        }
        let candidates = doubtful.into_iter().map(|doubtful| self.candidate(doubtful, now));
        let candidates = stream::iter(candidates).buffer_unordered(SIDE_BY_SIDE);
        let candidates = candidates.try_filter_map(async |candidate| Ok(candidate)).try_collect().await?;
        Ok(Swept { results: places.removed, ..candidates::settle(&store, candidates).await? })
    }

    /// Returns an object if its stale records may be dropped. `None` if it is too new.
    async fn candidate(&self, doubtful: Doubtful, now: OffsetDateTime) -> Result<Option<Candidate>, BrokerError> {
        let age = match self.origin(&doubtful).await? {
            Some(Origin { stored, is_own }) => {
                let (age, grace) = (now - stored, if is_own { self.grace.own } else { self.grace.foreign });
                if doubtful.is_free && age <= grace {
                    return Ok(None);
                }
                age.unsigned_abs()
            }
            // Gone meanwhile.
            None if doubtful.stale.is_empty() => return Ok(None),
            None => Duration::ZERO,
        };
        let Doubtful { name, stale, is_free, .. } = doubtful;
        let chain = &self.store.0.chain;
        let mut stale: Vec<String> = stale.iter().map(|holder| subject::record(chain, &name, holder)).collect();
        stale.sort_unstable();
        // What goes at this moment is not worth a look at all messages.
        let is_candidate = !is_free || self.store.records(&name).await? == stale;
        Ok(is_candidate.then_some(Candidate { name, stale, age, is_free, is_named: false }))
    }

    /// Returns when the newest part of an object was stored. `None` if nothing of it is.
    async fn origin(&self, of: &Doubtful) -> Result<Option<Origin>, BrokerError> {
        let name = &of.name;
        let head = if of.has_head { self.store.stored_head(name).await? } else { None };
        let (stored, is_own) = if let Some(head) = head {
            let is_own = ObjectHead::read(&head.payload).is_some_and(|described| described.upload() == Some(name));
            (head.time, is_own)
        } else if of.has_chunks {
            let Some(chunk) = self.last_chunk(name).await? else { return Ok(None) };
            let is_own = is_own(&chunk.headers, name);
            (chunk.stored, is_own)
        } else {
            return Ok(None);
        };
        let what = || format!("tell when the large item {name} was stored");
        let stored = OffsetDateTime::parse(&stored, &Rfc3339).map_err(|error| BrokerError::other(what(), &error))?;
        Ok(Some(Origin { stored, is_own }))
    }

    async fn last_chunk(&self, upload: &str) -> Result<Option<StreamMessage>, BrokerError> {
        let what = || "look at large items".to_owned();
        let request = json!({ "last_by_subj": subject::chunks(&self.store.0.chain, upload) });
        let stored = Stored::read(&self.store.0.broker, &self.store.0.stream, &request, what).await?;
        Ok(stored.map(StreamMessage::of))
    }
}

/// Returns the holders of an object whose messages are gone.
async fn stale(places: &mut Places<'_>, listed: &Listed) -> Result<Vec<Holder>, BrokerError> {
    let mut stale = Vec::new();
    // A holder of a newer kind is left alone.
    for holder in listed.records.iter().flatten() {
        if !places.has(*holder).await? {
            stale.push(*holder);
        }
    }
    Ok(stale)
}

/// Returns `true` if a chunk was stored by this program.
fn is_own(headers: &crate::frame::Headers, name: &str) -> bool {
    headers.get_exact(header::MESSAGE_ID).and_then(|id| id.strip_prefix(name)).is_some_and(|rest| rest.starts_with('.'))
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
