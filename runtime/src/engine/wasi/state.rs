//! What a guest's WASI calls leave behind.

use std::time::Instant;

/// What an execution has of an operating system.
#[derive(Debug, Default)]
pub(in crate::engine) struct Wasi {
    /// Since when the guest's clock runs, once it has asked.
    pub(super) started: Option<Instant>,
    pub(super) output: [Vec<u8>; 2],
}

impl Wasi {
    /// For an instance whose clock runs since then, if it runs.
    pub(in crate::engine) fn since(started: Option<Instant>) -> Self {
        Self { started, ..Self::default() }
    }

    /// Since when its clock runs.
    pub(in crate::engine) fn clock(&self) -> Option<Instant> {
        self.started
    }
}

/// The guest called `proc_exit`.
#[derive(Debug, thiserror::Error)]
#[error("the task ended the program with exit status {0}")]
pub(in crate::engine) struct Exit(pub(in crate::engine) i32);
