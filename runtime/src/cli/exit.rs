//! Exit statuses. One rule for all commands maps an error to its status.

use std::process::ExitCode;

use super::output::OutputError;
use crate::broker::BrokerError;
use crate::build::BuildError;
use crate::client::ClientError;
use crate::config::ConfigError;
use crate::kind::ErrorKind;
use crate::name::NameError;
use crate::node::NodeError;
use crate::shutdown::Signal;

/// The explanation of exit statuses in `--help`.
pub const HELP: &str = "Exit status: 0 done, 1 failed, 2 wrong usage, 3 timed out, 4 not found, 5 cannot reach NATS, \
    6 a node that cannot continue and must be restarted, or a deploy that would change something, with --exit-code; 129, 130 or 143 interrupted by SIGHUP, Ctrl-C or SIGTERM. \
    A node that finishes its work after a signal ends with 0. So does a command whose reader closes the pipe, as `head` does.";

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// The command line or a setting is wrong.
    Usage,
    /// The time limit passed.
    TimedOut,
    /// A named chain, file or other object does not exist.
    NotFound,
    /// NATS cannot be reached or used.
    Unreachable,
    /// The node cannot continue. It ended so that a supervisor can restart it.
    CannotGoOn,
    /// A deploy would change something.
    WouldChange,
    /// A signal stopped the command before it was done.
    Interrupted(Signal),
}

impl Exit {
    /// Returns the exit status of the process.
    pub const fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::TimedOut => 3,
            Self::NotFound => 4,
            Self::Unreachable => 5,
            Self::CannotGoOn | Self::WouldChange => 6,
            Self::Interrupted(signal) => signal.status(),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}

/// The command line or a setting is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// A named chain, file or other object does not exist.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotFound(pub String);

/// A deploy would change something, and the user asked for a status that says so.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WouldChange(pub String);

/// The time limit passed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TimedOut(pub String);

/// A signal stopped the command before it was done.
#[derive(Debug, thiserror::Error)]
#[error("interrupted{}", said.as_ref().map(|said| format!(": {said}")).unwrap_or_default())]
pub struct Interrupted {
    /// The signal.
    signal: Signal,
    /// How far the command got. `None` if the user need not know.
    said: Option<String>,
}

impl Interrupted {
    /// Creates an interruption without a message.
    pub fn by(signal: Signal) -> Self {
        Self { signal, said: None }
    }

    /// Creates an interruption that says how far the command got.
    pub fn at(signal: Signal, said: impl Into<String>) -> Self {
        Self { signal, said: Some(said.into()) }
    }
}

/// Returns `true` if the user must be told of an error. A closed pipe and a plain Ctrl-C are no news, nor is what was just shown.
pub fn is_worth_saying(error: &anyhow::Error) -> bool {
    if error.is::<WouldChange>() {
        return false;
    }
    match (error.downcast_ref::<OutputError>(), error.downcast_ref::<Interrupted>()) {
        (Some(error), _) => !error.is_closed(),
        (_, Some(interrupted)) => interrupted.said.is_some(),
        _ => true,
    }
}

impl Exit {
    /// Returns the status for an error.
    pub fn of(error: &anyhow::Error) -> Self {
        if error.downcast_ref::<OutputError>().is_some_and(OutputError::is_closed) {
            return Self::Done;
        }
        if let Some(Interrupted { signal, .. }) = error.downcast_ref() {
            return Self::Interrupted(*signal);
        }
        if error.is::<Usage>() || error.is::<ConfigError>() || error.is::<NameError>() {
            return Self::Usage;
        }
        if error.is::<NotFound>() || matches!(error.downcast_ref(), Some(BuildError::NoFolder(_))) {
            return Self::NotFound;
        }
        if error.is::<TimedOut>() {
            return Self::TimedOut;
        }
        if error.is::<WouldChange>() {
            return Self::WouldChange;
        }
        let of_client = error.downcast_ref().map(ClientError::kind);
        let of_node = || error.downcast_ref().map(NodeError::kind);
        let of_broker = || error.downcast_ref().map(BrokerError::kind);
        of_client.or_else(of_node).or_else(of_broker).map_or(Self::Failed, Self::of_kind)
    }

    /// The status for a kind of failure.
    const fn of_kind(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidArgument => Self::Usage,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::TimedOut => Self::TimedOut,
            ErrorKind::Unavailable | ErrorKind::Unauthenticated | ErrorKind::ServerTooOld => Self::Unreachable,
            ErrorKind::NodeFailed => Self::CannotGoOn,
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn each_ending_has_its_status() {
        let output = |kind: io::ErrorKind| OutputError::from(io::Error::from(kind)).into();
        let cases: [(anyhow::Error, u8, bool); 10] = [
            (anyhow::anyhow!("any"), 1, true),
            (output(io::ErrorKind::StorageFull), 1, true),
            (output(io::ErrorKind::BrokenPipe), 0, false),
            (Usage(String::new()).into(), 2, true),
            (TimedOut(String::new()).into(), 3, true),
            (NotFound(String::new()).into(), 4, true),
            (WouldChange(String::new()).into(), 6, false),
            (BrokerError::Timeout("ask".to_owned()).into(), 5, true),
            (Interrupted::by(Signal::Interrupt).into(), 130, false),
            (Interrupted::at(Signal::HangUp, "at 5").into(), 129, true),
        ];
        for (error, status, is_said) in cases {
            assert_eq!((Exit::of(&error).status(), is_worth_saying(&error)), (status, is_said), "{error:?}");
        }
        assert_eq!(Interrupted::at(Signal::Interrupt, "2 items fed").to_string(), "interrupted: 2 items fed");
    }
}
