//! `pcluster status`

use std::collections::BTreeMap;
use std::fmt::Display;

use futures_util::StreamExt;

use super::Context;
use super::output::count;
use crate::client::{ChainStatus, InitializerReads, NodeProblem, RevisionStatus, StageDetails, StageStatus};
use crate::name::{ChainName, StageName, Topic};
use crate::text::visible_line;

/// How many chains are queried at the same time.
const SIDE_BY_SIDE: usize = 16;

/// Show chains, their revisions and what each stage is doing
///
/// QUEUED counts messages that wait for their turn or for another attempt, and a message may hold many items. RUNNING
/// counts items that run now. DONE counts items that were handled for good, on all nodes since the revision was deployed;
/// FAILED counts those that became dead letters, and no attempt that is tried again. ITEMS/S is an average over the last
/// seconds. When a node is killed, about its last quarter of a
/// second is missing from DONE and FAILED.
///
/// A dash stands for an unknown value: the server does not tell it, or a connected node does not answer within two
/// seconds. Such a node is named, and its running items count as QUEUED. Some nodes cannot be known to be connected:
/// nodes behind a leaf node, and all nodes of a server that does not list its connections. These count if they answer
/// within 300 ms of each other.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The chain; without it, all chains
    chain: Option<ChainName>,

    /// Show one stage of the chain: its task, what it may reach, what its initializer has read, and who does not serve it
    #[arg(long, value_name = "STAGE", requires = "chain")]
    stage: Option<StageName>,

    /// Count the messages of results that each topic of the chain has, pulled or not; a message may hold many results
    #[arg(long, requires = "chain", conflicts_with = "stage")]
    topics: bool,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    if let (Some(chain), Some(stage)) = (&args.chain, &args.stage) {
        let nodes = client.settled_nodes().await?;
        return show_stage(&client.stage(chain, stage, nodes.as_ref()).await?, context);
    }
    if let (Some(chain), true) = (&args.chain, args.topics) {
        return show_topics(&client.topics(chain).await?, context);
    }
    let chains = match &args.chain {
        Some(chain) => vec![chain.clone()],
        None => client.chains().await?,
    };
    let nodes = client.settled_nodes().await?;
    let mut all = Vec::with_capacity(chains.len());
    // A chain with a damaged entry does not hide the others, but makes the command fail.
    let mut ended = Ok(());
    // All at the same time, because a chain whose servers do not answer takes long.
    let asked = chains.iter().map(|chain| client.status(chain, nodes.as_ref()));
    let mut answers = futures_util::stream::iter(asked).buffered(SIDE_BY_SIDE);
    while let Some(status) = answers.next().await {
        match status {
            Ok(status) => all.push(status),
            Err(error) if args.chain.is_none() => ended = ended.and(Err(error)),
            Err(error) => return Err(error.into()),
        }
    }
    if context.output.is_json() {
        let printed = match (&args.chain, all.first()) {
            (Some(_), Some(status)) => context.output.document(status),
            _ => context.output.document(&all),
        };
        printed?;
        return Ok(ended?);
    }
    if chains.is_empty() {
        context.output.note("no chain is deployed; `pcluster deploy chain.toml` deploys one");
    }
    for (position, status) in all.iter().enumerate() {
        if position > 0 {
            context.output.data("")?;
        }
        show(status, context)?;
    }
    for node in nodes.iter().flat_map(|nodes| &nodes.silent) {
        context.output.note(&format!("node {node} is connected and does not answer"));
    }
    Ok(ended?)
}

fn show(status: &ChainStatus, context: &Context) -> anyhow::Result<()> {
    let closed = if status.open { "" } else { ", intake closed" };
    context.output.data(&format!(
        "{} {} (r{}), {}{closed}, {} to pull, {}{}",
        status.chain,
        status.version,
        status.revision,
        nodes(status),
        count(status.result_messages, "result message"),
        count(status.dead, "dead letter"),
        large(status),
    ))?;
    let several = status.revisions.len() > 1;
    let rows: Vec<Vec<String>> = status
        .revisions
        .iter()
        .flat_map(|revision| revision.stages.iter().map(move |stage| row(revision, stage, several)))
        .collect();
    context.output.table(&["STAGE", ">QUEUED", ">RUNNING", ">DONE", ">FAILED", ">ITEMS/S"], &rows)?;
    if status.dead > 0 {
        context.output.note(&format!("`pcluster dead ls {}` shows the dead letters", status.chain));
    }
    show_problems(&status.problems, context);
    Ok(())
}

/// Prints how many messages of results each topic has.
fn show_topics(topics: &BTreeMap<Topic, u64>, context: &Context) -> anyhow::Result<()> {
    if context.output.is_json() {
        return Ok(context.output.document(topics)?);
    }
    let rows: Vec<_> = topics.iter().map(|(topic, messages)| vec![topic.to_string(), messages.to_string()]).collect();
    Ok(context.output.table(&["TOPIC", ">RESULT MESSAGES"], &rows)?)
}

/// Prints what is known of a stage, one revision after the other.
fn show_stage(revisions: &[StageDetails], context: &Context) -> anyhow::Result<()> {
    if context.output.is_json() {
        return Ok(context.output.document(&revisions)?);
    }
    for (position, stage) in revisions.iter().enumerate() {
        if position > 0 {
            context.output.data("")?;
        }
        let StageDetails { chain, version, revision, stage: name, task, .. } = stage;
        context.output.data(&format!("{chain} {version} (r{revision}), stage {name}"))?;
        let mut rows = vec![vec!["task".to_owned(), task.clone()]];
        rows.extend(stage.plugin.iter().map(|plugin| vec!["plugin".to_owned(), plugin.clone()]));
        let none = || vec!["reaches".to_owned(), "nothing outside its sandbox".to_owned()];
        if stage.grants.is_empty() && stage.plugin.is_some() {
            rows.push(none());
        }
        rows.extend(stage.grants.iter().map(|grant| vec!["reaches".to_owned(), grant.clone()]));
        if let Some(initializer) = &stage.initializer {
            let InitializerReads { read, node, time, .. } = initializer;
            rows.extend(read.iter().map(|read| vec!["init read".to_owned(), read.clone()]));
            rows.push(vec!["init ran".to_owned(), format!("{time} on node {node}; all nodes go by what it read")]);
        }
        for row in rows {
            let [key, value] = [&row[0], &row[1]].map(|text| visible_line(text));
            context.output.data(&format!("  {key:<9} {value}"))?;
        }
        show_problems(&stage.problems, context);
    }
    Ok(())
}

fn show_problems(problems: &[NodeProblem], context: &Context) {
    for problem in problems {
        let text = &problem.problem.problem;
        let what = match &problem.problem {
            of_node if of_node.chain.is_empty() => "",
            _ if problem.served_by_others => " leaves it to other nodes",
            _ => " cannot serve it",
        };
        context.output.note(&format!("node {}{what}: {text}", problem.node));
    }
}

/// Returns what large items take, if there are any.
fn large(status: &ChainStatus) -> String {
    match (status.large_items, status.large_bytes) {
        (Some(0) | None, _) => String::new(),
        (Some(items), bytes) => {
            let bytes = bytes.map(|bytes| format!(" ({})", bytesize::ByteSize(bytes))).unwrap_or_default();
            format!(", {}{bytes}", count(items, "large item"))
        }
    }
}

/// Returns how many nodes serve a chain, as far as that is known.
fn nodes(status: &ChainStatus) -> String {
    match (status.nodes, status.silent_nodes.len()) {
        (None, _) => "nodes do not answer".to_owned(),
        (Some(nodes), 0) => count(nodes as u64, "node"),
        (Some(nodes), 1) => format!("{} and 1 that does not answer", count(nodes as u64, "node")),
        (Some(nodes), silent) => format!("{} and {silent} that do not answer", count(nodes as u64, "node")),
    }
}

fn row(revision: &RevisionStatus, stage: &StageStatus, several: bool) -> Vec<String> {
    let name = if several { format!("r{} {}", revision.revision, stage.stage) } else { stage.stage.clone() };
    vec![
        name,
        stage.queued_messages.to_string(),
        known(stage.running),
        known(stage.done),
        known(stage.failed),
        known(stage.rate.map(|rate| format!("{rate:.1}"))),
    ]
}

/// Returns a value as text; a dash if it is not known.
fn known(value: Option<impl Display>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}
