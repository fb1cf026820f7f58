//! What a case has around it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use pcluster_abi::Level;

use super::Reached;
use super::answers::{Answers, CaseCalls};
use crate::calls::door::{Door, Item, Notes};
use crate::calls::key::Caller;
use crate::calls::replay::{Departure, Replay, ReplayedCalls};
use crate::cases::case::Case;
use crate::cases::outcome::{Died, Outcome};
use crate::dead::calls::CallRecord;
use crate::desk::stage::DeskStage;
use crate::desk::{Around, DeskItem, Origin, StandIn};
use crate::lock::lock;
use crate::name::StageName;
use crate::run::call::Calls;
use crate::run::failure::Failure;

/// The most log lines that are kept of a case.
const LINES_MAX: usize = 1_000;

/// What a case has around it, and what has come of it so far.
pub(super) struct World {
    answers: Arc<Answers>,
    /// The calls of a replayed dead letter, with the id of its item and the number of its attempt. `None` of other cases.
    replay: Option<(Arc<Replay>, String, u64)>,
    frame_items: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    results: Vec<Bytes>,
    /// What each stage gave, by the item of a frame that it descends from.
    given: BTreeMap<StageName, BTreeMap<Origin, Vec<Bytes>>>,
    dead: BTreeMap<Origin, Died>,
    reached: Reached,
    log: Vec<String>,
}

/// An item whose calls a case answers.
struct Silent;

impl Item for Silent {
    fn sent(&self, _: &str) -> Option<String> {
        None
    }

    fn log(&self, _: Level, _: String) {}
}

impl World {
    /// Creates the world of a case, in which frames have this many items.
    pub(super) fn new(case: &Case, frame_items: usize) -> Self {
        let replay = case.replayed.as_ref().map(|replayed| {
            let record = CallRecord::of(replayed.calls.clone());
            (Replay::new(Some(&record), false, Box::new(|_| {})), replayed.item_id.clone(), replayed.attempt)
        });
        Self { answers: Arc::new(Answers::of(case)), replay, frame_items, state: Mutex::default() }
    }

    /// Waits for a call that the replayed dead letter does not know.
    pub(super) async fn departure(&self) -> Departure {
        match &self.replay {
            Some((replay, ..)) => replay.departure().await,
            None => std::future::pending().await,
        }
    }

    /// Returns what was asked for and is not in the case.
    pub(super) fn problems(&self) -> Vec<String> {
        self.answers.problems()
    }

    /// Returns what is in the case and was not asked for.
    pub(super) fn left(&self) -> Vec<String> {
        let mut left = self.answers.left();
        if let Some((replay, ..)) = self.replay.as_ref().filter(|(replay, ..)| replay.left() > 0) {
            left.push(format!("{} of the recorded calls were not made", replay.left()));
        }
        left
    }

    /// Adds results of the chain.
    pub(super) fn add_results(&self, items: Vec<Bytes>) {
        lock(&self.state).results.extend(items);
    }

    /// Removes and returns what has come, what stages did, and the log.
    pub(super) fn take(&self) -> (Outcome, Reached, Vec<String>) {
        let State { results, given, dead, reached, log } = std::mem::take(&mut *lock(&self.state));
        let stages = given.into_iter().map(|(stage, given)| (stage, given.into_values().flatten().collect()));
        (Outcome { results, stages: stages.collect(), dead: dead.into_values().collect() }, reached, log)
    }

    fn reach(&self, stage: &StageName, what: &'static str) {
        lock(&self.state).reached.entry(stage.clone()).or_default().insert(what);
    }
}

impl Around for World {
    type Output = Vec<Bytes>;

    fn log(&self, stage: &StageName, item: &str, level: Level, line: String) {
        let log = &mut lock(&self.state).log;
        if log.len() < LINES_MAX {
            let item = if item.is_empty() { String::new() } else { format!(" item {item}") };
            log.push(format!("{:5} {stage}{item}: {line}", level.name()));
        }
    }

    fn calls(self: &Arc<Self>, stage: &DeskStage, item: &DeskItem, id: String) -> Option<Arc<dyn Calls>> {
        let door = stage.door.as_ref()?;
        if let Some((replay, ..)) = &self.replay {
            let inline = (id != StandIn::id(&**self, &item.origin)).then_some(id);
            let (replay, stage) = (Arc::clone(replay), stage.name.to_string());
            return Some(Arc::new(ReplayedCalls { replay, item: inline, stage, live: None }));
        }
        let fed = format!("case.{}", item.origin.fed);
        let caller = Caller { chain: "case".to_owned(), stage: stage.name.to_string(), fed, item: id };
        let door = door.open(caller, Box::new(Silent), Notes::default());
        Some(Arc::new(CaseCalls { answers: Arc::clone(&self.answers), stage: stage.name.clone(), door }))
    }

    fn results(&self, items: Vec<DeskItem>) -> Vec<Bytes> {
        items.into_iter().filter_map(|item| item.bytes.into_whole().ok()).collect()
    }

    fn failed(&self, stage: &StageName, item: &DeskItem, attempts: u64, failure: Failure) {
        self.reach(stage, failure.kind.name());
        let died = Died {
            stage: stage.clone(),
            kind: failure.kind,
            reason: failure.reason,
            attempts,
            item: item.bytes.clone().into_whole().unwrap_or_default(),
        };
        lock(&self.state).dead.insert(item.origin.clone(), died);
    }

    fn stand_in(&self) -> Option<&dyn StandIn> {
        Some(self)
    }
}

impl StandIn for World {
    fn init_calls(&self, stage: &StageName, door: &Arc<Door>) -> Arc<dyn Calls> {
        let door = door.open_for_init();
        Arc::new(CaseCalls { answers: Arc::clone(&self.answers), stage: stage.clone(), door })
    }

    fn program(&self, stage: &StageName, item: &Bytes) -> Option<Result<Vec<Bytes>, Failure>> {
        Some(self.answers.program(stage, item))
    }

    fn frame_items(&self) -> usize {
        self.frame_items
    }

    fn first_attempt(&self) -> u64 {
        self.replay.as_ref().map_or(1, |(_, _, attempt)| *attempt)
    }

    fn id(&self, origin: &Origin) -> String {
        let Some((_, item_id, _)) = &self.replay else { return origin.to_string() };
        origin.way.iter().fold(item_id.clone(), |id, number| format!("{id}.{number}"))
    }

    fn gave(&self, stage: &StageName, item: &DeskItem, outputs: Vec<Bytes>) {
        lock(&self.state).given.entry(stage.clone()).or_default().insert(item.origin.clone(), outputs);
    }

    fn ended(&self, stage: &StageName, outputs: usize) {
        self.reach(
            stage,
            match outputs {
                0 => "drop",
                1 => "result",
                _ => "several",
            },
        );
    }
}
