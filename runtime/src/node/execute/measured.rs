//! What the items of a running frame have taken, for the record of steps.

use std::sync::Arc;

use super::gauge::Gauge;
use super::running::Running;
use crate::frame::steps::Row;
use crate::node::frame::steps::{self, Measure, Measured, Way};
use crate::run::failure::Failure;

impl Running {
    /// Takes note that the next `outputs` outputs of an item have come this way.
    pub(super) fn came(&self, position: usize, outputs: usize, way: Way) {
        if let Some(measured) = &mut self.outcomes().measured {
            measured.ways.entry(position).or_default().push((outputs, way));
        }
    }

    /// Returns what an item of the first stage has taken. `exit` is the status of its program, if it failed.
    pub(super) fn measure(&self, gauge: &Gauge, position: usize, exit: Option<i32>) -> Measure {
        let bytes = match self.inbound.reference(position) {
            Some(large) => large.item_size(),
            None => self.inbound.frame.items[position].len() as u64,
        };
        gauge.measure(position, bytes, exit)
    }

    /// Returns what the outputs of a single item have taken that go on while it runs. `None` if the chain keeps no records.
    pub(super) fn so_far(&self) -> Option<Measured> {
        let (gauge, stamp) = (self.gauge.as_ref()?, self.stamp?);
        let known = self.outcomes().measured.as_mut().and_then(|measured| measured.ways.remove(&0));
        let ways = match known.filter(|_| !self.hop.inline.is_empty()) {
            Some(ways) => ways,
            None => vec![(usize::MAX, [self.measure(gauge, 0, None)].into())],
        };
        Some(Measured { stamp, ways: [(0, ways)].into() })
    }

    /// Returns the steps up to the failure of an item on its way. `None` if the chain keeps no records.
    pub(super) fn failed(&self, way: &Way, failure: &Failure, lines: Vec<String>) -> Option<Arc<Vec<Row>>> {
        Some(steps::failed(self.hop.frame(&self.inbound), self.stamp?, way, failure, lines))
    }

    /// Returns the failure of an item with the steps up to it.
    pub(super) fn with_steps(&self, position: usize, failure: Failure) -> Failure {
        let Some(gauge) = self.gauge.as_ref().filter(|_| failure.steps.is_none()) else { return failure };
        let way = [self.measure(gauge, position, failure.exit)].into();
        let steps = self.failed(&way, &failure, gauge.take_lines(position));
        Failure { steps, ..failure }
    }
}
