//! Stores an object.
//!
//! Its first record is written before its first chunk, and its description after its last, so that it is always either whole, or
//! known to be under way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ulid::Ulid;

use super::chunks::{Chunks, Stop};
use super::lease::Names;
use super::pieces::{Content, Pieces};
use super::room::Share;
use super::{AGAIN, AGAIN_MAX, Holder, LargeError, LargeStore, Lease, subject};
use crate::backoff::Backoff;
use crate::broker::BrokerError;
use crate::broker::request::Outage;
use crate::frame::large::{Form, Reference};

/// How many chunks are sent until the store is asked again whether there is room.
const LOOK_FOR_ROOM: u64 = 64;
/// Completes "cannot …".
const WHAT: &str = "store large items";

/// For whom an object is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Maker<'a> {
    /// A node that handles the message at this place of the work stream: [`Holder::Making`].
    Message(u64),
    /// A living client.
    Lease(&'a Lease),
}

impl LargeStore {
    /// Stores an object, and returns the reference to it. Its maker holds it.
    ///
    /// Waits for room and for a server that is away. A failed or dropped upload removes what it has left.
    ///
    /// # Errors
    ///
    /// Final if the item is too large for its form or for the limit of the store.
    pub(crate) async fn upload(
        &self,
        content: Content<'_>,
        form: Form,
        maker: Maker<'_>,
        share: Share,
    ) -> Result<Reference, LargeError> {
        let size = content.size();
        if size > form.max() {
            return Err(LargeError::TooLarge { size, max: form.max(), why: "" });
        }
        self.check_limit(size, share).await?;
        let mut pieces = Pieces::of(&content)?;
        let name = Ulid::generate().to_string();
        let holder = maker.holder();
        let names = maker.lease().map(Lease::names);
        let mut unfinished = Unfinished { store: self, name: &name, holder, names, is_done: false };
        match maker {
            Maker::Message(_) => self.hold(&name, holder).await?,
            Maker::Lease(lease) => lease.hold(&name).await?,
        }
        let mut chunks = Chunks::of(self, &name, holder, size);
        self.send(&mut chunks, &mut pieces, share).await?;
        if let Some(lease) = maker.lease() {
            // The sweep may have removed chunks while the lease had run out.
            while !lease.is_fresh(&name) {
                lease.hold(&name).await?;
                insist!(self, WHAT, chunks.look())?;
                if chunks.stored < chunks.count {
                    self.send(&mut chunks, &mut pieces, share).await?;
                }
            }
        }
        let digest = pieces.digest().await?.ok_or_else(|| self.damaged(&name, "its file has changed meanwhile"))?;
        let reference = Reference { name: name.clone(), size, digest, form };
        self.describe(&reference, chunks.size, chunks.count).await?;
        unfinished.is_done = true;
        Ok(reference)
    }

    /// Stores the chunks of an object.
    async fn send(&self, chunks: &mut Chunks<'_>, pieces: &mut Pieces, share: Share) -> Result<(), LargeError> {
        let (mut outage, mut backoff) = (Outage::default(), Backoff::new(AGAIN, AGAIN_MAX));
        let size = pieces.size();
        // An empty object has no chunk, and its digest is that of nothing.
        if size == 0 {
            pieces.at(0).await?;
        }
        let mut room = self.room(size, share).await?;
        let mut is_doubted = false;
        loop {
            if chunks.stored == chunks.count {
                // After any doubt, only what is stored can tell that nothing came twice or late.
                if !std::mem::take(&mut is_doubted) {
                    break;
                }
                insist!(self, WHAT, chunks.look())?;
                continue;
            }
            let before = chunks.stored;
            let until = chunks.count.min(chunks.stored + LOOK_FOR_ROOM);
            let stop = match chunks.send(pieces, until).await {
                Ok(())
                    if until < chunks.count && self.is_overfull(&room, share, chunks.sent()).await.unwrap_or(false) =>
                {
                    Stop::Full
                }
                Ok(()) => continue,
                Err(stop) => stop,
            };
            is_doubted = true;
            match stop {
                Stop::Source(error) => return Err(error),
                Stop::Broker(error) => return Err(error.into()),
                Stop::NoStore => self.0.is_made.store(false, Ordering::Relaxed),
                Stop::Doubt(reason) => {
                    let reason = BrokerError::Timeout(format!("store a chunk: {reason}"));
                    outage.met(&self.0.broker, WHAT, &reason);
                    if chunks.stored > before {
                        backoff.reset();
                    }
                    backoff.wait().await;
                    insist!(self, WHAT, chunks.look())?;
                    continue;
                }
                // Others must have room to finish; what is stored of this one would be in their way.
                Stop::Full => {}
            }
            insist!(self, WHAT, chunks.give_up())?;
            drop(room);
            backoff.wait().await;
            room = self.room(size, share).await?;
        }
        outage.over(WHAT);
        Ok(())
    }
}

impl<'a> Maker<'a> {
    fn holder(self) -> Holder {
        match self {
            Self::Message(place) => Holder::Making(place),
            Self::Lease(lease) => lease.holder(),
        }
    }

    fn lease(self) -> Option<&'a Lease> {
        match self {
            Self::Message(_) => None,
            Self::Lease(lease) => Some(lease),
        }
    }
}

/// An upload that is under way. Removes what is stored of it when dropped before it is done.
struct Unfinished<'a> {
    store: &'a LargeStore,
    name: &'a str,
    holder: Holder,
    /// The names of the lease that holds it.
    names: Option<Arc<Names>>,
    is_done: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let (store, name, holder, names) = (self.store.clone(), self.name.to_owned(), self.holder, self.names.take());
        // Without a run-time, or if this one ends too soon, the sweep removes the rest.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let removing = Removing::of(&store);
        runtime.spawn(async move {
            let _removing = removing;
            if let Some(names) = names {
                names.take_out(&name).await;
            }
            let removed = store.abandon(&name, holder).await;
            tracing::debug!(name, ?removed, "removed what an upload has left");
        });
    }
}

/// Counts an upload whose chunks are being removed.
struct Removing(LargeStore);

impl Removing {
    fn of(store: &LargeStore) -> Self {
        store.0.removing.send_modify(|count| *count += 1);
        Self(store.clone())
    }
}

impl Drop for Removing {
    fn drop(&mut self) {
        self.0.0.removing.send_modify(|count| *count -= 1);
    }
}

impl LargeStore {
    /// Waits until what failed and dropped uploads of this process have left is removed.
    ///
    /// A process that ends before leaves it to the sweep.
    pub(crate) async fn has_removed(&self) {
        // The sender is here, so this does not fail.
        let _ = self.0.removing.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Removes an object that was not stored to its end, and the record of its maker.
    async fn abandon(&self, name: &str, holder: Holder) -> Result<(), LargeError> {
        insist!(self, "remove an unfinished large item", self.remove_chunks(name, holder))?;
        self.release(name, holder).await
    }

    async fn remove_chunks(&self, name: &str, holder: Holder) -> Result<(), BrokerError> {
        self.fence(name, holder).await?;
        match self.stream().purge(Some(&subject::chunks(&self.0.chain, name))).await {
            Err(error) if error.is_not_found() => Ok(()),
            purged => purged.map(drop),
        }
    }
}
