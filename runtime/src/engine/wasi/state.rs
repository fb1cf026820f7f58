//! The state of a guest's WASI calls.

use std::time::Instant;

use super::last::LastLines;

/// The state of an execution's operating system.
#[derive(Debug, Default)]
pub(in crate::engine) struct Wasi {
    /// The start of the guest's clock. `None` if the guest has never asked for the time.
    pub(in crate::engine) started: Option<Instant>,
    /// The unfinished lines of standard output and standard error.
    pub(in crate::engine) output: [Vec<u8>; 2],
    /// `true` once the guest has asked for time or chance, or has printed or called anything: the next start may go otherwise, or
    /// would not be seen.
    pub(in crate::engine) is_worldly: bool,
    /// The last lines of standard error of the item.
    pub(in crate::engine) last: LastLines,
}

/// The guest called `proc_exit`.
#[derive(Debug, thiserror::Error)]
#[error("the task ended the program with exit status {0}")]
pub(in crate::engine) struct Exit(pub(in crate::engine) i32);
