//! The names of everything on the server: the only place that formats or parses a subject, or the name of a stream,
//! consumer, bucket or key.
//!
//! | what | name |
//! |---|---|
//! | intake | `pcluster.<chain>.in` |
//! | work | `pcluster.<chain>.work.<revision>.<hop>` |
//! | retry | `pcluster.<chain>.retry.<revision>.<hop>.<sequence>-<n>` |
//! | alone | `pcluster.<chain>.alone.<revision>.<hop>.<sequence>-<n>` |
//! | parked | `pcluster.<chain>.parked.<revision>.<hop>.<retry or alone>-<sequence>-<n>` |
//! | results | `pcluster.<chain>.out` |
//! | notes | `pcluster.<chain>.note` |
//! | dead letters | `pcluster.<chain>.dead.<stage>` |
//! | items that leave no room in their letters | `pcluster.<chain>.dead.+item` |
//! | logs | `pcluster.<chain>.log.<stage>.<level>` |
//! | counts | `pcluster.<chain>.count.<revision>.<stage>.<what>` |
//! | claims | `pcluster.<chain>.claim.<revision>.<hop>.<lane>.<run of a node>` |
//!
//! `<revision>` is a number, `<hop>` the name of the hop's first stage. What a node puts back has a subject of its own, made of
//! the place in the stream of the frame that it was in: the limit on a queue is one on each subject, and a node that had to
//! wait for room there would hold the very frames that must go on to make room.

mod lane;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE as URL_SAFE;
use pcluster_abi::Level;

use crate::name::{ChainName, Digest, Revision, StageName, Version};
pub use lane::Lane;

/// The KV bucket of the manifests.
pub const CHAINS_BUCKET: &str = "pcluster_chains";
/// The stream that the bucket is.
pub const CHAINS_STREAM: &str = "KV_pcluster_chains";
/// The pattern of all entries of the bucket.
pub const CHAINS_ALL: &str = "$KV.pcluster_chains.>";
/// The pattern of the states of all chains: names of chains hold no dot, so one token leaves the manifests out.
pub const STATES_ALL: &str = "$KV.pcluster_chains.*";
/// What the subjects of the bucket's entries start with; the key follows.
const ENTRY_PREFIX: &str = "$KV.pcluster_chains.";
/// The object store of the plugins, each named by the sha-256 of its bytes in hexadecimal digits.
pub const PLUGINS_BUCKET: &str = "pcluster_plugins";
/// The stream that the object store is.
pub const PLUGINS_STREAM: &str = "OBJ_pcluster_plugins";
/// The pattern of the bytes of all plugins.
pub const PLUGIN_PARTS_ALL: &str = "$O.pcluster_plugins.C.>";
/// The pattern of what is known of all plugins.
pub const PLUGIN_HEADS_ALL: &str = "$O.pcluster_plugins.M.>";
/// The stream of the log lines of all chains.
pub const LOG_STREAM: &str = "PCLUSTER_LOG";
/// The stream of the counters of all chains.
pub const COUNT_STREAM: &str = "PCLUSTER_COUNT";
/// The stream of what each node has in hand, of all chains.
pub const HOLDER_STREAM: &str = "PCLUSTER_CLAIM";
/// The name of the micro service that every node offers.
pub const NODE_SERVICE: &str = "pcluster-node";
/// The durable consumer on a chain's results that all pullers share.
pub const PULL_CONSUMER: &str = "pull";
/// What the work streams start with; the chain's name follows.
const STREAM_PREFIX: &str = "PCLUSTER_";

/// Where clients publish items.
#[must_use]
pub fn intake(chain: &ChainName) -> String {
    format!("pcluster.{chain}.in")
}

/// The queue in front of a hop.
#[must_use]
pub fn work(chain: &ChainName, revision: Revision, hop: &StageName) -> String {
    format!("pcluster.{chain}.work.{}.{hop}", revision.number())
}

/// The pattern of all that a revision may have queued, in one.
#[must_use]
pub fn queued_any(chain: &ChainName, revision: Revision) -> String {
    format!("pcluster.{chain}.*.{}.>", revision.number())
}

/// The patterns of all that a revision may have queued.
#[must_use]
pub fn queued(chain: &ChainName, revision: Revision) -> [String; Lane::ALL.len()] {
    Lane::ALL.map(|lane| format!("pcluster.{chain}.{}.{}.>", lane.name(), revision.number()))
}

/// What was found in a subject of the work stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// The revision.
    pub revision: Revision,
    /// The hop, by its first stage.
    pub hop: StageName,
}

/// Reads the subject of a queue of any chain.
#[must_use]
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

/// Where results go.
#[must_use]
pub fn results(chain: &ChainName) -> String {
    format!("pcluster.{chain}.out")
}

/// Where the last hop notes that a frame has left no results, because its items are to be tried again: in the stream of the
/// results, so that of the results and the note under the same key only the first is stored.
#[must_use]
pub fn notes(chain: &ChainName) -> String {
    format!("pcluster.{chain}.note")
}

/// Where a stage's dead letters go.
#[must_use]
pub fn dead(chain: &ChainName, stage: &StageName) -> String {
    format!("pcluster.{chain}.dead.{stage}")
}

/// The pattern of all dead letters of a chain.
#[must_use]
pub fn dead_all(chain: &ChainName) -> String {
    format!("pcluster.{chain}.dead.*")
}

/// Where the parts of an item go that leaves no room in its dead letter: beside the letters, where no stage can have its own.
#[must_use]
pub fn dead_item(chain: &ChainName) -> String {
    format!("pcluster.{chain}.dead.+item")
}

/// The stage that a dead letter's subject names.
#[must_use]
pub fn parse_dead(subject: &str) -> Option<StageName> {
    let mut tokens = subject.split('.');
    let ("pcluster", _chain, "dead") = (tokens.next()?, tokens.next()?, tokens.next()?) else { return None };
    let stage = tokens.next()?.parse().ok()?;
    tokens.next().is_none().then_some(stage)
}

/// Where a stage's log lines of a level go.
#[must_use]
pub fn log(chain: &ChainName, stage: &StageName, level: Level) -> String {
    format!("pcluster.{chain}.log.{stage}.{}", level.name())
}

/// The patterns of the log lines of one chain or all, one stage or all, at a level or graver.
#[must_use]
pub fn logs(chain: Option<&ChainName>, stage: Option<&StageName>, level: Level) -> Vec<String> {
    let chain = chain.map_or("*", ChainName::as_str);
    let stage = stage.map_or("*", StageName::as_str);
    let levels = Level::ALL.iter().filter(|each| **each <= level);
    levels.map(|each| format!("pcluster.{chain}.log.{stage}.{}", each.name())).collect()
}

/// The pattern of the log lines of all chains.
pub const LOGS_ALL: &str = "pcluster.*.log.>";

/// What a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Count {
    /// Items that a stage has handled for good, well or not.
    Done,
    /// Items that it gave up: dead letters.
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

/// A counter of a stage in a revision.
#[must_use]
pub fn count(chain: &ChainName, revision: Revision, stage: &StageName, what: Count) -> String {
    format!("pcluster.{chain}.count.{}.{stage}.{}", revision.number(), what.name())
}

/// The pattern of all counters of a chain.
#[must_use]
pub fn counts(chain: &ChainName) -> String {
    format!("pcluster.{chain}.count.>")
}

/// The pattern of the counters of one kind of all stages of a revision.
#[must_use]
pub fn counts_of(chain: &ChainName, revision: Revision, what: Count) -> String {
    format!("pcluster.{chain}.count.{}.*.{}", revision.number(), what.name())
}

/// The pattern of the counters of all chains.
pub const COUNTS_ALL: &str = "pcluster.*.count.>";

/// Reads a counter's subject: the revision, the stage, and what is counted.
#[must_use]
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

/// The pattern of the claims of all chains.
pub const HOLDER_NOTES_ALL: &str = "pcluster.*.claim.>";

/// Where a node says what it has in hand of a lane. `run` is the node's since it was started, or `*` for those of all nodes.
#[must_use]
pub fn holder_note(chain: &ChainName, revision: Revision, hop: &StageName, lane: Lane, run: &str) -> String {
    format!("pcluster.{chain}.claim.{}.{hop}.{}.{run}", revision.number(), lane.name())
}

/// The stream that holds exactly the items of a chain that are not finished.
#[must_use]
pub fn work_stream(chain: &ChainName) -> String {
    format!("{STREAM_PREFIX}{chain}")
}

/// The chain whose work stream this is, if it is one. The streams that all chains share have names like it.
#[must_use]
pub fn parse_work_stream(stream: &str) -> Option<&str> {
    let chain = stream.strip_prefix(STREAM_PREFIX)?;
    chain.parse::<ChainName>().ok().map(|_| chain)
}

/// The stream of a chain's results.
#[must_use]
pub fn results_stream(chain: &ChainName) -> String {
    format!("{STREAM_PREFIX}{chain}_OUT")
}

/// The stream of a chain's dead letters.
#[must_use]
pub fn dead_stream(chain: &ChainName) -> String {
    format!("{STREAM_PREFIX}{chain}_DEAD")
}

/// The key under which a chain's state is kept.
#[must_use]
pub fn state_key(chain: &ChainName) -> String {
    chain.to_string()
}

/// The key under which a revision's manifest is kept.
#[must_use]
pub fn manifest_key(chain: &ChainName, revision: Revision) -> String {
    format!("{chain}.{revision}")
}

/// The key of the digest of a version that the chain's state no longer names. What a key may not have is written as its byte in
/// hexadecimal digits.
#[must_use]
pub fn version_key(chain: &ChainName, version: &Version) -> String {
    let escaped = version.as_str().replace('.', "=2E").replace('+', "=2B");
    format!("{chain}.v.{escaped}")
}

/// The key of who changes the streams of a chain at the moment.
#[must_use]
pub fn turn_key(chain: &ChainName) -> String {
    format!("{chain}.turn")
}

/// Where an entry of the bucket of chains is published.
#[must_use]
pub fn entry(key: &str) -> String {
    format!("{ENTRY_PREFIX}{key}")
}

/// The key of an entry's subject.
#[must_use]
pub fn parse_entry(subject: &str) -> Option<&str> {
    subject.strip_prefix(ENTRY_PREFIX)
}

/// Where the bytes of one upload of a plugin are published.
#[must_use]
pub fn plugin_parts(upload: &str) -> String {
    format!("$O.{PLUGINS_BUCKET}.C.{upload}")
}

/// Where what is known of a plugin is published. An object store writes names in base64.
#[must_use]
pub fn plugin_head(digest: &Digest) -> String {
    format!("$O.{PLUGINS_BUCKET}.M.{}", URL_SAFE.encode(digest.as_hex()))
}

/// What a key of the bucket of chains names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainKey {
    /// A chain's state.
    State(ChainName),
    /// The manifest of a revision.
    Manifest(ChainName, Revision),
}

/// Reads a key of the bucket of chains.
#[must_use]
pub fn parse_key(key: &str) -> Option<ChainKey> {
    match key.split_once('.') {
        None => Some(ChainKey::State(key.parse().ok()?)),
        Some((chain, revision)) => {
            let number = revision.strip_prefix('r')?.parse().ok()?;
            Some(ChainKey::Manifest(chain.parse().ok()?, Revision::new(number)))
        }
    }
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
        assert_eq!(parse_key(&state_key(&chain())), Some(ChainKey::State(chain())));
        assert_eq!(parse_entry(&entry("orders")), Some("orders"));
        assert_eq!(parse_key(&manifest_key(&chain(), revision)), Some(ChainKey::Manifest(chain(), revision)));
        let version = version_key(&chain(), &"1..0+r2".parse().expect("valid"));
        assert_eq!((version.as_str(), parse_key(&version)), ("orders.v.1=2E=2E0=2Br2", None));
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
