//! `pcluster diff`, and `pcluster deploy --dry-run`

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::exit::WouldChange;
use super::output::{Output, count};
use super::{Context, build};
use crate::client::{Change, Comparison, DeployOptions};
use crate::text::one_line;

/// The most characters of a value that are shown.
const VALUE: usize = 60;

/// Show what a deploy would change, and change nothing
///
/// The manifest is built and checked as `pcluster deploy` does it, and compared with the active version: stages that are added,
/// removed or moved, code by its digest, and each key of the manifest. What waits in the queues is finished by the version that it
/// was fed to.
///
/// Exit status: 0; with --exit-code 6 if the deploy would change anything.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pcluster diff chain.toml\n  pcluster diff orders/ --exit-code || echo changed")]
pub struct Args {
    /// The manifest, or a folder with a `chain.toml`
    #[arg(value_name = "CHAIN.TOML", default_value = "chain.toml")]
    manifest: PathBuf,
    /// End with status 6 if the deploy would change anything
    #[arg(long)]
    exit_code: bool,
    /// Compare also if a stage gives items that the next does not take, as `pcluster deploy --no-contracts` deploys it
    #[arg(long)]
    no_contracts: bool,
    #[command(flatten)]
    how: build::How,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let options = DeployOptions { no_contracts: args.no_contracts, ..DeployOptions::default() };
    show(&args.manifest, args.how, options, args.exit_code, context).await
}

/// Shows what a deploy of this manifest would change.
pub(super) async fn show(
    manifest: &Path,
    how: build::How,
    options: DeployOptions,
    exit_code: bool,
    context: &Context,
) -> anyhow::Result<()> {
    let package = build::package(manifest, how, context).await?;
    let compared = context.client().await?.compare_with(package, options).await?;
    if context.output.is_json() {
        context.output.document(&compared)?;
    } else {
        print(&compared, &context.output)?;
    }
    let changes = compared.changes.len() as u64;
    if exit_code && changes > 0 {
        return Err(WouldChange(format!("{} would change", count(changes, "value"))).into());
    }
    Ok(())
}

fn print(compared: &Comparison, output: &Output) -> anyhow::Result<()> {
    let Comparison { chain, version, active, changes, refusal, queued } = compared;
    match active {
        Some((old, revision)) if changes.is_empty() => {
            output.data(&format!("{chain} {old} ({revision}) would stay as it is"))?;
        }
        Some((old, revision)) => output.data(&format!("{chain} {version} would replace {old} ({revision})"))?,
        None => output.data(&format!("{chain} {version} would be new"))?,
    }
    for change in changes {
        output.data(&line(change))?;
    }
    for queued in queued.iter().filter(|_| !changes.is_empty()) {
        let (messages, revision) = (count(queued.messages, "message"), queued.revision);
        output
            .data(&format!("{messages} in the queues of {} (r{revision}): finished by that version", queued.version))?;
    }
    if let Some(refusal) = refusal {
        output.note(&format!("the deploy would be refused: {refusal}"));
    }
    Ok(())
}

/// Returns a change in one line.
fn line(change: &Change) -> String {
    let Change { stage, key, before, after } = change;
    let whose = stage.as_ref().map_or_else(String::new, |stage| format!("stage {stage}: "));
    match (stage, key.as_str(), before, after) {
        (Some(stage), "stage", None, _) => format!("+ stage {stage}"),
        (Some(stage), "stage", _, None) => format!("- stage {stage}"),
        (Some(stage), "stage", Some(before), Some(after)) => format!("~ stage {stage}: place {before} -> {after}"),
        (_, _, None, Some(after)) => format!("+ {whose}{key}: {}", shown(after)),
        (_, _, Some(before), None) => format!("- {whose}{key}: {}", shown(before)),
        (_, _, before, after) => {
            let [before, after] = [before, after].map(|value| value.as_ref().map_or_else(String::new, shown));
            format!("~ {whose}{key}: {before} -> {after}")
        }
    }
}

/// Returns a value in few characters.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.starts_with(crate::name::DIGEST_PREFIX) => one_line(text, 20),
        value => one_line(&value.to_string(), VALUE),
    }
}
