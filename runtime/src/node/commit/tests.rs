//! What a frame leaves behind, whatever its nodes do: exhaustively over streams in memory, and by one table of cases over these
//! and over a real server, so that the streams in memory cannot differ from JetStream.

mod memory;
mod objects;
mod schedules;
mod table;

use bytes::Bytes;

use super::outbox::Outbox;
use super::receipt::{Place, Receipt, StreamKind};
use super::*;
use crate::frame::format::{Format, to_cbor};
use crate::frame::id::FrameId;
use crate::frame::outgoing::MessageLimits;
use crate::node::frame::holders::Holders;
use crate::node::frame::inbound::InboundFrame;
use crate::node::frame::testing::{narrow_route, route};
use crate::node::frame::{outputs, testing};
use crate::node::route::Route;
use crate::run::output::{FrameOutputs, Outputs};

/// What a run makes of a frame. Items are named by their positions.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// These items end well with so many outputs each, and these fail: for good, or with another attempt. These are deferred. The
    /// others have not run.
    Executed {
        kept: &'static [(usize, usize)],
        failed: &'static [usize],
        fatal: &'static [usize],
        deferred: &'static [usize],
    },
    /// Nothing runs. The frame is requeued in pieces of this many items.
    Requeued(usize),
    /// Nothing runs. The frame is given up.
    GivenUp,
    /// The dead letters of a frame that was given up are written.
    DeadLetters,
    /// A single item gives [`STREAMED`] outputs, the same in each run.
    Streamed,
}

const ALL: Outcome = Outcome::Executed { kept: &[(0, 1), (1, 2), (2, 1)], failed: &[], fatal: &[], deferred: &[] };
const MIXED: Outcome = Outcome::Executed { kept: &[(1, 2)], failed: &[0], fatal: &[], deferred: &[] };
const FATAL: Outcome = Outcome::Executed { kept: &[(0, 1), (2, 3)], failed: &[], fatal: &[1], deferred: &[] };
const NONE_KEPT: Outcome = Outcome::Executed { kept: &[], failed: &[2], fatal: &[0], deferred: &[1] };

/// The frame of most cases: items 0, 1 and 2.
const ITEMS: usize = 3;
/// More outputs than the next queue takes at once.
const STREAMED: usize = 5;

/// The frame at a place of the stream, handed out for the `delivered`th time.
fn frame(sequence: u64, delivered: u64, items: usize) -> InboundFrame {
    let mut inbound = testing::inbound(delivered - 1, 0, Holders::default());
    inbound.frame.id = FrameId::from_fed("a");
    inbound.frame.items = (0..items).map(|position| to_cbor(&position)).collect();
    inbound.frame.index = Index::in_order(items);
    (inbound.part, inbound.sequence, inbound.origin) = (Index::in_order(items), sequence, sequence);
    inbound
}

/// Runs a frame as a node does: looks whether another run has decided, stores what this one leaves behind.
async fn run(
    outbox: &impl Outbox,
    route: &Route,
    inbound: &InboundFrame,
    limits: MessageLimits,
    outcome: Outcome,
) -> Result<(), PublishError> {
    let commit = Commit::new(outbox, FrameContext { inbound, route, limits });
    let is_given_up = matches!(outcome, Outcome::DeadLetters);
    if !is_given_up && inbound.is_suspect() && commit.is_settled().await? {
        return Ok(());
    }
    let leave = |ended, positions: &[usize], deferred| {
        outputs::leavings(FrameContext { inbound, route, limits }, vec![ended], positions, deferred, 0, ITEMS, None)
    };
    match outcome {
        Outcome::Streamed => {
            let mut ended = FrameOutputs::default();
            (0..STREAMED).for_each(|output| {
                let mut given = Outputs::default();
                given.push(&to_cbor(&(1, 0, output)));
                ended.append(given.all());
            });
            ended.end(0);
            commit.run(leave(ended, &[], Vec::new()), Vec::new()).await.map(drop)
        }
        Outcome::Executed { kept, failed, fatal, deferred } => {
            let mut ended = FrameOutputs::default();
            for &(position, number) in kept {
                let mut given = Outputs::default();
                for output in 0..number {
                    // Which run, which item, which of its outputs.
                    given.push(&to_cbor(&(inbound.delivered, position, output)));
                }
                ended.append(given.all());
                ended.end(position);
            }
            let failure = |kind, fatal| Failure { fatal, ..Failure::fatal(kind, "it failed") };
            let again = failed.iter().map(|&position| (position, failure(FailureKind::Error, false)));
            let for_good = fatal.iter().map(|&position| (position, failure(FailureKind::Error, true)));
            let mut failures: Vec<(usize, Failure)> = again.chain(for_good).collect();
            failures.sort_by_key(|(position, _)| *position);
            let positions: Vec<usize> = failures.iter().map(|(position, _)| *position).collect();
            commit.run(leave(ended, &positions, deferred.to_vec()), failures).await.map(drop)
        }
        Outcome::Requeued(piece) => commit.requeue(piece, Lane::Retry, inbound.attempt - 1, None).await,
        Outcome::GivenUp => commit.give_up(&Failure::fatal(FailureKind::Node, "no attempt left")).await,
        Outcome::DeadLetters => commit.write_dead_letters(&Failure::fatal(FailureKind::Node, "no attempt left")).await,
    }
}

/// Where an item or output is, in words.
fn place(headers: &Headers, payload: &Bytes, stream: &str) -> Vec<String> {
    let items = if payload.is_empty() { Vec::new() } else { Format::Cbor.items(payload).expect("CBOR items") };
    let number = |item: &Bytes| ciborium::from_reader::<ciborium::Value, _>(&item[..]).expect("an item");
    let is_requeued = headers.get(header::ORIGIN).is_some();
    let what = match (is_requeued, headers.get(header::FAILURE).is_some(), headers.get(header::DELAY).is_some()) {
        (true, true, _) => "given up",
        (true, false, true) => "retried later",
        (true, false, false) => "retried",
        (false, ..) => stream,
    };
    let attempt = headers.get(header::ATTEMPT).map(|attempt| format!(" after {attempt}")).unwrap_or_default();
    let covers = headers.get(header::COVERS).map(|covers| format!("covers {covers}"));
    let text = |item: &Bytes| match number(item) {
        ciborium::Value::Integer(item) => format!("{} {what}{attempt}", i128::from(item)),
        ciborium::Value::Array(of) => {
            let of: Vec<i128> = of.iter().filter_map(|part| Some(part.as_integer()?.into())).collect();
            format!("{} {what} {} of run {}", of[1], of[2], of[0])
        }
        other => format!("{other:?}"),
    };
    items.iter().map(text).chain(covers).collect()
}
