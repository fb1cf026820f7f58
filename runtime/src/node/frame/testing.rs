//! Frames for tests.

use std::sync::Arc;
use std::time::Instant;

use super::holders::Holders;
use super::inbound::InboundFrame;
use super::sent::Sent;
use crate::chain::Chain;
use crate::chain::manifest::Manifest;
use crate::dead::Attempt;
use crate::frame::id::{FrameId, Index};
use crate::frame::large::Positions;
use crate::frame::{Frame, Headers};
use crate::held::HeldSince;
use crate::name::Revision;
use crate::node::route::{Route, WorkKey};
use crate::subject::{self, Lane};

/// Returns a frame of one item after this many lost and failed attempts.
pub(crate) fn inbound(lost_attempts: u64, failed: u64, holders: Holders) -> InboundFrame {
    InboundFrame {
        topic: None,
        written: None,
        frame: Frame {
            id: FrameId::from_fed("a"),
            items: vec![bytes::Bytes::from_static(&[1])],
            index: Index::in_order(1),
            large: Positions::NONE,
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
        sent: Sent::default(),
        steps: None,
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

/// Returns the route of the first or the last hop of a chain of two stages.
pub(crate) fn route(name: &str, is_last: bool) -> Route {
    route_of(name, is_last, "")
}

/// Returns such a route, whose queues hold four messages.
pub(crate) fn narrow_route(name: &str, is_last: bool) -> Route {
    route_of(name, is_last, "[queue]\nlimit = 4\n")
}

fn route_of(name: &str, is_last: bool, more: &str) -> Route {
    let plugin = format!("plugin = \"sha256:{}\"", "0".repeat(64));
    let stages = ["first", "second"].map(|stage| format!("[[stage]]\nname = \"{stage}\"\n{plugin}\n"));
    let manifest = format!("name = \"{name}\"\nversion = \"1\"\n{}{}{more}", stages[0], stages[1]);
    let manifest = Manifest::from_toml(&manifest).expect("the right shape");
    let chain = Arc::new(Chain::stored(&manifest).expect("a chain"));
    let revision = Revision::new(1);
    let target = if is_last {
        subject::results(&chain.name)
    } else {
        subject::work(&chain.name, revision, &chain.stages[1].name)
    };
    let (node, incarnation) = ("n".to_owned(), "i".to_owned());
    Route { position: usize::from(is_last), chain, revision, target, is_last, node, incarnation, key: WorkKey::new(1) }
}
