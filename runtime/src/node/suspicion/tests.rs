use std::sync::Arc;

use crate::frame::id::{FrameId, Index};
use crate::frame::{Frame, Headers};
use crate::held::HeldSince;
use crate::node::frame::holders::Holders;
use crate::node::suspicion::*;

/// A frame of one item that was handed out as often before, after as many attempts that are told of.
fn inbound(lost_attempts: u64, failed: u64, holders: Holders) -> InboundFrame {
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
        history: (1..=failed).map(error).collect(),
        given_up: None,
    }
}

fn error(attempt: u64) -> Attempt {
    Attempt {
        attempt,
        node: Some("x".to_owned()),
        incarnation: None,
        time: String::new(),
        failure: "error".to_owned(),
        reason: String::new(),
    }
}

fn told(inbound: &InboundFrame) -> Vec<(u64, Option<&str>, &str)> {
    inbound
        .history
        .iter()
        .map(|attempt| (attempt.attempt, attempt.incarnation.as_deref(), attempt.failure.as_str()))
        .collect()
}

fn note(inbound: &mut InboundFrame) {
    inbound.note_suspicions(String::new);
}

fn living(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn each_time_that_a_frame_was_handed_out_is_an_attempt_until_its_node_answers() {
    let mut frame = inbound(3, 1, Holders::of(&[(1, "a", "A"), (2, "b", "B"), (3, "d", "D")], true));
    note(&mut frame);
    assert_eq!(
        told(&frame),
        [(1, None, "error"), (2, Some("A"), "node"), (3, Some("B"), "node"), (4, Some("D"), "node")]
    );
    assert_eq!((frame.attempt, frame.lost_attempts, frame.cleared), (5, 3, 0));
    assert_eq!(frame.suspects(), living(&["A", "B", "D"]));

    assert_eq!(frame.strike_out(&living(&["A", "C", "D"])), 2);
    assert_eq!(told(&frame), [(1, None, "error"), (2, Some("B"), "node")]);
    assert_eq!((frame.attempt, frame.lost_attempts, frame.cleared), (3, 1, 2));
    assert_eq!(frame.strike_out(&living(&["A", "B"])), 1);
    assert_eq!((frame.attempt, frame.lost_attempts, frame.cleared), (2, 0, 3));
}

#[test]
fn a_run_of_a_node_dies_once_whatever_it_had_in_hand_before() {
    // A node that is too slow to say that it works on what it has gets it again and again, and is stopped in the end.
    let mut frame = inbound(4, 0, Holders::of(&[1, 2, 3, 4].map(|delivered| (delivered, "a", "A")), true));
    note(&mut frame);
    assert_eq!((told(&frame), frame.cleared), (vec![(1, Some("A"), "node")], 3));
    assert_eq!((frame.attempt, frame.lost_attempts, wants_quarantine(&frame, 5)), (2, 1, false));

    // It was taken for dead, the frame was put back, and it has it again.
    let mut frame = inbound(1, 0, Holders::of(&[(1, "a", "A")], true));
    note(&mut frame);
    (frame.lost_attempts, frame.delivered) = (2, 3);
    (frame.attempt, frame.holders) = (4, Holders::of(&[(1, "b", "B"), (2, "a", "A")], true));
    note(&mut frame);
    assert_eq!((told(&frame), frame.cleared), (vec![(1, Some("B"), "node"), (2, Some("A"), "node")], 1));
    assert_eq!((frame.attempt, frame.lost_attempts), (3, 2));
}

#[test]
fn what_is_struck_out_moves_the_attempts_after_it() {
    let mut frame = inbound(1, 0, Holders::of(&[(1, "a", "A")], true));
    note(&mut frame);
    frame.history.push(error(2));
    frame.attempt = 3;
    frame.lost_attempts = 0;
    assert_eq!(frame.strike_out(&living(&["A"])), 1);
    assert_eq!((told(&frame), frame.attempt), (vec![(1, None, "error")], 2));
}

#[test]
fn a_time_of_which_nobody_says_that_he_had_the_frame_is_no_attempt_whether_he_could_say_so_or_not() {
    for (is_complete, unknown) in [(true, 0), (false, 2)] {
        let mut frame = inbound(3, 0, Holders::of(&[(2, "b", "B")], is_complete));
        note(&mut frame);
        assert_eq!((frame.attempt, frame.lost_attempts, frame.cleared), (2, 1, 2), "{is_complete}");
        assert_eq!((frame.unknown, told(&frame)), (unknown, vec![(1, Some("B"), "node")]), "{is_complete}");
    }
}

#[test]
fn what_nobody_can_know_leads_to_quarantine_and_ends_an_item_only_after_many_times() {
    for attempts in [1, 3, 5] {
        // As the item is handed out again and again, to nodes that say nothing and are never heard of again.
        let (mut lane, mut cleared, mut attempt, mut delivered) = (Lane::Work, 0, 1, 1);
        let (mut in_company, mut times) = (0, 0);
        loop {
            let mut frame = inbound(delivered - 1, attempt - 1, Holders::default());
            (frame.lane, frame.cleared) = (lane, cleared);
            note(&mut frame);
            times += 1;
            if wants_quarantine(&frame, attempts) {
                (lane, cleared, attempt, delivered) = (Lane::Quarantine, frame.cleared, frame.attempt, 1);
                continue;
            }
            if frame.attempt > attempts {
                break;
            }
            in_company += u64::from(lane == Lane::Work);
            delivered += 1;
            assert!(times < 100, "an end");
        }
        assert_eq!((lane, in_company), (Lane::Quarantine, UNKNOWN_IN_COMPANY), "{attempts}");
        assert_eq!(times, UNKNOWN_MAX + attempts + 2, "{attempts}");
    }
}

#[test]
fn quarantine_comes_after_two_deaths_or_one_where_attempts_are_few_or_many_suspicions() {
    // Deaths, attempts allowed, suspicions struck out: whether it runs in quarantine.
    let table = [
        (1, 5, 0, false),
        (2, 5, 0, true),
        (1, 3, 0, true),
        (1, 1, 0, false),
        (0, 5, 19, false),
        (0, 5, 20, true),
        (0, 1, 20, true),
        (1, 1, 20, false),
        (1, 5, 19, true),
    ];
    for (lost_attempts, attempts, cleared, expected) in table {
        let mut frame = inbound(lost_attempts, 0, Holders::default());
        frame.cleared = cleared;
        assert_eq!(wants_quarantine(&frame, attempts), expected, "{lost_attempts} {attempts} {cleared}");
        frame.lane = Lane::Quarantine;
        assert!(!wants_quarantine(&frame, attempts), "once is enough");
    }
}

#[test]
fn a_frame_that_came_very_often_keeps_a_short_history() {
    let mut frame = inbound(1_000, 0, Holders::default());
    note(&mut frame);
    assert_eq!((frame.history.len() as u64, frame.attempt), (NOTED_MAX, 1_001 - UNKNOWN_MAX));
    assert_eq!(frame.history.last().map(|attempt| attempt.attempt), Some(1_000 - UNKNOWN_MAX));
}
