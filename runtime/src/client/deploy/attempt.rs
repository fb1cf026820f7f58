//! One attempt to deploy a revision: everything is made beside what is there, then the state is swapped, then the intake moved.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::failpoint::{Step, after, heard};
use super::{DeployOptions, Deployment, Prepared, add, check_version, deployment, now, this_process};
use crate::broker::BrokerError;
use crate::broker::alive::{self, Answering};
use crate::broker::arrange::{Arrange, ChainSettings};
use crate::broker::plugins::Plugins;
use crate::broker::registry::{Marked, Registry};
use crate::broker::replicas;
use crate::chain::record::{Deployed, Pending, State};
use crate::client::{Client, ClientError};
use crate::name::{ChainName, Revision, Version};
use crate::subject;

/// How long another may take to remove the streams of a chain that was never deployed.
const ENDING: Duration = Duration::from_secs(20);
/// How long this deployer may take for it. Should it be held up for longer, the streams may be another's by then.
const ENDING_OWN: Duration = Duration::from_secs(5);
/// How often to look whether that is over.
const LOOK: Duration = Duration::from_millis(100);
/// How often to ask for consumers while others, who write the streams as well, may not have seen this revision yet.
const TRIES: u32 = 5;

/// How long to try to make a revision the active one while the server is away.
const PATIENCE: Duration = Duration::from_secs(30);

/// A revision that is pending.
pub(super) struct Attempt<'a> {
    client: &'a Client,
    registry: &'a Registry,
    prepared: &'a Prepared,
    options: DeployOptions,
    new: Deployed,
    pending: Pending,
    /// Tells others that this deployer lives.
    _answering: Answering,
    /// What the streams had before.
    before: ChainSettings,
}

/// How an attempt began.
pub(super) enum Entered<'a> {
    /// The revision is pending.
    Pending(Box<Attempt<'a>>),
    /// The same is active already, and whether items may be fed.
    Unchanged(Revision, bool),
}

/// What the server was asked to make of the state.
#[derive(Default)]
struct Asked {
    /// Whether it was asked at all.
    is_asked: bool,
    /// What the revision takes the place of.
    replaces: Option<(Version, Revision)>,
}

impl<'a> Attempt<'a> {
    /// Reserves a revision and enters it as pending into the state. `made` are streams that this deploy has made already.
    pub(super) async fn enter(
        client: &'a Client,
        registry: &'a Registry,
        prepared: &'a Prepared,
        options: DeployOptions,
        made: &BTreeSet<String>,
    ) -> Result<Entered<'a>, ClientError> {
        let name = &prepared.chain.name;
        let answering = Answering::open(&client.broker).await?;
        let mut pending = Pending {
            version: prepared.chain.version.clone(),
            digest: prepared.digest.clone(),
            by: this_process(),
            since: now(),
            answers: answering.subject().to_owned(),
            missing: BTreeSet::new(),
            ending: false,
        };
        let started = Instant::now();
        let mut reserved: Option<Deployed> = None;
        loop {
            let marked = registry.state(name).await?;
            if let Some(marked) = marked.as_ref().filter(|marked| marked.state.has_many_versions()) {
                registry.move_versions(name, marked).await?;
                continue;
            }
            let state = marked.as_ref().map(|marked| &marked.state);
            let unchanged = match state {
                Some(state) => {
                    check_version(registry, prepared, state).await?;
                    unchanged(registry, prepared, state).await?
                }
                None => None,
            };
            if let Some(unchanged) = unchanged {
                if let Some(reserved) = reserved {
                    registry.remove_deployed(name, reserved.revision).await?;
                }
                return Ok(unchanged);
            }
            if let Some(state) = state {
                let taken = client.take_away_dead(registry, name, state, answering.subject()).await?;
                let is_ending = !state.is_deployed() && state.pending.values().any(|pending| pending.ending);
                if is_ending && !taken && started.elapsed() < ENDING {
                    tokio::time::sleep(LOOK).await;
                }
                if taken || is_ending && started.elapsed() < ENDING {
                    continue;
                }
            }
            if !state.is_some_and(State::is_deployed) && !options.force {
                client.check_kept(&prepared.chain).await?;
            }
            let first = state.and_then(|state| state.held().last().copied().max(Some(state.active)));
            let first = first.map_or(Revision::new(1), Revision::next);
            let new = match reserved.take() {
                Some(new) if new.revision >= first => new,
                old => {
                    if let Some(old) = old {
                        registry.remove_deployed(name, old.revision).await?;
                    }
                    let (manifest, digest) = (prepared.manifest.clone(), prepared.digest.clone());
                    add(registry, manifest, digest, &prepared.chain, first).await?
                }
            };
            after(Step::Reserved);
            let before = client.broker.chain_settings(name).await?;
            // Others whose deploys are pending may have made those that are there.
            let others = state.into_iter().flat_map(|state| state.pending.values());
            let others = others.flat_map(|other| other.missing.iter().cloned());
            pending.missing = before.missing(name).into_iter().chain(made.iter().cloned()).chain(others).collect();
            let entered = State::entered(state, new.revision, pending.clone());
            if registry.swap_state(name, marked.as_ref(), &entered).await? {
                after(Step::Entered);
                return Ok(Entered::Pending(Box::new(Self {
                    client,
                    registry,
                    prepared,
                    options,
                    new,
                    pending,
                    _answering: answering,
                    before,
                })));
            }
            reserved = Some(new);
        }
    }

    /// Deploys the revision. `None`: others were faster, and it has to be tried anew.
    ///
    /// # Errors
    ///
    /// If the server refuses anything. After [`ClientError::NotMoved`] the revision is deployed, after [`ClientError::Untold`] it
    /// may be; after all others it is not.
    pub(super) async fn carry_out(&mut self) -> Result<Option<Deployment>, ClientError> {
        let copying = match self.make().await {
            // Whoever takes away a deploy that looks dead takes its streams with it.
            Err(_) if !self.is_pending().await? => return Ok(None),
            made => made?,
        };
        let Some((state, before)) = self.swap().await? else { return Ok(None) };
        after(Step::Swapped);
        let mut done = deployment(self.prepared, self.new.revision, before, state.open);
        done.copying = copying;
        let how = Arrange { create: true, drop_kept: self.options.force, ..Arrange::default() };
        if let Err(error) = self.registry.settle(self.name(), state, how).await {
            let (chain, version) = (done.chain, done.version);
            return Err(ClientError::NotMoved { chain, version, revision: done.revision, error });
        }
        after(Step::Moved);
        Ok(Some(done))
    }

    fn name(&self) -> &'a ChainName {
        &self.prepared.chain.name
    }

    /// Makes all that the server can refuse. Returns the streams that are not yet complete on all servers.
    async fn make(&mut self) -> Result<Vec<String>, ClientError> {
        let (broker, chain) = (&self.client.broker, &self.prepared.chain);
        let how = Arrange { create: true, ..Arrange::default() };
        let mut tries = 0;
        let copying = loop {
            let Some(marked) = self.registry.state(&chain.name).await? else { return Err(self.lost()) };
            if !marked.state.awaits(self.new.revision, &self.pending) {
                return Err(self.lost());
            }
            self.registry.settle(&chain.name, marked.state, how).await?;
            after(Step::Widened);
            Registry::create(broker, chain.replicas).await?;
            let copying = replicas::copied(broker, &chain.name).await?;
            match broker.create_consumers(chain, self.new.revision).await {
                Ok(()) => break copying,
                // Another's update of the streams, made of an older state, may just have passed.
                Err(BrokerError::Gone { .. }) if tries < TRIES => tokio::time::sleep(LOOK).await,
                Err(error) => return Err(error.into()),
            }
            tries += 1;
        };
        after(Step::Consumers);
        let others = broker.streams_of(&subject::intake(&chain.name)).await?;
        let own = subject::work_stream(&chain.name);
        if let Some(stream) = others.into_iter().find(|stream| *stream != own) {
            return Err(ClientError::IntakeTaken { chain: chain.name.clone(), stream });
        }
        for (digest, bytes) in &self.prepared.plugins {
            Plugins::of(broker).put(digest, bytes).await?;
        }
        after(Step::Stored);
        Ok(copying)
    }

    fn lost(&self) -> ClientError {
        ClientError::Crowded(self.name().clone())
    }

    async fn is_pending(&self) -> Result<bool, ClientError> {
        let marked = self.registry.state(self.name()).await?;
        Ok(marked.is_some_and(|marked| marked.state.awaits(self.new.revision, &self.pending)))
    }

    /// Makes the revision the active one, if the state still allows it. Gives the new state, and what was active before.
    ///
    /// The server may have done what it gave no answer to, so after any error the state is asked.
    async fn swap(&self) -> Result<Option<(State, Option<(Version, Revision)>)>, ClientError> {
        let (chain, revision) = (self.name(), self.new.revision);
        let until = Instant::now() + PATIENCE;
        let mut asked = Asked::default();
        loop {
            let error = match self.try_swap(&mut asked).await {
                Ok(state) => return Ok(state.map(|state| (state, asked.replaces))),
                Err(error) => error,
            };
            let is_over = Instant::now() >= until;
            match self.registry.state(chain).await {
                Ok(Some(marked)) if marked.state.live.contains(&revision) => {
                    return Ok(Some((marked.state, asked.replaces)));
                }
                Ok(_) if is_over || !error.is_transient() => return Err(error),
                Err(unread) if is_over || !unread.is_transient() => {
                    let (chain, version) = (chain.clone(), self.new.version.clone());
                    let untold = ClientError::Untold { chain, version, revision, error: unread };
                    return Err(if asked.is_asked { untold } else { error });
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    async fn try_swap(&self, asked: &mut Asked) -> Result<Option<State>, ClientError> {
        let (name, revision) = (self.name(), self.new.revision);
        loop {
            let Some(marked) = self.registry.state(name).await? else { return Ok(None) };
            let before = &marked.state;
            if before.live.contains(&revision) {
                // An earlier try has succeeded, and its answer was lost.
                return Ok(Some(marked.state));
            }
            if !before.awaits(revision, &self.pending) {
                return Ok(None);
            }
            check_version(self.registry, self.prepared, before).await?;
            // A later revision is active, or all before it were reset: this one comes too late under its number.
            let is_late = before.is_deployed() && before.active > revision;
            if is_late || unchanged(self.registry, self.prepared, before).await?.is_some() {
                return Ok(None);
            }
            let active = if before.is_deployed() { self.registry.deployed(name, before.active).await? } else { None };
            let state = before.deployed(&self.new);
            *asked = Asked { is_asked: true, replaces: active.map(|active| (active.version, active.revision)) };
            if heard(self.registry.swap_state(name, Some(&marked), &state).await)? {
                return Ok(Some(state));
            }
        }
    }

    /// Takes back what the attempt has made. What cannot be taken back now, the next deploy takes away.
    pub(super) async fn undo(&self) {
        let revision = self.new.revision;
        let undone =
            self.client.take_away(self.registry, self.name(), revision, &self.pending, Some(self.before)).await;
        if let Err(error) = undone {
            tracing::warn!(%error, "something is left of this deploy; the next one takes it away");
        }
    }
}

/// Whether the same is active already.
async fn unchanged(
    registry: &Registry,
    prepared: &Prepared,
    state: &State,
) -> Result<Option<Entered<'static>>, ClientError> {
    if !state.is_deployed() {
        return Ok(None);
    }
    let active = registry.deployed(&prepared.chain.name, state.active).await?;
    let is_same = active.is_some_and(|active| active.digest == prepared.digest);
    Ok(is_same.then_some(Entered::Unchanged(state.active, state.open)))
}

impl Client {
    /// Takes away what deployers left that have died. Returns `true` if there was anything.
    async fn take_away_dead(
        &self,
        registry: &Registry,
        chain: &ChainName,
        state: &State,
        answers: &str,
    ) -> Result<bool, ClientError> {
        let mut taken = false;
        for (&revision, pending) in &state.pending {
            if !alive::is_gone(&self.broker, &pending.answers).await {
                continue;
            }
            let own = Pending { answers: answers.to_owned(), ..pending.clone() };
            // From here on it is this deployer's: the one that was taken for dead sees it before it swaps.
            let Some(marked) = registry.state(chain).await? else { return Ok(true) };
            if marked.state.awaits(revision, pending) {
                let ending = Pending { ending: true, ..own.clone() };
                let state = State::entered(Some(&marked.state), revision, ending);
                if registry.swap_state(chain, Some(&marked), &state).await? {
                    self.take_away(registry, chain, revision, &own, None).await?;
                }
            }
            taken = true;
        }
        Ok(taken)
    }

    /// Removes a pending revision, its consumers and its manifest; and the streams that were not there before, if the chain has
    /// nothing else. Does nothing unless the revision is pending and `own`: it may be live by now, or another's to take away.
    ///
    /// Of several that end at once, each leaves the state by comparing and swapping. So one is the last, and finds nothing
    /// else in the state: it removes the streams before it leaves, while new deploys wait because it is marked as ending.
    async fn take_away(
        &self,
        registry: &Registry,
        chain: &ChainName,
        revision: Revision,
        own: &Pending,
        before: Option<ChainSettings>,
    ) -> Result<(), ClientError> {
        let until = Instant::now() + ENDING_OWN;
        let is_own = |marked: &Option<Marked>| marked.as_ref().is_some_and(|marked| marked.state.awaits(revision, own));
        loop {
            let marked = registry.state(chain).await?;
            let Some(now) = marked.as_ref().filter(|_| is_own(&marked)) else { return Ok(()) };
            let state = State::entered(Some(&now.state), revision, Pending { ending: true, ..own.clone() });
            if registry.swap_state(chain, Some(now), &state).await? {
                break;
            }
        }
        if let Some((_, checked)) = registry.checked(chain, revision).await? {
            self.broker.delete_consumers(&checked, revision).await?;
        }
        registry.remove_deployed(chain, revision).await?;
        let mut is_cleared = false;
        loop {
            let marked = registry.state(chain).await?;
            let Some(now) = marked.as_ref().filter(|_| is_own(&marked)) else { return Ok(()) };
            let state = now.state.left(revision);
            if state.is_deployed() || !state.pending.is_empty() {
                if registry.swap_state(chain, Some(now), &state).await? {
                    let how = Arrange { before, ..Arrange::default() };
                    registry.settle(chain, state, how).await?;
                    return Ok(());
                }
            } else if !is_cleared {
                self.broker.delete_new_streams(chain, &own.missing, until).await?;
                is_cleared = true;
            } else if registry.remove_state(chain, now).await? {
                return Ok(());
            }
        }
    }
}
