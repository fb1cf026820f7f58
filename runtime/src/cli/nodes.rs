//! `pcluster nodes`

use std::time::Duration;

use bytesize::ByteSize;

use super::Context;
use crate::broker::service::Nodes;
use crate::report::NodeReport;

/// Show the nodes that answer
///
/// RUNNING counts the items that run on a node now. DONE counts the items that it has handled since it started, for the
/// versions that it serves. MEMORY is the memory of the process and, after the slash, the most that items may take. SLOTS
/// are those that items use and, after the slash, all. A connected node that does not answer within two seconds is named.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub async fn run(_: &Args, context: &Context) -> anyhow::Result<()> {
    let Nodes { answered: nodes, silent } = context.client().await?.nodes().await?;
    for node in &silent {
        context.output.note(&format!("{node} is connected and does not answer"));
    }
    if context.output.is_json() {
        return Ok(context.output.document(&nodes)?);
    }
    if nodes.is_empty() {
        if silent.is_empty() {
            context.output.note("no node answers; start one with `pcluster node`");
        }
        return Ok(());
    }
    let rows: Vec<Vec<String>> = nodes.iter().map(row).collect();
    context.output.table(
        &[
            "NODE", "HOST", ">PID", ">UP", "STATE", ">RUNNING", ">DONE", ">ITEMS/S", ">MEMORY", "SLOTS", "LABELS",
            "CHAINS",
        ],
        &rows,
    )?;
    for node in &nodes {
        for problem in &node.problems {
            let revision = problem.revision.map_or(String::new(), |number| format!(" r{number}"));
            let what = match problem.chain.as_str() {
                "" => String::new(),
                chain => format!("cannot serve {chain}{revision}: "),
            };
            context.output.note(&format!("{}: {what}{}", node.node, problem.problem));
        }
    }
    Ok(())
}

/// Formats the memory in use and its limit.
fn memory(node: &NodeReport) -> String {
    match node.memory {
        // A node of an older version does not report its memory.
        0 => "-".to_owned(),
        of => {
            let used = if node.memory_resident > 0 { node.memory_resident } else { node.memory_used };
            format!("{}/{}", ByteSize(used).display().iec_short(), ByteSize(of).display().iec_short())
        }
    }
}

/// Formats the slots in use and all, without memory, which few stages need.
fn slots(node: &NodeReport) -> String {
    let counted = node.slots.iter().filter(|slot| slot.slot != "memory" || slot.free < slot.all);
    let shown = counted.map(|slot| {
        let shown = |number| match slot.slot.as_str() {
            "memory" => ByteSize(number).display().iec_short().to_string(),
            _ => number.to_string(),
        };
        format!("{}:{}/{}", slot.slot, shown(slot.all.saturating_sub(slot.free)), shown(slot.all))
    });
    or_dash(&shown.collect::<Vec<_>>())
}

/// Formats the labels that operators gave.
fn labels(node: &NodeReport) -> String {
    let given = node.labels.iter().filter(|(name, _)| !matches!(name.as_str(), "arch" | "os"));
    or_dash(&given.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>())
}

fn or_dash(parts: &[String]) -> String {
    if parts.is_empty() { "-".to_owned() } else { parts.join(",") }
}

fn row(node: &NodeReport) -> Vec<String> {
    let mut chains: Vec<&str> = node.hops.iter().map(|hop| hop.chain.as_str()).collect();
    chains.dedup();
    vec![
        node.node.clone(),
        node.host.clone(),
        node.pid.to_string(),
        humantime::format_duration(Duration::from_secs(Duration::from_secs_f64(node.uptime).as_secs())).to_string(),
        if node.draining { "draining" } else { "ready" }.to_owned(),
        node.hops.iter().map(|hop| hop.running).sum::<u64>().to_string(),
        node.hops.iter().map(|hop| hop.done).sum::<u64>().to_string(),
        // The sum of no numbers is a negative zero.
        format!("{:.1}", node.hops.iter().map(|hop| hop.rate).sum::<f64>() + 0.0),
        memory(node),
        slots(node),
        labels(node),
        chains.join(","),
    ]
}
