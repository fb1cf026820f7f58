//! What a node knows of a frame and decides about it. Pure: no broker, no runtime, no clock that matters.
//!
//! [`inbound`] reads a frame, [`attempts`] keeps the record of its attempts, [`admit`] decides what to do before anything runs,
//! [`plan`] cuts what it leaves behind into messages, [`outputs`] and [`requeue`] make these, [`dead_letter`] those of failed items.
//! [`steps`] writes what the messages tell of the way of their items.

pub(crate) mod admit;
pub(crate) mod attempts;
pub(crate) mod dead_letter;
pub(crate) mod holders;
pub(crate) mod inbound;
pub(crate) mod outputs;
pub(crate) mod plan;
pub(crate) mod reason;
pub(crate) mod requeue;
pub(crate) mod sent;
pub(crate) mod source;
pub(crate) mod steps;
#[cfg(test)]
pub(crate) mod testing;

use super::route::Route;
use crate::frame::outgoing::MessageLimits;
use inbound::InboundFrame;

/// A frame with what decisions about it depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameContext<'a> {
    /// The frame.
    pub(crate) inbound: &'a InboundFrame,
    /// The route of the hop that handles it.
    pub(crate) route: &'a Route,
    /// What the server takes in one message.
    pub(crate) limits: MessageLimits,
}

impl FrameContext<'_> {
    /// Returns the idempotency key that decides about the frame.
    pub(crate) fn key(&self) -> String {
        self.route.message_id(self.inbound.sequence, 0)
    }
}
