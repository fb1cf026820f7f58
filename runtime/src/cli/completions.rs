//! `pcluster completions`

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Context};

/// Print a script that completes pcluster's commands in your shell
#[derive(Debug, clap::Args)]
#[command(after_help = "For bash: pcluster completions bash > ~/.local/share/bash-completion/completions/pcluster")]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pcluster", &mut script);
    Ok(context.output.bytes(&script)?)
}
