//! The registry: the state of each chain and the manifests of its revisions, in a KV bucket.

use futures_util::{StreamExt, TryStreamExt};
use serde::Deserialize;

use super::bucket::{Before, Bucket, Entry, is_removal};
use super::follow::{Follower, StartAt, Step};
use super::stream::Stream;
use super::streams::create_shared;
use super::{Broker, BrokerError};
use crate::chain::Chain;
use crate::chain::record::{Deployed, Pinned, State};
use crate::name::{ChainName, Digest, Revision, StageName, Version};
use crate::subject::{self, CHAINS_BUCKET, CHAINS_STREAM, STATES_ALL};
use crate::wire;

/// Entries that are read at the same time.
const SIDE_BY_SIDE: usize = 16;

/// The bucket of the manifests and states.
#[derive(Debug, Clone)]
pub struct Registry {
    bucket: Bucket,
}

/// A state and the KV revision it was read at, its mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// The state.
    pub state: State,
    mark: u64,
}

impl Marked {
    /// Returns the mark. Of two states of a chain, the newer one has the greater mark.
    pub fn mark(&self) -> u64 {
        self.mark
    }
}

/// A change in the registry.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A chain's state.
    State(ChainName, Marked),
    /// A chain was removed, with the mark of that message.
    Removed(ChainName, u64),
    /// An entry that cannot be read: its key and the reason.
    Unreadable(String, String),
    /// The registry was removed and made anew: all earlier changes are void.
    Renewed,
}

/// The states of all chains, followed by each change.
pub struct Changes(Follower);

impl Registry {
    /// Opens the registry; `None` if there is none.
    pub async fn open(broker: &Broker) -> Result<Option<Self>, BrokerError> {
        Ok(Stream::of(broker, CHAINS_STREAM).exists().await?.then(|| Self::of(broker)))
    }

    /// Opens the registry. Makes it and the other streams that all chains share where they are missing, and lets at least this
    /// many servers keep a copy of each.
    pub async fn create(broker: &Broker, replicas: u32) -> Result<Self, BrokerError> {
        create_shared(broker, replicas).await?;
        Ok(Self::of(broker))
    }

    /// Returns when the registry was made, as the server writes it. Another registry under the same name has another time.
    pub async fn created(broker: &Broker) -> Result<String, BrokerError> {
        Stream::of(broker, CHAINS_STREAM).created().await
    }

    fn of(broker: &Broker) -> Self {
        Self { bucket: Bucket { broker: broker.clone() } }
    }

    /// Returns a chain's state; `None` if there is no such chain.
    pub async fn state(&self, chain: &ChainName) -> Result<Option<Marked>, BrokerError> {
        let key = subject::state_key(chain);
        let Some(Entry { mark, value: Some(value) }) = self.bucket.entry(&key).await? else { return Ok(None) };
        Ok(Some(Marked { state: read_state(chain, &value)?, mark }))
    }

    /// Writes a chain's state if it still is what it was before; `None` if it was absent. Returns `true` if it was.
    pub async fn swap_state(
        &self,
        chain: &ChainName,
        before: Option<&Marked>,
        state: &State,
    ) -> Result<bool, BrokerError> {
        let what = format!("write the state of chain `{chain}`");
        let before = before.map_or(Before::None, |before| Before::Mark(before.mark));
        self.bucket.swap(&subject::state_key(chain), before, state, &what).await
    }

    /// Returns the digest that a version of a chain with this state was deployed with; `None` if it never was.
    pub async fn version(
        &self,
        chain: &ChainName,
        state: &State,
        version: &Version,
    ) -> Result<Option<Digest>, BrokerError> {
        if let Some(digest) = state.versions.get(version) {
            return Ok(Some(digest.clone()));
        }
        // Its own entry is written before the state that leaves it out.
        let key = subject::version_key(chain, version);
        let Some(json) = self.bucket.value(&key).await? else { return Ok(None) };
        serde_json::from_slice(&json).map(Some).map_err(|error| unreadable(&key, &error))
    }

    /// Moves the versions that a state names into entries of their own, if the state still is what it was.
    pub async fn move_versions(&self, chain: &ChainName, marked: &Marked) -> Result<(), BrokerError> {
        let writes = marked.state.versions.iter().map(|(version, digest)| async move {
            let key = subject::version_key(chain, version);
            // An entry that exists was written by another client that does the same.
            self.bucket.swap(&key, Before::None, digest, &format!("write the entry `{key}`")).await
        });
        let writes: Vec<_> = writes.collect();
        let _: Vec<bool> = futures_util::stream::iter(writes).buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
        self.swap_state(chain, Some(marked), &marked.state.without_versions()).await?;
        Ok(())
    }

    /// Returns the manifest of a revision; `None` if there is none.
    pub async fn deployed(&self, chain: &ChainName, revision: Revision) -> Result<Option<Deployed>, BrokerError> {
        let key = subject::manifest_key(chain, revision);
        let Some(json) = self.bucket.value(&key).await? else { return Ok(None) };
        let spoken = serde_json::from_slice(&json)
            .ok()
            .and_then(|Spoken { manifest }| manifest.wire)
            .map(|wire| wire.to_string());
        wire::check(|| format!("chain `{chain}` {revision}"), spoken.as_deref())?;
        serde_json::from_slice(&json).map(Some).map_err(|error| unreadable(&key, &error))
    }

    /// Returns the manifest of a revision, raw and checked; `None` if there is none.
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

    /// Writes the manifest of a new revision. Returns `true` if the revision's number was free. A number that was used stays
    /// used, even if its manifest was removed.
    pub async fn add_deployed(&self, deployed: &Deployed) -> Result<bool, BrokerError> {
        let key = subject::manifest_key(&deployed.chain, deployed.revision);
        self.bucket.swap(&key, Before::Never, deployed, &format!("write the manifest `{key}`")).await
    }

    /// Returns what the initializer of a stage read. `None` if no node has made its state.
    pub async fn pinned(
        &self,
        chain: &ChainName,
        revision: Revision,
        stage: &StageName,
    ) -> Result<Option<Pinned>, BrokerError> {
        let key = subject::pin_key(chain, revision, stage);
        let Some(json) = self.bucket.value(&key).await? else { return Ok(None) };
        serde_json::from_slice(&json).map(Some).map_err(|error| unreadable(&key, &error))
    }

    /// Writes what the initializer of a stage read. Returns `true` if no other node has done so.
    pub async fn add_pinned(
        &self,
        chain: &ChainName,
        revision: Revision,
        stage: &StageName,
        pinned: &Pinned,
    ) -> Result<bool, BrokerError> {
        let key = subject::pin_key(chain, revision, stage);
        self.bucket.swap(&key, Before::Never, pinned, &format!("write the entry `{key}`")).await
    }

    /// Removes the manifest of a revision that was never deployed.
    pub async fn remove_deployed(&self, chain: &ChainName, revision: Revision) -> Result<(), BrokerError> {
        let key = subject::manifest_key(chain, revision);
        self.bucket.remove(&key, None, &format!("remove the manifest `{key}`")).await.map(drop)
    }

    /// Removes the state of a chain that was never deployed, if it still is what it was. Returns `true` if it is removed.
    pub async fn remove_state(&self, chain: &ChainName, before: &Marked) -> Result<bool, BrokerError> {
        let what = format!("remove the state of chain `{chain}`");
        self.bucket.remove(&subject::state_key(chain), Some(before.mark), &what).await
    }

    /// Returns the bucket of the entries.
    pub(super) fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Returns the names of all chains, sorted.
    pub async fn chains(&self) -> Result<Vec<ChainName>, BrokerError> {
        let subjects = match Stream::of(&self.bucket.broker, CHAINS_STREAM).subjects(STATES_ALL).await {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            subjects => subjects?,
        };
        let names: Vec<ChainName> = subjects.iter().filter_map(|subject| subject::parse_state(subject)).collect();
        // A removed entry leaves a message that marks the removal.
        let there = names.into_iter().map(|chain| async move {
            let value = self.bucket.value(&subject::state_key(&chain)).await?;
            // A chain whose first deploy is under way does not exist yet.
            let is_deployed = |value: &Vec<u8>| read_state(&chain, value).map_or(true, |state| state.is_deployed());
            Ok::<_, BrokerError>(value.filter(is_deployed).map(|_| chain))
        });
        let there: Vec<_> = futures_util::stream::iter(there).buffered(SIDE_BY_SIDE).try_collect().await?;
        let mut chains: Vec<ChainName> = there.into_iter().flatten().collect();
        chains.sort();
        Ok(chains)
    }

    /// Follows the states of all chains: first the present ones, then each change.
    pub async fn changes(&self) -> Result<Changes, BrokerError> {
        let follower =
            Follower::open(&self.bucket.broker, CHAINS_STREAM, vec![STATES_ALL.to_owned()], StartAt::Newest).await?;
        Ok(Changes(follower))
    }
}

impl Changes {
    /// Waits for the next change.
    pub async fn next(&mut self) -> Result<Change, BrokerError> {
        loop {
            let seen = match self.0.step().await? {
                Step::Seen(seen) => seen,
                Step::Renewed => return Ok(Change::Renewed),
            };
            let Some(chain) = subject::parse_state(&seen.subject) else { continue };
            if is_removal(&seen.headers) {
                return Ok(Change::Removed(chain, seen.sequence));
            }
            return Ok(match read_state(&chain, &seen.payload) {
                Ok(state) => Change::State(chain, Marked { state, mark: seen.sequence }),
                Err(error) => Change::Unreadable(subject::state_key(&chain), error.to_string()),
            });
        }
    }
}

/// The wire of a deployed manifest.
#[derive(Deserialize)]
struct Spoken {
    manifest: Wire,
}

/// The number of a wire, of whatever type it is.
#[derive(Deserialize)]
struct Wire {
    wire: Option<serde_json::Value>,
}

fn read_state(chain: &ChainName, json: &[u8]) -> Result<State, BrokerError> {
    let spoken = serde_json::from_slice(json).ok().and_then(|Wire { wire }| wire).map(|wire| wire.to_string());
    wire::check(|| format!("chain `{chain}`"), spoken.as_deref())?;
    serde_json::from_slice(json).map_err(|error| unreadable(&subject::state_key(chain), &error))
}

fn unreadable(key: &str, error: &serde_json::Error) -> BrokerError {
    BrokerError::Other { what: format!("read the entry `{key}` of {CHAINS_BUCKET}"), reason: error.to_string() }
}
