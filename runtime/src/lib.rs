//! pcluster runs chains of sandboxed WebAssembly tasks over NATS JetStream.
//!
//! | module | what |
//! |---|---|
//! | [`client`] | deploys chains, feeds items, pulls results, reads dead letters, logs and status |
//! | [`manifest`] | the file `chain.toml`, which describes a chain |
//! | [`name`] | names of chains, stages and versions; revisions; digests |
//! | [`node`] | runs a node within a program of your own |
//! | [`error`](mod@error) | why something failed, and [`error::ErrorKind`] to tell failures apart |
//!
//! # Inside
//!
//! An item goes one way through here: a client feeds it (`client`), the server queues it (`broker`), a node takes it and
//! decides what becomes of it (`node`), the engine runs the task (`engine`), and its outputs go back to the server, until
//! a client pulls the results.
//!
//! | module | what |
//! |---|---|
//! | `name`, `chain`, `subject`, `frame`, `log`, `dead`, `held`, `wire`, `kind`, `backoff` | pure: names, manifests, the wire, kinds of errors; no I/O |
//! | `text` | pure: text and times as a terminal shows them |
//! | `file` | files that are read whole, up to a size |
//! | `broker` | NATS; the only module that names `async_nats` |
//! | `engine` | WebAssembly; the only module that names `wasmtime` |
//! | `node` | takes items and runs them |
//! | `client` | what a client can do, for Rust programs and for the command line |
//! | `config`, `shutdown`, `telemetry` | settings, signals, log output |
//! | `cli` | the command line |
//!
//! Imports go down this list's layers only: the pure modules import none of the others, `broker` and `engine` only the pure
//! ones, `node` and `client` those (and never each other), `cli` all.

mod backoff;
mod broker;
mod chain;
mod cli;
pub mod client;
mod config;
mod dead;
mod engine;
mod file;
mod frame;
#[cfg(test)]
mod fuzz;
mod held;
mod kind;
mod log;
pub mod name;
pub mod node;
mod shutdown;
mod subject;
mod telemetry;
mod text;
mod wire;

/// The manifest of a chain, as its author writes it.
pub mod manifest {
    pub use crate::chain::manifest::{Input, Manifest, Queue, Results, Retry, Stage};
    pub use crate::frame::format::Format;
}

/// Why something failed.
///
/// The text of an error includes the text of its [source](std::error::Error::source).
pub mod error {
    pub use crate::broker::BrokerError;
    pub use crate::chain::ChainError;
    pub use crate::chain::manifest::ManifestError;
    pub use crate::client::ClientError;
    pub use crate::engine::EngineError;
    pub use crate::engine::inspect::InspectError;
    pub use crate::frame::id::IdError;
    pub use crate::kind::ErrorKind;
    pub use crate::name::{DigestError, NameError};
    pub use crate::node::NodeError;
    pub use crate::wire::WireError;
}

/// The former name of [`client`]. Goes with the release after this one.
#[deprecated(note = "renamed to `pcluster::client`; `Root` is `Client`, `RootError` is `ClientError`")]
pub mod root {
    pub use crate::client::*;

    /// The former name of [`Client`].
    pub type Root = Client;
    /// The former name of [`ClientError`].
    pub type RootError = ClientError;
}

/// What the program, the tests and the benchmarks of this repository use. It changes without notice.
#[doc(hidden)]
pub mod internal {
    pub use crate::chain::isolation::{Isolation, Reuse};
    pub use crate::cli::main;
    pub use crate::engine::call::{Call, ItemSource};
    pub use crate::engine::compiler::{Compiler, CompilerLimits};
    pub use crate::engine::failure::Failure;
    pub use crate::engine::limits::Limits;
    pub use crate::engine::output::{FrameOutputs, Outputs};
    pub use crate::engine::static_context::StaticContext;
    pub use crate::engine::task::Task;
    pub use crate::engine::{Engine, EngineSettings, Plugin};
    pub use crate::frame::cbor::split;
    pub use crate::frame::format::to_cbor;
    pub use crate::subject::{Lane, dead_stream, intake, results, results_stream, work_stream};
}
