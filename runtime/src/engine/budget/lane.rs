//! How lanes ask for frames within the budget.

use std::time::Duration;

use super::excess::Exceeding;

/// A lane that wants to ask for frames.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// How many stages come after the lane's.
    pub after: usize,
    /// How many frames it wants.
    pub frames: u64,
    /// How many bytes one is expected to have.
    pub each: u64,
    /// Whether its hop has nothing in hand.
    pub is_empty: bool,
    /// Whether nothing came when it asked last.
    pub is_idle: bool,
    /// For how long it has waited in the line, if it has.
    pub waited: Option<Duration>,
}

/// How a lane may ask for frames.
pub struct Leave {
    /// How many frames.
    pub frames: u64,
    /// How long the request may stand.
    pub stands: Stands,
    /// Held until the request has ended and its frame is done, if it exceeds the budget.
    pub exceeding: Option<Exceeding>,
}

/// How long a request for frames may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// As long as is best for the server.
    Long,
    /// A moment: others wait to ask.
    Briefly,
    /// It is answered at once.
    Not,
}
