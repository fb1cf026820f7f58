//! Being told to stop.

use tokio::signal::unix::{SignalKind, signal};

/// The exit status when a second signal ends the program at once: 128 + SIGINT, as shells have it.
const KILLED: i32 = 130;

/// Waits for SIGINT or SIGTERM. From then on, a second one ends the program at once.
pub async fn requested() {
    next_signal().await;
    tokio::spawn(async {
        next_signal().await;
        std::process::exit(KILLED);
    });
}

async fn next_signal() {
    let (mut interrupt, mut terminate) = match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "cannot listen for signals");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
