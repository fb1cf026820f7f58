//! `pcluster compile`, which a node starts to compile a plugin. People have no use for it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::engine::compiler::{self, CompilerLimits};

/// The name of the command.
pub const NAME: &str = "compile";

/// Compile a plugin for the node that started this process
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Bytes of memory that the compiler may take
    memory: u64,
    /// Milliseconds that the compiler may take
    millis: u64,
    /// Compile for an engine that takes little of the address space
    #[arg(long)]
    scarce: bool,
    /// File with functions that were compiled before
    #[arg(long, value_name = "FILE")]
    functions: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    let limits = CompilerLimits { memory: args.memory, time: Duration::from_millis(args.millis) };
    compiler::main(limits, args.scarce, args.functions.clone())
}
