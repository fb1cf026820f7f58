//! Cases of a chain: what is fed, what stands in for the world, and what must come of it.

pub(crate) mod case;
