//! What the items of a running frame have taken, for the record of steps.

use super::gauge::Gauge;
use super::running::Running;
use crate::node::execute::walked::Walked;
use crate::node::frame::steps::{Measure, Measured, Way};
use crate::run::failure::Failure;

impl Running {
    /// Returns what an item of the first stage has taken. `exit` is the status of its program, if it failed.
    pub(super) fn measure(&self, gauge: &Gauge, position: usize, exit: Option<i32>) -> Measure {
        let bytes = match self.inbound.reference(position) {
            Some(large) => large.item_size(),
            None => self.inbound.frame.items[position].len() as u64,
        };
        gauge.measure(position, bytes, exit)
    }

    /// Returns the measures of outputs of a single item that are streamed next. `None` if the chain keeps no records.
    pub(super) fn so_far(&self, outputs: usize) -> Option<Measured> {
        let (gauge, stamp) = (self.gauge.as_ref()?, self.stamp?);
        let mut outcomes = self.outcomes();
        let known = outcomes.measured.as_mut().and_then(|measured| measured.ways.get_mut(&0));
        let known = known.map(|ways| if self.hop.inline.is_empty() { ways.clone() } else { take_first(ways, outputs) });
        drop(outcomes);
        let ways = known
            .filter(|ways| !ways.is_empty())
            .unwrap_or_else(|| vec![(usize::MAX, [self.measure(gauge, 0, None)].into())]);
        Some(Measured { stamp, ways: [(0, ways)].into() })
    }

    /// Returns the failure of an item with the steps up to it.
    pub(super) fn with_steps(&self, position: usize, failure: Failure) -> Failure {
        let Some(gauge) = self.gauge.as_ref().filter(|_| failure.steps.is_none()) else { return failure };
        let way = [self.measure(gauge, position, failure.exit)].into();
        let steps = self.steps(&way, &failure, gauge.take_lines(position));
        Failure { steps, ..failure }
    }
}

/// Takes the ways of the first outputs.
fn take_first(ways: &mut Vec<(usize, Way)>, outputs: usize) -> Vec<(usize, Way)> {
    let (mut taken, mut left) = (Vec::new(), outputs);
    while let Some((count, way)) = ways.first_mut().filter(|_| left > 0) {
        let now = left.min(*count);
        taken.push((now, Way::clone(way)));
        (*count, left) = (*count - now, left - now);
        if *count == 0 {
            ways.remove(0);
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_of_the_first_outputs_are_taken_and_the_rest_stay() {
        let way: Way = [].into();
        let mut ways = vec![(2, Way::clone(&way)), (3, Way::clone(&way)), (4, way)];
        let counts = |ways: &[(usize, Way)]| ways.iter().map(|(count, _)| *count).collect::<Vec<_>>();
        assert_eq!((counts(&take_first(&mut ways, 3)), counts(&ways)), (vec![2, 1], vec![2, 4]));
        assert_eq!((counts(&take_first(&mut ways, 9)), counts(&ways)), (vec![2, 4], vec![]));
    }
}
