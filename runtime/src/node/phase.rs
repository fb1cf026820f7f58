//! What a revision's hops are told to do, and the waits for it.

use std::time::Duration;

use tokio::sync::watch;

/// What a worker shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Take items and run them.
    Run,
    /// Take no more, finish those in hand.
    Drain,
    /// Interrupt what runs and give it back.
    Interrupt,
}

/// Waits for a phase. A catalog that is gone wants nothing any more.
pub(crate) async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    let _ = phase.wait_for(|phase| *phase == wanted).await;
}

/// Waits until the phase was [`Phase::Interrupt`] for this long.
pub(crate) async fn interrupted(phase: &mut watch::Receiver<Phase>, patience: Duration) {
    reached(phase, Phase::Interrupt).await;
    tokio::time::sleep(patience).await;
}

/// Waits until no more items shall be taken.
pub(crate) async fn left_run(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase != Phase::Run).await;
}
