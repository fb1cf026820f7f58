//! The kinds of failures that programs tell apart.

/// A kind of failure.
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
    /// No such chain, stage, dead letter or file.
    NotFound,
    /// The server is away. The same call can succeed later.
    Unavailable,
    /// The server does not let this client in, or a file that the login needs cannot be used.
    Unauthenticated,
    /// The server is too old.
    ServerTooOld,
    /// The user lacks a permission on the server.
    PermissionDenied,
    /// The time is over.
    TimedOut,
    /// The chain's intake is closed.
    Closed,
    /// What is there already stands in the way: a version, a stream, results.
    Conflict,
    /// Other clients change the same chain. The same call can succeed later.
    Busy,
    /// An item or a manifest does not fit in a message.
    TooLarge,
    /// The server has no room.
    NoRoom,
    /// What is stored was written by a version of pcluster that this one does not understand.
    Incompatible,
    /// What is stored cannot be read, or is gone.
    Damaged,
    /// A deploy took effect in part. Deploying again completes it.
    Incomplete,
    /// The node cannot go on and must be started again.
    NodeFailed,
    /// Anything else.
    Other,
}
