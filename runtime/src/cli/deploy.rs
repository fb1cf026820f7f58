//! `pcluster deploy`

use std::path::PathBuf;

use serde_json::json;

use super::{Context, build, diff};
#[cfg(any(debug_assertions, feature = "failpoints"))]
use crate::client::deploy::failpoint::{self, Step};
use crate::client::{DeployOptions, Deployment};

/// Deploy a chain: store its plugins, files and manifest, and switch to it
///
/// Plugins that the manifest names by their folders are built first, as `pcluster build` does. Everything is checked before anything changes. An item that was fed before the switch is finished by the version
/// that it was fed to; later items go to the new version. Deploying an unchanged chain again changes nothing. What stages
/// are granted is listed.
///
/// If anything fails, nothing is changed. Results and dead letters stay: lower limits take effect once the older
/// versions have no items left and their results are gone.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command")]
pub struct Args {
    /// The manifest, or a folder with a `chain.toml`
    #[arg(value_name = "CHAIN.TOML", default_value = "chain.toml")]
    manifest: PathBuf,
    /// Apply `[results]` of the manifest at once, even if that removes results and dead letters
    #[arg(long)]
    force: bool,
    /// Show what would change, and change nothing, as `pcluster diff` does
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: end with status 6 if anything would change
    #[arg(long, requires = "dry_run")]
    exit_code: bool,
    /// Deploy also if a stage gives items that the next does not take, by the schemas in their plugins
    #[arg(long)]
    no_contracts: bool,
    #[command(flatten)]
    how: build::How,
    #[cfg(any(debug_assertions, feature = "failpoints"))]
    /// Kill this process after a step of the deploy, as in `entered`, or lose an answer, as in `unanswered`; for tests
    #[arg(long, value_name = "STEP", hide = true)]
    die_at: Option<Step>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    #[cfg(any(debug_assertions, feature = "failpoints"))]
    args.die_at.into_iter().for_each(failpoint::arm);
    let options = DeployOptions { force: args.force, no_contracts: args.no_contracts, ..DeployOptions::default() };
    if args.dry_run {
        return diff::show(&args.manifest, args.how, options, args.exit_code, context).await;
    }
    let package = build::package(&args.manifest, args.how, context).await?;
    let deployment = context.client().await?.deploy_with(package, options).await?;
    if context.output.is_json() {
        context.output.document(&json!({
            "chain": deployment.chain,
            "version": deployment.version,
            "revision": deployment.revision.number(),
            "changed": deployment.is_new,
            "open": deployment.open,
            "grants": granted(&deployment),
        }))?;
    } else {
        context.output.data(&describe(&deployment))?;
        for (stage, grants) in &deployment.grants {
            for line in grants.lines() {
                context.output.data(&format!("stage {stage}: {line}"))?;
            }
        }
    }
    for doubt in &deployment.doubts {
        context.output.note(doubt);
    }
    if !deployment.copying.is_empty() {
        let streams = deployment.copying.join(", ");
        context.output.note(&format!("still being copied to other servers: {streams}"));
    }
    if !deployment.open {
        let chain = &deployment.chain;
        context.output.note(&format!("the intake of {chain} is closed: `pcluster start {chain}` opens it"));
    }
    Ok(())
}

/// Returns what each stage was granted, in JSON.
fn granted(deployment: &Deployment) -> serde_json::Value {
    deployment.grants.iter().map(|(stage, grants)| (stage.to_string(), grants.document())).collect()
}

/// Returns what a deploy did, in one line.
pub(super) fn describe(deployment: &Deployment) -> String {
    let Deployment { chain, version, revision, .. } = deployment;
    match &deployment.before {
        _ if !deployment.is_new => format!("{chain} {version} is unchanged ({revision})"),
        Some((old, before)) => format!("{chain} {version} deployed as {revision}, after {old} ({before})"),
        None => format!("{chain} {version} deployed as {revision}"),
    }
}
