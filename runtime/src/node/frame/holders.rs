//! Who had a frame in hand before.

use std::collections::BTreeMap;

/// A node that had a frame in hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its name.
    pub node: String,
    /// Which run of its program.
    pub incarnation: Option<String>,
}

/// Who had a frame in hand before: the node for each time that it was handed out, as far as is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
    pub(crate) by_delivery: BTreeMap<u64, Holder>,
    /// Whether those who say what they have in hand are heard: this node itself is.
    pub(crate) is_complete: bool,
}

impl Holders {
    /// The node that the frame was handed out to as this time, from 1.
    #[must_use]
    pub fn at(&self, delivered: u64) -> Option<&Holder> {
        self.by_delivery.get(&delivered)
    }

    /// Whether one that is not known is none: nobody ever had the frame in hand that time.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    #[cfg(test)]
    pub(crate) fn of(holders: &[(u64, &str, &str)], is_complete: bool) -> Self {
        let holder = |(delivered, node, incarnation): &(u64, &str, &str)| {
            (*delivered, Holder { node: (*node).to_owned(), incarnation: Some((*incarnation).to_owned()) })
        };
        Self { by_delivery: holders.iter().map(holder).collect(), is_complete }
    }
}
