//! Deploys a chain: checks everything, stores the plugins, files and manifest, and cuts over.
//!
//! The server can refuse a stream or a consumer, and other clients may deploy at the same time. So an `attempt` first reserves a
//! revision and makes everything that it needs. Only then does the state of the chain name it as active, and the intake moves
//! last. If a step before that fails, the attempt is undone.

mod attempt;
mod built;
pub(crate) mod check;
pub(super) mod compare;
mod contracts;
mod door;
pub mod failpoint;
mod files;
pub(crate) mod folders;
pub(crate) mod here;
mod kept;
mod read;
mod schemas;
mod secrets;
mod size;
mod stage;
mod stores;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::settle::settle;
use super::{Client, ClientError, intake};
use crate::archive::pack::Packed;
use crate::broker::arrange::kept::make_kept;
use crate::broker::plugins::Plugins;
use crate::broker::registry::Registry;
use crate::broker::replicas;
use crate::broker::streams::{ChainStreams, delete_unused};
use crate::calls::grant::Grants;
use crate::chain::manifest::Manifest;
use crate::chain::record::{Deployed, State};
use crate::chain::{Chain, Stage, Work, default};
use crate::engine::inspect::TaskSchemas;
use crate::name::{ChainName, Digest, Revision, StageName, Version};
use crate::text;
use crate::wire::WIRE;
use attempt::{Attempt, Entered};
use built::Given;
use contracts::Contracts;
use size::check_size;

/// Rounds of a deploy while other clients deploy the same chain.
const ROUNDS: u32 = 20;

/// The result of a deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deployment {
    /// The chain.
    pub chain: ChainName,
    /// The version.
    pub version: Version,
    /// The active revision.
    pub revision: Revision,
    /// The sha-256 of the content. Equal if and only if the manifests and their plugins are equal.
    pub digest: Digest,
    /// `true` if this deploy made the revision. `false` if it was already active.
    pub is_new: bool,
    /// The version and revision that this deploy replaced. `None` if there was none.
    pub before: Option<(Version, Revision)>,
    /// `true` if items may be fed.
    pub open: bool,
    /// Streams whose copies are not yet complete on all servers.
    pub copying: Vec<String>,
    /// What stages were granted. Stages without grants are left out.
    pub(crate) grants: Vec<(StageName, Arc<Grants>)>,
    /// Stages of which it is not known whether they fit, and why.
    pub(crate) doubts: Vec<String>,
}

/// A manifest whose plugins were read and checked.
struct Prepared {
    manifest: Manifest,
    chain: Chain,
    digest: Digest,
    /// Plugins that may have to be stored.
    plugins: BTreeMap<Digest, Given>,
    /// Archives that may have to be stored.
    archives: BTreeMap<Digest, Packed>,
    /// The schema of what the first stage takes. `None` if it is not known.
    takes: Option<serde_json::Value>,
    /// Stages of which it is not known whether they fit, and why.
    doubts: Vec<String>,
}

impl Prepared {
    /// Stores the plugins and archives that are not stored yet.
    async fn store(&self, client: &Client) -> Result<(), ClientError> {
        for (digest, Given { bytes, inputs }) in &self.plugins {
            let size = bytes.len() as u64;
            Plugins::of(&client.broker).put_built(digest, inputs.as_ref(), size, bytes.as_ref()).await?;
        }
        for (digest, archive) in &self.archives {
            let (file, size) = archive.reader().map_err(|error| ClientError::Encode(error.to_string()))?;
            Plugins::archives(&client.broker).put(digest, size, tokio::fs::File::from_std(file)).await?;
        }
        Ok(())
    }
}

/// A manifest and the plugins that it names.
///
/// ```
/// use pcluster::client::Package;
/// use pcluster::manifest::Manifest;
///
/// let on_disk = Package::file("my-chain/chain.toml");
/// let text = "name = 'example'\nversion = '1.0'\n[[stage]]\nname = 'echo'\nplugin = 'echo.wasm'";
/// let in_memory = Package::new(Manifest::from_toml(text)?).with_plugin("echo.wasm", *b"\0asm");
/// # Ok::<_, pcluster::error::ManifestError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Package {
    manifest: Source,
    plugins: BTreeMap<String, Given>,
}

#[derive(Debug, Clone)]
enum Source {
    File(PathBuf),
    Manifest(Box<Manifest>),
}

impl Package {
    /// Takes the manifest from a file, or from `chain.toml` in a folder.
    ///
    /// The deploy reads the file, and plugins and files at paths relative to it. It builds no plugin that is named by a folder: add
    /// what came of it with [`Package::with_plugin`].
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { manifest: Source::File(path.into()), plugins: BTreeMap::new() }
    }

    /// Takes a manifest from memory.
    ///
    /// The deploy reads plugins and files at paths relative to the working folder, unless [`Package::with_plugin`] adds a plugin.
    pub fn new(manifest: Manifest) -> Self {
        let manifest = Manifest { wire: None, ..manifest };
        Self { manifest: Source::Manifest(Box::new(manifest)), plugins: BTreeMap::new() }
    }

    /// Adds a plugin under the name that the stages use for it.
    pub fn with_plugin(mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.plugins.insert(name.into(), Given { bytes: bytes.into().into(), inputs: None });
        self
    }

    /// Adds a plugin that was built from inputs with this digest.
    pub(crate) fn with_built(mut self, name: String, bytes: Vec<u8>, inputs: Digest) -> Self {
        self.plugins.insert(name, Given { bytes: bytes.into(), inputs: Some(inputs) });
        self
    }

    /// Reads and checks the manifest, and that the programs which it ships are there. Leaves plugins and other files aside.
    pub(crate) fn chain(self) -> Result<Chain, ClientError> {
        let (path, manifest) = self.manifest.read()?;
        let chain = Chain::new(&manifest).map_err(|error| ClientError::Chain { path: path.clone(), error })?;
        for Stage { name, work, .. } in &chain.stages {
            if let Work::Program(program) = work {
                files::check(path.parent().unwrap_or(Path::new("")), name, program)?;
            }
        }
        Ok(chain)
    }
}

impl<T: AsRef<Path> + ?Sized> From<&T> for Package {
    fn from(path: &T) -> Self {
        Self::file(path.as_ref())
    }
}

/// Options of a deploy.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct DeployOptions {
    /// Apply the manifest's `[results]` at once. This may remove results and dead letters.
    pub force: bool,
    /// Deploy stages of which one gives what the next does not take.
    pub no_contracts: bool,
    /// Add the content to the version, so that each content can be deployed without another version in the manifest.
    pub(crate) is_try: bool,
}

/// Deploys a package, again while others deploy the chain too. `hear` is told the digest of the content before any node is.
pub(crate) async fn deploy_with(
    client: &Client,
    package: impl Into<Package> + Send,
    options: DeployOptions,
    hear: impl FnOnce(&Digest) + Send,
) -> Result<Deployment, ClientError> {
    let mut prepared = prepare(Some(client), package.into(), options).await?;
    hear(&prepared.digest);
    let name = &prepared.chain.name.clone();
    intake::check_intake_to_deploy(client, name).await?;
    let mut made = BTreeSet::new();
    let registry = if let Some(registry) = Registry::open(&client.broker).await? {
        if let Some(marked) = registry.state(name).await? {
            check_version(&registry, &prepared, &marked.state).await?;
            if marked.state.is_deployed()
                && let Some(active) = registry.deployed(name, marked.state.active).await?
            {
                prepared.doubts.extend(door::narrowed(client, &active.manifest, &prepared, options).await);
            }
        }
        Registry::create(&client.broker, default::REPLICAS).await?
    } else {
        if !options.force {
            kept::check_kept(client, &prepared.chain).await?;
        }
        made = make_kept(&client.broker, &prepared.chain).await?;
        match Registry::create(&client.broker, default::REPLICAS).await {
            Ok(registry) => registry,
            Err(error) => {
                delete_unused(&client.broker, &made).await?;
                return Err(error.into());
            }
        }
    };
    for _ in 0..ROUNDS {
        let mut attempt = match Attempt::enter(client, &registry, &prepared, options, &made).await? {
            Entered::Pending(attempt) => attempt,
            Entered::Unchanged(active, open) => {
                let mut unchanged = deployment(&prepared, active, None, open);
                unchanged.copying = repair(client, &registry, &prepared, active).await?;
                return Ok(Deployment { is_new: false, ..unchanged });
            }
        };
        match attempt.carry_out().await {
            Ok(Some(deployment)) => return Ok(deployment),
            // Other clients were faster. Begin again with the state that they have left.
            Ok(None) => attempt.undo().await,
            Err(error @ (ClientError::NotMoved { .. } | ClientError::Untold { .. })) => return Err(error),
            Err(error) => {
                attempt.undo().await;
                return Err(error);
            }
        }
    }
    Err(ClientError::Crowded(name.clone()))
}

/// Restores missing parts of the active revision.
async fn repair(
    client: &Client,
    registry: &Registry,
    prepared: &Prepared,
    active: Revision,
) -> Result<Vec<String>, ClientError> {
    let chain = &prepared.chain;
    Registry::create(&client.broker, chain.replicas).await?;
    prepared.store(client).await?;
    if let Some(marked) = registry.state(&chain.name).await? {
        settle(registry, &chain.name, marked.state).await?;
    }
    let copying = replicas::copied(&client.broker, &chain.name).await?;
    ChainStreams::of(&client.broker, &chain.name).create_consumers(chain, active).await?;
    Ok(copying)
}

/// Reads and checks a package. What only a server knows is checked if there is a client.
async fn prepare(client: Option<&Client>, package: Package, options: DeployOptions) -> Result<Prepared, ClientError> {
    let Package { manifest, plugins: given } = package;
    let (path, mut manifest) = manifest.read()?;
    let check =
        |manifest: &Manifest| Chain::new(manifest).map_err(|error| ClientError::Chain { path: path.clone(), error });
    let chain = check(&manifest)?;
    if let Some(client) = client {
        check_size(&chain, &manifest, client.broker.max_payload())?;
    }
    let base = path.parent().unwrap_or(Path::new("")).to_owned();
    let (mut plugins, mut archives) = (BTreeMap::new(), BTreeMap::new());
    let mut contracts = Contracts::default();
    if let Some(schema) = manifest.input.schema.as_ref().filter(|_| !options.no_contracts) {
        contracts.feed(schema);
    }
    for (stage, raw) in chain.stages.iter().zip(&mut manifest.stages) {
        let (plugin, task) = match &stage.work {
            Work::Task { plugin, task } => (plugin, task),
            Work::Program(program) => {
                if let Some(archive) = files::pack(client, &base, &stage.name, program).await? {
                    raw.files = Some(vec![archive.digest.to_string()]);
                    archives.insert(archive.digest.clone(), archive);
                }
                if !options.no_contracts {
                    contracts.add(&stage.name, &TaskSchemas::default(), raw.schema.as_ref())?;
                }
                continue;
            }
        };
        let from = stage::From { client, base: &base, chain: &chain.name, given: &given, asks: !options.no_contracts };
        let stage::Read { digest, bytes, task } = from.read(stage, plugin, task).await?;
        if !options.no_contracts {
            contracts.add(&stage.name, &task.schema, raw.schema.as_ref())?;
        }
        let inputs = raw.plugin.as_ref().and_then(|written| given.get(written)).and_then(|given| given.inputs.clone());
        raw.plugin = Some(digest.to_string());
        plugins.insert(digest, Given { bytes, inputs });
    }
    if let Some(client) = client {
        stores::check(client, &chain).await?;
        secrets::check(client, &chain).await?;
    }
    let digest_of =
        |manifest: &Manifest| Deployed::digest_of(manifest).map_err(|error| ClientError::Encode(error.to_string()));
    if options.is_try {
        manifest.version = chain.version.of_try(&digest_of(&manifest)?).to_string();
    }
    let digest = digest_of(&manifest)?;
    let (takes, doubts) = (contracts.takes, contracts.doubts);
    Ok(Prepared { chain: check(&manifest)?, manifest, digest, plugins, archives, takes, doubts })
}

fn deployment(prepared: &Prepared, revision: Revision, before: Option<(Version, Revision)>, open: bool) -> Deployment {
    let (chain, version) = (prepared.chain.name.clone(), prepared.chain.version.clone());
    let digest = prepared.digest.clone();
    let grants = prepared.chain.granted();
    let doubts = prepared.doubts.clone();
    Deployment { chain, version, revision, digest, is_new: true, before, open, copying: Vec::new(), grants, doubts }
}

/// Stores a manifest under the first free revision number.
pub(super) async fn add(
    registry: &Registry,
    manifest: Manifest,
    digest: Digest,
    chain: &Chain,
    first: Revision,
) -> Result<Deployed, ClientError> {
    let mut deployed = Deployed {
        chain: chain.name.clone(),
        version: chain.version.clone(),
        revision: first,
        digest,
        deployed: now(),
        by: Some(this_process()),
        manifest: Manifest { wire: Some(WIRE), ..manifest },
    };
    while !registry.add_deployed(&deployed).await? {
        deployed.revision = deployed.revision.next();
    }
    Ok(deployed)
}

/// Returns the current time as RFC 3339 in UTC.
fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

/// Returns the user, host and process of this deployer. People read it.
fn this_process() -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let user = user.unwrap_or_else(|| rustix::process::getuid().as_raw().to_string());
    let host = rustix::system::uname();
    format!("{user}@{} (process {})", host.nodename().to_string_lossy(), std::process::id())
}

/// Refuses a version that exists with other content.
async fn check_version(registry: &Registry, prepared: &Prepared, state: &State) -> Result<(), ClientError> {
    let (chain, version) = (&prepared.chain.name, &prepared.chain.version);
    match registry.version(chain, state, version).await? {
        Some(digest) if digest != prepared.digest => {
            let mut winner = String::new();
            for &revision in state.live.iter().rev() {
                if let Ok(Some(deployed)) = registry.deployed(chain, revision).await
                    && deployed.version == *version
                {
                    let by = deployed.by.map(|by| format!(" by {by}")).unwrap_or_default();
                    winner = format!(" (it is {revision}, deployed{by} at {})", text::time(&deployed.deployed));
                    break;
                }
            }
            Err(ClientError::VersionConflict { chain: chain.clone(), version: version.clone(), winner })
        }
        _ => Ok(()),
    }
}
