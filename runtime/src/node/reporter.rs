//! What a node reports of itself when it is asked.

use std::sync::Arc;
use std::time::Instant;

use super::{Node, host_name, memory};
use crate::broker::Broker;
use crate::report::{NodeReport, Problem};

impl Node {
    /// Returns what makes the report of the node.
    pub(super) fn reporter(&self) -> impl Fn() -> NodeReport + Send + Sync + Clone + 'static {
        let started = Instant::now();
        let name = self.settings.name.clone();
        let incarnation = self.context.incarnation.clone();
        let programs = self.context.programs.ended_by();
        let (slots, labels) = (Arc::clone(&self.context.slots), self.context.labels.clone());
        let context = Arc::clone(&self.context);
        let (board, budget, broker) =
            (Arc::clone(&self.context.board), Arc::clone(self.context.engine.budget()), self.context.broker.clone());
        move || NodeReport {
            node: name.clone(),
            incarnation: incarnation.clone(),
            pid: std::process::id(),
            host: host_name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: started.elapsed().as_secs_f64(),
            draining: board.is_draining(),
            memory_used: budget.used(),
            memory_resident: memory::resident().unwrap_or_default(),
            memory: budget.limit(),
            programs,
            processors: programs.map(|_| slots.capacity().bound()).unwrap_or_default(),
            slots: slots.report(),
            labels: labels.all().clone(),
            secrets: context.reach.secrets(),
            hops: board.hops(),
            problems: board.problems().into_iter().chain(missing(&broker)).collect(),
        }
    }
}

/// Returns the missing permissions as problems.
fn missing(broker: &Broker) -> impl Iterator<Item = Problem> {
    broker.missing_permissions().into_iter().map(|missing| Problem {
        problem: missing.to_string(),
        chain: missing.chain.unwrap_or_default(),
        revision: None,
        stage: None,
    })
}
