//! Whether this node can run the items of a hop: a program may need what the node lacks at present.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;

/// How long a hop takes no items after the node could not run one.
pub(crate) const PAUSE: Duration = Duration::from_secs(30);

/// Whether this node can run the items of a hop. It tries again after a pause.
#[derive(Debug, Default)]
pub(crate) struct Fitness {
    /// When an item could not be run last.
    lost: Mutex<Option<Instant>>,
}

impl Fitness {
    /// Returns `true` if the hop may take items.
    pub(crate) fn is_fit(&self) -> bool {
        lock(&self.lost).is_none_or(|lost| lost.elapsed() >= PAUSE)
    }

    /// Takes note that the node could not run an item.
    pub(crate) fn lose(&self) {
        *lock(&self.lost) = Some(Instant::now());
    }

    /// Takes note that items which began then have run. Returns `true` if the node was unfit until now.
    pub(crate) fn prove(&self, began: Instant) -> bool {
        lock(&self.lost).take_if(|lost| began > *lost).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_takes_no_items_for_a_while_or_until_one_that_began_later_has_run() {
        let fitness = Fitness::default();
        let before = Instant::now();
        assert!(fitness.is_fit() && !fitness.prove(before));
        fitness.lose();
        assert!(!fitness.is_fit() && !fitness.prove(before), "what began before shows nothing");
        let lost = Instant::now().checked_sub(PAUSE);
        *lock(&fitness.lost) = Some(lost.expect("a time"));
        assert!(fitness.is_fit(), "it tries again");
        assert!(fitness.prove(before));
        fitness.lose();
        assert!(fitness.prove(Instant::now() + Duration::from_millis(1)) && fitness.is_fit());
    }
}
