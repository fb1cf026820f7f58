//! Gives the items of dead letters new attempts.
//!
//! An item goes back into the queue of the stage that it failed in, and only then is its letter removed. The message id contains
//! the number of the letter. So if an incomplete retry is repeated, the server drops the items that it already has.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::remove::Removal;
use super::room::Rooms;
use super::{DeadLetter, SIDE_BY_SIDE, Selection};
use crate::backoff::Backoff;
use crate::broker::BrokerError;
use crate::broker::large::{Holder, LargeError, LargeStore};
use crate::broker::publish::PublishError;
use crate::broker::publish::Publisher;
use crate::broker::registry::Registry;
use crate::broker::stream::Stream;
use crate::broker::streams::ChainStreams;
use crate::chain::Chain;

use crate::client::large::{LargeItems, references};
use crate::client::{Client, ClientError, deploy, settle};
use crate::frame::id::FrameId;
use crate::frame::outgoing::Outgoing;
use crate::frame::{Headers, header};
use crate::name::{ChainName, Revision, StageName};
use crate::subject::{self, Lane};

/// Letters that are requeued before the first of them is removed.
const PART: usize = 256;
/// Rounds of opening a revision's queues while other clients close them.
const ROUNDS: u32 = 20;
/// The operation that messages about an outage name.
const REQUEUE: &str = "requeue items";
/// The first wait while a queue is full. Each is twice as long as the one before.
const FULL_WAIT: Duration = Duration::from_millis(20);
/// The longest wait while a queue is full, and between two rounds.
const FULL_WAIT_MAX: Duration = Duration::from_millis(250);

/// The result of a retry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retried {
    /// The number of letters whose items are in the queues again.
    pub retried: u64,
    /// The letters that could not be retried, by number, with the reason.
    pub refused: BTreeMap<u64, String>,
}

/// How dead letters are retried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryOptions {
    /// `true`: in the active revision, not in the one in which the item failed.
    pub active: bool,
    /// `true`: the calls of the item carry other idempotency keys than before.
    pub fresh_keys: bool,
}

/// The revision that receives the items.
struct Target {
    revision: Revision,
    chain: Chain,
}

struct Retry<'a> {
    client: &'a Client,
    registry: Registry,
    chain: &'a ChainName,
    /// The first revision after the last reset of the chain.
    reset: Option<Revision>,
    /// The result of looking up each revision.
    targets: BTreeMap<Revision, Result<Target, String>>,
    /// What the idempotency keys of the items' calls are made of. `None` for what they were made of before.
    fresh_keys: Option<String>,
    stop: &'a AtomicBool,
    /// The bytes of large items.
    large: LargeStore,
    letters: Removal<'a>,
}

/// The outcome of publishing a message.
enum Stored {
    /// The message is in its queue.
    Yes,
    /// The message can never be stored.
    Refused(String),
    /// The message was not sent, because `stop` was set.
    Stopped,
}

pub(in crate::client) async fn retry_dead(
    client: &Client,
    chain: &ChainName,
    selection: &Selection,
    options: RetryOptions,
    stop: &AtomicBool,
    mut tell: impl FnMut(u64),
) -> Result<Retried, ClientError> {
    let (registry, marked) = client.chain(chain).await?;
    let numbers = client.dead_numbers(chain, selection).await?;
    let reset = marked.state.reset;
    let active = options.active.then_some(marked.state.active);
    let fresh_keys = options.fresh_keys.then(|| ulid::Ulid::generate().to_string());
    let LargeItems { store: large, .. } = LargeItems::of(client, chain).await?;
    let letters = Removal::of(client, chain).await?;
    let mut retry =
        Retry { client, registry, chain, reset, targets: BTreeMap::new(), fresh_keys, stop, large, letters };
    let mut done = Retried::default();
    for part in numbers.chunks(PART) {
        if stop.load(Relaxed) {
            break;
        }
        retry.part(part, active, &mut done, &mut tell).await?;
    }
    Ok(done)
}

impl Retry<'_> {
    async fn part(
        &mut self,
        numbers: &[u64],
        active: Option<Revision>,
        done: &mut Retried,
        tell: &mut impl FnMut(u64),
    ) -> Result<(), ClientError> {
        let reads = numbers.iter().map(|&number| self.client.dead_letter(self.chain, number));
        let letters: Vec<Option<DeadLetter>> = stream::iter(reads).buffered(SIDE_BY_SIDE).try_collect().await?;
        let mut messages: BTreeMap<Revision, BTreeMap<u64, Outgoing>> = BTreeMap::new();
        // A missing letter was retried or removed by another client.
        for letter in letters.into_iter().flatten() {
            let revision = active.unwrap_or(Revision::new(letter.revision));
            let (reset, fresh_keys) = (self.reset, self.fresh_keys.clone());
            let message = match self.target(revision).await? {
                Ok(target) => {
                    target.message(&letter, reset, fresh_keys.as_deref()).map(|message| (target.revision, message))
                }
                Err(reason) => Err(reason.clone()),
            };
            match message {
                Ok((revision, message)) => {
                    messages.entry(revision).or_default().insert(letter.number, message);
                }
                Err(reason) => drop(done.refused.insert(letter.number, reason)),
            }
        }
        for (revision, mut waiting) in messages {
            let mut targets = self.targets.values().flatten();
            let Some(target) = targets.find(|target| target.revision == revision) else { continue };
            let rooms = Rooms { broker: &self.client.broker, chain: &target.chain, revision, stop: self.stop };
            while !waiting.is_empty() && !self.stop.load(Relaxed) {
                let messages = rooms.take(&mut waiting).await?;
                if messages.is_empty() {
                    break;
                }
                let mut stored = Vec::new();
                for (number, ended) in self.requeue(revision, &messages).await? {
                    match ended {
                        Stored::Yes => stored.push(number),
                        Stored::Refused(reason) => drop(done.refused.insert(number, reason)),
                        Stored::Stopped => {}
                    }
                }
                done.retried += self.letters.remove(&stored).await?;
                tell(done.retried);
            }
        }
        Ok(())
    }

    async fn target(&mut self, revision: Revision) -> Result<&Result<Target, String>, ClientError> {
        if !self.targets.contains_key(&revision) {
            let found = match self.find_target(revision).await {
                Ok(target) => Ok(target),
                Err(error @ ClientError::Registry { .. }) => Err(error.to_string()),
                Err(error) => return Err(error),
            };
            self.targets.insert(revision, found);
        }
        Ok(&self.targets[&revision])
    }

    /// Returns the revision itself. After a reset, returns a later revision with the same manifest. If a retry opened the old
    /// queues again, a node that was cut off since before the reset could add outputs of the items that the reset has removed.
    async fn find_target(&self, revision: Revision) -> Result<Target, ClientError> {
        let (old, chain) = Client::revision(&self.registry, self.chain, revision).await?;
        let Some(mut after) = self.reset.filter(|reset| revision < *reset) else {
            return Ok(Target { revision, chain });
        };
        let (_, marked) = self.client.chain(self.chain).await?;
        while let Some(later) = self.registry.deployed(self.chain, after).await? {
            // A pending deploy may fail and remove its revision.
            if later.digest == old.digest && !marked.state.pending.contains_key(&after) {
                return Ok(Target { revision: after, chain });
            }
            after = after.next();
        }
        let new = deploy::add(&self.registry, old.manifest, old.digest, &chain, after).await?;
        Ok(Target { revision: new.revision, chain })
    }

    /// Publishes messages to the queues of a live revision. Makes the revision live before. Returns the outcome of each message.
    async fn requeue(
        &self,
        revision: Revision,
        messages: &BTreeMap<u64, Outgoing>,
    ) -> Result<Vec<(u64, Stored)>, ClientError> {
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(FULL_WAIT_MAX).await;
            }
            self.open(revision, round > 0).await?;
            match self.store(messages).await {
                // The revision has retired meanwhile, or the streams agree with an earlier state.
                Err(PublishError::NoStream(_)) => {}
                Err(PublishError::Broker(error)) => return Err(error.into()),
                Err(error) => return Err(ClientError::TimedOut(error.to_string())),
                Ok(ended) => {
                    self.keep(revision).await?;
                    return Ok(ended);
                }
            }
        }
        Err(ClientError::Closing { chain: self.chain.clone(), revision })
    }

    /// Makes a revision live, unless it is live and the streams agree with that.
    async fn open(&self, revision: Revision, settle: bool) -> Result<(), ClientError> {
        loop {
            let (registry, marked) = self.client.chain(self.chain).await?;
            let is_live = marked.state.live.contains(&revision);
            if is_live && !settle {
                return Ok(());
            }
            let state = marked.state.revived(revision);
            if is_live || registry.swap_state(self.chain, Some(&marked), &state).await? {
                return settle::settle(&registry, self.chain, state).await;
            }
        }
    }

    /// Keeps nodes from retiring a revision before they see the requeued messages.
    async fn keep(&self, revision: Revision) -> Result<(), ClientError> {
        loop {
            let (registry, marked) = self.client.chain(self.chain).await?;
            // If another revision becomes active from now on, the queues were filled before.
            if marked.state.active == revision {
                return Ok(());
            }
            let state = marked.state.revived(revision);
            if registry.swap_state(self.chain, Some(&marked), &state).await? {
                if marked.state.live.contains(&revision) {
                    return Ok(());
                }
                return settle::settle(&registry, self.chain, state).await;
            }
        }
    }

    /// Publishes messages side by side. Ends when each is stored or refused, or `stop` is set.
    async fn store(&self, messages: &BTreeMap<u64, Outgoing>) -> Result<Vec<(u64, Stored)>, PublishError> {
        // With the key in the ids, no other client can have used them.
        let key = ChainStreams::of(&self.client.broker, self.chain).work_key().await?;
        let all = messages.iter().map(|(number, message)| async {
            let message_id = format!("pcluster.{key}.{}", message.message_id);
            let message = Outgoing { message_id, ..message.clone() };
            match self.store_one(&message).await {
                Ok(stored) => Ok((*number, stored)),
                Err(error @ PublishError::TooLarge { .. }) => Ok((*number, Stored::Refused(error.to_string()))),
                Err(error) => Err(error),
            }
        });
        let all: Vec<_> = all.collect();
        stream::iter(all).buffer_unordered(SIDE_BY_SIDE).try_collect().await
    }

    async fn store_one(&self, message: &Outgoing) -> Result<Stored, PublishError> {
        let mut backoff = Backoff::new(FULL_WAIT, FULL_WAIT_MAX);
        let mut answered = Instant::now();
        while !self.stop.load(Relaxed) {
            match Publisher::of(&self.client.broker).publish_at(message).await {
                Err(error) if error.is_transient() => {
                    if !matches!(error, PublishError::Unanswered(_)) {
                        answered = Instant::now();
                    }
                    self.client.broker.check_answers(answered, REQUEUE)?;
                    backoff.wait().await;
                }
                published => {
                    let (_, place) = published?;
                    self.hold_large(message, place).await?;
                    return Ok(Stored::Yes);
                }
            }
        }
        Ok(Stored::Stopped)
    }

    /// Records that the message at this place refers to large items, while the letter still does.
    async fn hold_large(&self, message: &Outgoing, place: u64) -> Result<(), BrokerError> {
        for (_, reference) in references(&message.headers, &message.payload) {
            let holder = Holder::Work(place);
            self.large.hold(&reference.name, holder).await.map_err(of_server)?;
            // A node may have handled the message already.
            let stream = subject::work_stream(self.chain);
            if !Stream::of(&self.client.broker, &stream).has_message(place).await? {
                self.large.release(&reference.name, holder).await.map_err(of_server)?;
            }
        }
        Ok(())
    }
}

/// Returns the error of a request about a record, which has nothing to do with bytes or files.
fn of_server(error: LargeError) -> BrokerError {
    match error {
        LargeError::Broker(error) => error,
        other => BrokerError::Other { what: REQUEUE.to_owned(), reason: other.to_string() },
    }
}

impl Target {
    /// Returns the message that requeues a letter's item. Its id lacks the first part. The error is the reason why there is no
    /// message.
    fn message(
        &self,
        letter: &DeadLetter,
        reset: Option<Revision>,
        fresh_keys: Option<&str>,
    ) -> Result<Outgoing, String> {
        let (chain, revision) = (&self.chain, self.revision);
        let stage = letter.stage.parse().ok().and_then(|name: StageName| chain.stage(&name));
        let Some((position, stage)) = stage else {
            let names: Vec<&str> = chain.stages.iter().map(|stage| stage.name.as_str()).collect();
            let (version, names) = (&chain.version, names.join(", "));
            return Err(format!("{version} ({revision}) has no stage `{}`; its stages are {names}", letter.stage));
        };
        if stage.inline {
            let (version, first) = (&chain.version, &chain.hop_of(position).name);
            return Err(format!("in {version} ({revision}) its stage runs inline, within `{first}`, and has no queue"));
        }
        if letter.raw.payload.is_empty() {
            return Err("its item is not kept: it left no room in the letter for the reason".to_owned());
        }
        let mut headers = Headers::new();
        let subject = if letter.is_undecodable() {
            if position > 0 {
                let first = &chain.stages[0].name;
                return Err(format!(
                    "only the first stage reads what is fed; in {} ({revision}) that is `{first}`",
                    chain.version
                ));
            }
            headers.push(header::ID, FrameId::from_header(&letter.raw.id).root());
            if let Some(content_type) = &letter.content_type {
                headers.push(header::CONTENT_TYPE, content_type);
            }
            subject::work(&chain.name, revision, &stage.name)
        } else {
            headers.push(header::ID, letter.raw.id.as_str());
            if let Some(index) = &letter.raw.index {
                headers.push(header::INDEX, index);
            }
            if let Some(part) = &letter.raw.part {
                headers.push(header::PART, part);
            }
            if let Some(content_type) = &letter.content_type {
                headers.push(header::CONTENT_TYPE, content_type);
            }
            headers.push(header::ATTEMPT, "0");
            headers.extend(letter.raw.steps.iter().map(|steps| (header::STEPS, steps.clone())));
            // Calls that are made again carry the keys that they had.
            if let Some(fed) = &letter.raw.fed {
                let fresh = fresh_keys.map(|fresh| format!("{fresh}.{}", letter.number));
                headers.push(header::FED, fresh.unwrap_or_else(|| fed.clone()));
            }
            Lane::Retry.requeue_dead_letter(&chain.name, revision, &stage.name, letter.number)
        };
        headers.extend(letter.topic.clone().map(|topic| (header::TOPIC, topic)));
        headers.extend(letter.raw.large.clone().map(|large| (header::LARGE, large)));
        for (name, value) in letter.headers.iter() {
            headers.push(name.to_owned(), value);
        }
        // A reset has removed messages that were requeued before.
        let message_id = match reset {
            Some(reset) => format!("dead.{}.{}", letter.number, reset.number()),
            None => format!("dead.{}", letter.number),
        };
        Ok(Outgoing { subject, message_id, headers, payload: letter.raw.payload.clone() })
    }
}
