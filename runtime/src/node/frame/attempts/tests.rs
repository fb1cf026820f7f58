use std::collections::BTreeSet;

use super::super::holders::Holders;
use super::super::testing::{failed, inbound, record};
use super::*;

fn told(inbound: &InboundFrame) -> Vec<(u64, Option<&str>, &str)> {
    inbound
        .history
        .iter()
        .map(|attempt| (attempt.attempt, attempt.incarnation.as_deref(), attempt.failure.as_str()))
        .collect()
}

fn living(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_log_has_each_failed_attempt_without_what_it_has_already() {
    let failure = Failure::transient(FailureKind::Error, "the program ended with status 3").with_words("no mesh\n");
    assert_eq!(failure.reason, "the program ended with status 3; it said: no mesh");
    let fatal = Failure::fatal(FailureKind::Error, "two\nlines");
    for (attempt, failure, level, entry) in [
        (2, &failure, Level::Warn, "attempt 2 of 5: the program ended with status 3"),
        (5, &failure, Level::Error, "attempt 5 of 5: the program ended with status 3"),
        (1, &fatal, Level::Error, "attempt 1 of 5: two\nlines; it is not tried again"),
        (5, &fatal, Level::Error, "attempt 5 of 5: two\nlines"),
    ] {
        assert_eq!(log_entry(5, attempt, failure), (level, entry.to_owned()));
    }
}

#[test]
fn each_delivery_is_an_attempt_until_its_node_answers() {
    let mut frame = inbound(3, 1, Holders::of(&[(1, "a", "A"), (2, "b", "B"), (3, "d", "D")], true));
    record(&mut frame);
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
fn an_incarnation_dies_once_however_often_it_held_the_frame() {
    // A node that is too slow to send progress acks gets the frame again and again, and is stopped in the end.
    let mut frame = inbound(4, 0, Holders::of(&[1, 2, 3, 4].map(|delivered| (delivered, "a", "A")), true));
    record(&mut frame);
    assert_eq!((told(&frame), frame.cleared), (vec![(1, Some("A"), "node")], 3));
    assert_eq!((frame.attempt, frame.lost_attempts), (2, 1));

    // The node was taken for dead, the frame was requeued, and the node holds it again.
    let mut frame = inbound(1, 0, Holders::of(&[(1, "a", "A")], true));
    record(&mut frame);
    (frame.lost_attempts, frame.delivered) = (2, 3);
    (frame.attempt, frame.holders) = (4, Holders::of(&[(1, "b", "B"), (2, "a", "A")], true));
    record(&mut frame);
    assert_eq!((told(&frame), frame.cleared), (vec![(1, Some("B"), "node"), (2, Some("A"), "node")], 1));
    assert_eq!((frame.attempt, frame.lost_attempts), (3, 2));
}

#[test]
fn a_struck_attempt_moves_the_attempts_after_it() {
    let mut frame = inbound(1, 0, Holders::of(&[(1, "a", "A")], true));
    record(&mut frame);
    frame.history.push(failed(2));
    frame.attempt = 3;
    frame.lost_attempts = 0;
    assert_eq!(frame.strike_out(&living(&["A"])), 1);
    assert_eq!((told(&frame), frame.attempt), (vec![(1, None, "error")], 2));
}

#[test]
fn a_delivery_without_a_holder_is_no_attempt_whether_notes_can_be_read_or_not() {
    for (is_complete, unknown) in [(true, 0), (false, 2)] {
        let mut frame = inbound(3, 0, Holders::of(&[(2, "b", "B")], is_complete));
        record(&mut frame);
        assert_eq!((frame.attempt, frame.lost_attempts, frame.cleared), (2, 1, 2), "{is_complete}");
        assert_eq!((frame.unknown, told(&frame)), (unknown, vec![(1, Some("B"), "node")]), "{is_complete}");
    }
}

#[test]
fn a_frame_that_came_very_often_keeps_a_short_history() {
    let mut frame = inbound(1_000, 0, Holders::default());
    record(&mut frame);
    assert_eq!((frame.history.len() as u64, frame.attempt), (NOTED_MAX, 1_001 - UNKNOWN_MAX));
    assert_eq!(frame.history.last().map(|attempt| attempt.attempt), Some(1_000 - UNKNOWN_MAX));
}
