//! What to do with a frame before any of it runs.

use super::inbound::InboundFrame;
use super::plan::FRAME_ITEMS;
use crate::run::failure::{Failure, FailureKind};
use crate::subject::Lane;

/// After this many suspicions an item runs in quarantine, even if all its nodes still run.
const SUSPICIONS_MAX: u64 = 20;
/// After this many deliveries to unknown nodes an item runs in quarantine: they may have died of it.
const UNKNOWN_IN_COMPANY: u64 = 2;

/// What to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Run it.
    Run,
    /// Requeue it in the quarantine lane.
    Quarantine,
    /// Give it up: it has no attempt left.
    GiveUp,
    /// Write its dead letters: an earlier node gave it up.
    DeadLetter,
}

/// Decides what to do with a frame of a stage that allows this many attempts.
pub(crate) fn admit(inbound: &InboundFrame, attempts: u64) -> Admission {
    if inbound.given_up.is_some() {
        Admission::DeadLetter
    } else if wants_quarantine(inbound, attempts) {
        Admission::Quarantine
    } else if inbound.attempt > attempts {
        Admission::GiveUp
    } else {
        Admission::Run
    }
}

/// Returns the failure of a frame whose node was lost in the last of its attempts.
pub(crate) fn lost_in_last_attempt(inbound: &InboundFrame, attempts: u64) -> Failure {
    let node = inbound.history.last().and_then(|attempt| attempt.node.as_ref());
    let node = node.map(|node| format!(" {node}")).unwrap_or_default();
    let reason = format!("the node{node} died or was cut off in the last of {attempts} attempts");
    Failure::fatal(FailureKind::Node, reason)
}

/// Returns the items of a piece if a frame must be cut before any of it runs, where `piece` items go together.
///
/// A frame of more than [`FRAME_ITEMS`] could not be requeued item by item in one batch.
pub(crate) fn split(items: usize, piece: usize) -> Option<usize> {
    (items > FRAME_ITEMS || piece < items).then_some(piece)
}

/// Returns `true` if a frame runs as it is, however long its items take.
pub(crate) fn runs_whole(items: usize, is_limited: bool) -> bool {
    items <= FRAME_ITEMS && (is_limited || items == 1)
}

/// Returns the lost attempts after which an item runs alone. Then the next death counts against this item and no neighbor.
const fn lost_attempts_in_company(attempts: u64) -> u64 {
    if attempts > 3 { 2 } else { 1 }
}

/// Returns `true` if a frame must run alone, because its nodes may have died of it.
///
/// Until that is known, it is not given up for their deaths: another item may have killed its node each time. An item with a single
/// attempt has none left to find out.
fn wants_quarantine(inbound: &InboundFrame, attempts: u64) -> bool {
    if inbound.lane == Lane::Quarantine {
        // Here a message has several items only if its frame had very many.
        return inbound.len() > 1 && inbound.attempt <= attempts;
    }
    let lost_attempts = inbound.all_lost_attempts();
    let is_odd = inbound.cleared + lost_attempts >= SUSPICIONS_MAX || inbound.unknown >= UNKNOWN_IN_COMPANY;
    is_odd && inbound.attempt <= attempts
        || attempts > 1
            && (lost_attempts >= lost_attempts_in_company(attempts) || lost_attempts > 0 && inbound.attempt > attempts)
}

#[cfg(test)]
mod tests {
    use super::super::holders::Holders;
    use super::super::testing::{inbound, record};
    use super::*;

    #[test]
    fn attempts_decide_whether_a_frame_runs_goes_to_quarantine_is_given_up_or_becomes_dead_letters() {
        use Admission::{DeadLetter, GiveUp, Quarantine, Run};
        // Lost and failed attempts, attempts allowed, cleared deliveries, of these unknown, given up: in the work lane and in
        // quarantine.
        let table = [
            (0, 0, 5, 0, 0, false, Run, Run),
            (0, 4, 5, 0, 0, false, Run, Run),
            (0, 5, 5, 0, 0, false, GiveUp, GiveUp),
            (1, 0, 5, 0, 0, false, Run, Run),
            (2, 0, 5, 0, 0, false, Quarantine, Run),
            (1, 4, 5, 0, 0, false, Quarantine, GiveUp),
            (1, 0, 3, 0, 0, false, Quarantine, Run),
            (3, 0, 3, 0, 0, false, Quarantine, GiveUp),
            (1, 0, 1, 0, 0, false, GiveUp, GiveUp),
            (0, 0, 5, 19, 0, false, Run, Run),
            (0, 0, 5, 20, 0, false, Quarantine, Run),
            (0, 0, 1, 20, 0, false, Quarantine, Run),
            (1, 0, 1, 20, 0, false, GiveUp, GiveUp),
            (1, 0, 5, 19, 0, false, Quarantine, Run),
            (0, 0, 5, 1, 1, false, Run, Run),
            (0, 0, 5, 2, 2, false, Quarantine, Run),
            (0, 1, 1, 2, 2, false, GiveUp, GiveUp),
            (9, 9, 1, 99, 9, true, DeadLetter, DeadLetter),
        ];
        for (lost, failed, attempts, cleared, unknown, is_given_up, in_work, in_quarantine) in table {
            let mut frame = inbound(lost, failed, Holders::default());
            (frame.cleared, frame.unknown) = (cleared, unknown);
            frame.given_up = is_given_up.then(|| Failure::fatal(FailureKind::Error, "for good"));
            let case = (lost, failed, attempts, cleared, unknown, is_given_up);
            assert_eq!(admit(&frame, attempts), in_work, "{case:?}");
            frame.lane = Lane::Quarantine;
            assert_eq!(admit(&frame, attempts), in_quarantine, "{case:?} in quarantine");
        }
    }

    #[test]
    fn a_frame_is_cut_if_others_could_run_a_part_of_it_or_it_has_too_many_items_to_requeue() {
        // Items, limited, piece: whole without asking, and the piece that it is cut into.
        let table = [
            (1, false, 1, true, None),
            (2, false, 1, false, Some(1)),
            (2, false, 2, false, None),
            (900, true, 7, true, Some(7)),
            (901, false, 900, false, Some(900)),
            (901, true, 901, false, Some(901)),
        ];
        for (items, is_limited, piece, whole, cut) in table {
            assert_eq!(
                (runs_whole(items, is_limited), split(items, piece)),
                (whole, cut),
                "{items} {is_limited} {piece}"
            );
        }
    }

    #[test]
    fn unknown_holders_lead_to_quarantine_and_end_an_item_only_after_many_deliveries() {
        for attempts in [1, 3, 5] {
            // The frame is delivered again and again, to nodes that leave no note.
            let (mut lane, mut cleared, mut attempt, mut delivered) = (Lane::Work, 0, 1, 1);
            let (mut in_company, mut times) = (0, 0);
            loop {
                let mut frame = inbound(delivered - 1, attempt - 1, Holders::default());
                (frame.lane, frame.cleared) = (lane, cleared);
                record(&mut frame);
                times += 1;
                match admit(&frame, attempts) {
                    Admission::Quarantine => {
                        (lane, cleared, attempt, delivered) = (Lane::Quarantine, frame.cleared, frame.attempt, 1);
                        continue;
                    }
                    Admission::Run => {}
                    Admission::GiveUp | Admission::DeadLetter => break,
                }
                in_company += u64::from(lane == Lane::Work);
                delivered += 1;
                assert!(times < 100, "an end");
            }
            assert_eq!((lane, in_company), (Lane::Quarantine, UNKNOWN_IN_COMPANY), "{attempts}");
            assert_eq!(times, 10 + attempts + 2, "{attempts}");
        }
    }
}
