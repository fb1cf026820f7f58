//! The phases of a revision on this node.

use std::time::Duration;

use tokio::sync::watch;

/// What workers must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Take items and run them.
    Run,
    /// Take no more items, and finish those in hand.
    Drain,
    /// Interrupt the items in hand and give them back.
    Interrupt,
}

/// Waits for a phase. If the supervisor is gone, there is no more to wait for.
pub(crate) async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    let _ = phase.wait_for(|phase| *phase == wanted).await;
}

/// Waits until the phase has been [`Phase::Interrupt`] for this long.
pub(crate) async fn interrupted(phase: &mut watch::Receiver<Phase>, patience: Duration) {
    reached(phase, Phase::Interrupt).await;
    tokio::time::sleep(patience).await;
}

/// Waits until the phase is no longer [`Phase::Run`].
pub(crate) async fn left_run(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase != Phase::Run).await;
}
