//! Where chains are kept: a KV bucket as NATS ADR-8 describes it, with the state of each chain and the manifests of its
//! revisions.

use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use super::error::code;
use super::follow::{Follower, StartAt, Step};
use super::{Broker, BrokerError};
use crate::chain::Chain;
use crate::chain::record::{Deployed, State};
use crate::name::{ChainName, Digest, Revision, Version};
use crate::subject::{self, CHAINS_BUCKET, CHAINS_STREAM, ChainKey, STATES_ALL};
use crate::wire;

/// The header that marks an entry as removed.
const OPERATION: &str = "KV-Operation";
/// What it says then.
const REMOVED: &str = "DEL";
/// Entries that are read side by side.
const SIDE_BY_SIDE: usize = 16;

/// The bucket of the manifests and states.
#[derive(Debug, Clone)]
pub struct Registry {
    broker: Broker,
}

/// A state, and the mark by which to tell whether it has changed since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// The state.
    pub state: State,
    mark: u64,
}

impl Marked {
    /// Tells which of two states of a chain is the newer: the one with the greater mark.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.mark
    }
}

/// A change in the registry.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A chain's state.
    State(ChainName, Marked),
    /// A chain was removed, with a mark like that of a state.
    Removed(ChainName, u64),
    /// Something that cannot be read: the key, and why.
    Unreadable(String, String),
    /// The registry was removed and made anew, so that all that was known of it means nothing any more.
    Renewed,
}

/// Changes as they happen, all that is there first.
pub struct Changes(Follower);

/// The newest message of an entry.
struct Entry {
    mark: u64,
    /// `None`: it was removed.
    value: Option<Vec<u8>>,
}

/// What an entry was before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Its newest message was the one with this mark.
    Mark(u64),
    /// It was not there, or removed.
    None,
    /// It was never there.
    Never,
}

impl Broker {
    /// The registry; `None` if it is not there.
    ///
    /// # Errors
    ///
    /// If the server does not answer or does not allow it.
    pub async fn registry(&self) -> Result<Option<Registry>, BrokerError> {
        Ok(self.has_stream(CHAINS_STREAM).await?.then(|| Registry { broker: self.clone() }))
    }

    /// When the registry was made, as the server writes it: by this it is told from another one under the same name.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or there is no registry.
    pub async fn registry_created(&self) -> Result<String, BrokerError> {
        Ok(self.stream_facts(CHAINS_STREAM).await?.created)
    }

    /// The registry and the other streams that all chains share, made where they are missing. At least this many servers
    /// keep a copy of each from then on.
    ///
    /// # Errors
    ///
    /// If the server does not answer or does not allow it.
    pub async fn create_registry(&self, replicas: u32) -> Result<Registry, BrokerError> {
        self.create_shared_streams(replicas).await?;
        Ok(Registry { broker: self.clone() })
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
        let Some(entry) = self.entry(&key).await? else { return Ok(None) };
        let Some(value) = entry.value else { return Ok(None) };
        let state = read_state(chain, &value)?;
        Ok(Some(Marked { state, mark: entry.mark }))
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
        let what = format!("write the state of chain `{chain}`");
        let before = before.map_or(Before::None, |before| Before::Mark(before.mark));
        self.swap(&subject::state_key(chain), before, state, &what).await
    }

    /// The digest of what a version of a chain with this state was deployed with; `None` if it never was.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or the entry cannot be read.
    pub async fn version(
        &self,
        chain: &ChainName,
        state: &State,
        version: &Version,
    ) -> Result<Option<Digest>, BrokerError> {
        if let Some(digest) = state.versions.get(version) {
            return Ok(Some(digest.clone()));
        }
        // It was written before the state that leaves it out.
        let key = subject::version_key(chain, version);
        let Some(json) = self.entry(&key).await?.and_then(|entry| entry.value) else { return Ok(None) };
        serde_json::from_slice(&json).map(Some).map_err(|error| unreadable(&key, &error))
    }

    /// Gives the versions that a state names entries of their own, and then takes them out of the state, if it is still what it
    /// was.
    ///
    /// # Errors
    ///
    /// If the server does not take it.
    pub async fn move_versions(&self, chain: &ChainName, marked: &Marked) -> Result<(), BrokerError> {
        let writes = marked.state.versions.iter().map(|(version, digest)| async move {
            let key = subject::version_key(chain, version);
            // One that is there already was written by another who does the same.
            self.swap(&key, Before::None, digest, &format!("write the entry `{key}`")).await
        });
        let writes: Vec<_> = writes.collect();
        let _: Vec<bool> = futures_util::stream::iter(writes).buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
        self.swap_state(chain, Some(marked), &marked.state.without_versions()).await?;
        Ok(())
    }

    /// The manifest of a revision.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or the entry cannot be read.
    pub async fn deployed(&self, chain: &ChainName, revision: Revision) -> Result<Option<Deployed>, BrokerError> {
        let key = subject::manifest_key(chain, revision);
        let Some(json) = self.entry(&key).await?.and_then(|entry| entry.value) else { return Ok(None) };
        let spoken = serde_json::from_slice(&json).ok().and_then(|Spoken { manifest }| manifest.wire);
        wire::check(|| format!("chain `{chain}` {revision}"), spoken.as_deref())?;
        serde_json::from_slice(&json).map(Some).map_err(|error| unreadable(&key, &error))
    }

    /// The manifest of a revision, raw and checked; `None` if it is not there.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or the manifest cannot be read.
    pub async fn checked(
        &self,
        chain: &ChainName,
        revision: Revision,
    ) -> Result<Option<(Deployed, Chain)>, BrokerError> {
        let Some(deployed) = self.deployed(chain, revision).await? else { return Ok(None) };
        let checked = Chain::stored(&deployed.manifest).map_err(|error| BrokerError::Other {
            what: format!("read the manifest of chain `{chain}` {revision}"),
            reason: error.to_string(),
        })?;
        Ok(Some((deployed, checked)))
    }

    /// Writes the manifest of a new revision. Says whether the revision's number was free: one that was used before never is,
    /// even if its manifest was removed.
    ///
    /// # Errors
    ///
    /// If the server does not take it.
    pub async fn add_deployed(&self, deployed: &Deployed) -> Result<bool, BrokerError> {
        let key = subject::manifest_key(&deployed.chain, deployed.revision);
        self.swap(&key, Before::Never, deployed, &format!("write the manifest `{key}`")).await
    }

    /// Removes the manifest of a revision that was never deployed.
    ///
    /// # Errors
    ///
    /// If the server does not take it.
    pub async fn remove_deployed(&self, chain: &ChainName, revision: Revision) -> Result<(), BrokerError> {
        let key = subject::manifest_key(chain, revision);
        let mut headers = HeaderMap::new();
        headers.insert(OPERATION, REMOVED);
        self.broker.put(subject::entry(&key), headers, Bytes::new(), || format!("remove the manifest `{key}`")).await
    }

    /// Removes the state of a chain that was never deployed, if it is still what it was. Says whether it was.
    ///
    /// # Errors
    ///
    /// If the server does not take it.
    pub async fn remove_state(&self, chain: &ChainName, before: &Marked) -> Result<bool, BrokerError> {
        let key = subject::state_key(chain);
        let mut headers = HeaderMap::new();
        headers.insert(OPERATION, REMOVED);
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, before.mark.to_string());
        let what = || format!("remove the state of chain `{chain}`");
        match self.broker.put(subject::entry(&key), headers, Bytes::new(), what).await {
            Ok(()) => Ok(true),
            // An earlier try may have removed it, and the answer was lost.
            Err(error) if error.code().is_some_and(|code| code::WRONG_LAST_SEQUENCE.contains(&code)) => {
                Ok(self.entry(&key).await?.is_none_or(|entry| entry.value.is_none()))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes an entry if there is none, or if the one that is there has this mark. Says whether it did.
    pub(super) async fn enter(&self, key: &str, mark: Option<u64>, value: &str) -> Result<bool, BrokerError> {
        let before = mark.map_or(Before::None, Before::Mark);
        self.swap(key, before, &value, &format!("write the entry `{key}`")).await
    }

    /// The mark of an entry; `None`: it is not there.
    pub(super) async fn mark(&self, key: &str) -> Result<Option<u64>, BrokerError> {
        Ok(self.entry(key).await?.filter(|entry| entry.value.is_some()).map(|entry| entry.mark))
    }

    /// Removes an entry if it has this value.
    pub(super) async fn remove_own(&self, key: &str, value: &str) -> Result<(), BrokerError> {
        let Some(Entry { mark, value: Some(json) }) = self.entry(key).await? else { return Ok(()) };
        if serde_json::from_slice::<String>(&json).ok().as_deref() != Some(value) {
            return Ok(());
        }
        let mut headers = HeaderMap::new();
        headers.insert(OPERATION, REMOVED);
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, mark.to_string());
        self.broker.put(subject::entry(key), headers, Bytes::new(), || format!("remove the entry `{key}`")).await
    }

    /// The connection.
    pub(super) fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The names of all chains, sorted.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn chains(&self) -> Result<Vec<ChainName>, BrokerError> {
        let keys = match self.broker.subjects(CHAINS_STREAM, STATES_ALL).await {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            keys => keys?,
        };
        let mut names = Vec::new();
        for key in keys.iter().filter_map(|subject| subject::parse_entry(subject)) {
            if let Some(ChainKey::State(chain)) = subject::parse_key(key) {
                names.push(chain);
            }
        }
        // A removed entry leaves a message that says so.
        let there = names.into_iter().map(|chain| async move {
            let entry = self.entry(&subject::state_key(&chain)).await?;
            // Nor is a chain there whose first deploy is under way.
            let value = entry.and_then(|entry| entry.value);
            let is_deployed = |value: &Vec<u8>| read_state(&chain, value).map_or(true, |state| state.is_deployed());
            Ok::<_, BrokerError>(value.filter(is_deployed).map(|_| chain))
        });
        let there: Vec<_> = futures_util::stream::iter(there).buffered(SIDE_BY_SIDE).try_collect().await?;
        let mut chains: Vec<ChainName> = there.into_iter().flatten().collect();
        chains.sort();
        Ok(chains)
    }

    /// The states of all chains, and then every change of one.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn changes(&self) -> Result<Changes, BrokerError> {
        let follower = self.broker.follow(CHAINS_STREAM, vec![STATES_ALL.to_owned()], StartAt::Newest).await?;
        Ok(Changes(follower))
    }

    async fn entry(&self, key: &str) -> Result<Option<Entry>, BrokerError> {
        let request = json!({ "last_by_subj": subject::entry(key) });
        let what = || format!("read the entry `{key}` of {CHAINS_BUCKET}");
        let stored = self.broker.get(CHAINS_STREAM, &request, what).await?;
        Ok(stored.map(|stored| {
            let removed = stored.headers().get(OPERATION).is_some();
            Entry { mark: stored.sequence, value: (!removed).then_some(stored.payload) }
        }))
    }

    /// Writes an entry if it is still as it was before. Says whether it was.
    async fn swap(
        &self,
        key: &str,
        before: Before,
        value: &(impl Serialize + Sync),
        what: &str,
    ) -> Result<bool, BrokerError> {
        let json: Arc<[u8]> =
            serde_json::to_vec_pretty(value).map_err(|error| BrokerError::other(what, &error))?.into();
        let mut mark = match before {
            Before::Mark(mark) => mark,
            Before::None | Before::Never => 0,
        };
        loop {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, mark.to_string());
            let payload = Bytes::copy_from_slice(&json);
            match self.broker.put(subject::entry(key), headers, payload, || what.to_owned()).await {
                Ok(()) => return Ok(true),
                Err(error) if error.code().is_some_and(|code| code::WRONG_LAST_SEQUENCE.contains(&code)) => {}
                Err(error) => return Err(error),
            }
            match self.entry(key).await? {
                // An earlier try has written it, and the answer was lost.
                Some(Entry { value: Some(value), .. }) if *value == *json => return Ok(true),
                // A removed entry counts as none, but its message has a mark.
                Some(Entry { value: None, mark: removed }) if before == Before::None && removed != mark => {
                    mark = removed;
                }
                _ => return Ok(false),
            }
        }
    }
}

impl Changes {
    /// The next change, however long it takes.
    ///
    /// # Errors
    ///
    /// If the registry cannot be followed any more.
    pub async fn next(&mut self) -> Result<Change, BrokerError> {
        loop {
            let seen = match self.0.step().await? {
                Step::Seen(seen) => seen,
                Step::Renewed => return Ok(Change::Renewed),
            };
            let Some(key) = subject::parse_entry(&seen.subject) else { continue };
            let Some(ChainKey::State(chain)) = subject::parse_key(key) else { continue };
            if seen.headers.get(OPERATION).is_some() {
                return Ok(Change::Removed(chain, seen.sequence));
            }
            return Ok(match read_state(&chain, &seen.payload) {
                Ok(state) => Change::State(chain, Marked { state, mark: seen.sequence }),
                Err(error) => Change::Unreadable(key.to_owned(), error.to_string()),
            });
        }
    }
}

/// A deployed manifest, as far as its wire is concerned.
#[derive(Deserialize)]
struct Spoken {
    manifest: Wire,
}

/// The number of a wire, whatever the rest looks like.
#[derive(Deserialize)]
struct Wire {
    #[serde(default, deserialize_with = "as_text")]
    wire: Option<String>,
}

fn as_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok((!value.is_null()).then(|| value.to_string()))
}

fn read_state(chain: &ChainName, json: &[u8]) -> Result<State, BrokerError> {
    let spoken = serde_json::from_slice(json).ok().and_then(|Wire { wire }| wire);
    wire::check(|| format!("chain `{chain}`"), spoken.as_deref())?;
    serde_json::from_slice(json).map_err(|error| unreadable(&subject::state_key(chain), &error))
}

fn unreadable(key: &str, error: &serde_json::Error) -> BrokerError {
    BrokerError::Other { what: format!("read the entry `{key}` of {CHAINS_BUCKET}"), reason: error.to_string() }
}
