//! Cases of a chain: what is fed, what stands in for the world, and what must come of it.

pub(crate) mod case;
pub(crate) mod compare;
pub(crate) mod file;
pub(crate) mod junit;
pub(crate) mod outcome;
#[cfg(test)]
mod random;
pub(crate) mod replayed;
pub(crate) mod run;
pub(crate) mod update;
pub(crate) mod value;
