//! Errors of a client.

mod kind;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::archive::pack::FilesError;
use crate::broker::BrokerError;
use crate::chain::ChainError;
use crate::chain::manifest::ManifestError;
use crate::engine::inspect::InspectError;
use crate::frame::id::IdError;
use crate::name::{ChainName, Digest, NameError, Revision, StageName, Version, nearest};

/// An error of a client.
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
    /// The server failed or refused a request.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A name is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The chain does not exist.
    #[error("there is no chain `{chain}`; {}", meant(chain.as_str(), "deployed", known.iter().map(ChainName::as_str)))]
    NoChain {
        /// The requested chain.
        chain: ChainName,
        /// The deployed chains.
        known: Vec<ChainName>,
    },
    /// The stage does not exist.
    #[error(
        "{} has no stage `{stage}`; {}",
        chain.as_ref().map_or_else(|| "the cluster".to_owned(), |chain| format!("chain `{chain}`")),
        meant(stage.as_str(), "known", known.iter().map(StageName::as_str))
    )]
    NoStage {
        /// The chain that was searched. `None` for all chains.
        chain: Option<ChainName>,
        /// The requested stage.
        stage: StageName,
        /// The known stages.
        known: Vec<StageName>,
    },
    /// The dead letters do not exist.
    #[error(
        "chain `{chain}` has no dead letter {}",
        numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
    )]
    NoLetter {
        /// The chain.
        chain: ChainName,
        /// The numbers without a dead letter.
        numbers: Vec<u64>,
    },
    /// Other clients keep closing the queues of an older revision.
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
        /// The cause.
        #[source]
        error: io::Error,
    },
    /// The manifest file does not exist.
    #[error("there is no file `{}`", .0.display())]
    NoManifest(PathBuf),
    /// The file of a plugin does not exist.
    #[error(
        "there is no file `{}`, which the manifest names as a plugin; build it first, as with \
         `cargo build --release --target wasm32-wasip1`",
        .0.display()
    )]
    NoPluginFile(PathBuf),
    /// A plugin is named by the folder of its sources, and was not built.
    #[error("`{}` is a folder, not a plugin; build it, and give the plugin that comes of it", .0.display())]
    PluginFolder(PathBuf),
    /// A file is not a manifest.
    #[error("`{}`, {error}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// The fault in the file.
        #[source]
        error: ManifestError,
    },
    /// A manifest describes an invalid chain.
    #[error("`{}`: {error}", path.display())]
    Chain {
        /// The file. The name of the chain if the manifest came from no file.
        path: PathBuf,
        /// The fault in the manifest.
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
        /// The fault in the plugin.
        #[source]
        error: InspectError,
    },
    /// A plugin that the manifest names by its digest is not stored.
    #[error("stage `{stage}`: the plugin `{plugin}` is not stored; give the path of its file")]
    NoPlugin {
        /// The stage.
        stage: StageName,
        /// The plugin, as the manifest names it.
        plugin: String,
    },
    /// What a stage names is stored on a server, and none is used.
    #[error("stage `{stage}`: {what} is stored on a server, and this uses none; give the path of the file")]
    OnServer {
        /// The stage.
        stage: StageName,
        /// What is stored there.
        what: String,
    },
    /// The file of a schema does not exist.
    #[error("no schema at {}; `schema` names a file of JSON Schema, relative to the manifest", .0.display())]
    NoSchemaFile(PathBuf),
    /// A schema of a task cannot be used.
    #[error("stage `{stage}`: the schema of its {what} is {error}")]
    Schema {
        /// The stage.
        stage: StageName,
        /// What it is the schema of.
        what: &'static str,
        /// What is wrong with it.
        error: String,
    },
    /// A stage gives what the next does not take.
    #[error("stages that do not fit: {0}")]
    Contract(String),
    /// A bucket or object store that a stage is granted cannot be used.
    #[error("stage `{stage}`: {problem}")]
    NoStore {
        /// The stage.
        stage: StageName,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// No node has a value for a secret that a stage is granted.
    #[error(
        "stage `{stage}`: no node has a value for the secret `{secret}`; put it into a file of this name in the secrets folder of \
         a node, or into its environment variable {variable}"
    )]
    NoSecret {
        /// The stage.
        stage: StageName,
        /// The secret.
        secret: String,
        /// The environment variable that would hold it.
        variable: String,
    },
    /// The files of a stage cannot be shipped.
    #[error("stage `{stage}`: `files`: {error}")]
    Files {
        /// The stage.
        stage: StageName,
        /// The cause.
        #[source]
        error: FilesError,
    },
    /// An archive of files that the manifest names by its digest is not stored.
    #[error("stage `{stage}`: the files `{archive}` are not stored; give their paths")]
    NoArchive {
        /// The stage.
        stage: StageName,
        /// The archive, as the manifest names it.
        archive: Digest,
    },
    /// The version exists with other content.
    #[error(
        "chain `{chain}` already has a version {version} with other content; \
         write a new version into the manifest and deploy again{winner}"
    )]
    VersionConflict {
        /// The chain.
        chain: ChainName,
        /// The version.
        version: Version,
        /// The deployer of that version, in parentheses. Empty if unknown.
        winner: String,
    },
    /// The revision is deployed, but its intake is not yet moved.
    #[error(
        "chain `{chain}` {version} is deployed as {revision}, but its intake could not be moved to it: {error}; \
         nodes try again, and you may deploy it again"
    )]
    NotMoved {
        /// The chain.
        chain: ChainName,
        /// The version.
        version: Version,
        /// The revision.
        revision: Revision,
        /// The cause.
        #[source]
        error: BrokerError,
    },
    /// The outcome is unknown: the server gave no answer, and the state cannot be read.
    #[error(
        "cannot tell whether chain `{chain}` {version} is deployed as {revision}: {error}; nothing was undone, so \
         deploy it again when the server can be reached"
    )]
    Untold {
        /// The chain.
        chain: ChainName,
        /// The version.
        version: Version,
        /// The revision.
        revision: Revision,
        /// The reason why the state cannot be read.
        #[source]
        error: BrokerError,
    },
    /// Other clients keep deploying the same chain.
    #[error("others deploy chain `{0}` at the same time; nothing was changed, deploy again")]
    Crowded(ChainName),
    /// Another stream owns the subject of the intake.
    #[error(
        "the subject `{}` belongs to the stream `{stream}` already; remove that subject from it, or give the chain \
         another name",
        crate::subject::intake(chain)
    )]
    IntakeTaken {
        /// The chain.
        chain: ChainName,
        /// The other stream.
        stream: String,
    },
    /// A stream of another domain or account also listens to the intake.
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
        /// The other stream.
        stream: String,
        /// The domain of that stream, if it is known.
        domain: Option<String>,
    },
    /// The deploy would remove results or dead letters.
    #[error(
        "deploying chain `{chain}` would remove {what} that are kept already; write a larger `max_age` or `max_bytes` \
         below `[results]`"
    )]
    WouldDrop {
        /// The chain.
        chain: ChainName,
        /// The number and kind of messages.
        what: String,
    },
    /// The intake of the chain is closed.
    #[error("the intake of chain `{0}` is closed")]
    Closed(ChainName),
    /// The revision of the chain takes no topics.
    #[error(
        "chain `{0}` was deployed by an earlier pcluster, whose nodes drop topics; write a new version into the manifest and \
         deploy it with this one"
    )]
    NoTopics(ChainName),
    /// An item is too large.
    #[error(
        "an item of {size} bytes is more than fits in a message ({max} bytes: the server's `max_payload` less room for headers)"
    )]
    TooLarge {
        /// The size of the item, in bytes.
        size: usize,
        /// The largest size, in bytes.
        max: usize,
    },
    /// An item is larger than any that a chain takes.
    #[error("an item of {size} bytes is too large: {max} bytes is the most{why}")]
    Oversized {
        /// The size of the item, in bytes.
        size: u64,
        /// The largest size, in bytes.
        max: u64,
        /// What has this limit, in words that follow the size.
        why: &'static str,
    },
    /// The chain does not have the bytes of a large item.
    #[error("chain `{chain}` does not have the large item {name}: {reason}")]
    LargeMissing {
        /// The chain.
        chain: ChainName,
        /// The name of the large item.
        name: String,
        /// What is missing.
        reason: String,
    },
    /// The bytes of a large item are not those that were stored.
    #[error("the large item {name} of chain `{chain}` is damaged: {reason}")]
    LargeDamaged {
        /// The chain.
        chain: ChainName,
        /// The name of the large item.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file of an item cannot be read or written.
    #[error("cannot {what}: {error}")]
    ItemFile {
        /// The attempt.
        what: &'static str,
        /// The cause.
        #[source]
        error: Arc<io::Error>,
    },
    /// A text is not UTF-8.
    #[error("the text is not UTF-8 after byte {0}; feed it as bytes")]
    NotUtf8(u64),
    /// The manifest is larger than a message of the server.
    #[error(
        "stage `{stage}`: its config has {config} bytes, and with it the manifest {size}, more than fits in a message ({max} bytes: \
         the server's `max_payload`); keep large data in the plugin or in items, or raise `max_payload`"
    )]
    ManifestTooLarge {
        /// The stage with the largest config.
        stage: StageName,
        /// The size of that config as JSON, in bytes.
        config: usize,
        /// The size of the stored manifest, in bytes.
        size: usize,
        /// The largest size, in bytes.
        max: usize,
    },
    /// The id of an item is invalid.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A value cannot be serialized into an item.
    #[error("the value cannot be written as CBOR: {0}")]
    Encode(String),
    /// A header of a feeder is not allowed.
    #[error("{0}")]
    Header(String),
    /// The time is over.
    #[error("{0}")]
    TimedOut(String),
    /// A value in the registry cannot be read.
    #[error("the registry holds something unreadable for {what}: {reason}")]
    Registry {
        /// The value.
        what: String,
        /// The fault in the value.
        reason: String,
    },
}

/// Suggests known names that are similar to an unknown one.
fn meant<'a>(unknown: &str, are: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    match nearest(unknown, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "none is deployed yet".to_owned(),
        None => format!("{are} are {}", known.join(", ")),
    }
}
