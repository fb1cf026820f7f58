//! Runs cases in this process: the chain is real, and the world around it is what each case says.
//!
//! Every case runs twice: its items packed into one frame, and one by one. What comes of it must not depend on that.
//!
//! | module | contents |
//! |---|---|
//! | [`world`] | what a case has around it: answers to calls, stand-ins for programs, a place for all that comes |
//! | [`answers`] | the answers to calls and the stand-ins, and which of them nobody asked for |

mod answers;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use pcluster_abi::call;
use serde_json::Value;

use super::case::Case;
use super::compare::compare;
use super::outcome::Outcome;
use crate::chain::Chain;
use crate::chain::isolation::Isolation;
use crate::chain::needs::Needs;
use crate::client::Here;
use crate::desk::flow::Gathering;
use crate::desk::outlet::Outlet;
use crate::desk::stage::Loaded;
use crate::desk::{Desk, DeskError, DeskItem, Origin};
use crate::name::StageName;
use crate::node::NodeSettings;
use world::World;

/// The most items of a frame, as on a node.
const PACKED: usize = 256;
/// The calls that an initializer may make. Their answers are in a state that cases cannot share.
const OF_INITIALIZERS: [&str; 4] = [call::KV_GET, call::KV_KEYS, call::OBJECTS_GET, call::OBJECTS_LIST];

/// What stages have done with items, as in `result`, `drop`, `several`, or the name of a failure.
pub(crate) type Reached = BTreeMap<StageName, BTreeSet<&'static str>>;

/// A case that has run.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// What came of it.
    pub(crate) outcome: Outcome,
    /// What is wrong with it, a line or more each. Empty if it passes.
    pub(crate) wrong: Wrong,
    /// `true` if what came can be written into its file: only differences are wrong.
    pub(crate) is_whole: bool,
    /// What tasks have logged and printed.
    pub(crate) log: Vec<String>,
    /// What its stages did.
    pub(crate) reached: Reached,
    /// How long it took.
    pub(crate) took: Duration,
}

/// A chain ready for cases.
type Prepared = Arc<Desk<Arc<World>>>;

/// What is wrong, a line or more each.
type Wrong = Vec<String>;

/// A case, and the chain that is ready for it.
struct Ready<'a> {
    case: &'a Case,
    /// The chain as the case changes it. `None` if it has its own state, which is made for each run.
    desk: Result<Option<Prepared>, Wrong>,
}

/// What all cases of a chain share.
struct Shared<'a> {
    here: &'a Here,
    settings: &'a NodeSettings,
    loaded: Loaded,
}

/// Runs cases side by side. Returns what became of each, in their order.
///
/// # Errors
///
/// If a plugin cannot be loaded, so that no case can run.
pub(crate) async fn run(here: &Here, settings: &NodeSettings, cases: &[Case]) -> Result<Vec<Verdict>, DeskError> {
    let loaded = Loaded::of(here, settings).await?;
    let shared = Shared { here, settings, loaded };
    let mut desks: BTreeMap<String, Result<Prepared, Wrong>> = BTreeMap::new();
    let mut ready = Vec::new();
    for case in cases {
        let desk = if has_own_state(case) {
            Ok(None)
        } else {
            let key = key(case);
            if !desks.contains_key(&key) {
                let world = Arc::new(World::new(case, PACKED));
                let made = desk(&shared, case, &world).await;
                desks.insert(key.clone(), made.map(Arc::new));
            }
            desks[&key].clone().map(Some)
        };
        ready.push(Ready { case, desk });
    }
    let at_once = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let running = ready.into_iter().map(|ready| ran(&shared, ready));
    let ran = futures_util::stream::iter(running).buffered(at_once).collect().await;
    for desk in desks.into_values().flatten() {
        desk.end().await;
    }
    Ok(ran)
}

/// Returns `true` if a state that its initializers make may depend on the answers of a case.
fn has_own_state(case: &Case) -> bool {
    case.calls.iter().any(|call| OF_INITIALIZERS.contains(&call.call.as_str()))
}

/// Returns what is equal for cases that can share a chain.
fn key(case: &Case) -> String {
    let replayed = case.replayed.as_ref().map(|replayed| (&replayed.stages, &replayed.env));
    format!("{:?} {replayed:?}", case.config)
}

/// Makes a chain ready as a case changes it. The error is what is wrong.
async fn desk(shared: &Shared<'_>, case: &Case, world: &Arc<World>) -> Result<Desk<Arc<World>>, Wrong> {
    let Shared { here, settings, loaded } = shared;
    let here = Here {
        deployed: here.deployed.clone(),
        chain: changed(&here.chain, case),
        plugins: BTreeMap::new(),
        archives: BTreeMap::new(),
    };
    let made = Desk::of(loaded, here, (*settings).clone(), Arc::clone(world)).await;
    // What an initializer has asked for in vain is wrong, also if it can do without.
    match (made, world.problems()) {
        (Ok(desk), problems) if problems.is_empty() => Ok(desk),
        (Ok(_), problems) => Err(problems),
        (Err(error), problems) => Err(problems.into_iter().chain([error.to_string()]).collect()),
    }
}

/// Returns the chain as a case changes it.
fn changed(chain: &Chain, case: &Case) -> Chain {
    let mut chain = chain.clone();
    if let Some(replayed) = &case.replayed {
        chain.stages.retain(|stage| replayed.stages.contains(&stage.name));
        // The letter's own attempt is the only one. Its item was let in long ago.
        chain.accepts = None;
        for stage in &mut chain.stages {
            stage.retry.attempts = 1;
            stage.env = replayed.env.get(&stage.name).cloned().unwrap_or_default();
        }
    }
    for stage in &mut chain.stages {
        match case.config.get(&stage.name) {
            Some(config) if case.replayed.is_some() => stage.config = config.clone(),
            Some(config) => lay_over(&mut stage.config, config),
            None => {}
        }
        // What an instance keeps from one message to the next must not reach another case.
        if stage.reuse.isolation == Isolation::Worker {
            stage.reuse.isolation = Isolation::Frame;
        }
        // Slots and labels are of nodes.
        stage.needs = Needs::default();
        stage.labels.clear();
    }
    chain
}

/// Lays values over others. Tables are merged.
fn lay_over(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                lay_over(under.entry(key.as_str()).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}

/// Runs a case packed and, if that is as expected, one by one.
async fn ran(all: &Shared<'_>, Ready { case, desk }: Ready<'_>) -> Verdict {
    let started = Instant::now();
    let shared = match desk {
        Ok(shared) => shared,
        Err(wrong) => return Verdict { wrong, ..Verdict::default() },
    };
    let mut ran = once(all, case, shared.as_ref(), PACKED).await;
    ran.is_whole = ran.wrong.is_empty();
    // Without its answers, nothing comes as expected.
    if ran.is_whole {
        ran.wrong.extend(compare(case, &ran.outcome).iter().map(ToString::to_string));
    }
    if ran.wrong.is_empty() && case.replayed.is_none() {
        let single = once(all, case, shared.as_ref(), 1).await;
        let mut wrong = single.wrong;
        if wrong.is_empty() {
            wrong.extend(compare(case, &single.outcome).iter().map(ToString::to_string));
        }
        let told = |wrong: String| format!("only with items one by one, not packed into one message: {wrong}");
        ran.wrong.extend(wrong.into_iter().map(told));
    }
    Verdict { took: started.elapsed(), ..ran }
}

/// Runs a case once, in frames of so many items.
async fn once(all: &Shared<'_>, case: &Case, shared: Option<&Prepared>, frame_items: usize) -> Verdict {
    let world = Arc::new(World::new(case, frame_items));
    let own = match shared {
        Some(shared) => shared.with(Arc::clone(&world)),
        None => match desk(all, case, &world).await {
            Ok(desk) => desk,
            Err(wrong) => return Verdict { wrong, ..Verdict::default() },
        },
    };
    let own = Arc::new(own);
    let departed = tokio::select! {
        () = walk(&own, &world, case, frame_items) => None,
        departure = world.departure() => Some(departure.to_string()),
    };
    let mut wrong = world.problems();
    wrong.extend(departed);
    if wrong.is_empty() {
        wrong.extend(world.left());
    }
    if shared.is_none() {
        own.end().await;
    }
    let (outcome, reached, log) = world.take();
    Verdict { outcome, wrong, log, reached, ..Verdict::default() }
}

/// Walks all items of a case through the chain.
async fn walk(desk: &Prepared, world: &Arc<World>, case: &Case, frame_items: usize) {
    let (outlet, mut results) = Outlet::new(true);
    let mut frames = Gathering::new(Arc::clone(desk), outlet);
    let feed = async move {
        for (number, item) in (1..).zip(&case.items) {
            let origin = Origin::fed(number);
            let item = DeskItem { bytes: item.clone().into(), topic: case.topic.clone(), origin };
            // Its own results come first: calls of one item are made before those of the next.
            let is_taken = frames.add(item).await.is_ok() && (frame_items > 1 || frames.finish().await.is_ok());
            if !is_taken {
                return;
            }
        }
        // Nobody is gone: the results are read below.
        let _ = frames.finish().await;
    };
    let read = async {
        while let Some(items) = results.next().await {
            world.add_results(items);
        }
    };
    tokio::join!(feed, read);
}
