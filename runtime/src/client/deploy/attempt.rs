//! One attempt to deploy a revision: prepare it, swap the state, move the intake.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::failpoint::{Step, after, heard};
use super::{DeployOptions, Deployment, Prepared, add, check_version, deployment, kept, now, this_process};
use crate::broker::BrokerError;
use crate::broker::alive::{self, Answering};
use crate::broker::arrange::{self, Arrange, ChainSettings};
use crate::broker::registry::{Marked, Registry};
use crate::broker::replicas;
use crate::broker::stream::Stream;
use crate::broker::streams::ChainStreams;
use crate::chain::record::{Deployed, Pending, State};
use crate::client::{Client, ClientError};
use crate::name::{ChainName, Revision, Version};
use crate::subject;

/// The most time that another client needs to remove the streams. They are streams of a chain that was never deployed.
const ENDING: Duration = Duration::from_secs(20);
/// The most time that this client may need for that. If it takes longer, the streams may belong to another client.
const ENDING_OWN: Duration = Duration::from_secs(5);
/// How often to check whether the streams are removed.
const LOOK: Duration = Duration::from_millis(100);
/// Tries to create consumers. Meanwhile other clients may write the streams from a state without this revision.
const TRIES: u32 = 5;

/// The most time to make a revision active. The server may be away meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);

/// A pending revision.
pub(super) struct Attempt<'a> {
    client: &'a Client,
    registry: &'a Registry,
    prepared: &'a Prepared,
    options: DeployOptions,
    new: Deployed,
    pending: Pending,
    /// Answers other clients that this deployer is alive.
    _answering: Answering,
    /// The settings of the streams before this attempt.
    before: ChainSettings,
}

/// The beginning of an attempt.
pub(super) enum Entered<'a> {
    /// The revision is pending.
    Pending(Box<Attempt<'a>>),
    /// The same manifest is already active in this revision. The flag is `true` if items may be fed.
    Unchanged(Revision, bool),
}

/// The request to swap the state.
#[derive(Default)]
struct Asked {
    /// `true` once the server was asked.
    is_asked: bool,
    /// The version and revision that the new one replaces.
    replaces: Option<(Version, Revision)>,
}

impl<'a> Attempt<'a> {
    /// Reserves a revision and enters it into the state as pending. `made` are the streams that this deploy has created.
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
                let taken = take_away_dead(client, registry, name, state, answering.subject()).await?;
                let is_ending = !state.is_deployed() && state.pending.values().any(|pending| pending.ending);
                if is_ending && !taken && started.elapsed() < ENDING {
                    tokio::time::sleep(LOOK).await;
                }
                if taken || is_ending && started.elapsed() < ENDING {
                    continue;
                }
            }
            if !state.is_some_and(State::is_deployed) && !options.force {
                kept::check_kept(client, &prepared.chain).await?;
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
            let before = arrange::chain_settings(&client.broker, name).await?;
            // Other clients with pending deploys may have created the existing streams.
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

    /// Deploys the revision. `None` if other clients were faster and the deploy must begin again.
    ///
    /// # Errors
    ///
    /// If the server refuses a request. After [`ClientError::NotMoved`] the revision is deployed. After [`ClientError::Untold`]
    /// it may be. After all other errors it is not.
    pub(super) async fn carry_out(&mut self) -> Result<Option<Deployment>, ClientError> {
        let copying = match self.make().await {
            // A client that removes a deploy whose deployer seems dead also removes its streams.
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

    /// Makes everything that the server can refuse. Returns the streams that are not yet complete on all servers.
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
            match ChainStreams::of(broker, &chain.name).create_consumers(chain, self.new.revision).await {
                Ok(()) => break copying,
                // Another client may have updated the streams from an older state.
                Err(BrokerError::Gone { .. }) if tries < TRIES => tokio::time::sleep(LOOK).await,
                Err(error) => return Err(error.into()),
            }
            tries += 1;
        };
        after(Step::Consumers);
        let others = Stream::listening_on(broker, &subject::intake(&chain.name)).await?;
        let own = subject::work_stream(&chain.name);
        if let Some(stream) = others.into_iter().find(|stream| *stream != own) {
            return Err(ClientError::IntakeTaken { chain: chain.name.clone(), stream });
        }
        self.prepared.store(self.client).await?;
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

    /// Makes the revision active if the state allows it. Returns the new state, and the revision that was active before.
    ///
    /// The server may have swapped the state without an answer. So after an error this reads the state.
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
            // A later revision is active, or a reset ended all earlier ones: this revision's number is too low.
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

    /// Undoes the attempt. If the server refuses a part, the next deploy of the chain removes it.
    pub(super) async fn undo(&self) {
        let revision = self.new.revision;
        let undone =
            take_away(self.client, self.registry, self.name(), revision, &self.pending, Some(self.before)).await;
        if let Err(error) = undone {
            tracing::warn!(%error, "this deploy could not be undone completely; the next deploy removes the rest");
        }
    }
}

/// Returns the active revision if it has the same manifest.
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

/// Removes pending deploys of deployers that have died. Returns `true` if there were any.
async fn take_away_dead(
    client: &Client,
    registry: &Registry,
    chain: &ChainName,
    state: &State,
    answers: &str,
) -> Result<bool, ClientError> {
    let mut taken = false;
    for (&revision, pending) in &state.pending {
        if !alive::is_gone(&client.broker, &pending.answers).await {
            continue;
        }
        let own = Pending { answers: answers.to_owned(), ..pending.clone() };
        // From here on this deployer owns the revision. If the old deployer is alive after all, it sees that before it swaps.
        let Some(marked) = registry.state(chain).await? else { return Ok(true) };
        if marked.state.awaits(revision, pending) {
            let ending = Pending { ending: true, ..own.clone() };
            let state = State::entered(Some(&marked.state), revision, ending);
            if registry.swap_state(chain, Some(&marked), &state).await? {
                take_away(client, registry, chain, revision, &own, None).await?;
            }
        }
        taken = true;
    }
    Ok(taken)
}

/// Removes a pending revision, its consumers and its manifest. Removes new streams too if the chain has nothing else. Does
/// nothing unless the revision is still pending as `own`, because it may be live, or another client may remove it.
///
/// If several deploys end at once, each leaves the state by compare-and-swap. So one is the last and finds nothing else in
/// the state. It removes the streams before it leaves, and new deploys wait meanwhile because the state marks it as ending.
async fn take_away(
    client: &Client,
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
        ChainStreams::of(&client.broker, &checked.name).delete_consumers(&checked, revision).await?;
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
            ChainStreams::of(&client.broker, chain).delete_new(&own.missing, until).await?;
            is_cleared = true;
        } else if registry.remove_state(chain, now).await? {
            return Ok(());
        }
    }
}
