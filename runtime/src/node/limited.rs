//! Stages with a concurrency limit of their own in the cluster: what waits in their queue, and what is moved to its end.

pub(crate) mod moved;
pub(crate) mod parked;
pub(crate) mod waits;
