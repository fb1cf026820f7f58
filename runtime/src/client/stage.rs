//! What is known of one stage of a chain, in each of its live revisions.

use serde::Serialize;

use super::status::{NodeProblem, problems};
use super::{Client, ClientError, stages};
use crate::broker::service::Nodes;
use crate::chain::record::Pinned;
use crate::chain::{Plugin, Work};
use crate::name::{ChainName, StageName};

/// A stage of a revision.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StageDetails {
    /// The chain.
    pub chain: ChainName,
    /// The version of the revision.
    pub version: String,
    /// The number of the revision.
    pub revision: u64,
    /// The stage.
    pub stage: StageName,
    /// The task or program.
    pub task: String,
    /// The digest of the plugin. `None` for a program.
    pub plugin: Option<String>,
    /// What the stage may reach, one grant a line as in `http https://api.example.com`.
    pub grants: Vec<String>,
    /// What its initializer read, for all nodes. `None` if it read nothing, or no node has served the stage.
    pub initializer: Option<InitializerReads>,
    /// Why nodes do not serve it.
    pub problems: Vec<NodeProblem>,
}

/// What the initializer of a stage read. The state of the revision is made of that on every node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InitializerReads {
    /// What was read, as in `objects.get models/m: ok`.
    pub read: Vec<String>,
    /// The node that read it.
    pub node: String,
    /// When, as RFC 3339.
    pub time: String,
}

pub(super) async fn stage_details(
    client: &Client,
    chain: &ChainName,
    stage: &StageName,
    nodes: Option<&Nodes>,
) -> Result<Vec<StageDetails>, ClientError> {
    stages::check_stage(client, Some(chain), stage).await?;
    let (registry, marked) = client.chain(chain).await?;
    let answered = nodes.map(|nodes| nodes.answered.as_slice()).unwrap_or_default();
    let mut all = Vec::new();
    for &revision in &marked.state.live {
        let (deployed, checked) = Client::revision(&registry, chain, revision).await?;
        let Some((_, found)) = checked.stage(stage) else { continue };
        let (task, plugin) = match &found.work {
            Work::Task { plugin: Plugin::Stored(digest), task } => (task.clone(), Some(digest.to_string())),
            Work::Task { task, .. } => (task.clone(), None),
            Work::Program(program) => (program.name.clone(), None),
        };
        let is_of = |found: &NodeProblem| {
            found.problem.revision.is_none_or(|of| of == revision.number())
                && found.problem.stage.as_deref().is_none_or(|of| of == stage.as_str())
        };
        let pinned = registry.pinned(chain, revision, stage).await?;
        all.push(StageDetails {
            chain: chain.clone(),
            version: deployed.version.to_string(),
            revision: revision.number(),
            stage: stage.clone(),
            task,
            plugin,
            grants: found.grants.lines(),
            initializer: pinned.map(|Pinned { read, node, time, .. }| InitializerReads { read, node, time }),
            problems: problems(chain, answered).into_iter().filter(is_of).collect(),
        });
    }
    Ok(all)
}
