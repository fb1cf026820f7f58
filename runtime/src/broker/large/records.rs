//! Records of who refers to an object.
//!
//! A record is an empty message under a subject of its own. The server removes the record of a lease by itself.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_ROLLUP;
use bytes::Bytes;

use super::super::get::Stored;
use super::super::object_head::{ObjectHead, REPLACE};
use super::super::{Broker, BrokerError};
use super::{Holder, LargeError, LargeStore, is_full, subject};
use crate::frame::header;

/// How long the record of a lease stays after its last renewal.
pub(super) const LEASE: Duration = Duration::from_mins(1);

impl LargeStore {
    /// Records that a holder refers to an object. Harmless to repeat.
    pub(crate) async fn hold(&self, name: &str, holder: Holder) -> Result<(), LargeError> {
        insist!(self, "record what refers to a large item", self.write_record(name, holder))?;
        Ok(())
    }

    /// Removes the record of a holder, and with the last record the object. Harmless to repeat.
    ///
    /// A stale record counts too. With stale ones alone, the sweep looks for messages without a record before it removes the object.
    ///
    /// A holder without a record is one of a client that writes none, and may not be the only one. Then the sweep looks for others before
    /// it removes the object.
    ///
    /// Another holder may only be recorded meanwhile if it took the reference from one that is recorded still.
    pub(crate) async fn release(&self, name: &str, holder: Holder) -> Result<(), LargeError> {
        insist!(self, "remove the record of a large item", self.release_once(name, holder))?;
        Ok(())
    }

    async fn release_once(&self, name: &str, holder: Holder) -> Result<(), BrokerError> {
        let had_record = match self.remove_record(name, holder).await {
            Err(error) if error.is_not_found() => return Ok(()),
            removed => removed?,
        };
        if !had_record || self.has_records(name).await? { Ok(()) } else { self.delete(name).await }
    }

    pub(super) async fn write_record(&self, name: &str, holder: Holder) -> Result<(), BrokerError> {
        self.write_over(&self.0.broker, name, holder).await
    }

    /// Waits until the server has taken or lost all that an upload has sent: its record is written anew, over the same line.
    ///
    /// If the server has no room for that, it has come to all that was sent before, too.
    pub(super) async fn fence(&self, name: &str, holder: Holder) -> Result<(), BrokerError> {
        let open = self.0.line.open().await?;
        match self.write_over(&open, name, holder).await {
            Err(error) if is_full(&error) => Ok(()),
            written => written,
        }
    }

    async fn write_over(&self, open: &Broker, name: &str, holder: Holder) -> Result<(), BrokerError> {
        self.ensure().await?;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_ROLLUP, REPLACE);
        if matches!(holder, Holder::Lease(_)) {
            headers.insert(header::TTL, format!("{}s", LEASE.as_secs()));
        }
        let subject = subject::record(&self.0.chain, name, &holder);
        open.put(subject, headers, Bytes::new(), || format!("record what refers to {name}")).await
    }

    /// Returns `true` if there was one.
    pub(super) async fn remove_record(&self, name: &str, holder: Holder) -> Result<bool, BrokerError> {
        let record = subject::record(&self.0.chain, name, &holder);
        Ok(self.stream().purge(Some(&record)).await? > 0)
    }

    /// Returns the holders of an object with the subjects of their records.
    pub(super) async fn records(&self, name: &str) -> Result<Vec<String>, BrokerError> {
        match self.stream().subjects(&subject::records(&self.0.chain, name)).await {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            records => records,
        }
    }

    async fn has_records(&self, name: &str) -> Result<bool, BrokerError> {
        Ok(!self.records(name).await?.is_empty())
    }

    /// Removes an object with all of its records. No mark stays.
    ///
    /// The description goes first: an object that can be listed is whole.
    pub(super) async fn delete(&self, name: &str) -> Result<(), BrokerError> {
        let head = self.stored_head(name).await?;
        self.stream().purge(Some(&subject::head(&self.0.chain, name))).await?;
        self.delete_rest(name, head.as_ref()).await
    }

    /// Removes an object whose description was this and is removed.
    pub(super) async fn delete_rest(&self, name: &str, head: Option<&Stored>) -> Result<(), BrokerError> {
        let chain = &self.0.chain;
        let head = head.and_then(|stored| ObjectHead::read(&stored.payload));
        let foreign = head.as_ref().and_then(ObjectHead::upload).filter(|upload| *upload != name);
        let chunks = match foreign {
            // A description may name the chunks of another object, which stay as long as that is held.
            Some(upload) if !self.has_records(upload).await? => Some(subject::chunks(chain, upload)),
            _ => None,
        };
        let own = [subject::chunks(chain, name), subject::records(chain, name)];
        for subject in chunks.into_iter().chain(own) {
            self.stream().purge(Some(&subject)).await?;
        }
        Ok(())
    }
}
