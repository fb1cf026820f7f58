//! How lanes request frames within the budget.

use std::time::Duration;

use super::excess::Exceeding;

/// The wish of a lane to request frames.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// The number of stages after the lane's.
    pub after: usize,
    /// The number of frames it wants.
    pub frames: u64,
    /// The expected bytes of one frame.
    pub each: u64,
    /// `true` if its hop has no frame in hand.
    pub is_empty: bool,
    /// `true` if its last request found nothing.
    pub is_idle: bool,
    /// The time that the lane has waited in line. `None` if it has not.
    pub waited: Option<Duration>,
}

/// Permit to request frames.
pub struct Leave {
    /// The most frames to request.
    pub frames: u64,
    /// How long the request may wait on the server.
    pub stands: Stands,
    /// Permit to exceed the budget, if the frame does. Held until the frame is done.
    pub exceeding: Option<Exceeding>,
}

/// How long a request for frames may wait on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// As long as suits the server best.
    Long,
    /// Briefly, because other lanes wait to request frames.
    Briefly,
    /// Not at all: the server answers at once.
    Not,
}
