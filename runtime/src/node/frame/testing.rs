//! Frames for tests.

use std::sync::Arc;
use std::time::Instant;

use super::holders::Holders;
use super::inbound::InboundFrame;
use crate::dead::Attempt;
use crate::frame::id::{FrameId, Index};
use crate::frame::{Frame, Headers};
use crate::held::HeldSince;
use crate::subject::Lane;

/// Returns a frame of one item after this many lost and failed attempts.
pub(crate) fn inbound(lost_attempts: u64, failed: u64, holders: Holders) -> InboundFrame {
    InboundFrame {
        written: None,
        frame: Frame {
            id: FrameId::from_fed("a"),
            items: vec![bytes::Bytes::from_static(&[1])],
            index: Index::in_order(1),
            inherited: Headers::new(),
        },
        lane: Lane::Work,
        sequence: 7,
        part: Index::in_order(1),
        origin: 7,
        attempt: failed + lost_attempts + 1,
        lost_attempts,
        cleared: 0,
        unknown: 0,
        held: Arc::new(HeldSince::new(Instant::now())),
        delivered: lost_attempts + 1,
        holders,
        history: (1..=failed).map(self::failed).collect(),
        given_up: None,
    }
}

/// Returns the record of a failed attempt.
pub(crate) fn failed(attempt: u64) -> Attempt {
    Attempt {
        attempt,
        node: Some("x".to_owned()),
        incarnation: None,
        time: String::new(),
        failure: "error".to_owned(),
        reason: String::new(),
    }
}

/// Records the earlier deliveries of a frame as attempts.
pub(crate) fn record(inbound: &mut InboundFrame) {
    inbound.note_suspicions(String::new);
}
