//! The stages of a dead letter on this machine, and its item in them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::anyhow;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pcluster_abi::Level;
use tokio::runtime::Handle;
use ulid::Ulid;

use crate::broker::Broker;
use crate::calls::door::{Door, Item, Notes};
use crate::calls::grant::Grants;
use crate::calls::key::Caller;
use crate::calls::pin::{Pin, PinnedCalls};
use crate::calls::replay::{Event, Replay, ReplayedCalls};
use crate::chain::program::Program;
use crate::chain::record::Deployed;
use crate::chain::{Plugin, Stage, Work};
use crate::cli::Context;
use crate::cli::node::compiler;
use crate::cli::output::Output;
use crate::client::RanWith;
use crate::dead::FailureKind;
use crate::engine::snapshot::Surroundings;
use crate::engine::task::Task;
use crate::engine::{self, Engine, EngineSettings};
use crate::lock::lock;
use crate::name::{Digest, Topic};
use crate::node::programs::{Archives, Beside, Programs};
use crate::node::reach::Reach;
use crate::node::runner::{ProgramRunner, Runner};
use crate::program::allow::Allowed;
use crate::run::call::{Call, Calls, ItemSource};
use crate::run::failure::Failure;
use crate::run::item::ItemBytes;
use crate::run::output::{FrameOutputs, Outputs};

/// Instances of a replay. One runs at a time, and tasks may keep idle ones.
const INSTANCES: u32 = 16;

/// The stages of a dead letter on this machine.
pub(super) struct Desk {
    /// The calls of the item.
    pub(super) replay: Arc<Replay>,
    stages: Vec<DeskStage>,
    /// `None` if no stage runs a program.
    programs: Option<Programs>,
    /// Outputs of the last stage.
    outputs: Mutex<Vec<Bytes>>,
    chain: String,
    /// The place of the fed message in the world.
    fed: String,
    /// The topic of the item.
    topic: Option<Topic>,
    attempt: u64,
    output: Output,
}

/// A stage on this machine.
struct DeskStage {
    name: String,
    runner: Runner,
    /// `true` if it may call.
    calls: bool,
    /// Its door to the world. `None` if no call is made.
    door: Option<Arc<Door>>,
}

/// Prints the log lines of an item whose calls are made.
struct Told {
    stage: String,
    output: Output,
}

impl Item for Told {
    fn sent(&self, _: &str) -> Option<String> {
        None
    }

    fn log(&self, level: Level, line: String) {
        log(&self.output, &self.stage, level, &line);
    }
}

impl Desk {
    /// Loads the stages.
    pub(super) async fn prepare(
        ran: &RanWith,
        broker: &Broker,
        (live, allow_exec): (bool, bool),
        tell: Box<dyn Fn(Event<'_>) + Send + Sync>,
        context: &Context,
    ) -> anyhow::Result<Arc<Self>> {
        let RanWith { letter, chain, .. } = ran;
        let own = &chain.stages[ran.stages.clone()];
        for stage in own {
            if let (Work::Program(program), false) = (&stage.work, allow_exec) {
                return Err(anyhow!(
                    "stage `{}` runs the program `{}`, which no sandbox contains; with --allow-exec it runs here, as you",
                    stage.name,
                    program.name
                ));
            }
        }
        let programs = if own.iter().any(|stage| matches!(stage.work, Work::Program(_))) {
            let mut allowed = Allowed::default();
            allowed.add_content(Deployed::digest_of(&ran.deployed.manifest)?);
            Some(Programs::start(allowed, &Ulid::generate().to_string())?)
        } else {
            None
        };
        let engine = Engine::new(&EngineSettings {
            instances: INSTANCES,
            memory: None,
            cache: context.settings.cache.clone(),
            compiler: Some(Arc::new(compiler()?)),
        })?;
        let plugins = load(&engine, ran).await?;
        let engine = &engine;
        let reach = if live { Some(reach(ran, broker, context)?) } else { None };
        let mut stages = Vec::new();
        for stage in own {
            let making = Making { ran, stage, output: &context.output };
            if let (Work::Program(program), Some(programs)) = (&stage.work, &programs) {
                stages.push(making.program(program, programs, broker, engine).await?);
                continue;
            }
            let door = match &reach {
                Some(reach) => making.door(&plugins, reach).await?,
                None => None,
            };
            stages.push(making.stage(&plugins, broker, door).await?);
        }
        let last = letter.history.last();
        let is_lost = letter.failure == FailureKind::Node.name()
            || last.is_some_and(|attempt| attempt.failure == FailureKind::Node.name());
        Ok(Arc::new(Self {
            replay: Replay::new(letter.calls.as_ref(), is_lost, tell),
            stages,
            programs,
            outputs: Mutex::default(),
            chain: letter.chain.clone(),
            topic: letter.topic.as_deref().and_then(|topic| topic.parse().ok()),
            fed: letter.raw.fed.clone().unwrap_or_else(|| format!("letter.{}", letter.number)),
            attempt: letter.attempts.max(1),
            output: context.output.clone(),
        }))
    }

    /// Runs the item through all stages.
    pub(super) async fn run(self: Arc<Self>, id: String, item: Bytes) -> Result<(), Failure> {
        let topic = self.topic.clone();
        self.pass(0, (id, topic), item.into()).await.map_err(|(stage, failure)| match self.stages.get(stage) {
            // As the reason in the letter says it.
            Some(DeskStage { name, .. }) if stage > 0 => {
                Failure { reason: format!("inline stage `{name}`: {}", failure.reason), ..failure }
            }
            _ => failure,
        })
    }

    /// Ends what still runs.
    pub(super) async fn end(&self) {
        if let Some(programs) = &self.programs {
            programs.end_all().await;
        }
    }

    /// Returns the outputs of the last stage.
    pub(super) fn outputs(&self) -> Vec<Bytes> {
        lock(&self.outputs).clone()
    }

    /// Runs an item of a stage, and its outputs through the stages after it. The error names the stage that failed.
    fn pass(
        self: &Arc<Self>,
        stage: usize,
        (id, topic): (String, Option<Topic>),
        item: ItemBytes,
    ) -> BoxFuture<'static, Result<(), (usize, Failure)>> {
        let desk = Arc::clone(self);
        async move {
            let source = Arc::new(OneItem {
                desk: Arc::clone(&desk),
                stage,
                id: id.clone(),
                topic: topic.clone(),
                streamed: Mutex::default(),
            });
            let runner = &desk.stages[stage].runner;
            let mut given = FrameOutputs::default();
            let call = Call { source: Arc::clone(&source) as Arc<dyn ItemSource>, position: 0 };
            let ran = runner.run_all(item, call, None, &runner.instances(), &mut given).await;
            ran.map_err(|(_, failure)| (stage, failure))?;
            let mut outputs = std::mem::take(&mut *lock(&source.streamed));
            outputs.append(given.into_outputs().all());
            if stage + 1 == desk.stages.len() {
                let read = outputs.into_items().into_iter().map(ItemBytes::into_whole).collect::<Result<Vec<_>, _>>();
                let read = read.map_err(|error| {
                    (stage, Failure::transient(FailureKind::Node, format!("an output cannot be read back: {error}")))
                })?;
                lock(&desk.outputs).extend(read);
                return Ok(());
            }
            let mut topics = outputs.topics().to_vec().into_iter().peekable();
            for (child, output) in outputs.into_items().into_iter().enumerate() {
                let changed = topics.next_if(|(number, _)| *number == child);
                let topic = changed.map_or_else(|| topic.clone(), |(_, topic)| topic);
                desk.pass(stage + 1, (format!("{id}.{child}"), topic), output).await?;
            }
            Ok(())
        }
        .boxed()
    }
}

/// An item of a stage.
struct OneItem {
    desk: Arc<Desk>,
    stage: usize,
    id: String,
    topic: Option<Topic>,
    /// Outputs that were too many to hold while it ran.
    streamed: Mutex<Outputs>,
}

impl ItemSource for OneItem {
    fn id(&self, _: usize) -> String {
        self.id.clone()
    }

    fn attempt(&self) -> u64 {
        self.desk.attempt
    }

    fn topic(&self, _: usize) -> Option<Topic> {
        self.topic.clone()
    }

    fn log(&self, _: usize, level: Level, line: String) {
        log(&self.desk.output, &self.desk.stages[self.stage].name, level, &line);
    }

    fn calls(&self, _: usize) -> Option<Arc<dyn Calls>> {
        let Desk { replay, stages, chain, fed, output, .. } = &*self.desk;
        let stage = &stages[self.stage];
        let live = stage.door.as_ref().map(|door| {
            let name = &stage.name;
            let (chain, fed, item) = (chain.clone(), fed.clone(), self.id.clone());
            let caller = Caller { chain, stage: name.clone(), fed, item };
            door.open(caller, Box::new(Told { stage: name.clone(), output: output.clone() }), Notes::default())
        });
        stage.calls.then(|| {
            Arc::new(ReplayedCalls {
                replay: Arc::clone(replay),
                item: (self.stage > 0).then(|| self.id.clone()),
                stage: stage.name.clone(),
                live,
            }) as Arc<dyn Calls>
        })
    }

    fn stream(self: Arc<Self>, _: usize, outputs: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
        lock(&self.streamed).append(outputs.all());
        std::future::ready(Ok(())).boxed()
    }
}

/// A stage that is made ready.
struct Making<'a> {
    ran: &'a RanWith,
    stage: &'a Stage,
    output: &'a Output,
}

impl Making<'_> {
    /// Returns the plugin of the stage and the name of its task.
    fn plugin<'a>(&'a self, plugins: &'a LoadedPlugins) -> anyhow::Result<(&'a engine::Plugin, &'a str)> {
        let found = match &self.stage.work {
            Work::Task { plugin: Plugin::Stored(digest), task } => plugins.get(digest).map(|plugin| (plugin, task)),
            _ => None,
        };
        let (plugin, task) = found.ok_or_else(|| self.failed("its plugin is not on the server"))?;
        Ok((plugin, task))
    }

    /// Returns the door of the stage. `None` if it was granted nothing.
    async fn door(&self, plugins: &LoadedPlugins, reach: &Reach) -> anyhow::Result<Option<Arc<Door>>> {
        let (plugin, task) = self.plugin(plugins)?;
        if let Some(refusal) = reach.refusal(&self.ran.deployed, self.stage).await {
            return Err(self.failed(refusal));
        }
        // So that the answers are known to a case, with secrets masked.
        let grants = Arc::new(Grants { records_bodies: true, ..(*self.stage.grants).clone() });
        let stage =
            if self.stage.grants.is_empty() { self.stage.clone() } else { Stage { grants, ..self.stage.clone() } };
        let described = plugin.inspection.task(task).map_err(|error| self.failed(error))?;
        reach.door(&self.ran.deployed, &stage, described).map_err(|problem| self.failed(problem))
    }

    async fn stage(
        &self,
        plugins: &LoadedPlugins,
        broker: &Broker,
        door: Option<Arc<Door>>,
    ) -> anyhow::Result<DeskStage> {
        let (plugin, name) = self.plugin(plugins)?;
        // Here no stage waits for those after it.
        let task = plugin.task_of(&self.ran.deployed, self.stage, name, 0, broker.limits().max_item());
        let task = task.map_err(|error| self.failed(error))?;
        let task = if task.has_state() { self.with_state(plugin, name, task).await? } else { task };
        let runner = Runner::Task(task);
        Ok(DeskStage { name: self.stage.name.to_string(), runner, calls: !self.stage.grants.is_empty(), door })
    }

    /// Makes a program ready.
    async fn program(
        &self,
        program: &Program,
        programs: &Programs,
        broker: &Broker,
        engine: &Engine,
    ) -> anyhow::Result<DeskStage> {
        let (name, output) = (self.stage.name.to_string(), self.output.clone());
        let beside = || Beside {
            runtime: Handle::current(),
            log: Box::new(move |_, level, line| log(&output, &name, level, &line)),
            most: 1,
        };
        let most = broker.limits().max_item() as u64;
        let archives = Archives::Server(broker.clone());
        let kind = programs.load(&archives, &self.ran.deployed, self.stage, program, most, beside).await;
        let runner = ProgramRunner {
            program: kind.map_err(|problem| self.failed(problem))?,
            needs: Arc::default(),
            budget: Arc::clone(engine.budget()),
            after: 0,
        };
        let runner = Runner::Program(runner);
        Ok(DeskStage { name: self.stage.name.to_string(), runner, calls: false, door: None })
    }

    /// Makes the state of the task, of what all nodes have made it of.
    async fn with_state(&self, plugin: &engine::Plugin, name: &str, task: Task) -> anyhow::Result<Task> {
        let Self { ran, stage, output, .. } = self;
        let pin = ran.pins.get(&stage.name).map(|bytes| Pin::decode(bytes)).transpose();
        let pinned = PinnedCalls::answer(pin.map_err(|error| self.failed(error))?.unwrap_or_default());
        let calls = (!stage.grants.is_empty()).then(|| Arc::clone(&pinned) as Arc<dyn Calls>);
        let told = Told { stage: stage.name.to_string(), output: (*output).clone() };
        let around = Surroundings { log: Box::new(move |level, line| told.log(level, line)), calls };
        // Not the place of a node in the cache, which has the newest state of a stage.
        let place = format!("replay.{}.{}", ran.deployed.chain, stage.name);
        let made = plugin.with_state(name, &place, &task, around).await;
        pinned.end().map_err(|problem| self.failed(problem))?;
        match made {
            Ok(with_state) => Ok(with_state.unwrap_or(task)),
            Err(error) if !stage.grants.is_empty() => Err(self.failed(error)),
            // As a node does it.
            Err(_) => Ok(task),
        }
    }

    fn failed(&self, problem: impl std::fmt::Display) -> anyhow::Error {
        anyhow!("stage `{}`: {problem}", self.stage.name)
    }
}

/// Loaded plugins.
type LoadedPlugins = BTreeMap<Digest, engine::Plugin>;

async fn load(engine: &Engine, ran: &RanWith) -> anyhow::Result<LoadedPlugins> {
    let mut plugins = BTreeMap::new();
    for (digest, bytes) in &ran.plugins {
        let (engine, of, bytes) = (engine.clone(), digest.clone(), bytes.clone());
        plugins.insert(digest.clone(), tokio::task::spawn_blocking(move || engine.load(&of, bytes)).await??);
    }
    Ok(plugins)
}

/// Returns what the stages may reach: what they were granted, as with `dev`.
fn reach(ran: &RanWith, broker: &Broker, context: &Context) -> anyhow::Result<Reach> {
    let mut ceiling = context.settings.ceiling()?;
    ceiling.allow_content(Deployed::digest_of(&ran.deployed.manifest)?);
    Ok(Reach::new(Arc::new(ceiling), broker, INSTANCES)?)
}

fn log(output: &Output, stage: &str, level: Level, line: &str) {
    // Text after a line break must not look like another line.
    output.note(&format!("{:5} {stage}: {}", level.name(), line.replace('\n', "\n    ")));
}
