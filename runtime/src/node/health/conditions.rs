//! Conditions that keep a revision from going on. Each is logged when it begins and when it ends, and is on the board meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::broker::BrokerError;
use crate::broker::publish::PublishError;
use crate::lock::lock;
use crate::name::{ChainName, Revision, StageName};
use crate::node::health::fitness::PAUSE;
use crate::node::health::{Board, with_remedy};
use crate::node::tasks::Keeper;
use crate::subject::Lane;

/// What a condition is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// A queue of a stage.
    Queue(StageName, &'static str),
    /// The outputs of a stage.
    Outputs(StageName),
}

/// The conditions of one revision.
#[derive(Debug)]
pub struct Conditions {
    board: Arc<Board>,
    chain: ChainName,
    revision: Revision,
    /// The text of each condition, and how many report it.
    told: Mutex<BTreeMap<Place, (String, usize)>>,
}

/// Reports that outputs wait to be stored. Cleared on drop.
#[derive(Debug)]
pub struct Waiting<'a> {
    conditions: &'a Conditions,
    place: Place,
}

impl Conditions {
    /// Creates a revision without conditions.
    pub fn new(board: Arc<Board>, chain: ChainName, revision: Revision) -> Self {
        Self { board, chain, revision, told: Mutex::default() }
    }

    /// Returns the keeper of a task of the revision.
    pub(crate) fn keeper(&self, what: &'static str) -> Keeper {
        Keeper::of(Arc::clone(&self.board), what, &self.chain, self.revision)
    }

    /// Reports that a queue of a stage cannot be opened.
    pub fn queue_lost(&self, stage: &StageName, lane: Lane, error: &BrokerError) {
        let place = queue(stage, lane);
        self.change(|told| {
            told.insert(place, (format!("stage `{stage}`: no items can be taken: {}", with_remedy(error)), 1));
        });
    }

    /// Reports that a queue of a stage is open.
    pub fn queue_open(&self, stage: &StageName, lane: Lane) {
        let place = queue(stage, lane);
        self.change(|told| {
            told.remove(&place);
        });
    }

    /// Reports that outputs of a stage have waited to be stored for a while. `None` if the next queue is full, which is normal.
    pub fn outputs_wait(&self, stage: &StageName, error: &PublishError) -> Option<Waiting<'_>> {
        let hint = match error {
            PublishError::Full(_) => return None,
            PublishError::NoStream(_) => format!("; `pcluster start {}` makes its streams anew", self.chain),
            // The connection works, or that would be reported instead.
            PublishError::Unanswered(_) => {
                "; if that stays so, look at its disk: after an error of the disk, such as a full one, a stream takes nothing \
                 before its server is restarted"
                    .to_owned()
            }
            _ => String::new(),
        };
        let place = Place::Outputs(stage.clone());
        let problem = format!("stage `{stage}`: outputs wait to be stored: {error}{hint}");
        self.change(|told| {
            let (text, tellers) = told.entry(place.clone()).or_default();
            if *tellers == 0 {
                *text = problem;
            }
            *tellers += 1;
        });
        Some(Waiting { conditions: self, place })
    }

    /// Reports that this node cannot run the items of a hop. `None` if it can again.
    pub(crate) fn unfit(&self, stage: &StageName, reason: Option<&str>) {
        let problem = reason.map(|reason| {
            let again = humantime::format_duration(PAUSE);
            format!(
                "stage `{stage}`: {reason}; this node leaves its items to others, and tries one again {again} later"
            )
        });
        let (chain, revision) = (&self.chain, self.revision);
        if !self.board.stage("run its items", chain, revision, stage, problem.as_deref()) {
            return;
        }
        if let Some(problem) = problem {
            tracing::error!(%chain, %revision, problem, "cannot run items here; no attempt is lost");
        } else {
            tracing::warn!(%chain, %revision, %stage, "runs its items again");
        }
    }

    /// Changes the conditions, and reports them if they differ.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<Place, (String, usize)>)) {
        let mut told = lock(&self.told);
        let was_told = !told.is_empty();
        change(&mut told);
        if told.is_empty() && !was_told {
            return;
        }
        let mut texts: Vec<&str> = told.values().map(|(text, _)| text.as_str()).collect();
        texts.dedup();
        let problem = (!texts.is_empty()).then(|| texts.join("; "));
        if self.board.problem(self.chain.as_str(), Some(self.revision), problem.as_deref()) {
            let (chain, revision) = (&self.chain, self.revision);
            if let Some(problem) = problem {
                tracing::error!(%chain, %revision, problem, "cannot go on; the other chains do");
            } else {
                tracing::warn!(%chain, %revision, "goes on");
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.conditions.change(|told| {
            if let Some((_, tellers)) = told.get_mut(&self.place) {
                *tellers -= 1;
                if *tellers == 0 {
                    told.remove(&self.place);
                }
            }
        });
    }
}

fn queue(stage: &StageName, lane: Lane) -> Place {
    let lane = match lane {
        Lane::Work => "work",
        Lane::Retry => "retry",
        Lane::Quarantine => "alone",
        Lane::Parked => "parked",
    };
    Place::Queue(stage.clone(), lane)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions() -> (Arc<Board>, Conditions, StageName) {
        let board = Arc::new(Board::default());
        let conditions = Conditions::new(Arc::clone(&board), "a".parse().expect("valid"), Revision::new(1));
        (board, conditions, "s".parse().expect("valid"))
    }

    #[test]
    fn a_trouble_is_shown_until_the_last_that_waits_has_gone_on() {
        let (board, conditions, stage) = conditions();
        let error = PublishError::NoRoom("insufficient resources".to_owned());
        let (first, second) = (conditions.outputs_wait(&stage, &error), conditions.outputs_wait(&stage, &error));
        drop(first);
        assert_eq!(board.problems().len(), 1);
        assert!(
            board.problems()[0].problem.starts_with("stage `s`: outputs wait to be stored: the server has no room")
        );
        drop(second);
        assert_eq!(board.problems(), []);
    }

    #[test]
    fn a_server_that_does_not_answer_may_have_had_an_error_of_its_disk() {
        let (board, conditions, stage) = conditions();
        let _waiting = conditions.outputs_wait(&stage, &PublishError::Unanswered("the time is over".to_owned()));
        let problem = &board.problems()[0].problem;
        for said in ["no answer from the server: the time is over; if", "look at its disk", "is restarted"] {
            assert!(problem.contains(said), "{problem}");
        }
    }

    #[test]
    fn all_queues_of_a_stage_are_one_trouble() {
        let (board, conditions, stage) = conditions();
        for &lane in Lane::served(false) {
            conditions.queue_lost(&stage, lane, &BrokerError::Timeout("open it".to_owned()));
        }
        assert_eq!(
            board.problems()[0].problem,
            "stage `s`: no items can be taken: the server gave no answer in time to the request to open it"
        );
        conditions.queue_open(&stage, Lane::Work);
        assert_eq!(board.problems().len(), 1);
        conditions.queue_open(&stage, Lane::Retry);
        assert_eq!(board.problems().len(), 1);
        conditions.queue_open(&stage, Lane::Quarantine);
        assert_eq!(board.problems(), []);
    }

    #[test]
    fn a_full_queue_is_no_trouble() {
        let (board, conditions, stage) = conditions();
        assert!(conditions.outputs_wait(&stage, &PublishError::Full("full".to_owned())).is_none());
        assert_eq!(board.problems(), []);
    }
}
