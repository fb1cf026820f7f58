//! The names of everything on the server. Only this module formats or parses subjects and the names of streams, consumers,
//! buckets and keys.
//!
//! | for | subject |
//! |---|---|
//! | intake | `pcluster.<chain>.in` |
//! | work | `pcluster.<chain>.work.<revision>.<hop>` |
//! | retry | `pcluster.<chain>.retry.<revision>.<hop>.<sequence>-<n>` |
//! | quarantine | `pcluster.<chain>.alone.<revision>.<hop>.<sequence>-<n>` |
//! | parked | `pcluster.<chain>.parked.<revision>.<hop>.<retry or alone>-<sequence>-<n>` |
//! | results | `pcluster.<chain>.out`, or `pcluster.<chain>.out.<topic>` |
//! | results that a puller of a topic put back | `pcluster.<chain>.out.<topic>.again` |
//! | notes | `pcluster.<chain>.note` |
//! | dead letters | `pcluster.<chain>.dead.<stage>` |
//! | parts of items too large for their letters | `pcluster.<chain>.dead.+item` |
//! | logs | `pcluster.<chain>.log.<stage>.<level>` |
//! | counters | `pcluster.<chain>.count.<revision>.<stage>.<what>` |
//! | holder notes | `pcluster.<chain>.claim.<revision>.<hop>.<lane>.<incarnation>` |
//!
//! `<revision>` is a number, and `<hop>` the name of the hop's first stage. Each requeued message has a subject of its own, with
//! the stream sequence of its frame. The reason is the limit of a queue, which applies to each subject: a node that had to wait
//! for room to requeue would hold the very frames that make room.

mod lane;
pub(crate) mod large;
mod results;
pub(crate) mod stores;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE as URL_SAFE;
use pcluster_abi::Level;

use crate::name::{ChainName, Digest, Revision, StageName, Version};
pub use lane::Lane;
pub use results::results;
pub(crate) use results::{
    parse_results_again, parse_results_topic, results_again, results_all, results_of, results_stream_subjects,
    results_with_topic, topic_consumer,
};

/// The KV bucket of manifests and states of chains.
pub const CHAINS_BUCKET: &str = "pcluster_chains";
/// The stream of that bucket.
pub const CHAINS_STREAM: &str = "KV_pcluster_chains";
/// The pattern of all entries of that bucket.
pub const CHAINS_ALL: &str = "$KV.pcluster_chains.>";
/// The pattern of the states of all chains. Names of chains hold no dot, so one token excludes the manifests.
pub const STATES_ALL: &str = "$KV.pcluster_chains.*";
/// The prefix of the subjects of the bucket's entries. The key follows.
const ENTRY_PREFIX: &str = "$KV.pcluster_chains.";
/// The object store of plugins. The name of an object is the sha-256 of its bytes in hexadecimal digits.
pub const PLUGINS_BUCKET: &str = "pcluster_plugins";
/// The stream of that object store.
pub const PLUGINS_STREAM: &str = "OBJ_pcluster_plugins";
/// The pattern of the data of all plugins.
pub const PLUGIN_PARTS_ALL: &str = "$O.pcluster_plugins.C.>";
/// The pattern of the metadata of all plugins.
pub const PLUGIN_HEADS_ALL: &str = "$O.pcluster_plugins.M.>";
/// The stream of the log lines of all chains.
pub const LOG_STREAM: &str = "PCLUSTER_LOG";
/// The stream of the counters of all chains.
pub const COUNT_STREAM: &str = "PCLUSTER_COUNT";
/// The stream of the holder notes of all chains.
pub const HOLDER_STREAM: &str = "PCLUSTER_CLAIM";
/// The name of the NATS micro service of nodes.
pub const NODE_SERVICE: &str = "pcluster-node";
/// The durable consumer of a chain's results that all pullers share.
pub const PULL_CONSUMER: &str = "pull";
/// The prefix of work streams. The name of the chain follows.
const STREAM_PREFIX: &str = "PCLUSTER_";

/// The beginning of the names of our buckets and object stores.
const BUCKET_PREFIX: &str = "pcluster_";
/// The first part of our subjects.
const OWN: &str = "pcluster";
/// The beginnings of first parts that NATS keeps for itself: its APIs, inboxes, and replies across servers.
const OF_NATS: [&str; 4] = ["$", "_INBOX", "_R_", "_GR_"];

/// Returns `true` if a bucket or object store is ours. Some file systems ignore the case of names.
pub(crate) fn is_own_bucket(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == OWN || name.starts_with(BUCKET_PREFIX)
}

/// Returns `true` if subjects with this first part are ours.
pub(crate) fn is_own(first: &str) -> bool {
    first == OWN
}

/// Returns `true` if NATS keeps subjects with this first part for itself.
pub(crate) fn is_of_nats(first: &str) -> bool {
    OF_NATS.iter().any(|beginning| first.starts_with(beginning))
}

/// Returns the subject on which clients publish items.
pub fn intake(chain: &ChainName) -> String {
    format!("pcluster.{chain}.in")
}

/// Returns the subject of the queue in front of a hop.
pub fn work(chain: &ChainName, revision: Revision, hop: &StageName) -> String {
    format!("pcluster.{chain}.work.{}.{hop}", revision.number())
}

/// Returns one pattern of all queued messages of a revision.
pub fn queued_any(chain: &ChainName, revision: Revision) -> String {
    format!("pcluster.{chain}.*.{}.>", revision.number())
}

/// Returns the patterns of a revision's queued messages, by lane.
pub fn queued(chain: &ChainName, revision: Revision) -> [String; Lane::ALL.len()] {
    Lane::ALL.map(|lane| format!("pcluster.{chain}.{}.{}.>", lane.name(), revision.number()))
}

/// The parts of a subject of a work stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// The revision.
    pub revision: Revision,
    /// The first stage of the hop.
    pub hop: StageName,
}

/// Parses the subject of a queue of any chain.
pub fn parse_queued(subject: &str) -> Option<Queued> {
    let mut tokens = subject.split('.');
    let ("pcluster", _chain) = (tokens.next()?, tokens.next()?) else { return None };
    let lane = tokens.next()?;
    let revision = Revision::new(tokens.next()?.parse().ok()?);
    let hop = tokens.next()?.parse().ok()?;
    let place = tokens.next();
    let is_queue = match lane {
        "work" => place.is_none(),
        "retry" | "alone" | "parked" => place.is_some() && tokens.next().is_none(),
        _ => false,
    };
    is_queue.then_some(Queued { revision, hop })
}

/// Returns the subject of notes of the last hop. A note says that a frame has left no results, because its items were requeued.
/// Notes are in the stream of results, so that of the results and the note of a frame only the first is stored.
pub fn notes(chain: &ChainName) -> String {
    format!("pcluster.{chain}.note")
}

/// Returns the subject of a stage's dead letters.
pub fn dead(chain: &ChainName, stage: &StageName) -> String {
    format!("pcluster.{chain}.dead.{stage}")
}

/// Returns the pattern of all dead letters of a chain.
pub fn dead_all(chain: &ChainName) -> String {
    format!("pcluster.{chain}.dead.*")
}

/// Returns the subject of parts of items. Such an item leaves no room in its dead letter. No stage can have this name.
pub fn dead_item(chain: &ChainName) -> String {
    format!("pcluster.{chain}.dead.+item")
}

/// Returns the stage of a dead letter's subject.
pub fn parse_dead(subject: &str) -> Option<StageName> {
    let mut tokens = subject.split('.');
    let ("pcluster", _chain, "dead") = (tokens.next()?, tokens.next()?, tokens.next()?) else { return None };
    let stage = tokens.next()?.parse().ok()?;
    tokens.next().is_none().then_some(stage)
}

/// Returns the subject of a stage's log lines of a level.
pub fn log(chain: &ChainName, stage: &StageName, level: Level) -> String {
    format!("pcluster.{chain}.log.{stage}.{}", level.name())
}

/// Returns the patterns of the log lines at a level or graver. `None` stands for all chains or all stages.
pub fn logs(chain: Option<&ChainName>, stage: Option<&StageName>, level: Level) -> Vec<String> {
    let chain = chain.map_or("*", ChainName::as_str);
    let stage = stage.map_or("*", StageName::as_str);
    let levels = Level::ALL.iter().filter(|each| **each <= level);
    levels.map(|each| format!("pcluster.{chain}.log.{stage}.{}", each.name())).collect()
}

/// The pattern of the log lines of all chains.
pub const LOGS_ALL: &str = "pcluster.*.log.>";

/// The kind of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Count {
    /// Items that a stage has finished: handled, or failed for good.
    Done,
    /// Items that have failed for good: dead letters.
    Failed,
}

impl Count {
    const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// Returns the subject of a counter of a stage in a revision.
pub fn count(chain: &ChainName, revision: Revision, stage: &StageName, what: Count) -> String {
    format!("pcluster.{chain}.count.{}.{stage}.{}", revision.number(), what.name())
}

/// Returns the pattern of all counters of a chain.
pub fn counts(chain: &ChainName) -> String {
    format!("pcluster.{chain}.count.>")
}

/// Returns the pattern of one kind of counter. It covers all stages of a revision.
pub fn counts_of(chain: &ChainName, revision: Revision, what: Count) -> String {
    format!("pcluster.{chain}.count.{}.*.{}", revision.number(), what.name())
}

/// The pattern of the counters of all chains.
pub const COUNTS_ALL: &str = "pcluster.*.count.>";

/// Parses the subject of a counter: the revision, the stage, and the kind.
pub fn parse_count(subject: &str) -> Option<(Revision, StageName, Count)> {
    let mut tokens = subject.split('.').skip(2);
    let "count" = tokens.next()? else { return None };
    let revision = Revision::new(tokens.next()?.parse().ok()?);
    let stage = tokens.next()?.parse().ok()?;
    let what = match tokens.next()? {
        "done" => Count::Done,
        "failed" => Count::Failed,
        _ => return None,
    };
    Some((revision, stage, what))
}

/// The pattern of the holder notes of all chains.
pub const HOLDER_NOTES_ALL: &str = "pcluster.*.claim.>";

/// Returns the subject of a node's holder note for a lane. `run` is the incarnation of the node, or `*` for all nodes.
pub fn holder_note(chain: &ChainName, revision: Revision, hop: &StageName, lane: Lane, run: &str) -> String {
    format!("pcluster.{chain}.claim.{}.{hop}.{}.{run}", revision.number(), lane.name())
}

/// Returns the name of a chain's work stream. It holds exactly the unfinished items.
pub fn work_stream(chain: &ChainName) -> String {
    format!("{STREAM_PREFIX}{chain}")
}

/// Returns the chain of a work stream. `None` for other streams, also for those that all chains share.
pub fn parse_work_stream(stream: &str) -> Option<&str> {
    let chain = stream.strip_prefix(STREAM_PREFIX)?;
    chain.parse::<ChainName>().ok().map(|_| chain)
}

/// Returns the name of the stream of a chain's results.
pub fn results_stream(chain: &ChainName) -> String {
    format!("{STREAM_PREFIX}{chain}_OUT")
}

/// Returns the name of the stream of a chain's dead letters.
pub fn dead_stream(chain: &ChainName) -> String {
    format!("{STREAM_PREFIX}{chain}_DEAD")
}

/// Returns the key of a chain's state.
pub fn state_key(chain: &ChainName) -> String {
    chain.to_string()
}

/// Returns the key of a revision's manifest.
pub fn manifest_key(chain: &ChainName, revision: Revision) -> String {
    format!("{chain}.{revision}")
}

/// Returns the key of what the initializer of a stage read.
pub fn pin_key(chain: &ChainName, revision: Revision, stage: &StageName) -> String {
    format!("{chain}.{revision}.pin.{stage}")
}

/// Returns the key of a version's digest. The chain's state no longer holds this version. A character that keys cannot hold is
/// written as its bytes in hexadecimal digits.
pub fn version_key(chain: &ChainName, version: &Version) -> String {
    let escaped = version.as_str().replace('.', "=2E").replace('+', "=2B");
    format!("{chain}.v.{escaped}")
}

/// Returns the key of the turn to change a chain's streams. Its value names the client that changes them now.
pub fn turn_key(chain: &ChainName) -> String {
    format!("{chain}.turn")
}

/// Returns the subject of an entry of the bucket of chains.
pub fn entry(key: &str) -> String {
    format!("{ENTRY_PREFIX}{key}")
}

/// Returns the chain whose state is the entry with this subject.
pub fn parse_state(subject: &str) -> Option<ChainName> {
    subject.strip_prefix(ENTRY_PREFIX)?.parse().ok()
}

/// Returns the subject of the data of one upload of a plugin.
pub fn plugin_parts(upload: &str) -> String {
    format!("$O.{PLUGINS_BUCKET}.C.{upload}")
}

/// Returns the subject of a plugin's metadata. Object stores write names in base64.
pub fn plugin_head(digest: &Digest) -> String {
    format!("$O.{PLUGINS_BUCKET}.M.{}", URL_SAFE.encode(digest.as_hex()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> ChainName {
        "orders".parse().expect("valid")
    }

    fn stage() -> StageName {
        "split".parse().expect("valid")
    }

    #[test]
    fn what_is_formatted_can_be_parsed() {
        let revision = Revision::new(7);
        let expected = Some(Queued { revision, hop: stage() });
        assert_eq!(parse_queued(&work(&chain(), revision, &stage())), expected);
        for lane in [Lane::Retry, Lane::Quarantine] {
            assert_eq!(parse_queued(&lane.requeue(&chain(), revision, &stage(), 8, 0)), expected);
            assert_eq!(parse_queued(&lane.requeue_dead_letter(&chain(), revision, &stage(), 8)), expected);
            assert_eq!(parse_queued(&lane.queue(&chain(), revision, &stage())), expected);
            assert_eq!(parse_queued(&lane.park(&chain(), revision, &stage(), 8, 0)), expected);
        }
        assert_eq!(parse_dead(&dead(&chain(), &stage())), Some(stage()));
        assert_eq!(parse_dead(&dead_item(&chain())), None);
        assert_eq!(parse_state(&entry(&state_key(&chain()))), Some(chain()));
        assert_eq!(parse_state(&entry(&manifest_key(&chain(), revision))), None);
        let version = version_key(&chain(), &"1..0+r2".parse().expect("valid"));
        assert_eq!((version.as_str(), parse_state(&entry(&version))), ("orders.v.1=2E=2E0=2Br2", None));
        let counter = count(&chain(), revision, &stage(), Count::Failed);
        assert_eq!(parse_count(&counter), Some((revision, stage(), Count::Failed)));
    }

    #[test]
    fn a_foreign_subject_is_not_taken_for_work() {
        for subject in [
            "pcluster.orders.in",
            "pcluster.orders.work.x.split",
            "other.orders.work.1.split",
            "pcluster.a.work.1.b.c",
            "pcluster.a.retry.1.b",
            "pcluster.a.retry.1.b.8-0.1",
        ] {
            assert_eq!(parse_queued(subject), None, "{subject}");
        }
    }

    #[test]
    fn a_level_includes_the_graver_ones() {
        assert_eq!(
            logs(Some(&chain()), None, Level::Warn),
            ["pcluster.orders.log.*.error", "pcluster.orders.log.*.warn"]
        );
    }
}
