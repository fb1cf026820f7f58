//! Cases of a chain: what is fed, what stands in for the world, and what must come of it.

pub(crate) mod case;
pub(crate) mod file;
#[cfg(test)]
mod random;
mod replayed;
mod value;
