//! Stages that limit what is in flight in the whole cluster. Their items share one consumer, so items that wait are parked
//! elsewhere.

pub(crate) mod moved;
pub(crate) mod parked;
pub(crate) mod waits;
