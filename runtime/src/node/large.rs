//! Large items, as a hop of a node sees them.
//!
//! A message holds a reference in the place of a large item, and the chain's object store holds its bytes. Before an item runs, the
//! node fetches its bytes ([`files`] keeps them); after it has run, large outputs go to the store ([`keep`]). [`made`] remembers
//! what was made for a frame until the frame is acknowledged. The rules of records are those of
//! [`references`](super::commit::references).

pub(crate) mod files;
pub(crate) mod keep;
pub(crate) mod made;
pub(crate) mod stores;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;

use crate::broker::large::{Content, Holder, LargeError, LargeStore, Maker, Patience, Share};
use crate::broker::queue::Delivery;
use crate::chain::Chain;
use crate::frame::large::{Form, Reference};
use crate::frame::outgoing::MessageLimits;
use crate::node::commit::receipt::{Place, StreamKind};
use crate::node::frame::inbound::InboundFrame;
use crate::run::failure::{Failure, FailureKind};
use crate::run::item::ItemBytes;
use files::Files;
use keep::{Origin, Unkept, Waits};
use made::{Made, MadeFor, Storing};

/// An item of no more bytes is read into memory without a file.
const IN_MEMORY: u64 = 1 << 20;
/// How long nothing happens in a store once nothing runs.
const QUIET: Duration = Duration::from_secs(10);
/// The first wire whose nodes know references.
const SINCE: u32 = 2;

/// The large items of a hop.
#[derive(Debug)]
pub(crate) struct LargeItems {
    store: LargeStore,
    files: Arc<Files>,
    /// An item of more bytes goes to the store, if the chain says so.
    above: Option<u64>,
    /// The position of the hop, and the number of hops.
    place: (usize, usize),
    /// How long an output waits for room in a store in which nothing happens.
    patience: Duration,
    /// `false` for revisions of an older wire, some of whose nodes may know no references.
    makes_references: bool,
    made: Made,
}

impl LargeItems {
    /// Creates the large items of a hop of a chain. `place` is the position of the hop and the number of hops, `wire` that of the
    /// revision.
    pub(crate) fn new(store: LargeStore, files: Arc<Files>, chain: &Chain, place: (usize, usize), wire: u32) -> Self {
        // What runs elsewhere ends within its timeout, and changes the store then.
        let running: Duration = chain.stages.iter().map(|stage| stage.timeout).sum();
        Self {
            store,
            files,
            above: chain.queue.large,
            place,
            patience: running + QUIET,
            makes_references: knows_references(wire),
            made: Made::default(),
        }
    }

    /// Returns the most bytes of an output that stays in a message, for outputs of this frame.
    pub(crate) fn most(&self, inbound: &InboundFrame, limits: MessageLimits) -> usize {
        let inherited: usize = inbound.frame.inherited.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        let above = self.above.and_then(|above| usize::try_from(above).ok()).unwrap_or(usize::MAX);
        limits.max_item().saturating_sub(inherited).min(above)
    }

    /// Records that the message at a place refers to an object.
    pub(crate) async fn hold(&self, name: &str, place: Place) -> Result<(), LargeError> {
        self.store.hold(name, holder(place)).await
    }

    /// Begins to store messages of a frame. `None` if they refer to no objects.
    ///
    /// Unless it is told of the end, the acknowledgement of the frame leaves all its objects to the sweep, which looks for messages
    /// without records.
    pub(crate) fn storing(&self, inbound: &InboundFrame) -> Option<Storing<'_>> {
        let refers = self.has_made() || !inbound.frame.large.is_empty();
        refers.then(|| self.made.storing(inbound.sequence))
    }

    /// Returns `true` if anything was made for a frame that is not acknowledged yet.
    pub(crate) fn has_made(&self) -> bool {
        !self.made.is_empty()
    }

    /// Acknowledges a message, and takes back the records that it and its handling had. `names` are the objects that it refers to.
    ///
    /// An acknowledgement that the server does not confirm may be lost, and the message come again. Then the sweep takes the records
    /// back. It also does if storing was not done to its end here, or if an earlier delivery of the message was lost (`was_lost`): that node may have stored messages and nothing
    /// else, and only the sweep looks for such messages before it removes an object.
    pub(crate) async fn acknowledge(&self, delivery: &Delivery, names: &[String], was_lost: bool) {
        let sequence = delivery.sequence;
        let MadeFor { names: made, is_doubtful } = self.made.take(sequence);
        if names.is_empty() && made.is_empty() {
            return delivery.acker.ack().await;
        }
        if !delivery.acker.ack_and_confirm().await {
            tracing::debug!(
                sequence,
                "an acknowledgement was not confirmed; the sweep removes what was for its message"
            );
            return;
        }
        let made = if is_doubtful { Vec::new() } else { made };
        let names = if is_doubtful || was_lost { &[] } else { names };
        let made = made.iter().map(|name| self.release(name, Holder::Making(sequence)));
        let held = names.iter().map(|name| self.release(name, Holder::Work(sequence)));
        futures_util::join!(join_all(made), join_all(held));
    }

    async fn release(&self, name: &str, holder: Holder) {
        if let Err(error) = self.store.release(name, holder).await {
            tracing::debug!(name, %error, "the record of a large item stays until the sweep");
        }
    }

    /// Returns the bytes of a large item, checked.
    ///
    /// # Errors
    ///
    /// Final if the store does not have it as the reference says. A failure of the node if it cannot be read or written here.
    pub(crate) async fn open(&self, reference: &Reference) -> Result<ItemBytes, Failure> {
        if reference.size > reference.form.max() {
            let (size, max) = (reference.size, reference.form.max());
            return Err(Failure::fatal(
                FailureKind::Error,
                format!("the large item has {size} bytes; {max} is the most"),
            ));
        }
        if reference.size <= IN_MEMORY {
            let content = self.store.read(reference).await.map_err(|error| unread(&error))?;
            return Ok(whole(reference, &content).into());
        }
        let fetched = self.files.get(reference, &self.store).await;
        fetched.map(ItemBytes::File).map_err(|error| unread(&error))
    }

    /// Returns `true` if the store has a limit, so that what has room must be stored before what has none.
    pub(crate) fn is_limited(&self) -> bool {
        self.store.is_limited()
    }

    /// Fails if an output of this size can never be stored beside the item that it comes of.
    pub(crate) async fn check(&self, size: u64, origin: &Origin) -> Result<(), Failure> {
        self.store.check_limit(size, self.share(origin)).await.map_err(|error| unstored(&error))
    }

    /// Stores a large output.
    async fn upload(&self, origin: &Origin, content: Content<'_>, form: Form) -> Result<Reference, Unkept> {
        if !self.makes_references {
            let (size, max) = (content.size(), self.store.max_item());
            let reason = format!(
                "an output of {size} bytes is too large for a message, which takes {max}, and the chain was deployed by an \
                 earlier pcluster; write a new version into the manifest and deploy it, and such outputs go to the object store"
            );
            return Err(Failure::fatal(FailureKind::Output, reason).into());
        }
        let (maker, share) = (Maker::Message(origin.sequence), self.share(origin));
        let stored = self.store.upload(content, form, maker, share).await;
        let reference = stored.map_err(|error| match &error {
            LargeError::NoRoom { .. } => Unkept::NoRoom(unstored(&error)),
            _ => unstored(&error).into(),
        })?;
        self.made.add(origin.sequence, reference.name.clone());
        Ok(reference)
    }

    fn share(&self, origin: &Origin) -> Share {
        let (position, of) = self.place;
        let holding = origin.input.as_ref().map_or(0, |input| input.size);
        let patience = match origin.waits {
            Waits::No => Patience::None,
            Waits::AWhile => Patience::Until(self.patience),
            Waits::On => Patience::Endless(self.patience),
        };
        Share::Hop { position, of, holding, patience }
    }

    /// Removes the records of what was made for a frame so far. Messages with records of their own refer to it.
    ///
    /// Else it would take room until the frame is acknowledged, however long its stage still gives more.
    pub(crate) async fn stored(&self, sequence: u64) {
        let made = self.made.take_stored(sequence);
        join_all(made.iter().map(|name| self.release(name, Holder::Making(sequence)))).await;
    }
}

/// Returns `true` if all nodes of a revision of this wire know references.
pub(crate) fn knows_references(wire: u32) -> bool {
    wire >= SINCE
}

/// Returns the item of this content.
fn whole(reference: &Reference, content: &Bytes) -> Bytes {
    let head = reference.form.head(reference.size);
    if head.is_empty() {
        return content.clone();
    }
    let mut item = BytesMut::with_capacity(head.len() + content.len());
    item.extend_from_slice(&head);
    item.extend_from_slice(content);
    item.freeze()
}

fn holder(place: Place) -> Holder {
    match place.kind {
        StreamKind::Work => Holder::Work(place.sequence),
        StreamKind::Results => Holder::Result(place.sequence),
        StreamKind::Dead => Holder::Dead(place.sequence),
    }
}

/// Returns the failure of an item that cannot be fetched. A failure of the node leaves it to other nodes.
fn unread(error: &LargeError) -> Failure {
    if error.is_final() {
        return Failure::fatal(FailureKind::Error, error.to_string());
    }
    Failure::transient(FailureKind::Node, format!("a large item cannot be fetched: {error}"))
}

/// Returns the failure of an item whose output cannot be stored.
fn unstored(error: &LargeError) -> Failure {
    let reason = format!("a large output cannot be stored: {error}");
    if error.is_final() {
        Failure::fatal(FailureKind::Output, reason)
    } else {
        Failure::transient(FailureKind::Output, reason)
    }
}
