//! The holders of a frame: the nodes that earlier deliveries went to.

use std::collections::BTreeMap;

/// A node that held a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The name of the node.
    pub node: String,
    /// The incarnation of the node: one run of its program.
    pub incarnation: Option<String>,
}

/// The holders of a frame by delivery, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
    /// The holder of each delivery, counted from 1.
    pub(crate) by_delivery: BTreeMap<u64, Holder>,
    /// `true` if notes of holders can be read: this node's own note is among them. Then a delivery without a holder went to no
    /// node.
    pub(crate) is_complete: bool,
}

#[cfg(test)]
impl Holders {
    pub(crate) fn of(holders: &[(u64, &str, &str)], is_complete: bool) -> Self {
        let holder = |(delivered, node, incarnation): &(u64, &str, &str)| {
            (*delivered, Holder { node: (*node).to_owned(), incarnation: Some((*incarnation).to_owned()) })
        };
        Self { by_delivery: holders.iter().map(holder).collect(), is_complete }
    }
}
