//! `pcluster stop` and `pcluster start`

use serde_json::json;

use super::Context;
use super::output::Output;
use crate::name::ChainName;

/// Close a chain's intake; what was fed is still finished
#[derive(Debug, clap::Args)]
#[command(after_help = "Feeding fails until `pcluster start`. `pcluster wait` tells when the rest is finished.")]
pub struct StopArgs {
    /// The chain
    chain: ChainName,
}

/// Open a chain's intake again
///
/// Items can be fed once more; they go to the version that is active.
#[derive(Debug, clap::Args)]
pub struct StartArgs {
    /// The chain
    chain: ChainName,
}

/// Runs `pcluster stop`.
///
/// # Errors
///
/// If there is no such chain, or the server does not allow it.
pub async fn stop(args: StopArgs, context: &Context) -> anyhow::Result<()> {
    let StopArgs { chain } = args;
    let changed = context.root().await?.stop(&chain).await?;
    let already = if changed { "" } else { "already " };
    let said = format!("the intake of {chain} is {already}closed; what was fed is still finished");
    tell(&chain, false, changed, &said, &context.output)
}

/// Runs `pcluster start`.
///
/// # Errors
///
/// If there is no such chain, or the server does not allow it.
pub async fn start(args: StartArgs, context: &Context) -> anyhow::Result<()> {
    let StartArgs { chain } = args;
    let changed = context.root().await?.start(&chain).await?;
    let already = if changed { "" } else { "already " };
    tell(&chain, true, changed, &format!("the intake of {chain} is {already}open"), &context.output)
}

fn tell(chain: &ChainName, open: bool, changed: bool, said: &str, output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        return Ok(output.line(&json!({ "chain": chain, "open": open, "changed": changed }))?);
    }
    output.note(said);
    Ok(())
}
