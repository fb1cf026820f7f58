//! Deaths on purpose, for tests of what a node's death may cost: the process is killed at a named point of a frame's way.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::taken::Taken;

/// Where a node can be made to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// A frame has come.
    Taken,
    /// Its items have run, nothing is stored.
    Ran,
    /// Results are stored, what is to be tried again is not. Only in the last hop, where the two are in different streams.
    Claimed,
    /// Everything is stored, the frame is not acknowledged.
    Stored,
    /// The frame is acknowledged.
    Acknowledged,
    /// Some outputs of an item that still runs are stored.
    Carried,
}

impl Point {
    const ALL: [(&'static str, Self); 6] = [
        ("taken", Self::Taken),
        ("ran", Self::Ran),
        ("claimed", Self::Claimed),
        ("stored", Self::Stored),
        ("acknowledged", Self::Acknowledged),
        ("carried", Self::Carried),
    ];
}

/// When to die: written `stored`, `stored:3` for the third time, or `ran@ID` for what descends from the message that was fed
/// under this id, `ran@ID#4` from one of its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    point: Point,
    times: u64,
    id: Option<String>,
}

impl std::str::FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (text, id) = match text.split_once('@') {
            Some((text, id)) => (text, Some(id.to_owned())),
            None => (text, None),
        };
        let (name, times) = text.split_once(':').unwrap_or((text, "1"));
        let point = Point::ALL.iter().find(|(each, _)| *each == name).map(|(_, point)| *point);
        let names = || Point::ALL.map(|(name, _)| name).join(", ");
        let point = point.ok_or_else(|| format!("`{name}` is not a point to die at; known are {}", names()))?;
        let times = times.parse().map_err(|_| format!("`{times}` is not a number of times"))?;
        Ok(Self { point, times, id })
    }
}

static FAULT: OnceLock<(Fault, AtomicU64)> = OnceLock::new();

/// Makes this process die when it gets there.
pub fn arm(fault: Fault) {
    tracing::warn!(?fault, "this node will kill itself");
    FAULT.get_or_init(|| (fault, AtomicU64::new(0)));
}

/// Dies here if that is asked for.
pub(super) fn point(point: Point, taken: &Taken) {
    let Some((fault, passed)) = FAULT.get() else { return };
    if fault.point != point || fault.id.as_ref().is_some_and(|id| !taken.holds(id)) {
        return;
    }
    if passed.fetch_add(1, Relaxed) + 1 == fault.times {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_written_in_one_word() {
        let fault = |times, id: Option<&str>| Fault { point: Point::Stored, times, id: id.map(str::to_owned) };
        assert_eq!("stored".parse(), Ok(fault(1, None)));
        assert_eq!("stored:3".parse(), Ok(fault(3, None)));
        assert_eq!("stored@a-1".parse(), Ok(fault(1, Some("a-1"))));
        assert!("somewhere".parse::<Fault>().is_err());
        assert!("stored:often".parse::<Fault>().is_err());
    }
}
