//! Points at which a test makes a node fail: the process kills itself or panics, or one of its tasks panics.
//!
//! Only debug builds have them, and builds with the feature `failpoints`.

use super::frame::inbound::InboundFrame;

/// A point at which a node can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// A requeued message has come, and must wait for its back-off.
    Waits,
    /// A frame has come.
    Received,
    /// The items have run, and nothing is stored.
    Executed,
    /// Results are stored, and other items are not yet requeued. Only in the last hop, where the two are in different streams.
    Claimed,
    /// Messages are stored, and nothing is recorded of the large items that they refer to.
    Unrecorded,
    /// Everything is stored, and the message is not acknowledged.
    Stored,
    /// The message is acknowledged.
    Acknowledged,
    /// Some outputs of an item that still runs are stored.
    Streamed,
}

#[cfg(any(debug_assertions, feature = "failpoints"))]
pub(crate) use armed::{Failpoint, TaskFailpoint, arm, arm_task};

/// Fails here if a test asks for that.
pub(crate) fn reach(point: Point, inbound: &InboundFrame) {
    reach_with(point, |id| inbound.holds(id));
}

/// Fails here if a test asks for that. `holds` returns `true` for the id of a message that the work here descends from.
pub(crate) fn reach_with(point: Point, holds: impl FnOnce(&str) -> bool) {
    #[cfg(any(debug_assertions, feature = "failpoints"))]
    armed::reach(point, holds);
    #[cfg(not(any(debug_assertions, feature = "failpoints")))]
    let _ = (point, holds);
}

/// Panics in this task if a test asks for that.
pub(crate) fn task(what: &str) {
    #[cfg(any(debug_assertions, feature = "failpoints"))]
    armed::task(what);
    #[cfg(not(any(debug_assertions, feature = "failpoints")))]
    let _ = what;
}

#[cfg(any(debug_assertions, feature = "failpoints"))]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::Point;

    impl Point {
        const ALL: [(&'static str, Self); 8] = [
            ("waits", Self::Waits),
            ("received", Self::Received),
            ("ran", Self::Executed),
            ("claimed", Self::Claimed),
            ("unrecorded", Self::Unrecorded),
            ("stored", Self::Stored),
            ("acknowledged", Self::Acknowledged),
            ("streamed", Self::Streamed),
        ];
    }

    /// When to fail. `stored` is the first time, `stored:3` the third, `ran@ID` a frame that descends from the message fed under
    /// this id, `ran@ID#4` one of its items. With `panic-` in front the node panics there, each time from then on.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Failpoint {
        point: Point,
        panics: bool,
        times: u64,
        id: Option<String>,
    }

    impl std::str::FromStr for Failpoint {
        type Err = String;

        fn from_str(text: &str) -> Result<Self, Self::Err> {
            let (text, id) = match text.split_once('@') {
                Some((text, id)) => (text, Some(id.to_owned())),
                None => (text, None),
            };
            let (name, times) = text.split_once(':').unwrap_or((text, "1"));
            let (name, panics) = name.strip_prefix("panic-").map_or((name, false), |name| (name, true));
            let point = Point::ALL.iter().find(|(each, _)| *each == name).map(|(_, point)| *point);
            let names = || Point::ALL.map(|(name, _)| name).join(", ");
            let point = point.ok_or_else(|| format!("`{name}` is not a point to die at; known are {}", names()))?;
            let times = times.parse().map_err(|_| format!("`{times}` is not a number of times"))?;
            Ok(Self { point, panics, times, id })
        }
    }

    /// A task that panics when it starts, and how often: `send the counts`, or `send the counts:3`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct TaskFailpoint {
        what: String,
        times: u64,
    }

    impl std::str::FromStr for TaskFailpoint {
        type Err = String;

        fn from_str(text: &str) -> Result<Self, Self::Err> {
            let (what, times) = text.split_once(':').unwrap_or((text, "1"));
            let times = times.parse().map_err(|_| format!("`{times}` is not a number of times"))?;
            Ok(Self { what: what.to_owned(), times })
        }
    }

    static TASK_ARMED: OnceLock<(TaskFailpoint, AtomicU64)> = OnceLock::new();

    /// Makes a task of this process panic.
    pub fn arm_task(failpoint: TaskFailpoint) {
        tracing::warn!(?failpoint, "a task of this node will panic");
        TASK_ARMED.get_or_init(|| (failpoint, AtomicU64::new(0)));
    }

    static ARMED: OnceLock<(Failpoint, AtomicU64)> = OnceLock::new();

    /// Makes this process fail at a point.
    pub fn arm(failpoint: Failpoint) {
        tracing::warn!(?failpoint, "this node will kill itself");
        ARMED.get_or_init(|| (failpoint, AtomicU64::new(0)));
    }

    /// Fails here if armed.
    pub(super) fn reach(point: Point, holds: impl FnOnce(&str) -> bool) {
        let Some((failpoint, passed)) = ARMED.get() else { return };
        if failpoint.point != point || failpoint.id.as_ref().is_some_and(|id| !holds(id)) {
            return;
        }
        let passed = passed.fetch_add(1, Relaxed) + 1;
        assert!(!failpoint.panics || passed < failpoint.times, "told to panic");
        if passed == failpoint.times {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }

    /// Panics in this task if armed.
    pub(super) fn task(what: &str) {
        if let Some((failpoint, passed)) = TASK_ARMED.get()
            && failpoint.what == what
        {
            assert!(passed.fetch_add(1, Relaxed) >= failpoint.times, "told to panic");
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_failpoint_is_written_in_one_word() {
            let failpoint = |times, id: Option<&str>| Failpoint {
                point: Point::Stored,
                panics: false,
                times,
                id: id.map(str::to_owned),
            };
            assert_eq!("stored".parse(), Ok(failpoint(1, None)));
            assert_eq!("stored:3".parse(), Ok(failpoint(3, None)));
            assert_eq!("panic-stored".parse(), Ok(Failpoint { panics: true, ..failpoint(1, None) }));
            assert_eq!("stored@a-1".parse(), Ok(failpoint(1, Some("a-1"))));
            assert!("somewhere".parse::<Failpoint>().is_err());
            assert!("stored:often".parse::<Failpoint>().is_err());
        }
    }
}
