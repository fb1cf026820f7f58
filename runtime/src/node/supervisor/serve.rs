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
use crate::name::{ChainName, Digest, Revision};
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

/// A revision that is ready to run.
struct Ready<'a> {
    loader: Loader<'a>,
    hops: Vec<Hop>,
    /// Why hops are left to other nodes.
    refused: Vec<String>,
    /// The stages of hops whose files this node cannot unpack yet, with the reason.
    late: Vec<(Range<usize>, String)>,
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
        Ready { loader, hops, refused, late } = ready(context, chain, revision, settle) => {
            let late_now = late.iter().map(|(stages, problem)| (stages.start, problem.clone())).collect();
            let missing = Missing { context, chain, revision, refused, late: Mutex::new(late_now) };
            missing.tell();
            if !missing.is_any() {
                tracing::info!(node = context.node, %chain, %revision, "served");
            }
            settle.send_replace(true);
            let run = async |hop: Hop| {
                for (stage, stats) in hop.counted() {
                    context.board.add((chain.clone(), revision, stage.clone()), Arc::clone(stats));
                }
                worker::run(Arc::new(hop), phase.clone()).await;
            };
            let run_late = async |stages: Range<usize>| {
                let mut waiting = phase.clone();
                tokio::select! {
                    hop = missing.wait_for(&loader, stages) => run(hop).await,
                    () = left_run(&mut waiting) => {}
                }
            };
            let on_time = futures_util::future::join_all(hops.into_iter().map(run));
            let late = futures_util::future::join_all(late.into_iter().map(|(stages, _)| run_late(stages)));
            futures_util::future::join(on_time, late).await;
        }
        () = left_run(&mut waiting) => {}
    }
}

/// What a node does not serve of a revision.
struct Missing<'a> {
    context: &'a Context,
    chain: &'a ChainName,
    revision: Revision,
    /// Why hops are left to other nodes.
    refused: Vec<String>,
    /// Why hops cannot be served yet, by their first stages.
    late: Mutex<BTreeMap<usize, String>>,
}

impl Missing<'_> {
    /// Returns `true` if a hop is not served.
    fn is_any(&self) -> bool {
        !self.refused.is_empty() || !lock(&self.late).is_empty()
    }

    /// Shows what is missing now.
    fn tell(&self) {
        let problems: Vec<String> = self.refused.iter().chain(lock(&self.late).values()).cloned().collect();
        let problem = (!problems.is_empty()).then(|| problems.join("; "));
        if !self.context.board.problem(self.chain.as_str(), Some(self.revision), problem.as_deref()) {
            return;
        }
        let (node, chain, revision) = (&self.context.node, self.chain, self.revision);
        if let Some(problem) = problem {
            tracing::warn!(node, %chain, %revision, "served in part: {problem}");
        } else {
            tracing::info!(node, %chain, %revision, "served in full");
        }
    }

    /// Tries to load a hop until that succeeds.
    async fn wait_for(&self, loader: &Loader<'_>, stages: Range<usize>) -> Hop {
        let mut backoff = Backoff::new(AGAIN, UNPACK_AGAIN_MAX);
        loop {
            backoff.wait().await;
            let hop = loader.hop(stages.clone()).await;
            match &hop {
                Ok(_) => lock(&self.late).remove(&stages.start),
                Err(problem) => lock(&self.late).insert(stages.start, problem.clone()),
            };
            self.tell();
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
    let mut ready = Ready { loader, hops: Vec::new(), refused: Vec::new(), late: Vec::new() };
    let loader = &ready.loader;
    for stages in loader.checked.hops() {
        let all = &loader.checked.stages[stages.clone()];
        if let Some(refusal) = all.iter().find_map(|stage| refusal(context, &loader.deployed, stage)) {
            ready.refused.push(refusal);
            continue;
        }
        match loader.hop(stages.clone()).await {
            Ok(hop) => ready.hops.push(hop),
            Err(problem) if all.iter().any(Stage::has_files) => ready.late.push((stages, problem)),
            Err(problem) => return Err(problem),
        }
    }
    Ok(ready)
}

/// Returns why this node does not run a stage. `None` if it does.
fn refusal(context: &Context, deployed: &Deployed, stage: &Stage) -> Option<String> {
    let lacks = context.labels.lacks(&stage.labels).or_else(|| context.slots.capacity().lacks(&stage.needs));
    let lacks = lacks.map(|lacks| format!("stage `{}`: {lacks}", stage.name));
    lacks.or_else(|| context.programs.refusal(deployed, stage))
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
    async fn hop(&self, stages: Range<usize>) -> Result<Hop, String> {
        let Self { context, deployed, checked, plugins, conditions, identity } = self;
        let shared = (Arc::clone(conditions), Arc::clone(identity));
        load::load_hop(context, deployed, checked, stages, plugins, shared).await
    }
}
