//! Deploying: check everything, store the plugins and the manifest, cut over.

use std::collections::BTreeMap;
use std::path::Path;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Root, RootError};
use crate::broker::registry::Registry;
use crate::chain::manifest::Manifest;
use crate::chain::record::{Deployed, State};
use crate::chain::{Chain, Plugin};
use crate::engine::inspect::inspect;
use crate::name::{ChainName, Digest, Revision, Version};

/// What came of a deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// The chain.
    pub chain: ChainName,
    /// The version.
    pub version: Version,
    /// The active revision.
    pub revision: Revision,
    /// Whether this deploy made it; if not, the same was active already.
    pub is_new: bool,
    /// The version and revision that was active before, if this deploy replaced one.
    pub before: Option<(Version, Revision)>,
    /// Whether items may be fed.
    pub open: bool,
    /// Streams that are not yet complete on all servers that shall keep a copy.
    pub copying: Vec<String>,
}

/// A manifest whose plugins were read and checked.
struct Prepared {
    manifest: Manifest,
    chain: Chain,
    digest: Digest,
    /// Plugins that may have to be stored.
    plugins: BTreeMap<Digest, Vec<u8>>,
}

impl Root {
    /// Deploys the manifest in a file. Items that were fed before belong to the revisions before and are finished by them;
    /// everything fed once this has returned belongs to the new one.
    ///
    /// # Errors
    ///
    /// If anything about the manifest or its plugins is wrong; nothing is changed then.
    pub async fn deploy(&self, path: &Path) -> Result<Deployment, RootError> {
        let prepared = self.prepare(path).await?;
        if let Some(registry) = self.broker.registry().await? {
            check_version(&registry, &prepared).await?;
        }
        // Before the chain is known: one without streams would be in everyone's way. And before anything else is changed: here
        // a server says that it has no room, and a cluster that it has too few servers.
        self.broker.apply_retention(&prepared.chain).await?;
        let registry = self.broker.create_registry(prepared.chain.replicas).await?;
        for (digest, bytes) in &prepared.plugins {
            self.broker.put_plugin(digest, bytes).await?;
        }
        let (mut deployment, state) = self.register(&registry, &prepared).await?;
        self.settle(&registry, &prepared.chain, state).await?;
        deployment.copying = self.broker.await_replicas(&prepared.chain.name).await?;
        self.broker.create_consumers(&prepared.chain, deployment.revision).await?;
        Ok(deployment)
    }

    async fn prepare(&self, path: &Path) -> Result<Prepared, RootError> {
        let text = read_text(path)?;
        let mut manifest =
            Manifest::from_toml(&text).map_err(|error| RootError::Manifest { path: path.to_owned(), error })?;
        let check = |manifest: &Manifest| {
            Chain::new(manifest).map_err(|error| RootError::Chain { path: path.to_owned(), error })
        };
        let chain = check(&manifest)?;
        let mut plugins = BTreeMap::new();
        for (stage, raw) in chain.stages.iter().zip(&mut manifest.stages) {
            let (digest, bytes) = match &stage.plugin {
                Plugin::File(file) => {
                    let file = path.parent().unwrap_or(Path::new("")).join(file);
                    let bytes = super::read(&file)?;
                    (Digest::of(&bytes), bytes)
                }
                Plugin::Stored(digest) => {
                    if !self.broker.has_plugin(digest).await? {
                        return Err(RootError::NoPlugin { stage: stage.name.clone(), plugin: raw.plugin.clone() });
                    }
                    (digest.clone(), self.broker.get_plugin(digest).await?)
                }
            };
            let checked = inspect(&bytes).and_then(|inspection| {
                inspection.task(&stage.task)?;
                inspection.check_memory(stage.memory)
            });
            let plugin = raw.plugin.clone();
            checked.map_err(|error| RootError::Plugin { stage: stage.name.clone(), plugin, error })?;
            raw.plugin = digest.to_string();
            plugins.insert(digest, bytes);
        }
        let digest = Deployed::digest_of(&manifest).map_err(|error| RootError::Encode(error.to_string()))?;
        Ok(Prepared { chain: check(&manifest)?, manifest, digest, plugins })
    }

    /// Writes the manifest and the state. If the same is active already, only says so.
    async fn register(&self, registry: &Registry, prepared: &Prepared) -> Result<(Deployment, State), RootError> {
        let name = &prepared.chain.name;
        loop {
            check_version(registry, prepared).await?;
            let marked = registry.state(name).await?;
            let before = match &marked {
                Some(marked) => registry.deployed(name, marked.state.active).await?,
                None => None,
            };
            let deployment = |revision, is_new, before: Option<Deployed>, open| Deployment {
                chain: name.clone(),
                version: prepared.chain.version.clone(),
                revision,
                is_new,
                before: before.map(|before| (before.version, before.revision)),
                open,
                copying: Vec::new(),
            };
            if let (Some(marked), Some(active)) = (&marked, &before)
                && active.digest == prepared.digest
            {
                return Ok((deployment(active.revision, false, None, marked.state.open), marked.state.clone()));
            }
            let first = marked.as_ref().map_or(Revision::new(1), |marked| marked.state.active.next());
            let new = add(registry, prepared.manifest.clone(), prepared.digest.clone(), &prepared.chain, first).await?;
            let state = State::deployed(marked.as_ref().map(|marked| &marked.state), &new);
            if registry.swap_state(name, marked.as_ref(), &state).await? {
                return Ok((deployment(new.revision, true, before, state.open), state));
            }
        }
    }

    /// Makes the streams agree with the state, and with what others may have made of the state meanwhile.
    pub(super) async fn settle(&self, registry: &Registry, chain: &Chain, mut state: State) -> Result<(), RootError> {
        let mut chain = chain.clone();
        loop {
            self.broker.apply(&chain, &state).await?;
            let Some(now) = registry.state(&chain.name).await? else { return Ok(()) };
            if (now.state.active, &now.state.live, now.state.open) == (state.active, &state.live, state.open) {
                return Ok(());
            }
            chain = Self::revision(registry, &chain.name, now.state.active).await?.1;
            state = now.state;
        }
    }
}

/// Writes a manifest under the first free revision number.
pub(super) async fn add(
    registry: &Registry,
    manifest: Manifest,
    digest: Digest,
    chain: &Chain,
    first: Revision,
) -> Result<Deployed, RootError> {
    let mut deployed = Deployed {
        chain: chain.name.clone(),
        version: chain.version.clone(),
        revision: first,
        digest,
        deployed: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
        manifest,
    };
    while !registry.add_deployed(&deployed).await? {
        deployed.revision = deployed.revision.next();
    }
    Ok(deployed)
}

/// Refuses a version that exists with other content.
async fn check_version(registry: &Registry, prepared: &Prepared) -> Result<(), RootError> {
    let (chain, version) = (&prepared.chain.name, &prepared.chain.version);
    let Some(marked) = registry.state(chain).await? else { return Ok(()) };
    match marked.state.versions.get(version) {
        Some(digest) if *digest != prepared.digest => {
            Err(RootError::VersionConflict { chain: chain.clone(), version: version.clone() })
        }
        _ => Ok(()),
    }
}

fn read_text(path: &Path) -> Result<String, RootError> {
    let failed = |reason: String| RootError::Read { path: path.to_owned(), reason };
    let bytes = super::read(path)?;
    String::from_utf8(bytes)
        .map_err(|error| failed(format!("not UTF-8 after byte {}", error.utf8_error().valid_up_to())))
}
