//! `pcluster stop` and `pcluster start`

use serde_json::json;

use super::Context;
use crate::client::Switched;
use crate::name::ChainName;

/// Close a chain's intake; items that were fed are still finished
#[derive(Debug, clap::Args)]
#[command(after_help = "Feeding fails until `pcluster start`. `pcluster wait` waits until the rest is finished.")]
pub struct StopArgs {
    /// The chain
    chain: ChainName,
}

/// Open a chain's intake again
///
/// Items can be fed again, and go to the active version. Missing streams of the chain are created again.
#[derive(Debug, clap::Args)]
pub struct StartArgs {
    /// The chain
    chain: ChainName,
}

/// Runs `pcluster stop`.
pub async fn stop(args: StopArgs, context: &Context) -> anyhow::Result<()> {
    let StopArgs { chain } = args;
    let changed = context.client().await?.stop(&chain).await?;
    let already = if changed { "" } else { "already " };
    if context.output.is_json() {
        return Ok(context.output.line(&json!({ "chain": chain, "open": false, "changed": changed }))?);
    }
    context.output.note(&format!("the intake of {chain} is {already}closed; items that were fed are still finished"));
    Ok(())
}

/// Runs `pcluster start`.
pub async fn start(args: StartArgs, context: &Context) -> anyhow::Result<()> {
    let StartArgs { chain } = args;
    let Switched { changed, made } = context.client().await?.start_and_tell(&chain).await?;
    let already = if changed { "" } else { "already " };
    if context.output.is_json() {
        let said = json!({ "chain": chain, "open": true, "changed": changed, "made": made });
        return Ok(context.output.line(&said)?);
    }
    context.output.note(&format!("the intake of {chain} is {already}open"));
    if !made.is_empty() {
        let names = Vec::from_iter(made).join(", ");
        context.output.note(&format!("these streams of the chain were missing and were created again, empty: {names}"));
    }
    Ok(())
}
