//! `pcluster config`

use super::Context;

/// Show every setting, its value and its source
///
/// Write a setting into pcluster.toml as `grace = "1m"`, or into the environment as `PCLUSTER_GRACE=1m`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_: &Args, context: &Context) -> anyhow::Result<()> {
    let settings = context.settings.resolved();
    if context.output.is_json() {
        return Ok(context.output.document(&settings)?);
    }
    let row = |setting: &crate::config::Resolved| {
        [setting.key, &setting.value, &setting.source, setting.help].map(str::to_owned).to_vec()
    };
    let rows: Vec<Vec<String>> = settings.iter().map(row).collect();
    Ok(context.output.table(&["SETTING", "VALUE", "FROM", "MEANING"], &rows)?)
}
