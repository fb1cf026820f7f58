//! The pacing rule: how many frames a node asks for, and how it cuts a frame for other nodes to share.
//!
//! Pure: [`Pace`] and [`Evidence`] go in, numbers come out. [`crate::node::worker::permits`] collects them.
//!
//! A node that is starved of its processor sees the same as a node whose items take long. So a cut is bounded whatever the node
//! sees. Of a frame of `n` items, the nodes of its hop make
//!
//! - no more messages than its size demands: one for each [`FRAME_ITEMS`](crate::node::frame::plan::FRAME_ITEMS) items, and one
//!   for each part that a batch can hold;
//! - or up to [`PIECES`] messages on a guess, while the time of an item is unknown. A requeued frame is never cut on a guess;
//! - and one more message for each [`SHARE_AFTER`] of run time of items that have ended, which costs little beside that time. A
//!   node saves up run time for at most [`PIECES`] messages.
//!
//! Where each item must be by itself (an item that has killed a node), or messages are counted (`max_in_flight`), the size of a
//! piece is fixed, and there are no more messages than that takes.

use std::time::Duration;

/// The node holds waiting frames for about this much time, so that the next is there when one ends.
pub(crate) const AHEAD: Duration = Duration::from_millis(20);
/// An item that takes less than this is assumed to compute all the time.
const BUSY: Duration = Duration::from_millis(1);
/// The most frames that wait in hand. With 32 in hand one echo stage did 18 thousand items a second, with 512 it did 28.
const AHEAD_MAX: u64 = 512;
/// The most bytes of frames that wait in hand.
const AHEAD_BYTES: u64 = 64 << 20;
/// A node shares a frame that takes longer than this with others, in pieces that take about this long.
pub(crate) const SHARE_AFTER: Duration = Duration::from_millis(250);
/// A frame is cut into about this many pieces on a guess, and never into many more at once.
pub(crate) const PIECES: usize = 64;
/// This few items stay together while their time is unknown, if the node can run all of them at once: to share them saves little.
const FEW: usize = 4;
/// Items that have run for this long are known to take long, even if none has ended.
pub(crate) const KNOWN_AFTER: Duration = Duration::from_millis(100);

/// What a node knows of a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Items that may run at once.
    pub(crate) concurrency: u64,
    /// Processors of the machine.
    pub(crate) processors: u64,
    /// Permits that are free.
    pub(crate) free: u64,
    /// Frames in hand that want a permit or have one.
    pub(crate) held: u64,
    /// Those of them without a permit: they wait for one, or until their outputs are stored.
    pub(crate) idle: u64,
    /// Time of an item; `None` if unknown.
    pub(crate) time: Option<Duration>,
    /// Items of a frame; 0 if none has run.
    pub(crate) items: u64,
    /// Bytes of a frame.
    pub(crate) bytes: u64,
    /// `true` if frames run, and no item of theirs has yet to begin.
    pub(crate) is_ending: bool,
}

impl Pace {
    /// Returns how many more frames the node should hold that are not shared yet.
    pub(crate) fn room(&self) -> u64 {
        if self.time.is_none() && self.items != 1 {
            // While the time of an item is unknown, a frame of many is better shared. One frame is enough to find it out.
            return 1_u64.saturating_sub(self.held);
        }
        self.room_for_shared()
    }

    /// Returns how many more small frames the node should hold: enough for the free permits, and enough to stay busy for a moment.
    /// Other nodes take the frames that take long.
    pub(crate) fn room_for_shared(&self) -> u64 {
        let items = self.items.max(1);
        let time = self.time.unwrap_or_default();
        // A quick item keeps a processor busy all the time. An item that takes longer mostly waits.
        let at_once = if time < BUSY { self.concurrency.min(self.processors) } else { self.concurrency };
        let ahead = nanos(AHEAD).saturating_mul(at_once).checked_div(nanos(time).saturating_mul(items)).unwrap_or(0);
        // The next frame may be larger than that if it waits no longer: on average, one of the items that run ends in time.
        let ends_soon = self.time.is_some() && nanos(time) <= nanos(AHEAD).saturating_mul(at_once);
        let next = self.free == 0 && self.is_ending && ends_soon;
        let ahead = ahead.max(next.into()).min(AHEAD_MAX).min(AHEAD_BYTES / self.bytes.max(1));
        (self.free.div_ceil(items) + ahead).saturating_sub(self.idle)
    }
}

/// Returns how many of a frame's items should stay together, so that nodes share a frame that takes long. All of them if one node
/// needs only a moment.
pub(crate) fn piece(items: usize, concurrency: u64, time: Option<Duration>) -> usize {
    let Some(time) = time else {
        let is_few = items <= FEW && items as u64 <= concurrency;
        return if is_few { items } else { items.div_ceil(PIECES).max(1) };
    };
    let rounds = u32::try_from((items as u64).div_ceil(concurrency.max(1))).unwrap_or(u32::MAX);
    if time.saturating_mul(rounds) <= SHARE_AFTER {
        return items;
    }
    let fit = SHARE_AFTER.as_nanos() / time.as_nanos().max(1);
    usize::try_from(fit).unwrap_or(usize::MAX).clamp(items.div_ceil(PIECES), items)
}

/// What a node knows when it cuts a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// Items that may run at once.
    pub(crate) concurrency: u64,
    /// Average time of the items that have ended; `None` if none has.
    pub(crate) time: Option<Duration>,
    /// How many extra messages are paid for: one for each [`SHARE_AFTER`] of run time.
    pub(crate) paid: u64,
    /// `true` if the frame may be cut on a guess: it was not requeued, and no other frame was cut on a guess just now.
    pub(crate) may_guess: bool,
}

/// How a frame is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shared {
    /// Items that stay together.
    pub(crate) piece: usize,
    /// `true` if that is a guess.
    pub(crate) is_guess: bool,
}

/// Returns how many of a frame's items stay together, given the evidence.
pub(crate) fn share(items: usize, evidence: &Evidence) -> Shared {
    let wanted = piece(items, evidence.concurrency, evidence.time);
    let is_guess = evidence.time.is_none();
    let piece = match evidence.time {
        None if evidence.may_guess => wanted,
        None => items,
        Some(_) => {
            let most = usize::try_from(evidence.paid.saturating_add(1)).unwrap_or(usize::MAX);
            wanted.max(items.div_ceil(most))
        }
    };
    Shared { piece, is_guess: is_guess && piece < items }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::frame::plan::{FRAME_ITEMS, Piece};

    const MILLIS: Duration = Duration::from_millis(1);

    #[test]
    fn a_node_requests_what_its_free_permits_can_run_and_a_little_more() {
        let none = Pace {
            concurrency: 8,
            processors: 2,
            free: 8,
            held: 0,
            idle: 0,
            time: None,
            items: 0,
            bytes: 100,
            is_ending: false,
        };
        let known = |time, items| Pace { time: Some(time), items, ..none };
        for (what, pace, room, shared) in [
            ("nothing is known: one frame shows it", none, 1, 8),
            ("it is in hand", Pace { held: 1, idle: 1, ..none }, 0, 7),
            ("frames of one item may fill all permits", Pace { items: 1, held: 1, free: 7, ..none }, 7, 7),
            ("long items, one to a frame", known(1_000 * MILLIS, 1), 8, 8),
            ("four to a frame", known(1_000 * MILLIS, 4), 2, 2),
            ("all permits are taken", Pace { free: 0, held: 8, ..known(1_000 * MILLIS, 1) }, 0, 0),
            ("20 ms of eight permits are 160 items of 1 ms", Pace { free: 0, held: 2, ..known(MILLIS, 4) }, 40, 40),
            ("of which some wait already", Pace { free: 0, held: 12, idle: 10, ..known(MILLIS, 4) }, 30, 30),
            ("no more than 512 ahead", Pace { free: 0, ..known(Duration::from_nanos(100), 1) }, 512, 512),
            ("the last items end soon", Pace { free: 0, held: 8, is_ending: true, ..known(160 * MILLIS, 64) }, 1, 1),
            (
                "and the next frame has come",
                Pace { free: 0, held: 9, idle: 1, is_ending: true, ..known(MILLIS, 640) },
                0,
                0,
            ),
            ("they run on", Pace { free: 0, held: 8, is_ending: true, ..known(161 * MILLIS, 64) }, 0, 0),
            ("and no more than 64 MiB", Pace { free: 0, bytes: 8 << 20, ..known(MILLIS / 1_000, 1) }, 8, 8),
        ] {
            assert_eq!((pace.room(), pace.room_for_shared()), (room, shared), "{what}");
        }
    }

    #[test]
    fn a_frame_is_cut_into_pieces_that_take_a_moment() {
        for (what, items, concurrency, time, expected) in [
            ("unknown and few: each by itself", 8, 32, None, 1),
            ("unknown and many", 256, 32, None, 4),
            ("a single item", 1, 4, None, 1),
            ("unknown and very few stay together", 4, 4, None, 4),
            ("unless they would wait for each other", 4, 3, None, 1),
            ("heavy items go by themselves, however few", 2, 32, Some(2_000 * MILLIS), 1),
            ("so do they where one node could run them all at once", 8, 32, Some(10_000 * MILLIS), 1),
            ("very many do so in two steps", 256, 32, Some(2_000 * MILLIS), 4),
            ("quick ones stay together", 256, 32, Some(MILLIS), 256),
            ("also with a single permit, while that takes a moment", 200, 1, Some(MILLIS), 200),
            ("and in pieces that take as long after that", 900, 1, Some(MILLIS), 250),
            ("items in between", 256, 32, Some(50 * MILLIS), 5),
            ("an item that takes no time", 900, 1, Some(Duration::from_nanos(1)), 900),
        ] {
            assert_eq!(piece(items, concurrency, time), expected, "{what}");
        }
    }

    #[test]
    fn a_frame_is_cut_on_evidence_or_once_on_a_guess() {
        let (long, quick) = (Some(2_000 * MILLIS), Some(MILLIS / 100));
        for (what, items, time, paid, may_guess, expected) in [
            ("heavy and few, not requeued: shared on a guess", 8, None, 0, true, (1, true)),
            ("requeued, and the time is unknown: as it is", 8, None, 64, false, (8, false)),
            ("one heavy item that has ended pays for sharing the rest", 8, long, 8, false, (1, false)),
            ("half of that pays for half", 8, long, 3, false, (2, false)),
            ("nothing has run for long: a slow moment is no evidence", 900, long, 0, false, (900, false)),
            ("nor is it for a frame that has just come", 900, long, 0, true, (900, false)),
            ("quick items stay together, however much is paid", 900, quick, 64, true, (900, false)),
            ("a single item", 1, None, 0, true, (1, false)),
        ] {
            let shared = share(items, &Evidence { concurrency: 4, time, paid, may_guess });
            assert_eq!((shared.piece, shared.is_guess), expected, "{what}");
        }
    }

    /// A xorshift generator: the same cases at each run.
    fn random(state: &mut u64, below: u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % below
    }

    #[test]
    fn the_messages_made_of_one_are_bounded_whatever_the_nodes_believe() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for items in [1, 4, 5, 64, 256, 900, 901, 1_112, 5_000, 57_600, 57_601, 300_000, 810_000, 810_001, 1_000_000] {
            for _ in 0..20 {
                let (mut messages, mut earned, mut paid) = (1, 0, 0);
                // What is queued, and how often each was taken.
                let mut queued = vec![(items, 0_u32)];
                while let Some((items, times)) = queued.pop() {
                    // Items run somewhere, or a node is held up so that nothing does.
                    if random(&mut state, 4) == 0 {
                        let more = random(&mut state, 20).min(PIECES as u64 - paid);
                        (earned, paid) = (earned + more, paid + more);
                    }
                    let time = match random(&mut state, 4) {
                        0 => None,
                        1 => Some(MILLIS / 100),
                        2 => Some(MILLIS),
                        // A machine under load, as often as not.
                        _ => Some(60_000 * MILLIS),
                    };
                    let evidence =
                        Evidence { concurrency: 1 + random(&mut state, 32), time, paid, may_guess: times == 0 };
                    let shared = share(items, &evidence);
                    if items <= FRAME_ITEMS && (shared.piece >= items || times > 5) {
                        continue;
                    }
                    let size = Piece::new(shared.piece, items, usize::MAX).items;
                    assert!(size < items && items.div_ceil(size) <= FRAME_ITEMS, "{items} in pieces of {size}");
                    let pieces = items.div_ceil(size);
                    messages += pieces - 1;
                    if !shared.is_guess {
                        paid -= items.div_ceil(shared.piece) as u64 - 1;
                    }
                    queued.extend((0..pieces).map(|number| (size.min(items - number * size), times + 1)));
                }
                let demanded = items.div_ceil(FRAME_ITEMS) + items.div_ceil(FRAME_ITEMS * FRAME_ITEMS);
                let bound = demanded.max(PIECES) + usize::try_from(earned).expect("small");
                assert!(messages <= bound, "{messages} of {items}, {earned} earned, {bound} at most");
            }
        }
    }
}
