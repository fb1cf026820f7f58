//! The stages of a chain, ready to run in this process.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, try_join_all};
use tokio::sync::Semaphore;
use ulid::Ulid;

use super::{Around, Desk, DeskError, RETRIES_MAX};
use crate::calls::door::Door;
use crate::calls::failure::CallFailure;
use crate::calls::memory::Memory;
use crate::calls::stores::{StoreRequest, Stores};
use crate::chain::record::Deployed;
use crate::chain::{Accepts, Chain, Plugin, Retry, Stage, Work};
use crate::client::Here;
use crate::engine::snapshot::Surroundings;
use crate::engine::task::Task;
use crate::engine::{self, Engine, EngineSettings};
use crate::name::{Digest, StageName};
use crate::node::NodeSettings;
use crate::node::executor::Executor;
use crate::node::health::HopCounters;
use crate::node::programs::{Archives, Beside, Programs};
use crate::node::reach::Reach;
use crate::node::runner::{ProgramKind, ProgramRunner, Runner};
use crate::node::shares::{Share, SharePermit};
use crate::node::worker::permits::ConcurrencyLimit;
use crate::run::call::Calls;
use crate::slots::Slots;

/// The most bytes of one output. The memory of its task bounds it too.
const OUTPUT_MAX: usize = 1 << 30;
/// Frames of a hop that may be there for each item that may run at once.
const FRAMES: usize = 2;

/// A stage in this process.
pub(crate) struct DeskStage {
    /// Its name.
    pub(crate) name: StageName,
    /// What runs its items.
    pub(super) runner: Runner,
    /// Its counters.
    pub(super) counters: HopCounters,
    /// Its door to the world. `None` if it was granted nothing.
    pub(crate) door: Option<Arc<Door>>,
}

/// A hop in this process.
pub(super) struct DeskHop {
    /// Its stages.
    pub(super) stages: Vec<DeskStage>,
    /// What its items must fit. `None` if they may be anything.
    pub(super) accepts: Option<Accepts>,
    /// The attempts of its items.
    pub(super) retry: Retry,
    /// How much of it runs at once.
    pub(super) limit: ConcurrencyLimit,
    /// The places of its frames.
    pub(super) places: Arc<Semaphore>,
    /// Its share in the executions that may wait for the world. `None` if no stage was granted anything.
    waiting: Option<Share>,
}

impl DeskHop {
    /// Waits until an execution of the hop may begin. `None` if it need not wait.
    pub(super) async fn permit(&self) -> Option<SharePermit> {
        Some(self.waiting.as_ref()?.permit().await)
    }
}

/// Makes no call: without a server there are no stores.
struct NoStores;

impl Stores for NoStores {
    fn run(
        self: Arc<Self>,
        request: StoreRequest,
        _: u64,
        _: Option<String>,
    ) -> BoxFuture<'static, Result<Bytes, CallFailure>> {
        let target = request.target();
        Box::pin(std::future::ready(Err(CallFailure::unavailable(format!("there is no server with `{target}`")))))
    }
}

/// What stages are made ready with.
struct Making<'a, A> {
    deployed: &'a Deployed,
    chain: &'a Chain,
    plugins: &'a BTreeMap<Digest, engine::Plugin>,
    engine: &'a Engine,
    programs: &'a Programs,
    archives: &'a Archives,
    executor: &'a Executor,
    reach: &'a Reach,
    around: &'a Arc<A>,
}

/// The plugins of a chain, compiled, and the engine that runs them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Loaded {
    engine: Engine,
    plugins: Arc<BTreeMap<Digest, engine::Plugin>>,
}

impl Loaded {
    /// Compiles the plugins of a chain, or reads them from the cache.
    ///
    /// # Errors
    ///
    /// If a plugin cannot be loaded, or this machine does not let the engine start.
    pub(crate) async fn of(here: &Here, settings: &NodeSettings) -> Result<Self, DeskError> {
        let engine = Engine::new(&EngineSettings {
            instances: settings.instances,
            memory: Some(settings.memory),
            cache: settings.cache.clone(),
            compiler: settings.compiler.clone(),
        });
        let engine = engine.map_err(DeskError::start)?;
        let plugins = Arc::new(load(&engine, &here.chain, here.plugins.clone()).await?);
        Ok(Self { engine, plugins })
    }
}

impl<A: Around> Desk<Arc<A>> {
    /// Makes the stages of a chain ready. What they ask for must be allowed by the settings.
    ///
    /// # Errors
    ///
    /// If a stage cannot run here.
    pub(crate) async fn prepare(here: Here, settings: NodeSettings, around: Arc<A>) -> Result<Self, DeskError> {
        if around.stand_in().is_none() {
            here.chain.stages.iter().try_for_each(runs_alone)?;
        }
        let loaded = Loaded::of(&here, &settings).await?;
        Self::of(&loaded, here, settings, around).await
    }

    /// Makes the stages of a chain ready whose plugins are loaded.
    ///
    /// # Errors
    ///
    /// If a stage cannot run here.
    pub(crate) async fn of(
        Loaded { engine, plugins }: &Loaded,
        here: Here,
        settings: NodeSettings,
        around: Arc<A>,
    ) -> Result<Self, DeskError> {
        let Here { deployed, chain, archives, .. } = here;
        let executor = Executor::start().map_err(DeskError::start)?;
        let programs =
            Programs::start(settings.allowed.clone(), &Ulid::generate().to_string()).map_err(DeskError::start)?;
        let no_stores = |_: Memory| Arc::new(NoStores);
        let reach = Reach::with_stores(Arc::clone(&settings.ceiling), no_stores, settings.instances);
        let reach = reach.map_err(DeskError::start)?;
        let slots = Slots::new(settings.slots.clone());
        let making = Making {
            deployed: &deployed,
            chain: &chain,
            plugins,
            engine,
            programs: &programs,
            archives: &Archives::Here(Arc::new(archives)),
            executor: &executor,
            reach: &reach,
            around: &around,
        };
        let mut ready = try_join_all((0..chain.stages.len()).map(|place| making.stage(place, &slots))).await?;
        let mut hops = Vec::new();
        for range in chain.hops() {
            let stages: Vec<DeskStage> = ready.drain(..range.len()).collect();
            let own = &chain.stages[range];
            let limit = ConcurrencyLimit::of(&slots, own);
            let places = usize::try_from(limit.concurrency()).unwrap_or(1) * FRAMES;
            hops.push(DeskHop {
                accepts: chain.accepts.clone().filter(|_| hops.is_empty()),
                waiting: stages.iter().any(|stage| stage.door.is_some()).then(|| reach.waiting()),
                retry: own[0].retry.clone(),
                limit,
                places: Arc::new(Semaphore::new(places)),
                stages,
            });
        }
        let retries = Semaphore::new(RETRIES_MAX);
        let (retries, programs, executor) = (Arc::new(retries), Arc::new(programs), Arc::new(executor));
        Ok(Self { hops: hops.into(), around, retries, programs, executor })
    }
}

/// Refuses what only a cluster has.
fn runs_alone(stage: &Stage) -> Result<(), DeskError> {
    let grants = &stage.grants;
    let bucket = grants.kv.keys().next().map(|bucket| format!("the bucket `{bucket}` that it may use"));
    let store = || grants.objects.keys().next().map(|store| format!("the object store `{store}` that it may use"));
    let publish = || grants.has("publish").then(|| "what it may publish on".to_owned());
    match bucket.or_else(store).or_else(publish) {
        Some(what) => Err(DeskError::NeedsCluster { stage: stage.name.clone(), what }),
        None => Ok(()),
    }
}

/// Loads the plugins side by side.
async fn load(
    engine: &Engine,
    chain: &Chain,
    plugins: BTreeMap<Digest, Bytes>,
) -> Result<BTreeMap<Digest, engine::Plugin>, DeskError> {
    let loading = plugins.into_iter().map(|(digest, bytes)| async move {
        let (engine, of) = (engine.clone(), digest.clone());
        let loaded = tokio::task::spawn_blocking(move || engine.load(&of, bytes)).await;
        let problem = match loaded {
            Ok(Ok(plugin)) => return Ok((digest, plugin)),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let is_of = |stage: &&Stage| {
            matches!(&stage.work, Work::Task { plugin: Plugin::Stored(plugin), .. } if *plugin == digest)
        };
        Err(match chain.stages.iter().find(is_of) {
            Some(stage) => DeskError::Stage { stage: stage.name.clone(), problem },
            None => DeskError::Start(problem),
        })
    });
    Ok(try_join_all(loading).await?.into_iter().collect())
}

impl<A: Around> Making<'_, A> {
    async fn stage(&self, place: usize, slots: &Arc<Slots>) -> Result<DeskStage, DeskError> {
        let stage = &self.chain.stages[place];
        let failed = |problem: String| DeskError::Stage { stage: stage.name.clone(), problem };
        let after = self.chain.stages.len() - place - 1;
        let (runner, door) = match &stage.work {
            Work::Task { plugin: Plugin::Stored(digest), task } => {
                let plugin = self.plugins.get(digest).ok_or_else(|| failed("its plugin is not here".to_owned()))?;
                let described = plugin.inspection.task(task).map_err(|error| failed(error.to_string()))?;
                let is_real = self.around.stand_in().is_none();
                if is_real && let Some(refusal) = self.reach.refusal(self.deployed, stage).await {
                    return Err(failed(refusal));
                }
                let door = self.reach.door(self.deployed, stage, described).map_err(failed)?;
                let made = plugin.task_of(self.deployed, stage, task, after, OUTPUT_MAX);
                let made = made.map_err(|error| failed(error.to_string()))?;
                (Runner::Task(self.with_state(plugin, task, made, stage, door.as_ref()).await?), door)
            }
            Work::Task { .. } => return Err(failed("its plugin was not read".to_owned())),
            Work::Program(_) if self.around.stand_in().is_some() => {
                let (needs, budget) = (Arc::new(stage.needs.clone()), Arc::clone(self.engine.budget()));
                let runner = ProgramRunner { program: ProgramKind::StoodIn, needs, budget, after };
                (Runner::Program(runner), None)
            }
            Work::Program(program) => {
                let (around, name) = (Arc::clone(self.around), stage.name.clone());
                let most = usize::try_from(ConcurrencyLimit::of(slots, std::slice::from_ref(stage)).concurrency());
                let beside = || Beside {
                    runtime: self.executor.handle(),
                    log: Box::new(move |item, level, line| around.log(&name, item, level, line)),
                    most: most.unwrap_or(usize::MAX),
                };
                let kind =
                    self.programs.load(self.archives, self.deployed, stage, program, OUTPUT_MAX as u64, beside).await;
                let runner = ProgramRunner {
                    program: kind.map_err(failed)?,
                    needs: Arc::new(stage.needs.clone()),
                    budget: Arc::clone(self.engine.budget()),
                    after,
                };
                (Runner::Program(runner), None)
            }
        };
        Ok(DeskStage { name: stage.name.clone(), runner, counters: HopCounters::default(), door })
    }

    /// Returns what the initializer of a stage may call.
    fn init_calls(&self, stage: &StageName, door: &Arc<Door>) -> Arc<dyn Calls> {
        match self.around.stand_in() {
            Some(stand_in) => stand_in.init_calls(stage, door),
            None => door.open_for_init(),
        }
    }

    /// Makes the state of a task, as a node does.
    async fn with_state(
        &self,
        plugin: &engine::Plugin,
        name: &str,
        task: Task,
        stage: &Stage,
        door: Option<&Arc<Door>>,
    ) -> Result<Task, DeskError> {
        let (around, of) = (Arc::clone(self.around), stage.name.clone());
        let around = Surroundings {
            log: Box::new(move |level, line| around.log(&of, "", level, line)),
            calls: door.map(|door| self.init_calls(&stage.name, door)),
        };
        // The place of a node in the cache has the newest state of a deployed stage.
        let place = format!("here.{}.{}", self.chain.name, stage.name);
        match plugin.with_state(name, &place, &task, around).await {
            Ok(with_state) => Ok(with_state.unwrap_or(task)),
            Err(error) if door.is_some() => Err(DeskError::Stage {
                stage: stage.name.clone(),
                problem: format!("its state cannot be made ahead: {error}"),
            }),
            Err(error) => {
                tracing::warn!(stage = %stage.name, %error, "its state is not made ahead: each instance makes its own");
                Ok(task)
            }
        }
    }
}
