//! The exit status of each kind of ending.

use std::process::ExitCode;

use crate::broker::BrokerError;
use crate::config::ConfigError;
use crate::name::NameError;
use crate::node::NodeError;
use crate::root::RootError;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Asked for in a way that cannot be.
    Usage = 2,
    /// Not done in time.
    TimedOut = 3,
    /// What was named is not there.
    NotFound = 4,
    /// NATS cannot be reached or used.
    Unreachable = 5,
    /// A node that would do nothing any more has ended, so that it can be started again.
    CannotGoOn = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The command was used in a way that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// What was named is not there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotFound(pub String);

/// Not done in time.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TimedOut(pub String);

impl Exit {
    /// The status for an error.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        if error.is::<Usage>() || error.is::<ConfigError>() || error.is::<NameError>() {
            return Self::Usage;
        }
        if error.is::<NotFound>() {
            return Self::NotFound;
        }
        if error.is::<TimedOut>() {
            return Self::TimedOut;
        }
        let of_node = match error.downcast_ref::<NodeError>() {
            Some(NodeError::CannotGoOn(_)) => return Self::CannotGoOn,
            Some(NodeError::Broker(error)) => Some(error),
            None => None,
        };
        match (error.downcast_ref::<RootError>(), of_node.or(error.downcast_ref::<BrokerError>())) {
            (Some(RootError::Broker(BrokerError::Url { .. })), _) | (None, Some(BrokerError::Url { .. })) => {
                Self::Usage
            }
            (Some(RootError::Broker(error)), _) | (None, Some(error)) if error.is_connection() => Self::Unreachable,
            (Some(RootError::NoChain { .. } | RootError::NoLetter { .. } | RootError::Missing(_)), _) => Self::NotFound,
            (Some(RootError::TimedOut(_)), _) => Self::TimedOut,
            (Some(RootError::Name(_) | RootError::Id(_)), _) => Self::Usage,
            _ => Self::Failed,
        }
    }
}
