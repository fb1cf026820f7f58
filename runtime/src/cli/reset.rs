//! `pcluster reset`

use serde_json::json;

use super::Context;
use super::output::count;
use crate::name::ChainName;

/// Interrupt the running items of a chain and empty its queues
///
/// Items that were fed before never run afterwards. Results and dead letters stay unless --all is given. The chain
/// continues as a new revision of the same version.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The chain
    chain: ChainName,
    /// Remove results and dead letters too
    #[arg(long)]
    all: bool,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let reset = context.client().await?.reset(&args.chain, args.all).await?;
    if context.output.is_json() {
        context.output.document(&json!({
            "chain": args.chain,
            "revision": reset.revision.number(),
            "dropped": reset.dropped,
            "forgotten": reset.forgotten,
            "pending_nodes": reset.pending_nodes,
        }))?;
    } else {
        let dropped = count(reset.dropped, "unfinished message");
        let forgotten = match reset.forgotten {
            _ if !args.all => String::new(),
            1 => ", 1 result or dead letter forgotten".to_owned(),
            number => format!(", {number} results and dead letters forgotten"),
        };
        let (chain, revision) = (&args.chain, reset.revision);
        context.output.data(&format!("{chain} reset: {dropped} dropped{forgotten}; it goes on as {revision}"))?;
    }
    for node in reset.pending_nodes {
        context.output.note(&format!(
            "node {node} has not answered yet; items that it still runs can leave nothing in the queues"
        ));
    }
    Ok(())
}
