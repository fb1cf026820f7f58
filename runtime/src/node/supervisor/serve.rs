//! Serves a revision: makes it ready, however long that takes, and runs a worker on each of its hops.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::broker::arrange;
use crate::broker::streams::ChainStreams;
use crate::chain::Chain;
use crate::name::{ChainName, Revision};
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
/// After this many failed tries, the problem is reported. Right after a deploy the streams may be a moment away.
const PATIENCE: u32 = 3;

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
        (hops, refused) = ready(context, chain, revision, settle) => {
            let refused = (!refused.is_empty()).then(|| refused.join("; "));
            context.board.problem(chain.as_str(), Some(revision), refused.as_deref());
            if let Some(refused) = refused {
                tracing::warn!(node = context.node, %chain, %revision, "served in part: {refused}");
            }
            for hop in &hops {
                for (stage, stats) in hop.counted() {
                    context.board.add((chain.clone(), revision, stage.clone()), Arc::clone(stats));
                }
            }
            tracing::info!(node = context.node, %chain, %revision, "served");
            settle.send_replace(true);
            let workers = hops.into_iter().map(|hop| worker::run(Arc::new(hop), phase.clone()));
            futures_util::future::join_all(workers).await;
        }
        () = left_run(&mut waiting) => {}
    }
}

/// Makes a revision ready to run, however long that takes. Returns its hops, and why others are left to other nodes.
async fn ready(
    context: &Context,
    chain: &ChainName,
    revision: Revision,
    settle: &watch::Sender<bool>,
) -> (Vec<Hop>, Vec<String>) {
    let mut backoff = Backoff::new(AGAIN, AGAIN_MAX);
    for tries in 1.. {
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
    (Vec::new(), Vec::new())
}

async fn try_ready(
    context: &Context,
    chain: &ChainName,
    revision: Revision,
) -> Result<(Vec<Hop>, Vec<String>), String> {
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
    let mut hops = Vec::new();
    let mut refused = Vec::new();
    for stages in checked.hops() {
        let refusal = |stage| context.programs.refusal(&deployed, stage);
        if let Some(refusal) = checked.stages[stages.clone()].iter().find_map(refusal) {
            refused.push(refusal);
            continue;
        }
        hops.push(
            load::load_hop(
                context,
                &deployed,
                &checked,
                stages,
                &plugins,
                (Arc::clone(&conditions), Arc::clone(&identity)),
            )
            .await?,
        );
    }
    Ok((hops, refused))
}
