//! How long what was put back with a back-off still has to wait.
//!
//! The wait is the server's: whoever gets such a message gives it back with a delay, and so it is in nobody's hands meanwhile.
//! But that first delivery may come to nothing, because its node dies, is cut off or stops before it has said so. Then the message
//! comes again, and nobody has told the server to wait. So whoever gets it again looks at when it was stored, which the server
//! says with each delivery, and gives it back for what is left.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::broker::queue::Delivery;
use crate::frame::header;
use crate::frame::id::FrameId;
use crate::node::failpoint;
use crate::node::failpoint::Point;
use crate::subject::Lane;

/// The most deliveries of a message that are given back to wait. So a node whose clock is wrong delays an item for a while, and
/// not for ever.
const WAITS_MAX: u64 = 5;
/// Less than this is not worth another delivery: clocks differ by as much.
const MOMENT: Duration = Duration::from_millis(100);

/// How far this machine's clock is behind the server's, as far as is known: nothing was stored in the future.
#[derive(Debug, Default)]
pub(crate) struct Behind(AtomicU64);

impl Behind {
    /// How long a message of this lane's consumer has to wait before anything is done about it.
    pub(crate) fn left_to_wait(&self, delivery: &Delivery, queue: Lane) -> Option<Duration> {
        if Lane::of(delivery.subject()).unwrap_or(queue) == Lane::Work {
            // What came along the chain was put back by no node, and this header is the feeder's.
            return None;
        }
        let millis = delivery.header(header::DELAY)?.parse().ok()?;
        let (stored, delivered) = (delivery.stored_millis, delivery.delivered);
        let now = self.correct(own_time(), stored);
        let left = Waiting { delay: Duration::from_millis(millis), stored, delivered }.left(now);
        if left.is_some() {
            failpoint::reach_with(Point::Waits, |id| {
                delivery.header(header::ID).is_some_and(|held| FrameId::from_header(held).root() == id)
            });
        }
        left
    }

    /// The server's time, in milliseconds since the Unix epoch, if this is the machine's and a message was stored then.
    fn correct(&self, own: u64, stored: u64) -> u64 {
        let behind = stored.saturating_sub(own);
        own.saturating_add(self.0.fetch_max(behind, Relaxed).max(behind))
    }
}

/// A message that was put back with a back-off.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// Its back-off.
    delay: Duration,
    /// When it was stored, in milliseconds since the Unix epoch.
    stored: u64,
    /// How often it was handed out, this time included.
    delivered: u64,
}

impl Waiting {
    /// What is left of its back-off at this time of the server, if it is worth another delivery. The first delivery begins the
    /// wait whatever the time is, as a node whose clock is wrong cannot tell it.
    fn left(&self, now: u64) -> Option<Duration> {
        if self.delivered <= 1 {
            return Some(self.delay);
        }
        let waited = Duration::from_millis(now.saturating_sub(self.stored));
        let left = self.delay.saturating_sub(waited);
        (self.delivered <= WAITS_MAX && left >= MOMENT).then_some(left)
    }
}

fn own_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: u64 = 365 * 24 * 3_600_000;

    #[test]
    fn what_is_handed_out_again_waits_for_what_is_left_of_its_back_off() {
        const STORED: u64 = 100 * YEAR;
        let millis = Duration::from_millis;
        // Which delivery it is, how long after it was stored, and what is left of ten seconds.
        for (what, delivered, now, left) in [
            ("the first delivery begins the wait", 1, STORED + 2, Some(10_000)),
            ("however late it is", 1, STORED + YEAR, Some(10_000)),
            ("and however early", 1, STORED - YEAR, Some(10_000)),
            ("it has waited", 2, STORED + 10_002, None),
            ("it was lost, and comes again", 2, STORED + 3_000, Some(7_000)),
            ("so was that", 3, STORED + 6_000, Some(4_000)),
            ("it was given back at once", 2, STORED + 2, Some(9_998)),
            ("a moment is not worth it", 2, STORED + 9_950, None),
            ("a clock that is behind makes it wait no longer than its back-off", 2, STORED - YEAR, Some(10_000)),
            ("and not for ever", WAITS_MAX, STORED - YEAR, Some(10_000)),
            ("so it runs at last", WAITS_MAX + 1, STORED - YEAR, None),
            ("a clock that is ahead lets it run", 2, STORED + YEAR, None),
        ] {
            let waiting = Waiting { delay: millis(10_000), stored: STORED, delivered };
            assert_eq!(waiting.left(now), left.map(millis), "{what}");
        }
        let endless = Waiting { delay: millis(u64::MAX), stored: u64::MAX, delivered: 2 };
        assert_eq!(endless.left(u64::MAX), Some(millis(u64::MAX)), "a foreign client may ask for anything");
    }

    #[test]
    fn a_clock_that_is_behind_is_known_by_what_was_stored_in_its_future() {
        let behind = Behind::default();
        assert_eq!(behind.correct(5_000, 4_000), 5_000);
        assert_eq!(behind.correct(5_000, 5_000 + YEAR), 5_000 + YEAR);
        // Ten seconds later, the same message.
        assert_eq!(behind.correct(15_000, 5_000 + YEAR), 15_000 + YEAR);
        assert_eq!(behind.correct(u64::MAX, 0), u64::MAX);
    }
}
