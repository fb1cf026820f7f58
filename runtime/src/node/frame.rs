//! What a node knows of a frame and decides about it, apart from the effects.

pub(crate) mod attempts;
pub(crate) mod dead_letter;
pub(crate) mod holders;
pub(crate) mod inbound;
pub(crate) mod plan;
pub(crate) mod reason;
pub(crate) mod source;
