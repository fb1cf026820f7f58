//! Slots of one kind: some with numbers of their own, or an amount.

use std::collections::BTreeSet;

/// The free slots of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Free {
    /// Slots with numbers of their own.
    Numbers(BTreeSet<u32>),
    /// An amount, such as bytes.
    Amount(u64),
}

impl Free {
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Numbers(numbers) => numbers.len() as u64,
            Self::Amount(amount) => *amount,
        }
    }

    /// Takes so many of these slots, those with the lowest numbers first. There must be as many.
    pub(super) fn take(&mut self, count: u64) -> Self {
        match self {
            Self::Numbers(numbers) => {
                let taken: BTreeSet<u32> = (0..count).map_while(|_| numbers.pop_first()).collect();
                Self::Numbers(taken)
            }
            Self::Amount(amount) => {
                *amount = amount.saturating_sub(count);
                Self::Amount(count)
            }
        }
    }

    pub(super) fn give_back(&mut self, more: Self) {
        match (self, more) {
            (Self::Numbers(numbers), Self::Numbers(more)) => numbers.extend(more),
            (Self::Amount(amount), Self::Amount(more)) => *amount = amount.saturating_add(more),
            _ => {}
        }
    }
}
