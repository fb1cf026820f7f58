//! `pcluster compile`: what a node starts to compile a plugin; of no use to people.

use std::process::ExitCode;
use std::time::Duration;

use crate::engine::compiler::{self, CompilerLimits};

/// The name of the command.
pub const NAME: &str = "compile";

/// Compile a plugin for the node that has started this process
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Bytes of memory that it may take
    memory: u64,
    /// Milliseconds that it may take
    millis: u64,
    /// The engine takes little of the address space
    #[arg(long)]
    scarce: bool,
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let limits = CompilerLimits { memory: args.memory, time: Duration::from_millis(args.millis) };
    compiler::main(limits, args.scarce)
}
