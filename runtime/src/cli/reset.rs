//! `pcluster reset`

use serde_json::json;

use super::Context;
use super::output::count;
use crate::name::ChainName;

/// Interrupt what runs and empty all queues of a chain
///
/// Nothing that was fed before ever runs afterwards. Results and dead letters stay unless --all is given. The chain goes on as
/// a new revision of the same version.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The chain
    chain: ChainName,
    /// Remove results and dead letters too
    #[arg(long)]
    all: bool,
}

/// Runs the command.
///
/// # Errors
///
/// If there is no such chain, or the server does not allow it.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let reset = context.root().await?.reset(&args.chain, args.all).await?;
    if context.output.is_json() {
        context.output.document(&json!({
            "chain": args.chain,
            "revision": reset.revision.number(),
            "dropped": reset.dropped,
            "forgotten": reset.forgotten,
            "pending_nodes": reset.pending_nodes,
        }))?;
    } else {
        let mut line = format!("{} reset: {} dropped", args.chain, count(reset.dropped, "unfinished message"));
        if args.all {
            line += &match reset.forgotten {
                1 => ", 1 result or dead letter forgotten".to_owned(),
                number => format!(", {number} results and dead letters forgotten"),
            };
        }
        context.output.data(&format!("{line}; it goes on as {}", reset.revision))?;
    }
    for node in reset.pending_nodes {
        context.output.note(&format!(
            "node {node} has not answered yet; what it still runs can leave nothing behind in the queues"
        ));
    }
    Ok(())
}
