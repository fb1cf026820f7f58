//! Why an object cannot be stored or read.

use std::sync::Arc;

use crate::broker::BrokerError;
use crate::name::ChainName;

/// Why a large item cannot be stored or read.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LargeError {
    /// The store does not have the object, or not all of it.
    #[error("the store of chain `{chain}` does not have the large item {name}: {reason}")]
    Missing {
        /// The chain.
        chain: ChainName,
        /// The name of the object.
        name: String,
        /// What is missing.
        reason: String,
    },
    /// The object is not what the reference says.
    #[error("the large item {name} of chain `{chain}` is not what was stored under this name: {reason}")]
    Damaged {
        /// The chain.
        chain: ChainName,
        /// The name of the object.
        name: String,
        /// The difference.
        reason: String,
    },
    /// The item is larger than items may be.
    #[error("the item has {size} bytes; {max} is the most{why}")]
    TooLarge {
        /// The bytes of the item.
        size: u64,
        /// The most bytes.
        max: u64,
        /// What sets the limit, as in ": …".
        why: &'static str,
    },
    /// The store has no room for the object now.
    #[error(
        "the store of the chain's large items has no room for {size} bytes: it holds {taken} of {limit} and has not changed for \
         a while; pull results, drop dead letters, or raise `large_bytes` below `[queue]` and deploy that"
    )]
    NoRoom {
        /// The bytes of the item.
        size: u64,
        /// The bytes that the store holds.
        taken: u64,
        /// The most bytes that it may hold.
        limit: u64,
    },
    /// A file of this machine cannot be read or written, for example because its disk is full.
    #[error("cannot {what}: {error}")]
    File {
        /// The attempt.
        what: &'static str,
        /// The reason.
        error: Arc<std::io::Error>,
    },
    /// The server did not do something.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl LargeError {
    /// Returns `true` if the same will never succeed.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Damaged { .. } | Self::TooLarge { .. })
    }

    /// Returns `true` if it failed because a disk of this machine is full.
    pub(crate) fn is_disk_full(&self) -> bool {
        let full = [std::io::ErrorKind::StorageFull, std::io::ErrorKind::QuotaExceeded];
        matches!(self, Self::File { error, .. } if full.contains(&error.kind()))
    }

    pub(super) fn file(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::File { what, error: Arc::new(error) }
    }
}
