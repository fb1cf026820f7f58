//! Why the server could not do something, and whether a later try may succeed.

use std::path::PathBuf;

use async_nats::jetstream;

use super::OLDEST_SERVER;
use crate::kind::ErrorKind;
use crate::name::ChainName;
use crate::wire::WireError;

/// The remedy if the server has no room.
pub(super) const MORE_ROOM: &str =
    "give it more room with `max_file_store` in its configuration, or its account with `max_file`";

/// The remedy if the server lets a consumer deliver too few messages at once.
const MORE_IN_FLIGHT: &str = "a million items may wait for their back-off; allow as many with `max_ack_pending` below `limits` in its configuration";

/// The remedy if the account has reached its limit of streams or consumers.
const MORE_OF_THEM: &str =
    "allow the account more with `max_streams` and `max_consumers` in the server's configuration";

/// JetStream's error codes that pcluster handles, from the server's `errors.json`.
pub(super) mod code {
    /// A consumer could not be made, for the reason in the text.
    pub const CONSUMER_CREATE: u64 = 10012;
    /// Consumer not found.
    pub const CONSUMER_NOT_FOUND: u64 = 10014;
    /// Another consumer with this name exists.
    pub const CONSUMER_EXISTS: u64 = 10148;
    /// A consumer asks for more unacknowledged messages than the server allows.
    pub const IN_FLIGHT_LIMIT: u64 = 10121;
    /// Two consumers of a work queue overlap.
    pub const CONSUMERS_OVERLAP: u64 = 10100;
    /// Stream not found.
    pub const STREAM_NOT_FOUND: u64 = 10059;
    /// No message found.
    pub const NO_MESSAGE: u64 = 10037;
    /// The stream name is already in use with a different configuration.
    pub const STREAM_EXISTS: u64 = 10058;
    /// No room: resource limits exceeded for the account; insufficient resources; insufficient storage.
    pub const NO_ROOM: [u64; 3] = [10002, 10023, 10047];
    /// More consumers than the account may have.
    pub const TOO_MANY_CONSUMERS: u64 = 10026;
    /// The limit of consumers or of streams is reached.
    pub const AT_MOST: [u64; 2] = [TOO_MANY_CONSUMERS, 10027];
    /// More replicas than there are servers to hold them: no suitable peers for placement; not in a cluster.
    pub const TOO_FEW_SERVERS: [u64; 2] = [10005, 10074];
    /// The stream could not store a message: a limit of it is reached, or the disk is full.
    pub const STORE_FAILED: u64 = 10077;
    /// A message of an atomic batch was stored before.
    pub const BATCH_DUPLICATE: u64 = 10201;
    /// Too many atomic batches are open.
    pub const BATCHES_IN_FLIGHT: [u64; 2] = [10210, 10211];
    /// A batch is incomplete, for example because the server went away.
    pub const BATCH_INCOMPLETE: u64 = 10176;
    /// The stream takes no batches, because its limit is about to be lowered.
    pub const NO_BATCHES: u64 = 10174;
    /// The stream does not allow this rollup.
    pub const NO_ROLLUP: u64 = 10111;
    /// A message cannot be removed, or does not exist.
    pub const NOT_REMOVED: u64 = 10057;
    /// The message is larger than the stream allows.
    pub const MESSAGE_TOO_LARGE: u64 = 10054;
    /// Another client wrote first: wrong last sequence, with the sequence in the text or without.
    pub const WRONG_LAST_SEQUENCE: [u64; 2] = [10071, 10164];
    /// Transient errors. While servers elect a leader: incomplete results; not active; not assigned; not available;
    /// not leader; membership changes. While one starts or stops: JetStream not enabled, for the account or at all; stream
    /// offline; consumer offline. While the answer is being made: a duplicate in process; last sequence not ready. And:
    /// too many requests.
    pub const PASSING: [u64; 13] = [
        10004, 10006, 10007, 10008, 10009, 10202, //
        10039, 10076, 10118, 10119, //
        10158, 10163, 10167,
    ];
}

/// Why the server could not do something.
///
/// It keeps the errors of the NATS client library as text: their types are no part of this API.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// No server answers at the address.
    #[error("cannot reach NATS at {url}: {reason}")]
    Unreachable {
        /// The address.
        url: String,
        /// The reason.
        reason: String,
    },
    /// The address is not a URL of a server.
    #[error("`{url}` is not a NATS URL: {reason}; write one like nats://127.0.0.1:4222")]
    Url {
        /// The given address, without the password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The credentials file cannot be used.
    #[error("cannot use the credentials file `{}`: {reason}; `nsc generate creds` writes one", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A file that is needed to connect cannot be used.
    #[error("cannot read {what}, `{}`: {reason}", path.display())]
    File {
        /// The purpose of the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The server and this client do not trust each other.
    #[error("NATS at {url} and this client do not agree on TLS: {reason}")]
    Tls {
        /// The address, without the password.
        url: String,
        /// The reason.
        reason: String,
    },
    /// The server does not let this user in.
    #[error("NATS at {url} refuses the login: {reason}")]
    Refused {
        /// The address, without the password.
        url: String,
        /// The server's answer.
        reason: String,
    },
    /// JetStream is off.
    #[error(
        "NATS at {0} has JetStream turned off; start it with `nats-server -js`, or with the file nats.conf of this project"
    )]
    NoJetStream(String),
    /// No server answers for a domain.
    #[error("NATS at {url} reaches no JetStream of the domain `{domain}`")]
    NoDomain {
        /// The address, without the password.
        url: String,
        /// The domain.
        domain: String,
    },
    /// The server is too old.
    #[error("NATS at {url} is version {version}; pcluster needs {}.{}.{} or newer", OLDEST_SERVER.0, OLDEST_SERVER.1, OLDEST_SERVER.2)]
    TooOld {
        /// The address.
        url: String,
        /// The server's version.
        version: String,
    },
    /// The user may not do this.
    #[error("no permission to {what}: {reason}; the server's configuration must allow it for this user")]
    NoPermission {
        /// The attempt.
        what: String,
        /// The server's answer.
        reason: String,
    },
    /// The server refused a request.
    #[error("the server cannot {what}: {description} (error {code})")]
    Server {
        /// The request.
        what: String,
        /// JetStream's error code.
        code: u64,
        /// The server's description.
        description: String,
    },
    /// A stream or consumer of a deployed chain does not exist.
    #[error("{what} of chain `{chain}` is gone, and what it held")]
    Gone {
        /// The stream or consumer.
        what: String,
        /// The chain.
        chain: ChainName,
    },
    /// There are fewer servers than replicas asked for.
    #[error(
        "chain `{chain}` asks for {replicas} replicas, and there are not as many servers that can take one ({description}); \
         write a smaller `replicas` into the manifest or start more servers"
    )]
    TooFewServers {
        /// The chain.
        chain: ChainName,
        /// How many replicas the chain asks for.
        replicas: u32,
        /// The server's answer.
        description: String,
    },
    /// The deployed chain has a wire that this program does not know.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The answer is unreadable. Another client that sees the reply subject may have sent it.
    #[error("cannot {what}: what came for an answer cannot be read: {reason}")]
    Unreadable {
        /// The request.
        what: String,
        /// Why the answer is unreadable.
        reason: String,
    },
    /// No answer in time.
    #[error("the server gave no answer in time to the request to {0}")]
    Timeout(String),
    /// Anything else.
    #[error("cannot {what}: {reason}")]
    Other {
        /// The attempt.
        what: String,
        /// The reason.
        reason: String,
    },
}

impl BrokerError {
    /// Returns the error for an unreadable answer.
    pub(super) fn unreadable(what: impl Into<String>, error: &dyn std::error::Error) -> Self {
        Self::Unreadable { what: what.into(), reason: error.to_string() }
    }

    /// Returns the error for a failure that has no code.
    pub(crate) fn other(what: impl Into<String>, error: &dyn std::error::Error) -> Self {
        Self::Other { what: what.into(), reason: error.to_string() }
    }

    /// Returns the error for an answer of JetStream.
    pub(super) fn server(what: String, error: &jetstream::Error) -> Self {
        let code = error.error_code().0;
        let text = error.to_string();
        // The library writes `description (code N, error code N)`. The code has a field of its own here.
        let text = text.split(" (code ").next().unwrap_or(&text);
        let description = match code {
            _ if code::NO_ROOM.contains(&code) => format!("{text}; {MORE_ROOM}"),
            _ if code::AT_MOST.contains(&code) => format!("{text}; {MORE_OF_THEM}"),
            code::IN_FLIGHT_LIMIT => format!("{text}; {MORE_IN_FLIGHT}"),
            _ => text.to_owned(),
        };
        Self::Server { what, code, description }
    }

    /// Returns this error as one about a missing stream or consumer of a chain.
    pub(super) fn of_chain(self, chain: &ChainName, thing: impl FnOnce() -> String) -> Self {
        if self.is_not_found() { Self::Gone { what: thing(), chain: chain.clone() } } else { self }
    }

    pub(super) fn code(&self) -> Option<u64> {
        match self {
            Self::Server { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Returns `true` if the server said that the requested thing does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self.code(), Some(code::CONSUMER_NOT_FOUND | code::STREAM_NOT_FOUND))
    }

    /// Returns `true` if the server has no room.
    pub fn is_no_room(&self) -> bool {
        self.code().is_some_and(|code| code::NO_ROOM.contains(&code))
    }

    /// Returns `true` if the same request may succeed later.
    ///
    /// The server is away, or the servers of a cluster are electing a leader.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::NoJetStream(_)
            | Self::NoDomain { .. }
            | Self::Unreadable { .. }
            | Self::Timeout(_) => true,
            other => other.code().is_some_and(|code| code::PASSING.contains(&code)),
        }
    }

    /// Returns the kind of failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            _ if self.is_transient() => ErrorKind::Unavailable,
            Self::Url { .. } => ErrorKind::InvalidArgument,
            Self::Credentials { .. } | Self::File { .. } | Self::Tls { .. } | Self::Refused { .. } => {
                ErrorKind::Unauthenticated
            }
            Self::TooOld { .. } => ErrorKind::ServerTooOld,
            Self::NoPermission { .. } => ErrorKind::PermissionDenied,
            Self::Gone { .. } => ErrorKind::Damaged,
            Self::TooFewServers { .. } => ErrorKind::NoRoom,
            Self::Server { code, .. } if code::NO_ROOM.contains(code) || code::AT_MOST.contains(code) => {
                ErrorKind::NoRoom
            }
            Self::Server { .. } if self.is_not_found() => ErrorKind::Damaged,
            Self::Wire(_) => ErrorKind::Incompatible,
            _ => ErrorKind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: u64) -> BrokerError {
        BrokerError::Server { what: "store".to_owned(), code, description: "said".to_owned() }
    }

    #[test]
    fn what_passes_by_itself_is_told_from_what_does_not() {
        assert!(server(10008).is_transient() && BrokerError::Timeout("ask".to_owned()).is_transient());
        assert!(!server(code::STREAM_NOT_FOUND).is_transient() && !server(code::NO_ROOM[0]).is_transient());
        assert_eq!(BrokerError::Timeout("ask".to_owned()).kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn what_the_server_has_too_little_of_is_named_with_the_setting_that_gives_more() {
        for (code, settings) in
            [(10047, &["`max_file_store`", "`max_file`"]), (10027, &["`max_streams`", "`max_consumers`"])]
        {
            let answer = format!(r#"{{"code":400,"err_code":{code},"description":"too much"}}"#);
            let answer: jetstream::Error = serde_json::from_str(&answer).expect("an error as the server writes it");
            let said = BrokerError::server("make the stream".to_owned(), &answer).to_string();
            assert!(settings.iter().all(|setting| said.contains(setting)), "{said}");
        }
    }

    #[test]
    fn a_stream_that_is_gone_is_named_with_its_chain() {
        let chain: ChainName = "orders".parse().expect("valid");
        let gone = server(code::STREAM_NOT_FOUND).of_chain(&chain, || "the stream `A`".to_owned()).to_string();
        assert_eq!(gone, "the stream `A` of chain `orders` is gone, and what it held");
    }
}
