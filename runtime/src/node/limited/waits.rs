//! How long a requeued message still has to wait for its back-off.
//!
//! The server waits: a node that gets the message gives it back with a delay, and holds it no longer. That first delivery may be
//! lost, because its node dies, is cut off or stops. Then the message is delivered again before its time. So a node compares the
//! delay with the time at which the server stored the message, and gives it back for the rest.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::broker::queue::Delivery;
use crate::frame::header;
use crate::frame::id::FrameId;
use crate::node::failpoint::{self, Point};
use crate::subject::Lane;

/// The most deliveries that are given back to wait. A node whose clock is wrong delays an item for a while, and not forever.
const WAITS_MAX: u64 = 5;
/// A shorter rest is not worth another delivery: clocks differ by as much.
const MOMENT: Duration = Duration::from_millis(100);

/// How far the clock of this machine is behind the server's, as far as is known. No message is stored in the future.
#[derive(Debug, Default)]
pub(crate) struct Behind(AtomicU64);

impl Behind {
    /// Returns how long a message must wait before it is handled. `None` if it must not.
    pub(crate) fn left_to_wait(&self, delivery: &Delivery, queue: Lane) -> Option<Duration> {
        if Lane::of(delivery.subject()).unwrap_or(queue) == Lane::Work {
            // No node requeued it, so the header comes from the feeder and means nothing.
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

    /// Returns the server's time in milliseconds since the Unix epoch, for a time of this machine and the time of a stored
    /// message.
    fn correct(&self, own: u64, stored: u64) -> u64 {
        let behind = stored.saturating_sub(own);
        own.saturating_add(self.0.fetch_max(behind, Relaxed).max(behind))
    }
}

/// A requeued message with a back-off.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// The back-off.
    delay: Duration,
    /// When it was stored, in milliseconds since the Unix epoch.
    stored: u64,
    /// How often it was handed out, this delivery included.
    delivered: u64,
}

impl Waiting {
    /// Returns the rest of the back-off at this time of the server, if it is worth another delivery.
    ///
    /// The first delivery always begins the wait, because a node whose clock is wrong cannot tell the time.
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
    fn a_redelivered_message_waits_for_the_rest_of_its_back_off() {
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
    fn a_clock_is_known_to_be_behind_by_messages_stored_in_its_future() {
        let behind = Behind::default();
        assert_eq!(behind.correct(5_000, 4_000), 5_000);
        assert_eq!(behind.correct(5_000, 5_000 + YEAR), 5_000 + YEAR);
        // Ten seconds later, the same message.
        assert_eq!(behind.correct(15_000, 5_000 + YEAR), 15_000 + YEAR);
        assert_eq!(behind.correct(u64::MAX, 0), u64::MAX);
    }
}
