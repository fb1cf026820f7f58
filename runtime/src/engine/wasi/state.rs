//! The state of a guest's WASI calls.

use std::time::Instant;

/// The state of an execution's operating system.
#[derive(Debug, Default)]
pub(in crate::engine) struct Wasi {
    /// The start of the guest's clock. `None` if the guest has never asked for the time.
    pub(super) started: Option<Instant>,
    pub(super) output: [Vec<u8>; 2],
}

impl Wasi {
    /// Creates the state of an instance whose clock started then. `None` if it has not started.
    pub(in crate::engine) fn since(started: Option<Instant>) -> Self {
        Self { started, ..Self::default() }
    }

    /// Returns the start of the clock.
    pub(in crate::engine) fn clock(&self) -> Option<Instant> {
        self.started
    }
}

/// The guest called `proc_exit`.
#[derive(Debug, thiserror::Error)]
#[error("the task ended the program with exit status {0}")]
pub(in crate::engine) struct Exit(pub(in crate::engine) i32);
