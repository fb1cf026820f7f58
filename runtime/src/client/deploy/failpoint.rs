//! Points in a deploy at which a test kills the process or loses an answer.
//!
//! Only debug builds have them, and builds with the feature `failpoints`.

#[cfg(any(debug_assertions, feature = "failpoints"))]
use std::sync::OnceLock;

use crate::broker::BrokerError;

/// The last step that a deploy has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(any(debug_assertions, feature = "failpoints")),
    expect(dead_code, reason = "no step is read from a flag")
)]
pub enum Step {
    /// The revision's number is reserved.
    Reserved,
    /// The state names the revision as pending.
    Entered,
    /// The streams have the subjects of the revision.
    Widened,
    /// The revision's consumers exist.
    Consumers,
    /// The revision's plugins are stored.
    Stored,
    /// As `Swapped`, but the server's answer is lost. The process lives on.
    Unanswered,
    /// The state names the revision as active.
    Swapped,
    /// The intake leads to the revision.
    Moved,
}

#[cfg(any(debug_assertions, feature = "failpoints"))]
impl Step {
    const ALL: [(&'static str, Self); 8] = [
        ("reserved", Self::Reserved),
        ("entered", Self::Entered),
        ("widened", Self::Widened),
        ("consumers", Self::Consumers),
        ("stored", Self::Stored),
        ("unanswered", Self::Unanswered),
        ("swapped", Self::Swapped),
        ("moved", Self::Moved),
    ];
}

#[cfg(any(debug_assertions, feature = "failpoints"))]
impl std::str::FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let step = Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, step)| *step);
        let names = || Self::ALL.map(|(name, _)| name).join(", ");
        step.ok_or_else(|| format!("`{text}` is not a step to die after; known are {}", names()))
    }
}

#[cfg(any(debug_assertions, feature = "failpoints"))]
static ARMED: OnceLock<Step> = OnceLock::new();

#[cfg(any(debug_assertions, feature = "failpoints"))]
/// Makes this process die after a step.
pub fn arm(step: Step) {
    ARMED.get_or_init(|| step);
}

/// Returns the answer to the swap of the state. Loses it if a test asks for that.
pub(super) fn heard<T>(answer: Result<T, BrokerError>) -> Result<T, BrokerError> {
    #[cfg(any(debug_assertions, feature = "failpoints"))]
    if ARMED.get() == Some(&Step::Unanswered) {
        return Err(BrokerError::Timeout("write the state of the chain".to_owned()));
    }
    answer
}

/// Dies here if a test asks for that.
pub(super) fn after(step: Step) {
    #[cfg(not(any(debug_assertions, feature = "failpoints")))]
    let _ = step;
    #[cfg(any(debug_assertions, feature = "failpoints"))]
    if ARMED.get() == Some(&step) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_written_in_one_word() {
        assert_eq!("entered".parse(), Ok(Step::Entered));
        assert!("somewhere".parse::<Step>().is_err());
    }
}
