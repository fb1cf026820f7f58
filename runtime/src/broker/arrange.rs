//! Makes the streams of a chain agree with its state.
//!
//! The server cannot compare and swap a stream's configuration: of two updates at once, the last one wins. So a client that has
//! updated a stream reads the state and the streams again until both agree. Nodes check from time to time, in case a client died in
//! between.
//!
//! This repairs the subjects that an outdated update set. It does not restore messages: an update with a narrower limit than the
//! stream's has removed the messages beyond it. So a client reads the state again right before each update, after it has read the
//! stream. A client that needs wider settings enters the state before it widens the stream. Each update is sent once, over a
//! connection that stands. If it has no answer, the client reads the stream again and decides anew.
//!
//! One case remains: an update is delayed, in the network or in a stalled server, for as long as another client takes to enter the
//! state, to widen the stream, and to feed it more than the older settings hold.

mod freeze;
pub mod kept;
mod turn;
pub(crate) mod work;

use std::collections::{BTreeSet, HashMap};
use std::time::SystemTime;

use async_nats::jetstream::stream::Config;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::error::code;
use super::registry::Registry;
use super::request::AGAIN_EARLY;
use super::stream::Stream;
use super::streams::ChainStreams;
use super::{Broker, BrokerError, layout};
use crate::chain::Chain;
use crate::chain::record::State;
use crate::chain::settings::{Held, KeptSettings, Note, Question, WorkSettings};
use crate::name::ChainName;
use crate::{subject, wire};
use turn::in_turn;

/// The key of a [`Note`] in a stream's metadata.
const NOTE: &str = "pcluster.before";
/// How often to begin again while other clients change the streams too.
const ROUNDS: u32 = 20;

/// How to make streams agree with a state.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arrange {
    /// Make the missing streams and the pullers' consumers. Without this, missing streams are skipped.
    pub create: bool,
    /// Narrow the retention of results and dead letters to that of the active revision, whatever this removes.
    pub drop_kept: bool,
    /// The settings before a failed deploy: no message in the streams relies on wider ones.
    pub before: Option<ChainSettings>,
}

/// The settings of a chain's streams. `None` for a missing stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChainSettings {
    work: Option<WorkSettings>,
    results: Option<KeptSettings>,
    dead: Option<KeptSettings>,
}

impl ChainSettings {
    /// Returns the missing streams of the chain.
    pub fn missing(&self, chain: &ChainName) -> BTreeSet<String> {
        let streams = [
            (subject::work_stream(chain), self.work.is_none()),
            (subject::results_stream(chain), self.results.is_none()),
            (subject::dead_stream(chain), self.dead.is_none()),
        ];
        streams.into_iter().filter_map(|(stream, is_missing)| is_missing.then_some(stream)).collect()
    }
}

/// The result of making the streams agree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arranged {
    /// `true` if a setting is to be narrowed later.
    pub waits: bool,
}

/// The revisions of a chain, as far as its streams depend on them.
struct Revisions {
    active: Chain,
    work: Option<WorkSettings>,
    kept: Option<KeptSettings>,
}

/// A stream as the server describes it.
#[derive(Debug, Deserialize)]
struct Info {
    config: Config,
    state: Counts,
}

#[derive(Debug, Deserialize)]
struct Counts {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
}

impl Info {
    fn held(&self) -> Held {
        Held { messages: self.state.messages, first: self.state.first_seq, last: self.state.last_seq, now: now() }
    }

    /// Returns `true` if the stream is frozen, or about to be.
    fn is_closed(&self) -> bool {
        self.config.max_messages >= 0 || !self.config.allow_atomic_publish
    }

    fn note(&self) -> Option<Note> {
        self.config.metadata.get(NOTE)?.parse().ok()
    }
}

impl Registry {
    /// Makes the streams of a chain agree with its state, including changes that other clients make to the state meanwhile.
    pub async fn settle(&self, chain: &ChainName, mut state: State, how: Arrange) -> Result<Arranged, BrokerError> {
        let mut arranged = Arranged::default();
        let deadline = Instant::now() + self.bucket().broker.patience();
        let mut rounds = 0;
        while rounds < ROUNDS {
            let revisions = self.revisions(chain, &state).await?;
            arranged.waits = false;
            let look = Look {
                registry: self,
                broker: &self.bucket().broker,
                chain,
                state: &state,
                revisions: &revisions,
                how,
            };
            let changed = match look.arrange(&mut arranged).await {
                // The next look shows whether an update without an answer took effect.
                Err(error) if error.is_transient() && Instant::now() < deadline => {
                    tracing::debug!(%chain, %error, "the streams are looked at again");
                    tokio::time::sleep(AGAIN_EARLY).await;
                    true
                }
                changed => {
                    rounds += 1;
                    changed?
                }
            };
            let Some(now) = self.state(chain).await? else { return Ok(arranged) };
            if !changed && now.state.has_streams_of(&state) {
                return Ok(arranged);
            }
            state = now.state;
        }
        tracing::debug!(%chain, "others change the streams as well");
        Ok(Arranged { waits: true })
    }

    async fn revisions(&self, chain: &ChainName, state: &State) -> Result<Revisions, BrokerError> {
        let (mut active, mut work, mut kept) = (None, None, None);
        let mut is_complete = true;
        for revision in state.held() {
            let read = self.checked(chain, revision).await;
            let checked = match read {
                Ok(Some((_, checked))) => checked,
                Ok(None) if state.pending.contains_key(&revision) => continue,
                Ok(None) | Err(_) if revision != state.active => {
                    is_complete = false;
                    continue;
                }
                Ok(None) => {
                    let reason = format!("the manifest of {revision} is not in the registry");
                    return Err(BrokerError::Other { what: format!("arrange the streams of chain `{chain}`"), reason });
                }
                Err(error) => return Err(error),
            };
            let (needs_work, needs_kept) = (WorkSettings::of(&checked), KeptSettings::of(&checked));
            work = Some(work.map_or(needs_work, |work: WorkSettings| work.widest(needs_work)));
            kept = Some(kept.map_or(needs_kept, |kept: KeptSettings| kept.widest(needs_kept)));
            if active.is_none() || revision == state.active {
                active = Some(checked);
            }
        }
        let missing = || BrokerError::Other {
            what: format!("arrange the streams of chain `{chain}`"),
            reason: "no revision of it is in the registry".to_owned(),
        };
        let (work, kept) = (work.filter(|_| is_complete), kept.filter(|_| is_complete));
        Ok(Revisions { active: active.ok_or_else(missing)?, work, kept })
    }
}

/// Returns the present settings of a chain's streams.
pub async fn chain_settings(broker: &Broker, chain: &ChainName) -> Result<ChainSettings, BrokerError> {
    let work = known_stream(broker, chain, &subject::work_stream(chain)).await?;
    let results = known_stream(broker, chain, &subject::results_stream(chain)).await?;
    let dead = known_stream(broker, chain, &subject::dead_stream(chain)).await?;
    Ok(ChainSettings {
        work: work.map(|info| layout::work_settings(&info.config)),
        results: results.map(|info| layout::kept_settings(&info.config)),
        dead: dead.map(|info| layout::kept_settings(&info.config)),
    })
}

/// Returns `true` if a chain's work stream is absent or agrees with a state.
///
/// It agrees if it has the state's subjects and leads fed items to the active revision.
pub async fn is_arranged(broker: &Broker, chain: &ChainName, state: &State) -> Result<bool, BrokerError> {
    let Some(info) = known_stream(broker, chain, &subject::work_stream(chain)).await? else { return Ok(true) };
    let transform = info.config.subject_transform.as_ref();
    let fed = transform.and_then(|transform| subject::parse_queued(&transform.destination));
    let is_closed = info.is_closed();
    let has: BTreeSet<String> = info.config.subjects.into_iter().collect();
    let is_fed = fed.map(|fed| fed.revision) == Some(state.active).filter(|_| state.open);
    Ok(is_fed && has == layout::work_subjects(chain, state) && !is_closed)
}

/// Checks that a chain's work stream, if it exists, has a known wire.
pub async fn check_wire(broker: &Broker, chain: &ChainName) -> Result<(), BrokerError> {
    known_stream(broker, chain, &subject::work_stream(chain)).await.map(drop)
}

/// Returns a stream of a chain. `None` if it does not exist.
async fn known_stream(broker: &Broker, chain: &ChainName, stream: &str) -> Result<Option<Info>, BrokerError> {
    let what = || format!("tell the state of the stream `{stream}`");
    let info: Info = match broker.api(format!("STREAM.INFO.{stream}"), &json!({}), what).await {
        Err(error) if error.is_not_found() => return Ok(None),
        info => info?,
    };
    let number = info.config.metadata.get(wire::METADATA).map(String::as_str);
    wire::check(|| format!("the stream `{stream}` of chain `{chain}`"), number)?;
    Ok(Some(info))
}

/// Makes a stream. If another client was faster, the next look mends the rest. Returns `true` if this call made it.
///
/// An account that may have fewer consumers than the stream asks for gets as many as the server gives.
async fn make(broker: &Broker, config: &Config) -> Result<bool, BrokerError> {
    let mut made = Stream::create(broker, config).await;
    if config.max_consumers > 0 && matches!(&made, Err(error) if error.code() == Some(code::TOO_MANY_CONSUMERS)) {
        let fewer = Config { max_consumers: 0, ..config.clone() };
        made = Stream::create(broker, &fewer).await;
    }
    match made {
        Err(error) if error.code() == Some(code::STREAM_EXISTS) => Ok(false),
        made => made,
    }
}

/// One look at the streams of a chain, to make them agree with a state.
struct Look<'a> {
    registry: &'a Registry,
    broker: &'a Broker,
    chain: &'a ChainName,
    state: &'a State,
    revisions: &'a Revisions,
    how: Arrange,
}

impl Look<'_> {
    /// Returns `true` if something was changed.
    async fn arrange(&self, arranged: &mut Arranged) -> Result<bool, BrokerError> {
        let before = self.how.before.unwrap_or_default();
        let mut changed = false;
        for (stream, before) in
            [(subject::results_stream(self.chain), before.results), (subject::dead_stream(self.chain), before.dead)]
        {
            changed |= self.arrange_kept(&stream, before, arranged).await?;
        }
        changed |= self.arrange_work(arranged).await?;
        if self.how.create {
            ChainStreams::of(self.broker, self.chain).create_pull_consumers().await?;
        }
        Ok(changed)
    }

    async fn arrange_kept(
        &self,
        stream: &str,
        before: Option<KeptSettings>,
        arranged: &mut Arranged,
    ) -> Result<bool, BrokerError> {
        let (chain, wire) = (self.chain, self.state.wire);
        let config = |settings: &KeptSettings| {
            if *stream == subject::results_stream(chain) {
                layout::results(chain, settings)
            } else {
                layout::dead(chain, settings)
            }
        };
        let (needed, wanted) = (self.revisions.kept, KeptSettings::of(&self.revisions.active));
        let (done, replicas) = match known_stream(self.broker, chain, stream).await? {
            Some(info) => {
                let current = before.unwrap_or_else(|| layout::kept_settings(&info.config));
                let (note, held) = (info.note(), info.held());
                let answer = KeptSettings::decide(&Question { needed, wanted, current, note, held });
                let (settings, note) = if self.how.drop_kept { (wanted, None) } else { (answer.settings, answer.note) };
                arranged.waits |= note.is_some();
                let merged = merged(&info, config(&settings), wire, note);
                (self.update_if_other(&info, merged).await, settings.replicas)
            }
            None if self.how.create => {
                let settings = needed.map_or(wanted, |needed| needed.widest(wanted));
                let marked = marked(config(&settings), wire);
                (make(self.broker, &marked).await.map(|_| true), settings.replicas)
            }
            None => return Ok(false),
        };
        done.map_err(|error| super::streams::refusal(chain, replicas, super::streams::RESULTS_LIMIT, error))
    }

    /// Updates a stream that differs from its wanted configuration. Returns `true` if another look is needed.
    async fn update_if_other(&self, info: &Info, config: Config) -> Result<bool, BrokerError> {
        if layout::is_like(&info.config, &config) {
            return Ok(false);
        }
        let update = async {
            if self.is_current().await? {
                Stream::update(self.broker, &config).await?;
            }
            Ok(true)
        };
        Box::pin(in_turn(self.registry, self.chain, Box::pin(update))).await
    }

    /// Returns `true` if the streams look the same for the present state.
    async fn is_current(&self) -> Result<bool, BrokerError> {
        let now = self.registry.state(self.chain).await?;
        Ok(now.is_some_and(|now| now.state.has_streams_of(self.state)))
    }
}

/// Returns the wanted configuration of a stream. Keeps foreign metadata and the settings that pcluster does not decide on.
fn merged(info: &Info, config: Config, wire: Option<u32>, note: Option<Note>) -> Config {
    let now = &info.config;
    Config {
        metadata: metadata(now.metadata.clone(), wire, note),
        placement: now.placement.clone(),
        // The server refuses to change it.
        max_consumers: now.max_consumers,
        republish: now.republish.clone(),
        compression: now.compression.clone(),
        ..config
    }
}

/// Returns a new stream's configuration with the number of the wire in its metadata.
fn marked(config: Config, wire: Option<u32>) -> Config {
    Config { metadata: metadata(config.metadata, wire, None), ..config }
}

fn metadata(mut metadata: HashMap<String, String>, wire: Option<u32>, note: Option<Note>) -> HashMap<String, String> {
    metadata.remove(freeze::KEY);
    metadata.remove(freeze::NONCE);
    match note {
        Some(note) => metadata.insert(NOTE.to_owned(), note.to_string()),
        None => metadata.remove(NOTE),
    };
    if let Some(wire) = wire {
        metadata.insert(wire::METADATA.to_owned(), wire.to_string());
    }
    metadata
}

/// Returns the seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
