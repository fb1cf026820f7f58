//! The pacing rule: how many frames a node asks for, and how it cuts a frame for other nodes to share.
//!
//! Pure: what the node knows of a hop goes in, a number comes out. [`super::turns`] keeps what is known.

use std::time::Duration;

/// Frames wait in hand for about this long, so that the next is there when one ends.
pub(super) const AHEAD: Duration = Duration::from_millis(20);
/// Items that take less than this are taken to compute all the time.
const BUSY: Duration = Duration::from_millis(1);
/// The most frames that wait in hand. With 32 in hand one echo stage did 18 thousand items a second, with 512 it did 28.
const AHEAD_MAX: u64 = 512;
/// The most bytes that wait in hand.
const AHEAD_BYTES: u64 = 64 << 20;
/// A frame that takes a node longer than this is shared with others, in pieces that take about as long.
pub(super) const SHARE_AFTER: Duration = Duration::from_millis(250);
/// A frame is cut into no more pieces than about this at once: as many as long as nobody knows how long its items take. A piece
/// that takes long is cut again, so that a machine that was held up for a moment does not take quick items to be heavy.
const PIECES: usize = 64;
/// So few items stay together if nobody knows how long they take and a node can run them all at once: to share them would save
/// little.
const FEW: usize = 4;
/// Items that have run for so long are known to take long, though none has ended.
pub(super) const KNOWN_AFTER: Duration = Duration::from_millis(100);

/// What a node knows of a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// Items that may run at once.
    pub(super) concurrency: u64,
    /// The machine's.
    pub(super) processors: u64,
    /// Turns that nobody has.
    pub(super) free: u64,
    /// Frames in hand that want a turn, or have one.
    pub(super) held: u64,
    /// Those of them that have no turn: they wait for one, or for what they leave behind to be stored.
    pub(super) idle: u64,
    /// How long an item takes; `None` if nobody knows.
    pub(super) time: Option<Duration>,
    /// Items of a frame; 0 if none has run.
    pub(super) items: u64,
    /// Bytes of a frame.
    pub(super) bytes: u64,
}

impl Pace {
    /// Returns how many more frames the node should hold that are not shared yet.
    pub(super) fn room(&self) -> u64 {
        if self.time.is_none() && self.items != 1 {
            // A frame of many items is better shared as long as nobody knows how long they take. One is enough to find out.
            return 1_u64.saturating_sub(self.held);
        }
        self.room_for_shared()
    }

    /// Returns how many more frames the node should hold that are small: as many as free turns ask for, and as many more as keep
    /// the node busy for a moment. Frames that take long are left to other nodes.
    pub(super) fn room_for_shared(&self) -> u64 {
        let items = self.items.max(1);
        let time = self.time.unwrap_or_default();
        // What is done in no time keeps a processor busy meanwhile; what takes longer mostly waits for something.
        let at_once = if time < BUSY { self.concurrency.min(self.processors) } else { self.concurrency };
        let ahead = nanos(AHEAD).saturating_mul(at_once).checked_div(nanos(time).saturating_mul(items)).unwrap_or(0);
        let ahead = ahead.min(AHEAD_MAX).min(AHEAD_BYTES / self.bytes.max(1));
        (self.free.div_ceil(items) + ahead).saturating_sub(self.idle)
    }
}

/// Returns how many of a frame's items should go together, so that nodes share what takes long: all of them if the frame takes
/// one node a moment.
pub(super) fn piece(items: usize, concurrency: u64, time: Option<Duration>) -> usize {
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

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLIS: Duration = Duration::from_millis(1);

    #[test]
    fn a_node_asks_for_what_its_free_turns_can_run_and_a_little_more() {
        let none = Pace { concurrency: 8, processors: 2, free: 8, held: 0, idle: 0, time: None, items: 0, bytes: 100 };
        let known = |time, items| Pace { time: Some(time), items, ..none };
        for (what, pace, room, shared) in [
            ("nothing is known: one frame tells", none, 1, 8),
            ("it is in hand", Pace { held: 1, idle: 1, ..none }, 0, 7),
            ("frames of one item may fill all turns", Pace { items: 1, held: 1, free: 7, ..none }, 7, 7),
            ("long items, one to a frame", known(1_000 * MILLIS, 1), 8, 8),
            ("four to a frame", known(1_000 * MILLIS, 4), 2, 2),
            ("all turns are taken", Pace { free: 0, held: 8, ..known(1_000 * MILLIS, 1) }, 0, 0),
            ("20 ms of eight turns are 160 items of 1 ms", Pace { free: 0, held: 2, ..known(MILLIS, 4) }, 40, 40),
            ("of which some wait already", Pace { free: 0, held: 12, idle: 10, ..known(MILLIS, 4) }, 30, 30),
            ("no more than 512 ahead", Pace { free: 0, ..known(Duration::from_nanos(100), 1) }, 512, 512),
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
            ("also with a single turn, while that takes a moment", 200, 1, Some(MILLIS), 200),
            ("and in pieces that take as long after that", 900, 1, Some(MILLIS), 250),
            ("items in between", 256, 32, Some(50 * MILLIS), 5),
            ("an item that takes no time", 900, 1, Some(Duration::from_nanos(1)), 900),
        ] {
            assert_eq!(piece(items, concurrency, time), expected, "{what}");
        }
    }
}
