//! The kinds of errors that programs tell apart.

/// A kind of error.
///
/// ```
/// use pcluster::client::ClientError;
/// use pcluster::error::ErrorKind;
/// use pcluster::name::ChainName;
///
/// let error = ClientError::from("no spaces".parse::<ChainName>().unwrap_err());
/// assert_eq!(error.kind(), ErrorKind::InvalidArgument);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A name, an id, a URL or a value is malformed.
    InvalidArgument,
    /// The manifest or one of its plugins cannot be used.
    InvalidManifest,
    /// There is no such chain, stage, dead letter or file.
    NotFound,
    /// The server cannot be reached. The same call can succeed later.
    Unavailable,
    /// The server refuses the login, or a login file is unusable.
    Unauthenticated,
    /// The server is too old.
    ServerTooOld,
    /// The user lacks a permission on the server.
    PermissionDenied,
    /// The time was up.
    TimedOut,
    /// The chain's intake is closed.
    Closed,
    /// Something that exists is in the way: a version, a stream, results.
    Conflict,
    /// Other clients change the same chain. The same call can succeed later.
    Busy,
    /// An item or a manifest is too large for a message.
    TooLarge,
    /// The server has no room.
    NoRoom,
    /// Data on the server was written by an incompatible version of pcluster.
    Incompatible,
    /// Data on the server is damaged or missing.
    Damaged,
    /// A deploy has taken effect in part. Another deploy of the same manifest completes it.
    Incomplete,
    /// The node cannot go on and must be started again.
    NodeFailed,
    /// Any other error.
    Other,
}
