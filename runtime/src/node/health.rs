//! The health of a node: counters of its hops, conditions of its chains, and the board that reports both.

pub(crate) mod conditions;
pub(crate) mod fitness;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::broker::BrokerError;
use crate::lock::lock;
use crate::name::{ChainName, Revision, StageName};
use crate::report::{HopReport, Problem};

/// The weight of the newest interval in a rate. With intervals of a quarter second, a rate forgets within a few seconds.
const RATE_WEIGHT: f64 = 0.15;

/// The counters of one hop.
#[derive(Debug, Default)]
pub struct HopCounters {
    /// Items that run.
    pub running: AtomicU64,
    /// Messages whose items run.
    pub messages: AtomicU64,
    /// Items handled for good.
    pub done: AtomicU64,
    /// Of these, the dead letters.
    pub failed: AtomicU64,
    /// Failed attempts that were followed by another.
    pub retried: AtomicU64,
    /// Messages that the server already had, from another run of the same items.
    pub duplicates: AtomicU64,
    sent: Mutex<Sent>,
    pace: Mutex<Pace>,
}

/// What the server was told of the counters, with and without an answer.
#[derive(Debug, Default)]
struct Sent {
    done: u64,
    failed: u64,
    unanswered: Option<More>,
}

/// The rate at which items are handled.
#[derive(Debug)]
struct Pace {
    done: u64,
    at: Instant,
    rate: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { done: 0, at: Instant::now(), rate: 0.0 }
    }
}

/// An increment of the counters that the server may not know yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct More {
    /// The id of the increment. It is added once, however often it is sent.
    pub id: String,
    /// Items handled for good.
    pub done: u64,
    /// Of these, the dead letters.
    pub failed: u64,
}

impl HopCounters {
    /// Returns the next increment to send: the unanswered one, or what was counted since. `None` if the server knows all.
    pub fn more(&self) -> Option<More> {
        let mut sent = lock(&self.sent);
        if sent.unanswered.is_none() {
            let (failed, done) = (self.failed.load(Relaxed), self.done.load(Relaxed));
            let (done, failed) = (done - sent.done, failed - sent.failed);
            if done + failed > 0 {
                sent.unanswered = Some(More { id: ulid::Ulid::generate().to_string(), done, failed });
            }
        }
        sent.unanswered.clone()
    }

    /// Takes note that the server knows an increment.
    pub fn known(&self, more: &More) {
        let mut sent = lock(&self.sent);
        if sent.unanswered.take_if(|unanswered| unanswered.id == more.id).is_some() {
            (sent.done, sent.failed) = (sent.done + more.done, sent.failed + more.failed);
        }
    }

    /// Returns the items handled for good that the server may not know yet.
    fn uncounted(&self) -> u64 {
        self.done.load(Relaxed).saturating_sub(lock(&self.sent).done)
    }

    /// Updates the rate. Called a few times a second.
    pub fn keep_pace(&self) {
        let mut pace = lock(&self.pace);
        let done = self.done.load(Relaxed);
        let seconds = pace.at.elapsed().as_secs_f64().max(f64::EPSILON);
        #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
        let now = (done - pace.done) as f64 / seconds;
        let rate = pace.rate + RATE_WEIGHT * (now - pace.rate);
        *pace = Pace { done, at: Instant::now(), rate: if rate < 0.01 { 0.0 } else { rate } };
    }

    fn rate(&self) -> f64 {
        lock(&self.pace).rate
    }
}

/// The key of a hop.
pub type HopKey = (ChainName, Revision, StageName);

/// What has a problem. Tasks of the node itself have no chain.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ProblemKey {
    /// A task, by what it does.
    task: Option<&'static str>,
    chain: String,
    revision: Option<Revision>,
    /// The stage whose items this node leaves to others.
    stage: Option<StageName>,
}

/// All that a node reports of itself.
#[derive(Debug, Default)]
pub struct Board {
    draining: AtomicBool,
    hops: Mutex<BTreeMap<HopKey, Arc<HopCounters>>>,
    problems: Mutex<BTreeMap<ProblemKey, String>>,
}

impl Board {
    /// Adds a hop.
    pub fn add(&self, key: HopKey, stats: Arc<HopCounters>) {
        lock(&self.hops).insert(key, stats);
    }

    /// Removes a revision with its problems. Returns its hops.
    pub fn remove(&self, chain: &ChainName, revision: Revision) -> BTreeMap<HopKey, Arc<HopCounters>> {
        lock(&self.problems).retain(|key, _| key.chain != chain.as_str() || key.revision != Some(revision));
        let mut hops = lock(&self.hops);
        let (gone, kept) = std::mem::take(&mut *hops)
            .into_iter()
            .partition(|((each, number, _), _)| each == chain && *number == revision);
        *hops = kept;
        gone
    }

    /// Sets or clears a problem. Returns `true` if that is new.
    pub fn problem(&self, chain: &str, revision: Option<Revision>, problem: Option<&str>) -> bool {
        self.set(ProblemKey { task: None, chain: chain.to_owned(), revision, stage: None }, problem)
    }

    /// Sets or clears the failure of a task. Returns `true` if that is new. Tasks of the node itself have no chain.
    pub fn task(&self, what: &'static str, chain: &str, revision: Option<Revision>, problem: Option<&str>) -> bool {
        self.set(ProblemKey { task: Some(what), chain: chain.to_owned(), revision, stage: None }, problem)
    }

    /// Sets or clears why this node leaves the items of a stage to others. Returns `true` if that is new. `what` it cannot do tells
    /// several reasons of one stage apart.
    pub fn stage(
        &self,
        what: &'static str,
        chain: &ChainName,
        revision: Revision,
        stage: &StageName,
        problem: Option<&str>,
    ) -> bool {
        let (chain, stage) = (chain.to_string(), Some(stage.clone()));
        self.set(ProblemKey { task: Some(what), chain, revision: Some(revision), stage }, problem)
    }

    fn set(&self, key: ProblemKey, problem: Option<&str>) -> bool {
        let mut problems = lock(&self.problems);
        match problem {
            Some(text) => problems.insert(key, text.to_owned()).as_deref() != Some(text),
            None => problems.remove(&key).is_some(),
        }
    }

    /// Reports that the node takes no new items.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Returns `true` if the node takes no new items.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Returns all hops with their counters.
    pub fn counters(&self) -> Vec<(HopKey, Arc<HopCounters>)> {
        lock(&self.hops).iter().map(|(key, stats)| (key.clone(), Arc::clone(stats))).collect()
    }

    /// Returns the reports of all hops.
    pub fn hops(&self) -> Vec<HopReport> {
        let report = |((chain, revision, stage), stats): (HopKey, Arc<HopCounters>)| HopReport {
            chain: chain.to_string(),
            revision: revision.number(),
            stage: stage.to_string(),
            running: stats.running.load(Relaxed),
            messages: stats.messages.load(Relaxed),
            done: stats.done.load(Relaxed),
            failed: stats.failed.load(Relaxed),
            retried: stats.retried.load(Relaxed),
            duplicates: stats.duplicates.load(Relaxed),
            rate: stats.rate(),
            uncounted: stats.uncounted(),
        };
        self.counters().into_iter().map(report).collect()
    }

    /// Returns all problems.
    pub fn problems(&self) -> Vec<Problem> {
        let problem = |(key, problem): (&ProblemKey, &String)| Problem {
            chain: key.chain.clone(),
            revision: key.revision.map(Revision::number),
            stage: key.stage.as_ref().map(ToString::to_string),
            problem: problem.clone(),
        };
        lock(&self.problems).iter().map(problem).collect()
    }
}

/// Returns the text of an error, with the command that mends it.
pub fn with_remedy(error: &BrokerError) -> String {
    match error {
        BrokerError::Gone { chain, .. } => format!("{error}; `pcluster start {chain}` makes it anew"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_has_not_answered_is_told_again_and_what_it_knows_is_not() {
        let stats = HopCounters::default();
        assert_eq!(stats.more(), None);
        stats.done.store(5, Relaxed);
        stats.failed.store(1, Relaxed);
        let first = stats.more().expect("something new");
        assert_eq!((first.done, first.failed), (5, 1));
        stats.done.store(7, Relaxed);
        assert_eq!(stats.more(), Some(first.clone()), "the same again, or the server would add it twice");
        assert_eq!(stats.uncounted(), 7);
        stats.known(&first);
        stats.known(&first);
        let second = stats.more().expect("something new");
        assert_eq!((second.done, second.failed, stats.uncounted()), (2, 0, 2));
        assert_ne!(second.id, first.id);
        stats.known(&second);
        assert_eq!((stats.more(), stats.uncounted()), (None, 0));
    }

    #[test]
    fn a_problem_is_new_only_once() {
        let board = Board::default();
        assert!(board.problem("a", None, Some("broken")));
        assert!(!board.problem("a", None, Some("broken")));
        assert!(board.problem("a", None, None));
        assert!(board.problems().is_empty());
    }
}
