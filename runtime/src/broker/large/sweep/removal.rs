//! Removes an object that an owner may hold anew at the same moment.
//!
//! A client whose lease has run out writes its record, and then looks for the description. A sweep removes the description, and then
//! looks for records. So one of them sees what the other does: either the client finds the object gone, or the sweep finds it held,
//! and puts the description back.

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_ROLLUP};
use bytes::Bytes;

use super::super::super::BrokerError;
use super::super::super::error::code;
use super::super::super::get::Stored;
use super::super::super::object_head::REPLACE;
use super::super::{LargeStore, subject};

/// An object whose description is removed.
#[derive(Debug)]
pub(in super::super) struct Removal<'a> {
    store: &'a LargeStore,
    name: &'a str,
    /// The subjects of its records.
    records: &'a [String],
    head: Option<Stored>,
}

impl<'a> Removal<'a> {
    /// Removes the description of an object that has just these records. `None` if it has others.
    pub(in super::super) async fn begin(
        store: &'a LargeStore,
        name: &'a str,
        records: &'a [String],
    ) -> Result<Option<Self>, BrokerError> {
        if store.records(name).await? != records {
            return Ok(None);
        }
        let head = store.stored_head(name).await?;
        if head.is_some() {
            store.stream().purge(Some(&subject::head(&store.0.chain, name))).await?;
        }
        Ok(Some(Self { store, name, records, head }))
    }

    /// Removes the rest, or puts the description back if anything holds the object by now. Returns `true` if it is removed.
    pub(in super::super) async fn finish(self) -> Result<bool, BrokerError> {
        let Self { store, name, records, head } = &self;
        // Whoever holds it by now has perhaps seen the description, so no failure may end this.
        if insist!(store, "look at large items", store.records(name))? == *records {
            store.delete_rest(name, head.as_ref()).await?;
            return Ok(true);
        }
        if let Some(head) = head {
            insist!(store, "keep a large item", self.restore(head))?;
        }
        Ok(false)
    }

    async fn restore(&self, head: &Stored) -> Result<(), BrokerError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_ROLLUP, REPLACE);
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        let (subject, payload) = (subject::head(&self.store.0.chain, self.name), Bytes::from(head.payload.clone()));
        match self.store.0.broker.put(subject, headers, payload, || format!("keep the large item {}", self.name)).await
        {
            // There is another one, or the answer of an earlier try was lost.
            Err(error) if error.code().is_some_and(|code| code::WRONG_LAST_SEQUENCE.contains(&code)) => Ok(()),
            put => put,
        }
    }
}
