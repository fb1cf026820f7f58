//! The route of a hop: where its frames come from, where they go, and how they are signed. Plain data.

use std::sync::{Arc, PoisonError, RwLock};

use ulid::Ulid;

use crate::chain::{Chain, Stage};
use crate::frame::id::Index;
use crate::frame::{Headers, header};
use crate::name::Revision;
use crate::run::failure::Failure;

/// What the idempotency keys of nodes start with.
const NODES_OWN: &str = "pcluster.";
/// The first wire whose keys have a part that belongs to the work stream.
const KEY_SINCE: u32 = 2;

/// The route of a hop.
#[derive(Debug)]
pub struct Route {
    /// The chain.
    pub chain: Arc<Chain>,
    /// The revision.
    pub revision: Revision,
    /// The position of the hop's first stage in the chain.
    pub position: usize,
    /// The subject of the outputs.
    pub target: String,
    /// `true` if the outputs are results.
    pub is_last: bool,
    /// The name of this node.
    pub node: String,
    /// The incarnation of this node: one run of its program.
    pub incarnation: String,
    /// The part of the idempotency keys that belongs to the work stream.
    pub key: WorkKey,
}

impl Route {
    /// Returns the first stage of the hop.
    pub fn stage(&self) -> &Stage {
        &self.chain.stages[self.position]
    }

    /// Returns `true` if the stage limits what runs at once in the whole cluster.
    pub fn is_limited(&self) -> bool {
        self.stage().max_in_flight.is_some()
    }

    /// Returns `true` if an item that failed at this attempt has none left.
    pub(crate) fn is_last_attempt(&self, failure: &Failure, attempt: u64) -> bool {
        failure.fatal || attempt >= u64::from(self.stage().retry.attempts)
    }

    /// Adds the headers that name the version, the revision and the node that finished an item.
    pub(crate) fn sign(&self, headers: &mut Headers) {
        headers.push(header::VERSION, self.chain.version.as_str());
        headers.push(header::REVISION, self.revision.number().to_string());
        headers.push(header::NODE, self.node.as_str());
    }

    /// Returns the place in the world of the message fed at this place of the work stream. `None` if no stage of the chain reaches
    /// the world.
    pub(crate) fn fed(&self, sequence: u64) -> Option<String> {
        self.chain.reaches_out().then(|| format!("{}{sequence}", self.key.get()))
    }

    /// Returns the idempotency key of the `number`th message that a frame leaves behind.
    ///
    /// The revision is part of it because other streams outlive the work stream. The prefix keeps it apart from keys of feeders,
    /// which may look like `1.2.3` and are in the same stream.
    pub(crate) fn message_id(&self, sequence: u64, number: usize) -> String {
        format!("{NODES_OWN}{}{}.{sequence}.{number}", self.key.get(), self.revision.number())
    }

    /// Returns the idempotency key of the `number`th message that a commit stores before the one that decides.
    pub(crate) fn part_id(&self, sequence: u64, commit: Ulid, number: usize) -> String {
        format!("{NODES_OWN}{}{}.{sequence}.part.{commit}.{number}", self.key.get(), self.revision.number())
    }

    /// Returns the idempotency key of the `number`th message streamed by the item at `part`. It is the same at each attempt.
    pub(crate) fn streamed_id(&self, origin: u64, part: &Index, number: usize) -> String {
        let (key, revision) = (self.key.get(), self.revision.number());
        format!("{NODES_OWN}{key}{revision}.{origin}.{}.carried.{number}", part.get(0))
    }
}

/// The part of the idempotency keys that belongs to one work stream. It changes when the stream is removed and made anew.
#[derive(Debug)]
pub struct WorkKey {
    key: RwLock<Arc<str>>,
    /// `false` for revisions of an older wire: all their nodes must use the same keys, and some may know no others.
    is_used: bool,
}

impl WorkKey {
    /// Creates the empty key of a revision of this wire.
    pub fn new(wire: u32) -> Self {
        Self { key: RwLock::new("".into()), is_used: wire >= KEY_SINCE }
    }

    /// Returns `true` if the key must be read from the server before it is used.
    pub fn is_used(&self) -> bool {
        self.is_used
    }

    /// Replaces the key.
    pub fn set(&self, key: &str) {
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = format!("{key}.").into();
    }

    /// Returns the key with a dot behind it, or nothing.
    pub fn get(&self) -> Arc<str> {
        Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner))
    }
}
