//! Where chains and plugins are kept: the KV bucket of the manifests and states, and the object store of the plugins.

use async_nats::jetstream::context::{CreateKeyValueErrorKind, KeyValueErrorKind};
use async_nats::jetstream::kv;
use async_nats::jetstream::kv::{CreateErrorKind, Operation, Store, UpdateErrorKind, Watch};
use async_nats::jetstream::object_store::{self, GetErrorKind, InfoErrorKind, ObjectMetadata, ObjectStore};
use futures_util::StreamExt;
use tokio::io::AsyncReadExt;

use super::{Broker, BrokerError, MORE_ROOM, NO_ROOM};
use crate::chain::record::{Deployed, State};
use crate::name::{ChainName, Digest, Revision};
use crate::subject::{self, CHAINS_BUCKET, ChainKey, PLUGINS_BUCKET};

/// How many changes of a key the server remembers.
const HISTORY: i64 = 64;
/// The most bytes of a plugin in one message; NATS's own default.
const PLUGIN_PART: usize = 128 << 10;

/// The bucket of the manifests and states.
#[derive(Debug, Clone)]
pub struct Registry {
    store: Store,
}

/// A state, and the mark by which to tell whether it has changed since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// The state.
    pub state: State,
    mark: u64,
}

/// A change in the registry.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A chain's state.
    State(ChainName, State),
    /// A chain was removed.
    Removed(ChainName),
    /// Something that cannot be read: the key, and why.
    Unreadable(String, String),
}

/// Changes as they happen, all that is there first.
pub struct Changes(Watch);

impl Broker {
    /// Opens the registry, and makes it if `create`.
    ///
    /// # Errors
    ///
    /// If the server does not allow it. `Ok(None)` if it is not there and `create` is not set.
    pub async fn registry(&self, create: bool) -> Result<Option<Registry>, BrokerError> {
        let what = "open the bucket of the chains";
        let opened = self.jetstream.get_key_value(CHAINS_BUCKET).await;
        let store = match opened {
            Ok(store) => store,
            Err(error) if error.kind() == KeyValueErrorKind::GetBucket && is_missing(&error) => {
                if !create {
                    return Ok(None);
                }
                let config = kv::Config {
                    bucket: CHAINS_BUCKET.to_owned(),
                    description: "pcluster: chains, their revisions and manifests".to_owned(),
                    history: HISTORY,
                    num_replicas: 1,
                    ..kv::Config::default()
                };
                let created = self.jetstream.create_key_value(config).await;
                created
                    .map_err(|error| self.explain(what, &error, error.kind() == CreateKeyValueErrorKind::TimedOut))?
            }
            Err(error) => return Err(self.explain(what, &error, is_timeout(&error))),
        };
        Ok(Some(Registry { store }))
    }

    /// An error of the library in the words of this module. A request that the user may not make is never answered.
    fn explain(&self, what: &str, error: &dyn std::error::Error, timed_out: bool) -> BrokerError {
        if timed_out { self.timed_out(what.to_owned()) } else { BrokerError::other(what, error) }
    }

    async fn plugins(&self, create: bool) -> Result<Option<ObjectStore>, BrokerError> {
        let what = "open the store of the plugins";
        match self.jetstream.get_object_store(PLUGINS_BUCKET).await {
            Ok(store) => Ok(Some(store)),
            Err(error) if is_missing(&error) => {
                if !create {
                    return Ok(None);
                }
                let config = object_store::Config {
                    bucket: PLUGINS_BUCKET.to_owned(),
                    description: Some("pcluster: plugins, named by their sha-256".to_owned()),
                    num_replicas: 1,
                    ..object_store::Config::default()
                };
                let created = self.jetstream.create_object_store(config).await;
                created
                    .map(Some)
                    .map_err(|error| self.explain(what, &error, error.kind() == CreateKeyValueErrorKind::TimedOut))
            }
            Err(error) => Err(self.explain(what, &error, is_timeout(&error))),
        }
    }

    /// Whether a plugin is stored.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn has_plugin(&self, digest: &Digest) -> Result<bool, BrokerError> {
        let Some(store) = self.plugins(false).await? else { return Ok(false) };
        match store.info(digest.as_hex()).await {
            Ok(info) => Ok(!info.deleted),
            Err(error) if error.kind() == InfoErrorKind::NotFound => Ok(false),
            Err(error) => Err(BrokerError::other(format!("look up the plugin {digest}"), &error)),
        }
    }

    /// Stores a plugin under its digest. One that is already there is left alone.
    ///
    /// # Errors
    ///
    /// If the server does not take it, as when it has no room.
    pub async fn put_plugin(&self, digest: &Digest, mut bytes: &[u8]) -> Result<(), BrokerError> {
        if self.has_plugin(digest).await? {
            return Ok(());
        }
        let what = format!("store a plugin of {}", bytesize::ByteSize(bytes.len() as u64));
        let Some(store) = self.plugins(true).await? else { return Ok(()) };
        let object = ObjectMetadata {
            name: digest.as_hex().to_owned(),
            // Each part is a message.
            chunk_size: Some(PLUGIN_PART.min(self.max_payload())),
            ..ObjectMetadata::default()
        };
        let put = store.put(object, &mut bytes).await;
        put.map(drop).map_err(|error| {
            let reason = chain_of(&error);
            let full = NO_ROOM.iter().any(|code| reason.contains(&format!("error code {code}")));
            let reason = if full { format!("{reason}; the server is full: {MORE_ROOM}") } else { reason };
            BrokerError::Other { what, reason }
        })
    }

    /// Fetches a plugin and checks that it has its digest.
    ///
    /// # Errors
    ///
    /// If it is not there, or is not what its name says.
    pub async fn get_plugin(&self, digest: &Digest) -> Result<Vec<u8>, BrokerError> {
        let what = || format!("fetch the plugin {digest}");
        let failed = |reason: &str| BrokerError::Other { what: what(), reason: reason.to_owned() };
        let store = self.plugins(false).await?.ok_or_else(|| failed("no plugin was ever stored"))?;
        let mut object = match store.get(digest.as_hex()).await {
            Ok(object) => object,
            Err(error) if error.kind() == GetErrorKind::NotFound => return Err(failed("it is not stored")),
            Err(error) => return Err(BrokerError::other(what(), &error)),
        };
        let mut bytes = Vec::with_capacity(object.info().size);
        object.read_to_end(&mut bytes).await.map_err(|error| failed(&error.to_string()))?;
        if Digest::of(&bytes) == *digest {
            Ok(bytes)
        } else {
            Err(failed("what is stored under this name has another digest"))
        }
    }
}

impl Registry {
    /// A chain's state.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or the entry cannot be read.
    pub async fn state(&self, chain: &ChainName) -> Result<Option<Marked>, BrokerError> {
        let key = subject::state_key(chain);
        let entry = self.store.entry(key.as_str()).await;
        let entry = entry.map_err(|error| BrokerError::other(format!("read the state of chain `{chain}`"), &error))?;
        let Some(entry) = entry.filter(|entry| entry.operation == Operation::Put) else { return Ok(None) };
        let state = serde_json::from_slice(&entry.value).map_err(|error| unreadable(&key, &error))?;
        Ok(Some(Marked { state, mark: entry.revision }))
    }

    /// Writes a chain's state if it is still what it was (`None`: not there). Says whether it was.
    ///
    /// # Errors
    ///
    /// If the server does not take it.
    pub async fn swap_state(
        &self,
        chain: &ChainName,
        before: Option<&Marked>,
        state: &State,
    ) -> Result<bool, BrokerError> {
        let what = || format!("write the state of chain `{chain}`");
        let key = subject::state_key(chain);
        let json = to_json(state, &what())?;
        match before {
            None => match self.store.create(&key, json).await {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(BrokerError::other(what(), &error)),
            },
            Some(before) => match self.store.update(&key, json, before.mark).await {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(false),
                Err(error) => Err(BrokerError::other(what(), &error)),
            },
        }
    }

    /// The manifest of a revision.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or the entry cannot be read.
    pub async fn deployed(&self, chain: &ChainName, revision: Revision) -> Result<Option<Deployed>, BrokerError> {
        let key = subject::manifest_key(chain, revision);
        let value = self.store.get(key.as_str()).await;
        let value = value.map_err(|error| BrokerError::other(format!("read the manifest `{key}`"), &error))?;
        value.map(|json| serde_json::from_slice(&json).map_err(|error| unreadable(&key, &error))).transpose()
    }

    /// Writes the manifest of a new revision. Says whether the revision's number was free.
    ///
    /// # Errors
    ///
    /// If the server does not take it.
    pub async fn add_deployed(&self, deployed: &Deployed) -> Result<bool, BrokerError> {
        let key = subject::manifest_key(&deployed.chain, deployed.revision);
        let what = format!("write the manifest `{key}`");
        let json = serde_json::to_vec_pretty(deployed).map_err(|error| BrokerError::other(&what, &error))?;
        match self.store.create(&key, json.into()).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(BrokerError::other(&what, &error)),
        }
    }

    /// The names of all chains, sorted.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn chains(&self) -> Result<Vec<ChainName>, BrokerError> {
        let failed = |error: &dyn std::error::Error| BrokerError::other("list the chains", error);
        let mut keys = self.store.keys().await.map_err(|error| failed(&error))?;
        let mut chains = Vec::new();
        while let Some(key) = keys.next().await {
            if let Some(ChainKey::State(chain)) = subject::parse_key(&key.map_err(|error| failed(&error))?) {
                chains.push(chain);
            }
        }
        chains.sort();
        Ok(chains)
    }

    /// The states of all chains, and then every change of one.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn changes(&self) -> Result<Changes, BrokerError> {
        // Names of chains hold no dot, so one token takes in states and leaves manifests out.
        let watch = self.store.watch_with_history("*").await;
        watch.map(Changes).map_err(|error| BrokerError::other("follow the chains", &error))
    }
}

impl Changes {
    /// The next change; `None` when the connection is closed.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            let entry = match self.0.next().await? {
                Ok(entry) => entry,
                Err(error) => {
                    tracing::warn!(%error, "a change of a chain could not be read");
                    continue;
                }
            };
            let Some(ChainKey::State(chain)) = subject::parse_key(&entry.key) else { continue };
            if entry.operation != Operation::Put {
                return Some(Change::Removed(chain));
            }
            return Some(match serde_json::from_slice(&entry.value) {
                Ok(state) => Change::State(chain, state),
                Err(error) => Change::Unreadable(entry.key, error.to_string()),
            });
        }
    }
}

fn to_json(state: &State, what: &str) -> Result<bytes::Bytes, BrokerError> {
    serde_json::to_vec_pretty(state).map(Into::into).map_err(|error| BrokerError::other(what, &error))
}

fn unreadable(key: &str, error: &serde_json::Error) -> BrokerError {
    BrokerError::Other { what: format!("read the entry `{key}` of {CHAINS_BUCKET}"), reason: error.to_string() }
}

/// Whether an error was caused by a stream that does not exist. The library keeps that as a source.
fn is_missing(error: &(dyn std::error::Error + 'static)) -> bool {
    sources(error).any(|source| source.to_string().contains("stream not found"))
}

fn is_timeout(error: &(dyn std::error::Error + 'static)) -> bool {
    sources(error).any(|source| source.to_string().contains("timed out"))
}

fn sources<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

fn chain_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    for source in sources(error) {
        let text = source.to_string();
        if !texts.iter().any(|said| said.contains(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}
