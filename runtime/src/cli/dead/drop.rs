//! `pcluster dead drop`

use serde_json::json;

use super::{Selected, none_matches};
use crate::cli::Context;
use crate::cli::output::count;
use crate::name::ChainName;

/// Remove dead letters and their items for good
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: pcluster dead drop orders --failure undecodable")]
pub struct Args {
    /// The chain
    chain: ChainName,
    #[command(flatten)]
    selected: Selected,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let is_filtered = args.selected.filters.are_given();
    let selection = args.selected.selection()?;
    let dropped = context.client().await?.drop_dead(&args.chain, &selection).await?;
    if context.output.is_json() {
        context.output.line(&json!({ "chain": args.chain, "dropped": dropped }))?;
    } else {
        context.output.data(&format!("{} dropped", count(dropped, "dead letter")))?;
    }
    if is_filtered && dropped == 0 {
        context.output.note(&none_matches(&args.chain));
    }
    Ok(())
}
