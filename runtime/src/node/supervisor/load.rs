//! Loads a revision: its plugins, and for each hop the tasks with their snapshots.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::broker::plugins::Plugins;
use crate::calls::door::Door;
use crate::chain::record::Deployed;
use crate::chain::{Chain, Plugin, Stage, Work};
use crate::engine::task::Task;
use crate::name::Digest;
use crate::node::backlog::Backlog;
use crate::node::clock::ServerClock;
use crate::node::commit::topics::Topics;
use crate::node::commit::window::Window;
use crate::node::health::conditions::Conditions;
use crate::node::health::fitness::Fitness;
use crate::node::health::{HopCounters, with_remedy};
use crate::node::hop::{self, Hop, InlineStage};
use crate::node::identity::Identity;
use crate::node::large::knows_references;
use crate::node::limited::moved::Moved;
use crate::node::limited::waits::Behind;
use crate::node::logs::StageLog;
use crate::node::programs::{Archives, Beside};
use crate::node::reach::Doors;
use crate::node::route::{Route, WorkKey};
use crate::node::runner::{ProgramRunner, Runner};
use crate::node::supervisor::context::Context;
use crate::node::supervisor::state::StateOf;
use crate::node::suspicion::quarantine::Quarantine;
use crate::node::worker::permits::ConcurrencyLimit;
use crate::{engine, subject};

/// Plugins or hops of a chain that are loaded side by side. Each may hold its plugin and the state of its task a few times meanwhile.
const SIDE_BY_SIDE: usize = 4;
/// The most bytes of one output of a task. Its memory bounds it too, and the form of the item what is stored of it.
const OUTPUT_MAX: usize = 1 << 30;

/// Loads the plugins of a chain side by side.
pub(crate) async fn load(context: &Context, chain: &Chain) -> Result<BTreeMap<Digest, engine::Plugin>, String> {
    let mut stages = BTreeMap::new();
    for stage in &chain.stages {
        match &stage.work {
            Work::Program(_) => {}
            Work::Task { plugin: Plugin::Stored(digest), .. } => {
                stages.entry(digest).or_insert(stage);
            }
            Work::Task { plugin: Plugin::File(_), .. } => {
                return Err(format!("stage `{}` names a file in place of a stored plugin", stage.name));
            }
        }
    }
    let loading = stages.into_iter().map(async |(digest, stage)| {
        let plugin = load_plugin(context, digest).await;
        plugin.map(|plugin| (digest.clone(), plugin)).map_err(|error| format!("stage `{}`: {error}", stage.name))
    });
    side_by_side(loading).await.into_iter().collect()
}

/// Runs this side by side, as much as is sensible at once.
pub(crate) async fn side_by_side<F: Future>(loading: impl Iterator<Item = F>) -> Vec<F::Output> {
    let permits = Semaphore::new(SIDE_BY_SIDE);
    let one = async |load: F| {
        let _permit = permits.acquire().await;
        load.await
    };
    futures_util::future::join_all(loading.map(one)).await
}

async fn load_plugin(context: &Context, digest: &Digest) -> Result<engine::Plugin, String> {
    let (engine, digest_of) = (context.engine.clone(), digest.clone());
    let kept = tokio::task::spawn_blocking(move || engine.kept(&digest_of)).await;
    if let Some(plugin) = kept.map_err(|error| error.to_string())? {
        return Ok(plugin);
    }
    let bytes = Plugins::of(&context.broker).get(digest).await.map_err(|error| error.to_string())?;
    let (engine, digest_of) = (context.engine.clone(), digest.clone());
    let loaded = tokio::task::spawn_blocking(move || engine.load(&digest_of, bytes)).await;
    loaded.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

pub(crate) async fn load_hop(
    context: &Context,
    deployed: &Deployed,
    chain: &Arc<Chain>,
    stages: Range<usize>,
    plugins: &BTreeMap<Digest, engine::Plugin>,
    (conditions, identity): (Arc<Conditions>, Arc<Identity>),
) -> Result<Hop, String> {
    let first = &chain.stages[stages.start];
    let next = chain.stages.get(stages.end);
    let target = match next {
        Some(next) => subject::work(&chain.name, deployed.revision, &next.name),
        None => subject::results(&chain.name),
    };
    let limit = ConcurrencyLimit::of(&context.slots, &chain.stages[stages.clone()]);
    let most = usize::try_from(limit.concurrency()).unwrap_or(usize::MAX);
    let mut inline = Vec::new();
    let mut doors = vec![door(context, deployed, first, plugins)?];
    for stage in &chain.stages[stages.start + 1..stages.end] {
        let logs = context.logs.sink(&chain.name, deployed.revision, &stage.name);
        let door = door(context, deployed, stage, plugins)?;
        let task = runner(context, deployed, chain, stage, plugins, (&logs, most), door.as_ref()).await?;
        doors.push(door);
        inline.push(InlineStage { name: stage.name.clone(), task, logs, counters: Arc::new(HopCounters::default()) });
    }
    let logs = context.logs.sink(&chain.name, deployed.revision, &first.name);
    let route = Route {
        chain: Arc::clone(chain),
        revision: deployed.revision,
        position: stages.start,
        target,
        is_last: next.is_none(),
        node: context.node.clone(),
        incarnation: context.incarnation.clone(),
        key: WorkKey::new(deployed.wire()),
    };
    let task = runner(context, deployed, chain, first, plugins, (&logs, most), doors[0].as_ref()).await?;
    let waiting = doors.iter().any(Option::is_some).then(|| context.reach.waiting());
    // After what may take long: the key changes when the stream is removed and made anew.
    hop::read_key(&context.broker, &route).await.map_err(|error| with_remedy(&error))?;
    let clock = Arc::new(ServerClock::default());
    if chain.retention.records.are_on() {
        clock.ask(&context.broker, &chain.name).await;
    }
    Ok(Hop {
        route,
        broker: context.broker.clone(),
        line: context.lines.of(&chain.name),
        task,
        inline,
        doors: Doors { doors, waiting },
        logs,
        counters: Arc::new(HopCounters::default()),
        backlog: Backlog::new(chain.queue.limit),
        moved: Moved::new(first.max_in_flight),
        behind: Behind::default(),
        clock,
        limit,
        window: Window::default(),
        topics: Topics::default(),
        large: context.large.hop(chain, stages.start, deployed.wire()),
        quarantine: Quarantine::default(),
        conditions,
        fitness: Fitness::default(),
        executor: context.executor.clone(),
        identity,
        roll_call: Arc::clone(&context.roll_call),
    })
}

/// Returns what runs the items of a stage.
async fn runner(
    context: &Context,
    deployed: &Deployed,
    chain: &Chain,
    stage: &Stage,
    plugins: &BTreeMap<Digest, engine::Plugin>,
    (logs, workers): (&Arc<StageLog>, usize),
    door: Option<&Arc<Door>>,
) -> Result<Runner, String> {
    let after = chain.stages.iter().rev().take_while(|each| each.name != stage.name).count();
    match &stage.work {
        Work::Task { plugin, task: name } => {
            task(context, deployed, stage, (plugin, name), after, plugins, (logs, door)).await.map(Runner::Task)
        }
        Work::Program(program) => {
            let most = context.broker.limits().max_item() as u64;
            let large = chain.queue.large.map_or(most, |large| large.min(most));
            let archives = Archives::Server(context.broker.clone());
            let beside = || {
                let logs = Arc::clone(logs);
                Beside {
                    runtime: context.executor.clone(),
                    log: Box::new(move |id, level, line| logs.log(id, level, line)),
                    most: workers,
                }
            };
            let program = context.programs.load(&archives, deployed, stage, program, large, beside).await;
            let program = program.map_err(|problem| format!("stage `{}`: {problem}", stage.name))?;
            let budget = Arc::clone(context.engine.budget());
            let needs = Arc::new(stage.needs.clone());
            Ok(Runner::Program(ProgramRunner { program, needs, budget, after }))
        }
    }
}

/// Returns the door of a stage. `None` if the stage was granted nothing.
fn door(
    context: &Context,
    deployed: &Deployed,
    stage: &Stage,
    plugins: &BTreeMap<Digest, engine::Plugin>,
) -> Result<Option<Arc<Door>>, String> {
    let Work::Task { plugin, task } = &stage.work else { return Ok(None) };
    let said = |problem: String| format!("stage `{}`: {problem}", stage.name);
    let described = loaded(plugin, stage, plugins)?.inspection.task(task).map_err(|error| said(error.to_string()))?;
    context.reach.door(deployed, stage, described).map_err(said)
}

/// Returns the loaded plugin of a stage.
fn loaded<'a>(
    plugin: &Plugin,
    stage: &Stage,
    plugins: &'a BTreeMap<Digest, engine::Plugin>,
) -> Result<&'a engine::Plugin, String> {
    let plugin = match plugin {
        Plugin::Stored(digest) => plugins.get(digest),
        Plugin::File(_) => None,
    };
    plugin.ok_or_else(|| format!("stage `{}`: its plugin is not loaded", stage.name))
}

async fn task(
    context: &Context,
    deployed: &Deployed,
    stage: &Stage,
    (plugin, name): (&Plugin, &str),
    after: usize,
    plugins: &BTreeMap<Digest, engine::Plugin>,
    (logs, door): (&Arc<StageLog>, Option<&Arc<Door>>),
) -> Result<Task, String> {
    let plugin = loaded(plugin, stage, plugins)?;
    let knows_references = knows_references(deployed.wire());
    let most = if knows_references { OUTPUT_MAX } else { context.broker.limits().max_item() };
    let task = plugin.task_of(deployed, stage, name, after, most);
    let task = task.map_err(|error| format!("stage `{}`: {error}", stage.name))?;
    let stage_of = StateOf { context, deployed, stage, plugin, name };
    match stage_of.make(&task, logs, door).await {
        Ok(with_state) => Ok(with_state.unwrap_or(task)),
        // An initializer that ran with an item could do what it must not: it would have the item's calls.
        Err(error) if door.is_some() => Err(format!("stage `{}`: its state cannot be made ahead: {error}", stage.name)),
        Err(error) => {
            let (chain, stage) = (&deployed.chain, &stage.name);
            tracing::warn!(%chain, %stage, %error, "its state is not made ahead: each instance makes its own");
            Ok(task)
        }
    }
}
