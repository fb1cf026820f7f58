//! The nodes of a storm.

use std::time::Instant;

use super::servers::{self, Cluster};
use super::{Plan, large, programs};
use crate::{Process, Proxy};

/// A node of a storm. It may be down, paused or cut off.
pub(super) struct Member {
    pub(super) process: Option<Process>,
    /// The proxies between the node and the servers.
    proxies: Vec<Proxy>,
    /// When the node is started again, woken up, or connected again.
    pub(super) until: Option<Instant>,
}

impl Member {
    pub(super) fn start(cluster: &Cluster, plan: &Plan, number: usize) -> Self {
        let proxies: Vec<Proxy> = servers::urls(cluster).iter().map(|url| Proxy::to(url)).collect();
        let urls: Vec<&str> = proxies.iter().map(|proxy| proxy.url.as_str()).collect();
        let name = format!("n{number}");
        let mut command = cluster.command(&["node", "--name", &name, "--grace", "1s", "--nats", &urls.join(",")]);
        if plan.has_programs() {
            programs::equip(cluster, &mut command);
        }
        if plan.large {
            command.args(large::SWEEPS);
        }
        if plan.trace.is_some() {
            command.env("PCLUSTER_LOG", "debug");
        }
        let mut process = Process::start(command);
        if let Some(trace) = &plan.trace {
            process.log_to(trace.with_extension(format!("{name}.log")));
        }
        Self { process: Some(process), proxies, until: None }
    }

    /// Cuts the node off from the servers.
    pub(super) fn cut(&self) {
        self.proxies.iter().for_each(Proxy::cut);
    }

    fn release(&self) {
        self.proxies.iter().for_each(Proxy::release);
    }
}

/// Wakes up and starts again the nodes whose time is over. Also starts nodes that could not start because the server was away.
pub(super) fn tend(cluster: &Cluster, plan: &Plan, members: &mut [Member]) {
    for (number, member) in members.iter_mut().enumerate() {
        if member.until.is_some_and(|until| Instant::now() < until) {
            continue;
        }
        let ended = member.process.as_mut().is_none_or(Process::has_ended);
        match &member.process {
            Some(process) if !ended => {
                if member.until.take().is_some() {
                    process.signal("CONT");
                    member.release();
                }
            }
            _ => *member = Member::start(cluster, plan, number),
        }
    }
}
