//! Programs as tasks: processes of the system, their arguments, their ends, and their guard.
//!
//! This room knows neither NATS nor WebAssembly.

pub(crate) mod allow;
pub(crate) mod cgroup;
pub(crate) mod end;
pub(crate) mod folder;
pub(crate) mod guard;
pub(crate) mod process;
pub(crate) mod run;
pub(crate) mod shipped;
pub(crate) mod spool;
pub(crate) mod stdio;
mod utf8;
pub(crate) mod words;
pub(crate) mod worker;
