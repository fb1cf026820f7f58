//! The configuration of streams and consumers; [`super::stream`] makes them.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, SubjectTransform};

use super::large::{self, LargeSettings};
use crate::chain::record::State;
use crate::chain::settings::{KeptSettings, WorkSettings};
use crate::chain::{Chain, Stage};
use crate::name::{ChainName, Revision, StageName, Topic};
use crate::subject::{self, Lane};

/// Room for log lines, in bytes. The oldest lines are removed first.
const LOG_MAX_BYTES: i64 = 256 << 20;
/// The most log lines of one stage and level. So a stage that logs much leaves room for the others.
const LOG_MAX_LINES: i64 = 100_000;
/// How long log lines are kept.
const LOG_MAX_AGE: Duration = Duration::from_hours(7 * 24);
/// The most notes of nodes on the items in hand; the oldest go first. A limit in bytes would reserve room.
const HOLDER_NOTES_MAX: i64 = 10_000;
/// How long the notes of a silent node are kept.
const HOLDER_NOTE_MAX_AGE: Duration = Duration::from_hours(7 * 24);
/// How soon a result that a puller took but did not confirm is delivered again.
const PULL_ACK_WAIT: Duration = Duration::from_secs(30);
/// How many results pullers may hold at once.
const PULL_MAX_IN_FLIGHT: i64 = 20_000;

/// The most consumers of a chain's results, one for each topic that is pulled. Without a number, nats-server 2.15 takes 1,000.
const RESULTS_CONSUMERS_MAX: i32 = 100_000;
/// How long the server keeps the consumer of a topic that nobody pulls.
const TOPIC_UNUSED: Duration = Duration::from_hours(24);

/// How many changes of a registry key the server remembers.
const HISTORY: i64 = 64;

/// Returns the streams that all chains share, with at least this many replicas.
pub(super) fn shared(replicas: u32) -> [Config; 5] {
    [log(), counters(), holder_notes(), chains(), plugins()]
        .map(|config| Config { num_replicas: replicas as usize, ..config })
}

/// Returns the stream of the log lines of all chains.
fn log() -> Config {
    Config {
        discard: DiscardPolicy::Old,
        max_bytes: LOG_MAX_BYTES,
        max_messages_per_subject: LOG_MAX_LINES,
        max_age: LOG_MAX_AGE,
        ..stream(subject::LOG_STREAM, "log lines of all chains", [subject::LOGS_ALL])
    }
}

/// Returns the stream of the counters of all chains.
fn counters() -> Config {
    Config {
        discard: DiscardPolicy::Old,
        max_messages_per_subject: 1,
        allow_message_counter: true,
        allow_direct: true,
        ..stream(subject::COUNT_STREAM, "how many items each stage has handled", [subject::COUNTS_ALL])
    }
}

/// Returns the stream of the notes on what each node has in hand.
fn holder_notes() -> Config {
    Config {
        discard: DiscardPolicy::Old,
        max_messages_per_subject: 1,
        max_messages: HOLDER_NOTES_MAX,
        max_age: HOLDER_NOTE_MAX_AGE,
        allow_direct: true,
        ..stream(subject::HOLDER_STREAM, "which node has which messages in hand", [subject::HOLDER_NOTES_ALL])
    }
}

/// Returns the stream of the registry, a KV bucket (NATS ADR-8).
fn chains() -> Config {
    Config {
        discard: DiscardPolicy::New,
        max_messages_per_subject: HISTORY,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        ..stream(subject::CHAINS_STREAM, "chains, their revisions and manifests", [subject::CHAINS_ALL])
    }
}

/// Returns the stream of the plugins, an object store (NATS ADR-20).
fn plugins() -> Config {
    Config {
        discard: DiscardPolicy::New,
        allow_rollup: true,
        allow_direct: true,
        ..stream(
            subject::PLUGINS_STREAM,
            "plugins, named by their sha-256",
            [subject::PLUGIN_PARTS_ALL, subject::PLUGIN_HEADS_ALL],
        )
    }
}

/// Returns the work stream, which holds exactly the unfinished items. `first` is the first stage of the active revision.
pub(super) fn work(chain: &ChainName, state: &State, first: &StageName, settings: &WorkSettings) -> Config {
    let transform = is_fed(state).then(|| SubjectTransform {
        source: subject::intake(chain),
        destination: subject::work(chain, state.active, first),
    });
    let purpose = format!("the unfinished items of chain {chain}");
    Config {
        subject_transform: transform,
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        max_messages: -1,
        max_messages_per_subject: limit(Some(settings.limit)),
        duplicate_window: settings.duplicate_window,
        allow_atomic_publish: true,
        allow_direct: true,
        num_replicas: settings.replicas as usize,
        ..stream(subject::work_stream(chain), &purpose, work_subjects(chain, state))
    }
}

/// Returns the subjects of a work stream: the queues of all live revisions, and the intake while it is open.
pub(super) fn work_subjects(chain: &ChainName, state: &State) -> BTreeSet<String> {
    let queued = state.held().into_iter().flat_map(|revision| subject::queued(chain, revision));
    queued.chain(is_fed(state).then(|| subject::intake(chain))).collect()
}

fn is_fed(state: &State) -> bool {
    state.open && state.is_deployed()
}

/// Returns the stream of a chain's results and of the notes of its last hop, which expire.
pub(super) fn results(chain: &ChainName, settings: &KeptSettings) -> Config {
    let subjects = subject::results_stream_subjects(chain);
    let max_consumers = RESULTS_CONSUMERS_MAX;
    Config {
        allow_message_ttl: true,
        max_consumers,
        ..kept(chain, subject::results_stream(chain), subjects, "results", settings)
    }
}

/// Returns the stream of a chain's dead letters.
pub(super) fn dead(chain: &ChainName, settings: &KeptSettings) -> Config {
    kept(chain, subject::dead_stream(chain), vec![subject::dead_all(chain)], "dead letters", settings)
}

/// Returns the stream of the object store of a chain's large items.
pub(super) fn large(chain: &ChainName, settings: LargeSettings) -> Config {
    let purpose = format!("the large items of chain {chain}");
    let rest = stream(subject::large::stream(chain), &purpose, subject::large::subjects(chain));
    Config {
        discard: DiscardPolicy::New,
        allow_rollup: true,
        allow_direct: true,
        allow_message_ttl: true,
        max_bytes: settings.max_bytes.map_or(-1, large::on_server),
        num_replicas: settings.replicas as usize,
        ..rest
    }
}

fn kept(chain: &ChainName, name: String, subjects: Vec<String>, what: &str, settings: &KeptSettings) -> Config {
    Config {
        discard: DiscardPolicy::Old,
        max_age: settings.max_age.unwrap_or_default(),
        max_bytes: limit(settings.max_bytes),
        duplicate_window: settings.duplicate_window,
        allow_atomic_publish: true,
        allow_direct: true,
        num_replicas: settings.replicas as usize,
        ..stream(name, &format!("the {what} of chain {chain}"), subjects)
    }
}

/// Returns a stream with these subjects and the library's defaults, such as storage in files.
fn stream(name: impl Into<String>, purpose: &str, subjects: impl IntoIterator<Item = impl Into<String>>) -> Config {
    Config {
        name: name.into(),
        description: Some(format!("pcluster: {purpose}")),
        subjects: subjects.into_iter().map(Into::into).collect(),
        ..Config::default()
    }
}

/// Translates a limit: the server writes -1 for none.
fn limit(limit: Option<u64>) -> i64 {
    limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(-1)
}

/// Returns the settings of a work stream.
pub(super) fn work_settings(config: &Config) -> WorkSettings {
    WorkSettings {
        limit: u64::try_from(config.max_messages_per_subject).ok().filter(|limit| *limit > 0).unwrap_or(u64::MAX),
        duplicate_window: config.duplicate_window,
        replicas: replicas(config),
    }
}

/// Returns the settings of a stream of results or dead letters.
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

/// Returns `true` if a stream is as wanted in all that pcluster decides on.
pub(super) fn is_like(config: &Config, wanted: &Config) -> bool {
    let subjects = |config: &Config| config.subjects.iter().cloned().collect::<BTreeSet<_>>();
    // The server writes -1 for the 0 that the library sends for an absent limit.
    let numbers = |config: &Config| {
        [config.max_messages, config.max_messages_per_subject, config.max_bytes].map(|number| number.max(0))
    };
    let rest = |config: &Config| (config.max_age, config.duplicate_window, config.num_replicas, config.discard);
    let switches = |config: &Config| {
        let per_subject = config.discard_new_per_subject;
        (per_subject, config.allow_rollup, config.allow_direct, config.allow_atomic_publish, config.allow_message_ttl)
    };
    subjects(config) == subjects(wanted)
        && config.subject_transform == wanted.subject_transform
        && numbers(config) == numbers(wanted)
        && rest(config) == rest(wanted)
        && switches(config) == switches(wanted)
        && config.metadata == wanted.metadata
}

/// How many messages of a hop's first lane nodes may hold at once, if its stage sets no limit. None of them waits for long.
const WORK_IN_FLIGHT: i64 = 10_000;
/// How many messages of the other lanes nodes may hold at once. Most wait for their back-off, which costs the server nothing as
/// long as there is room.
const WAITING: i64 = 1_000_000;

/// Returns the consumer of one of a hop's lanes, if the stage has that lane: see [`Lane::served`].
pub(super) fn hop(chain: &Chain, stage: &Stage, revision: Revision, lane: Lane) -> pull::Config {
    let filters = lane.filters(stage.max_in_flight.is_some(), &chain.name, revision, &stage.name);
    pull::Config {
        durable_name: Some(lane.consumer(revision, &stage.name)),
        description: Some(format!("pcluster: {} {revision}, stage {}", chain.name, stage.name)),
        ack_policy: AckPolicy::Explicit,
        ack_wait: chain.queue.ack_wait,
        max_deliver: -1,
        max_ack_pending: match (stage.lane_limit, lane, stage.max_in_flight) {
            (Some(limit), ..) | (None, Lane::Work, Some(limit)) => i64::from(limit),
            (None, Lane::Work, None) => WORK_IN_FLIGHT,
            _ => WAITING,
        },
        ..filtered(filters)
    }
}

/// Returns the consumer that all pullers of these subjects share.
pub(super) fn pull(filters: Vec<String>) -> pull::Config {
    pull::Config {
        durable_name: Some(subject::PULL_CONSUMER.to_owned()),
        description: Some("pcluster: shared by all pullers".to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: PULL_ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: PULL_MAX_IN_FLIGHT,
        ..filtered(filters)
    }
}

/// Returns the consumer that all pullers of a topic share. The server removes it once it was unused for a day.
pub(super) fn pull_topic(chain: &ChainName, topic: &Topic) -> pull::Config {
    pull::Config {
        durable_name: Some(subject::topic_consumer(topic)),
        description: Some(format!("pcluster: shared by all pullers of the topic {topic}")),
        inactive_threshold: TOPIC_UNUSED,
        ..pull(vec![subject::results_of(chain, topic), subject::results_again(chain, topic.as_str())])
    }
}

/// Returns the configuration of a consumer with these filters. One filter costs the server less as a single one.
fn filtered(mut filters: Vec<String>) -> pull::Config {
    let filter_subject = if filters.len() == 1 { filters.remove(0) } else { String::new() };
    pull::Config { filter_subject, filter_subjects: filters, ..pull::Config::default() }
}
