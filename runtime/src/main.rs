//! The command `pcluster`.

use std::process::ExitCode;

fn main() -> ExitCode {
    pcluster::internal::main()
}
