//! What a client can do: everything that the command line does, typed in and typed out, without printing.
//!
//! ```no_run
//! # async fn example() -> Result<(), pcluster::client::ClientError> {
//! use pcluster::client::{Item, Client};
//!
//! let client = Client::connect(&"nats://127.0.0.1:4222".into(), "my-program").await?;
//! client.deploy("chain.toml".as_ref()).await?;
//! let chain = "example".parse()?;
//! let mut feeder = client.feeder(&chain).await?;
//! feeder.feed(Item::of(&"hello world!")?).await?;
//! feeder.finish().await?;
//! client.wait(&chain, None, |_| {}).await?;
//! let mut puller = client.puller(&chain).await?;
//! let result = puller.next().await?;
//! println!("{} came of {}", result.result.to_json(), result.result.id);
//! result.ack().await;
//! # Ok(())
//! # }
//! ```

mod dead;
pub(crate) mod deploy;
mod feed;
mod intake;
mod logs;
mod pull;
mod pulled;
mod reset;
mod result;
mod stages;
mod status;
mod wait;

use std::path::{Path, PathBuf};

use crate::broker::registry::{Marked, Registry};
use crate::broker::{Broker, BrokerError};
use crate::chain::manifest::ManifestError;
use crate::chain::record::Deployed;
use crate::chain::{Chain, ChainError};
use crate::engine::inspect::InspectError;
use crate::file;
use crate::frame::id::IdError;
use crate::name::{ChainName, DigestError, NameError, Revision, StageName, Version, nearest};

pub use crate::broker::Address;
pub use crate::broker::follow::StartAt;
pub use crate::broker::service::{HopReport, NodeReport, Nodes, Problem};
pub use crate::dead::{Attempt, FailureKind};
pub use crate::frame::Headers;
pub use crate::log::LogRecord;
pub use dead::{DeadFilter, DeadLetter, DeadLetters, Retried, Selection};
pub use deploy::{DeployOptions, Deployment};
pub use feed::{Fed, Feeder, Item, Packing, Waiting, Waits};
pub use intake::Switched;
pub use logs::{LogFilter, LogFollower};
pub use pcluster_abi::Level;
pub use pull::{Outcome, Puller, Watcher};
pub use pulled::PulledResult;
pub use reset::Reset;
pub use result::{ResultItem, WithMeta};
pub use status::{ChainStatus, NodeProblem, RevisionStatus, StageStatus};
pub use wait::{Notice, Pace};

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A name is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No such chain.
    #[error("there is no chain `{chain}`; {hint}")]
    NoChain {
        /// The chain that was asked for.
        chain: String,
        /// What to do.
        hint: String,
    },
    /// No such stage.
    #[error("{place} has no stage `{stage}`; {hint}")]
    NoStage {
        /// Where it was looked for, in words.
        place: String,
        /// The stage that was asked for.
        stage: StageName,
        /// What to do.
        hint: String,
    },
    /// No dead letters with these numbers.
    #[error(
        "chain `{chain}` has no dead letter {}; `pcluster dead ls {chain}` shows those that it has",
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
    #[error("cannot read `{}`: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file is not there.
    #[error("there is no file `{}`{hint}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What to do; empty, or with what parts it from the rest.
        hint: &'static str,
    },
    /// A file is not a manifest.
    #[error("`{}`, {error}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: ManifestError,
    },
    /// A manifest asks for what cannot be.
    #[error("`{}`: {error}", path.display())]
    Chain {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
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
         `deny_exports: \"pcluster.>\"` in its remote in the server's `leafnodes`, or give the chain another name; if that one \
         is meant, name its domain with `{meant}`",
        crate::subject::intake(chain)
    )]
    IntakeShared {
        /// The chain.
        chain: ChainName,
        /// The stream.
        stream: String,
        /// Where the stream is, in words.
        domain: String,
        /// The flag that names its domain.
        meant: String,
    },
    /// Results or dead letters would be removed.
    #[error(
        "deploying chain `{chain}` would remove {what} that are kept already; write a larger `max_age` or `max_bytes` \
         below `[results]`, or remove them with `--force`"
    )]
    WouldDrop {
        /// The chain.
        chain: ChainName,
        /// How many of what.
        what: String,
    },
    /// The chain's intake is closed.
    #[error("the intake of chain `{0}` is closed; `pcluster start {0}` opens it")]
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
    /// A digest is malformed.
    #[error(transparent)]
    Digest(#[from] DigestError),
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
    /// Whether the same can succeed later with nothing else changed: the server is away.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Broker(error) if error.is_transient())
    }
}

impl From<&str> for Address {
    fn from(url: &str) -> Self {
        Self { url: url.to_owned(), ..Self::default() }
    }
}

/// A client of a cluster.
#[derive(Debug, Clone)]
pub struct Client {
    broker: Broker,
}

impl Client {
    /// Connects. `name` is what the server shows of this client.
    ///
    /// # Errors
    ///
    /// If no usable server answers within five seconds.
    pub async fn connect(address: &Address, name: &str) -> Result<Self, ClientError> {
        Ok(Self { broker: Broker::connect(address, name).await? })
    }

    /// Uses a connection that stands already.
    #[must_use]
    pub(crate) fn new(broker: Broker) -> Self {
        Self { broker }
    }

    /// The connection.
    #[must_use]
    pub(crate) fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The names of all chains, sorted.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn chains(&self) -> Result<Vec<ChainName>, ClientError> {
        match Registry::open(&self.broker).await? {
            Some(registry) => Ok(registry.chains().await?),
            None => Ok(Vec::new()),
        }
    }

    /// The registry and a chain's state in it.
    async fn chain(&self, chain: &ChainName) -> Result<(Registry, Marked), ClientError> {
        if let Some(registry) = Registry::open(&self.broker).await? {
            if let Some(marked) = registry.state(chain).await?.filter(|marked| marked.state.is_deployed()) {
                self.broker.check_wire(chain).await?;
                return Ok((registry, marked));
            }
            let chains = registry.chains().await?;
            return Err(no_chain(chain, &chains));
        }
        Err(no_chain(chain, &[]))
    }

    /// The manifest of a revision, raw and checked.
    async fn revision(
        registry: &Registry,
        chain: &ChainName,
        revision: Revision,
    ) -> Result<(Deployed, Chain), ClientError> {
        let unreadable = |reason: String| ClientError::Registry { what: format!("chain `{chain}` {revision}"), reason };
        let deployed = registry.deployed(chain, revision).await?;
        let deployed = deployed.ok_or_else(|| unreadable("its manifest is missing".to_owned()))?;
        let checked = Chain::stored(&deployed.manifest).map_err(|error| unreadable(error.to_string()))?;
        Ok((deployed, checked))
    }
}

/// Reads a file, and tells one that is not there from one that cannot be read. `hint`: what to do if it is not there.
fn read(path: &Path, max: u64, hint: &'static str) -> Result<Vec<u8>, ClientError> {
    file::read(path, max).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ClientError::Missing { path: path.to_owned(), hint },
        _ => ClientError::Read { path: path.to_owned(), reason: error.to_string() },
    })
}

fn no_chain(chain: &ChainName, chains: &[ChainName]) -> ClientError {
    let hint = match nearest(chain.as_str(), chains.iter().map(ChainName::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if chains.is_empty() => "none is deployed yet: `pcluster deploy chain.toml`".to_owned(),
        None => {
            let names: Vec<&str> = chains.iter().map(ChainName::as_str).collect();
            format!("deployed are {}", names.join(", "))
        }
    };
    ClientError::NoChain { chain: chain.to_string(), hint }
}
