//! What the streams and consumers look like; [`super::stream`] makes them.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, SubjectTransform};

use crate::chain::record::State;
use crate::chain::settings::{KeptSettings, WorkSettings};
use crate::chain::{Chain, Stage};
use crate::name::{ChainName, Revision, StageName};
use crate::subject::{self, Lane};

/// Room for log lines, in bytes; the oldest go first.
const LOG_MAX_BYTES: i64 = 256 << 20;
/// Log lines that are kept of one stage and level, so that a stage that logs much leaves room for others.
const LOG_MAX_LINES: i64 = 100_000;
/// How long log lines stay.
const LOG_MAX_AGE: Duration = Duration::from_hours(7 * 24);
/// The most that is kept of what nodes say they have in hand; the oldest goes first. A limit in bytes would set room aside.
const HOLDER_NOTES_MAX: i64 = 10_000;
/// How long it stays of nodes that say nothing more.
const HOLDER_NOTE_MAX_AGE: Duration = Duration::from_hours(7 * 24);
/// How soon a result that a puller took but did not confirm is given to another.
const PULL_ACK_WAIT: Duration = Duration::from_secs(30);
/// Results that pullers may hold at once.
const PULL_MAX_IN_FLIGHT: i64 = 20_000;

/// How many changes of a key of the registry the server remembers.
const HISTORY: i64 = 64;

/// The streams that all chains share, with at least this many copies of each.
pub(super) fn shared(replicas: u32) -> [Config; 5] {
    [log(), counters(), holder_notes(), chains(), plugins()]
        .map(|config| Config { num_replicas: replicas as usize, ..config })
}

/// The log lines of all chains.
fn log() -> Config {
    Config {
        name: subject::LOG_STREAM.to_owned(),
        description: Some("pcluster: log lines of all chains".to_owned()),
        subjects: vec![subject::LOGS_ALL.to_owned()],
        discard: DiscardPolicy::Old,
        max_bytes: LOG_MAX_BYTES,
        max_messages_per_subject: LOG_MAX_LINES,
        max_age: LOG_MAX_AGE,
        ..Config::default()
    }
}

/// The counters of all chains.
fn counters() -> Config {
    Config {
        name: subject::COUNT_STREAM.to_owned(),
        description: Some("pcluster: how many items each stage has handled".to_owned()),
        subjects: vec![subject::COUNTS_ALL.to_owned()],
        discard: DiscardPolicy::Old,
        max_messages_per_subject: 1,
        allow_message_counter: true,
        allow_direct: true,
        ..Config::default()
    }
}

/// What each node has in hand.
fn holder_notes() -> Config {
    Config {
        name: subject::HOLDER_STREAM.to_owned(),
        description: Some("pcluster: which node has which messages in hand".to_owned()),
        subjects: vec![subject::HOLDER_NOTES_ALL.to_owned()],
        discard: DiscardPolicy::Old,
        max_messages_per_subject: 1,
        max_messages: HOLDER_NOTES_MAX,
        max_age: HOLDER_NOTE_MAX_AGE,
        allow_direct: true,
        ..Config::default()
    }
}

/// The bucket of the chains, as a KV bucket is made (NATS ADR-8).
fn chains() -> Config {
    Config {
        name: subject::CHAINS_STREAM.to_owned(),
        description: Some("pcluster: chains, their revisions and manifests".to_owned()),
        subjects: vec![subject::CHAINS_ALL.to_owned()],
        discard: DiscardPolicy::New,
        max_messages_per_subject: HISTORY,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        ..Config::default()
    }
}

/// The store of the plugins, as an object store is made (NATS ADR-20).
fn plugins() -> Config {
    Config {
        name: subject::PLUGINS_STREAM.to_owned(),
        description: Some("pcluster: plugins, named by their sha-256".to_owned()),
        subjects: vec![subject::PLUGIN_PARTS_ALL.to_owned(), subject::PLUGIN_HEADS_ALL.to_owned()],
        discard: DiscardPolicy::New,
        allow_rollup: true,
        allow_direct: true,
        ..Config::default()
    }
}

/// The work stream: it holds exactly the items that are not finished. `first` is the first stage of the active revision.
pub(super) fn work(chain: &ChainName, state: &State, first: &StageName, settings: &WorkSettings) -> Config {
    let transform = is_fed(state).then(|| SubjectTransform {
        source: subject::intake(chain),
        destination: subject::work(chain, state.active, first),
    });
    Config {
        name: subject::work_stream(chain),
        description: Some(format!("pcluster: the unfinished items of chain {chain}")),
        subjects: work_subjects(chain, state).into_iter().collect(),
        subject_transform: transform,
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        max_messages: -1,
        max_messages_per_subject: limit(Some(settings.limit)),
        duplicate_window: settings.duplicate_window,
        allow_atomic_publish: true,
        allow_direct: true,
        num_replicas: settings.replicas as usize,
        ..Config::default()
    }
}

/// What a work stream listens on: the queues of all revisions that may have items, and the intake while it is open.
pub(super) fn work_subjects(chain: &ChainName, state: &State) -> BTreeSet<String> {
    let queued = state.held().into_iter().flat_map(|revision| subject::queued(chain, revision));
    queued.chain(is_fed(state).then(|| subject::intake(chain))).collect()
}

fn is_fed(state: &State) -> bool {
    state.open && state.is_deployed()
}

/// The results of a chain, and the notes of its last hop, which go by themselves.
pub(super) fn results(chain: &ChainName, settings: &KeptSettings) -> Config {
    let subjects = vec![subject::results(chain), subject::notes(chain)];
    Config { allow_message_ttl: true, ..kept(chain, subject::results_stream(chain), subjects, "results", settings) }
}

/// The dead letters of a chain.
pub(super) fn dead(chain: &ChainName, settings: &KeptSettings) -> Config {
    kept(chain, subject::dead_stream(chain), vec![subject::dead_all(chain)], "dead letters", settings)
}

fn kept(chain: &ChainName, name: String, subjects: Vec<String>, what: &str, settings: &KeptSettings) -> Config {
    Config {
        name,
        description: Some(format!("pcluster: the {what} of chain {chain}")),
        subjects,
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::Old,
        max_age: settings.max_age.unwrap_or_default(),
        max_bytes: limit(settings.max_bytes),
        duplicate_window: settings.duplicate_window,
        allow_atomic_publish: true,
        allow_direct: true,
        num_replicas: settings.replicas as usize,
        ..Config::default()
    }
}

/// The server writes -1 where there is no limit.
fn limit(limit: Option<u64>) -> i64 {
    limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(-1)
}

/// The settings that a work stream has.
pub(super) fn work_settings(config: &Config) -> WorkSettings {
    WorkSettings {
        limit: u64::try_from(config.max_messages_per_subject).ok().filter(|limit| *limit > 0).unwrap_or(u64::MAX),
        duplicate_window: config.duplicate_window,
        replicas: replicas(config),
    }
}

/// The settings that a stream of results or dead letters has.
pub(super) fn kept_settings(config: &Config) -> KeptSettings {
    KeptSettings {
        max_age: Some(config.max_age).filter(|age| !age.is_zero()),
        max_bytes: u64::try_from(config.max_bytes).ok().filter(|bytes| *bytes > 0),
        duplicate_window: config.duplicate_window,
        replicas: replicas(config),
    }
}

fn replicas(config: &Config) -> u32 {
    u32::try_from(config.num_replicas).unwrap_or(1).max(1)
}

/// Returns `true` if a stream is as it is to be, in all that pcluster decides on.
pub(super) fn is_like(config: &Config, wanted: &Config) -> bool {
    let sorted = |subjects: &[String]| subjects.iter().cloned().collect::<BTreeSet<_>>();
    // The server writes -1 for the 0 that the library sends where nothing is asked for.
    let numbers = |config: &Config| {
        [config.max_messages, config.max_messages_per_subject, config.max_bytes].map(|number| number.max(0))
    };
    let rest = |config: &Config| (config.max_age, config.duplicate_window, config.num_replicas, config.discard);
    let switches = |config: &Config| {
        let per_subject = config.discard_new_per_subject;
        (per_subject, config.allow_rollup, config.allow_direct, config.allow_atomic_publish, config.allow_message_ttl)
    };
    let transform = |config: &Config| {
        let transform = config.subject_transform.as_ref();
        transform.map(|transform| (transform.source.clone(), transform.destination.clone()))
    };
    sorted(&config.subjects) == sorted(&wanted.subjects)
        && transform(config) == transform(wanted)
        && numbers(config) == numbers(wanted)
        && rest(config) == rest(wanted)
        && switches(config) == switches(wanted)
        && config.metadata == wanted.metadata
}

/// Messages of a hop's first lane that nodes may hold at once if its stage sets no limit. None of them waits for long.
const WORK_IN_FLIGHT: i64 = 10_000;
/// Messages of the other lanes that nodes may hold at once: most of them wait for their back-off, which costs the server nothing
/// as long as there is room.
const WAITING: i64 = 1_000_000;

/// The consumer of one of a hop's lanes, if the stage has that lane: see [`Lane::served`].
pub(super) fn hop(chain: &Chain, stage: &Stage, revision: Revision, lane: Lane) -> pull::Config {
    let mut filters = lane.filters(stage.max_in_flight.is_some(), &chain.name, revision, &stage.name);
    let filter_subject = if filters.len() == 1 { filters.remove(0) } else { String::new() };
    pull::Config {
        durable_name: Some(lane.consumer(revision, &stage.name)),
        description: Some(format!("pcluster: {} {revision}, stage {}", chain.name, stage.name)),
        ack_policy: AckPolicy::Explicit,
        ack_wait: chain.queue.ack_wait,
        max_deliver: -1,
        max_ack_pending: match (lane, stage.max_in_flight) {
            _ if stage.lane_limit.is_some() => stage.lane_limit.map_or(-1, i64::from),
            (Lane::Work, Some(limit)) => i64::from(limit),
            (Lane::Work, None) => WORK_IN_FLIGHT,
            _ => WAITING,
        },
        filter_subject,
        filter_subjects: filters,
        ..pull::Config::default()
    }
}

/// The consumer that all pullers of these subjects share.
pub(super) fn pull(filter_subject: String) -> pull::Config {
    pull::Config {
        durable_name: Some(subject::PULL_CONSUMER.to_owned()),
        description: Some("pcluster: shared by all pullers".to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: PULL_ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: PULL_MAX_IN_FLIGHT,
        filter_subject,
        ..pull::Config::default()
    }
}
