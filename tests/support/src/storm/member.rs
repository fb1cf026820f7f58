//! The nodes of a storm.

use std::time::Instant;

use crate::{Cluster, Process, Proxy};

/// A node, which may be gone, paused or cut off until some time.
pub(super) struct Member {
    pub(super) process: Option<Process>,
    /// Its way to the server.
    pub(super) proxy: Proxy,
    /// When it is started again, woken up, or let through.
    pub(super) until: Option<Instant>,
}

impl Member {
    pub(super) fn start(cluster: &Cluster, number: usize) -> Self {
        let proxy = Proxy::to(&cluster.server.url);
        let name = format!("n{number}");
        let process = cluster.spawn(&["node", "--name", &name, "--grace", "1s", "--nats", &proxy.url]);
        Self { process: Some(process), proxy, until: None }
    }
}

/// Wakes up and starts again what has been away for long enough. A node that could not start, because the server was away, is
/// started again as well.
pub(super) fn tend(cluster: &Cluster, members: &mut [Member]) {
    for (number, member) in members.iter_mut().enumerate() {
        if member.until.is_some_and(|until| Instant::now() < until) {
            continue;
        }
        let ended = member.process.as_mut().is_none_or(Process::has_ended);
        match &member.process {
            Some(process) if !ended => {
                if member.until.take().is_some() {
                    process.signal("CONT");
                    member.proxy.release();
                }
            }
            _ => *member = Member::start(cluster, number),
        }
    }
}
