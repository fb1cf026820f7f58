//! Why a client failed.

use std::io;
use std::path::PathBuf;

use crate::broker::BrokerError;
use crate::chain::ChainError;
use crate::chain::manifest::ManifestError;
use crate::engine::inspect::InspectError;
use crate::frame::id::IdError;
use crate::kind::ErrorKind;
use crate::name::{ChainName, NameError, Revision, StageName, Version, nearest};

/// Why a client failed.
///
/// ```
/// use pcluster::client::ClientError;
/// use pcluster::error::ErrorKind;
///
/// fn is_worth_another_try(error: &ClientError) -> bool {
///     matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Busy)
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A name is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No such chain.
    #[error("there is no chain `{chain}`; {}", meant(chain.as_str(), "deployed", known.iter().map(ChainName::as_str)))]
    NoChain {
        /// The chain that was asked for.
        chain: ChainName,
        /// The chains that are deployed.
        known: Vec<ChainName>,
    },
    /// No such stage.
    #[error(
        "{} has no stage `{stage}`; {}",
        chain.as_ref().map_or_else(|| "the cluster".to_owned(), |chain| format!("chain `{chain}`")),
        meant(stage.as_str(), "known", known.iter().map(StageName::as_str))
    )]
    NoStage {
        /// The chain that it was looked for in. `None`: all chains.
        chain: Option<ChainName>,
        /// The stage that was asked for.
        stage: StageName,
        /// The stages that are known.
        known: Vec<StageName>,
    },
    /// No dead letters with these numbers.
    #[error(
        "chain `{chain}` has no dead letter {}",
        numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
    )]
    NoLetter {
        /// The chain.
        chain: ChainName,
        /// The numbers that were asked for in vain.
        numbers: Vec<u64>,
    },
    /// The queues of an older revision were closed by others each time they were opened.
    #[error("the queues of chain `{chain}` {revision} are closed again whenever they are opened; try again later")]
    Closing {
        /// The chain.
        chain: ChainName,
        /// The revision.
        revision: Revision,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The manifest is not there.
    #[error("there is no file `{}`", .0.display())]
    NoManifest(PathBuf),
    /// The file of a plugin is not there.
    #[error(
        "there is no file `{}`, which the manifest names as a plugin; build it first, as with \
         `cargo build --release --target wasm32-wasip1`",
        .0.display()
    )]
    NoPluginFile(PathBuf),
    /// A file is not a manifest.
    #[error("`{}`, {error}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        error: ManifestError,
    },
    /// A manifest asks for what cannot be.
    #[error("`{}`: {error}", path.display())]
    Chain {
        /// The file, or the chain's name if the manifest came from no file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        error: ChainError,
    },
    /// A plugin cannot be used.
    #[error("stage `{stage}`: plugin `{plugin}`: {error}")]
    Plugin {
        /// The stage.
        stage: StageName,
        /// The plugin, as the manifest names it.
        plugin: String,
        /// What is wrong with it.
        #[source]
        error: InspectError,
    },
    /// A plugin named by its digest is not stored.
    #[error("stage `{stage}`: the plugin `{plugin}` is not stored; give the path of its file")]
    NoPlugin {
        /// The stage.
        stage: StageName,
        /// The plugin, as the manifest names it.
        plugin: String,
    },
    /// The version exists with other content.
    #[error(
        "chain `{chain}` already has a version {version}, and its content is another; \
         write a new version into the manifest and deploy again{winner}"
    )]
    VersionConflict {
        /// The chain.
        chain: ChainName,
        /// The version.
        version: Version,
        /// Who deployed that version, in parentheses, if it is known.
        winner: String,
    },
    /// The state names the revision, and the intake does not lead to it yet.
    #[error(
        "chain `{chain}` {version} is deployed as {revision}, but its intake could not be moved to it: {error}; \
         nodes try again, and so does deploying it once more"
    )]
    NotMoved {
        /// The chain.
        chain: ChainName,
        /// The version.
        version: Version,
        /// The revision.
        revision: Revision,
        /// Why.
        #[source]
        error: BrokerError,
    },
    /// The state was to name the revision, the server gave no answer, and the state cannot be read.
    #[error(
        "cannot tell whether chain `{chain}` {version} is deployed as {revision}: {error}; nothing of it was taken back, so \
         deploy it once more when the server can be reached"
    )]
    Untold {
        /// The chain.
        chain: ChainName,
        /// The version.
        version: Version,
        /// The revision.
        revision: Revision,
        /// Why the state cannot be read.
        #[source]
        error: BrokerError,
    },
    /// Others deploy the same chain all the time.
    #[error("others deploy chain `{0}` at the same time; nothing was changed, deploy again")]
    Crowded(ChainName),
    /// Another stream has the intake's subject.
    #[error(
        "the subject `{}` belongs to the stream `{stream}` already; remove that subject from it, or give the chain \
         another name",
        crate::subject::intake(chain)
    )]
    IntakeTaken {
        /// The chain.
        chain: ChainName,
        /// The stream.
        stream: String,
    },
    /// A stream that is out of reach of this `JetStream` listens to the intake too.
    #[error(
        "a plain publish to `{}` is stored by the stream `{stream}` of {domain} too, so each item of chain `{chain}` would \
         run there as well; close the leaf node between them, with `deny_imports: \"pcluster.>\"` and \
         `deny_exports: \"pcluster.>\"` in its remote in the server's `leafnodes`, or give the chain another name",
        crate::subject::intake(chain),
        domain = domain.as_ref().map_or_else(
            || "another JetStream domain".to_owned(),
            |domain| format!("the domain `{domain}`")
        )
    )]
    IntakeShared {
        /// The chain.
        chain: ChainName,
        /// The stream.
        stream: String,
        /// The stream's domain, if it is known.
        domain: Option<String>,
    },
    /// Results or dead letters would be removed.
    #[error(
        "deploying chain `{chain}` would remove {what} that are kept already; write a larger `max_age` or `max_bytes` \
         below `[results]`"
    )]
    WouldDrop {
        /// The chain.
        chain: ChainName,
        /// How many of what.
        what: String,
    },
    /// The chain's intake is closed.
    #[error("the intake of chain `{0}` is closed")]
    Closed(ChainName),
    /// An item cannot be fed.
    #[error(
        "an item of {size} bytes is more than fits in a message ({max} bytes: the server's `max_payload` less room for headers)"
    )]
    TooLarge {
        /// The item.
        size: usize,
        /// The most that it may have.
        max: usize,
    },
    /// A manifest is larger than what the server keeps as one message.
    #[error(
        "stage `{stage}`: its config has {config} bytes, and with it the manifest {size}, more than fits in a message ({max} bytes: \
         the server's `max_payload`); keep large data in the plugin or in items, or raise `max_payload`"
    )]
    ManifestTooLarge {
        /// The stage with the largest config.
        stage: StageName,
        /// Its config, as JSON.
        config: usize,
        /// The manifest as it is kept.
        size: usize,
        /// The most that it may have.
        max: usize,
    },
    /// An item has an id that cannot be one.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A value cannot be made an item.
    #[error("the value cannot be written as CBOR: {0}")]
    Encode(String),
    /// The time is over.
    #[error("{0}")]
    TimedOut(String),
    /// What is kept on the server cannot be understood.
    #[error("the registry holds something unreadable for {what}: {reason}")]
    Registry {
        /// What.
        what: String,
        /// Why.
        reason: String,
    },
}

impl ClientError {
    /// Returns the kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Broker(error) | Self::Untold { error, .. } => error.kind(),
            Self::Name(_) | Self::Id(_) | Self::Encode(_) => ErrorKind::InvalidArgument,
            Self::NoChain { .. }
            | Self::NoStage { .. }
            | Self::NoLetter { .. }
            | Self::NoManifest(_)
            | Self::NoPluginFile(_) => ErrorKind::NotFound,
            Self::Closing { .. } | Self::Crowded(_) => ErrorKind::Busy,
            Self::Read { .. } => ErrorKind::Other,
            Self::Manifest { .. } | Self::Chain { .. } | Self::Plugin { .. } | Self::NoPlugin { .. } => {
                ErrorKind::InvalidManifest
            }
            Self::VersionConflict { .. }
            | Self::IntakeTaken { .. }
            | Self::IntakeShared { .. }
            | Self::WouldDrop { .. } => ErrorKind::Conflict,
            Self::NotMoved { .. } => ErrorKind::Incomplete,
            Self::Closed(_) => ErrorKind::Closed,
            Self::TooLarge { .. } | Self::ManifestTooLarge { .. } => ErrorKind::TooLarge,
            Self::TimedOut(_) => ErrorKind::TimedOut,
            Self::Registry { .. } => ErrorKind::Damaged,
        }
    }

    /// Returns `true` if the same call can succeed later: the server is away.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Broker(error) if error.is_transient())
    }
}

/// Names what may have been meant by an unknown name.
fn meant<'a>(unknown: &str, are: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    match nearest(unknown, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "none is deployed yet".to_owned(),
        None => format!("{are} are {}", known.join(", ")),
    }
}
