//! Serves a revision: makes it ready, however long that takes, and runs a worker on each of its hops.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::broker::arrange;
use crate::broker::streams::ChainStreams;
use crate::chain::record::Deployed;
use crate::chain::{Chain, Stage};
use crate::engine::Plugin;
use crate::lock::lock;
use crate::name::{ChainName, Digest, Revision, StageName};
use crate::node::health::conditions::Conditions;
use crate::node::health::with_remedy;
use crate::node::hop::Hop;
use crate::node::identity::Identity;
use crate::node::phase::{Phase, left_run};
use crate::node::supervisor::context::Context;
use crate::node::supervisor::load;
use crate::node::worker;

/// The first wait before the next try to make a revision ready. Each is twice as long as the one before.
const AGAIN: Duration = Duration::from_millis(50);
/// The longest wait between two tries.
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// The longest wait between two tries to unpack the files of a stage. Each may fetch all of them.
const UNPACK_AGAIN_MAX: Duration = Duration::from_secs(30);
/// After this many failed tries, the problem is reported. Right after a deploy the streams may be a moment away.
const PATIENCE: u32 = 3;

/// How often to look again whether a program that was refused is there now.
const PROGRAM_AGAIN: Duration = Duration::from_secs(5);

/// A revision that is ready to run.
struct Ready<'a> {
    loader: Loader<'a>,
    hops: Vec<Hop>,
    /// The stages of hops that this node does not serve, or not yet.
    missing: Vec<(Range<usize>, Lack)>,
}

/// Why this node does not serve a hop, or not yet.
#[derive(Debug, Clone)]
struct Lack {
    stage: StageName,
    problem: String,
    remedy: Remedy,
}

/// What could let a node serve a hop that it does not serve.
#[derive(Debug, Clone, Copy)]
enum Remedy {
    /// Only a restart with other settings.
    Restart,
    /// A program that is installed, or a secret that gets its value.
    Program,
    /// The next try.
    Try,
}

/// Serves a revision until its phase is over.
pub(crate) async fn serve(
    context: &Context,
    chain: &ChainName,
    revision: Revision,
    phase: watch::Receiver<Phase>,
    settle: &watch::Sender<bool>,
) {
    let mut waiting = phase.clone();
    tokio::select! {
        Ready { loader, hops, missing } = ready(context, chain, revision, settle) => {
            // What kept it from being ready is over.
            context.board.problem(chain.as_str(), Some(revision), None);
            let lacks = missing.iter().map(|(stages, lack)| (stages.start, lack.clone())).collect();
            let part = Part { context, chain, revision, lacks: Mutex::new(lacks) };
            part.tell();
            settle.send_replace(true);
            let run = async |hop: Hop| {
                for (stage, stats) in hop.counted() {
                    context.board.add((chain.clone(), revision, stage.clone()), Arc::clone(stats));
                }
                worker::run(Arc::new(hop), phase.clone()).await;
            };
            let run_later = async |stages: Range<usize>| {
                let mut waiting = phase.clone();
                tokio::select! {
                    hop = part.wait_for(&loader, stages) => run(hop).await,
                    () = left_run(&mut waiting) => {}
                }
            };
            let now = futures_util::future::join_all(hops.into_iter().map(run));
            let later = futures_util::future::join_all(missing.into_iter().map(|(stages, _)| run_later(stages)));
            futures_util::future::join(now, later).await;
        }
        () = left_run(&mut waiting) => {}
    }
}

/// A revision of which a node may serve only a part.
struct Part<'a> {
    context: &'a Context,
    chain: &'a ChainName,
    revision: Revision,
    /// Why hops are not served, by their first stages.
    lacks: Mutex<BTreeMap<usize, Lack>>,
}

impl Part<'_> {
    /// Logs which part is served.
    fn tell(&self) {
        let lacks = lock(&self.lacks);
        for lack in lacks.values() {
            self.show(&lack.stage, Some(&lack.problem));
        }
        let problems: Vec<&str> = lacks.values().map(|lack| lack.problem.as_str()).collect();
        let (node, chain, revision) = (&self.context.node, self.chain, self.revision);
        match problems.join("; ").as_str() {
            "" => tracing::info!(node, %chain, %revision, "served"),
            problems => tracing::warn!(node, %chain, %revision, "served in part: {problems}"),
        }
    }

    /// Shows why a stage is left to others. Returns `true` if that is new.
    fn show(&self, stage: &StageName, problem: Option<&str>) -> bool {
        self.context.board.stage("serve it", self.chain, self.revision, stage, problem)
    }

    /// Changes why a hop is not served, and tells.
    fn change(&self, first: usize, lack: Option<&Lack>) {
        let is_new = {
            let mut lacks = lock(&self.lacks);
            let before = match lack {
                Some(lack) => lacks.insert(first, lack.clone()),
                None => lacks.remove(&first),
            };
            let other = before.filter(|before| lack.is_none_or(|lack| lack.stage != before.stage));
            let is_gone = other.is_some_and(|other| self.show(&other.stage, None));
            lack.map_or(is_gone, |lack| self.show(&lack.stage, Some(&lack.problem)))
        };
        if is_new {
            self.tell();
        }
    }

    /// Tries to load a hop until that succeeds.
    async fn wait_for(&self, loader: &Loader<'_>, stages: Range<usize>) -> Hop {
        let mut backoff = Backoff::new(AGAIN, UNPACK_AGAIN_MAX);
        loop {
            let remedy = lock(&self.lacks).get(&stages.start).map_or(Remedy::Try, |lack| lack.remedy);
            match remedy {
                Remedy::Restart => std::future::pending().await,
                Remedy::Program => tokio::time::sleep(PROGRAM_AGAIN).await,
                Remedy::Try => backoff.wait().await,
            }
            let hop = loader.hop(stages.clone()).await;
            self.change(stages.start, hop.as_ref().err());
            if let Ok(hop) = hop {
                return hop;
            }
        }
    }
}

/// Makes a revision ready to run, however long that takes.
async fn ready<'a>(
    context: &'a Context,
    chain: &ChainName,
    revision: Revision,
    settle: &watch::Sender<bool>,
) -> Ready<'a> {
    let mut backoff = Backoff::new(AGAIN, AGAIN_MAX);
    let mut tries = 0;
    loop {
        tries += 1;
        let problem = match try_ready(context, chain, revision).await {
            Ok(ready) => return ready,
            Err(problem) => problem,
        };
        if tries >= PATIENCE {
            if context.board.problem(chain.as_str(), Some(revision), Some(&problem)) {
                tracing::error!(%chain, %revision, problem, "cannot be served; the other chains go on");
            }
            settle.send_replace(true);
        }
        backoff.wait().await;
    }
}

async fn try_ready<'a>(context: &'a Context, chain: &ChainName, revision: Revision) -> Result<Ready<'a>, String> {
    let identity = Identity::now(&context.broker).await.map_err(|error| error.to_string())?;
    let identity = Arc::new(identity);
    arrange::check_wire(&context.broker, chain).await.map_err(|error| error.to_string())?;
    let deployed = context.registry.deployed(chain, revision).await.map_err(|error| error.to_string())?;
    let deployed = deployed.ok_or_else(|| format!("the manifest of {revision} is not in the registry"))?;
    let checked = Chain::stored(&deployed.manifest).map_err(|error| format!("the manifest of {revision}: {error}"))?;
    let conditions = Arc::new(Conditions::new(Arc::clone(&context.board), chain.clone(), revision));
    let plugins = load::load(context, &checked).await?;
    ChainStreams::of(&context.broker, &checked.name)
        .create_consumers(&checked, revision)
        .await
        .map_err(|error| with_remedy(&error))?;
    let checked = Arc::new(checked);
    let loader = Loader { context, deployed, checked, plugins, conditions, identity };
    let mut ready = Ready { loader, hops: Vec::new(), missing: Vec::new() };
    let loader = &ready.loader;
    let hops = loader.checked.hops().into_iter();
    let results = load::side_by_side(hops.map(async |stages| (stages.clone(), loader.hop(stages).await))).await;
    for (stages, hop) in results {
        match hop {
            Ok(hop) => ready.hops.push(hop),
            // Without files to unpack, what fails is a matter of the whole revision.
            Err(Lack { problem, remedy: Remedy::Try, .. })
                if !loader.checked.stages[stages.clone()].iter().any(Stage::has_files) =>
            {
                return Err(problem);
            }
            Err(lack) => ready.missing.push((stages, lack)),
        }
    }
    Ok(ready)
}

/// Returns why this node does not run a stage. `None` if it does.
async fn refusal(context: &Context, deployed: &Deployed, stage: &Stage) -> Option<Lack> {
    let (problem, remedy) =
        match context.labels.lacks(&stage.labels).or_else(|| context.slots.capacity().lacks(&stage.needs)) {
            Some(lacks) => (lacks, Remedy::Restart),
            None => match context.programs.refusal(deployed, stage) {
                Some(refusal) => (refusal, Remedy::Program),
                // A secret may get its value while the node runs.
                None => (context.reach.refusal(deployed, stage).await?, Remedy::Program),
            },
        };
    Some(Lack { stage: stage.name.clone(), problem: format!("stage `{}`: {problem}", stage.name), remedy })
}

/// Loads the hops of a revision.
struct Loader<'a> {
    context: &'a Context,
    deployed: Deployed,
    checked: Arc<Chain>,
    plugins: BTreeMap<Digest, Plugin>,
    conditions: Arc<Conditions>,
    identity: Arc<Identity>,
}

impl Loader<'_> {
    /// Loads a hop, if this node may run its stages.
    async fn hop(&self, stages: Range<usize>) -> Result<Hop, Lack> {
        let Self { context, deployed, checked, plugins, conditions, identity } = self;
        let all = &checked.stages[stages.clone()];
        for stage in all {
            if let Some(refusal) = refusal(context, deployed, stage).await {
                return Err(refusal);
            }
        }
        let shared = (Arc::clone(conditions), Arc::clone(identity));
        let hop = load::load_hop(context, deployed, checked, stages, plugins, shared).await;
        hop.map_err(|problem| Lack { stage: all[0].name.clone(), problem, remedy: Remedy::Try })
    }
}
