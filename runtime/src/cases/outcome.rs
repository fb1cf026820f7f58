//! What came of a case.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::dead::FailureKind;
use crate::name::StageName;

/// What came of a case.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// The results of the chain, each as CBOR.
    pub(crate) results: Vec<Bytes>,
    /// What each stage gave, each as CBOR.
    pub(crate) stages: BTreeMap<StageName, Vec<Bytes>>,
    /// The dead letters.
    pub(crate) dead: Vec<Died>,
}

/// An item that became a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Died {
    /// The stage that failed.
    pub(crate) stage: StageName,
    /// The kind of failure.
    pub(crate) kind: FailureKind,
    /// The reason.
    pub(crate) reason: String,
    /// The number of attempts.
    pub(crate) attempts: u64,
    /// The item, as CBOR.
    pub(crate) item: Bytes,
}
