//! pcluster runs chains of sandboxed WebAssembly tasks over NATS JetStream.
//!
//! An item goes one way through here: a client feeds it ([`client`]), the server queues it ([`broker`]), a node takes it and
//! decides what becomes of it ([`node`]), the engine runs the task ([`engine`]), and its outputs go back to the server, until
//! a client pulls the results.
//!
//! | module | what |
//! |---|---|
//! | [`name`], [`chain`], [`subject`], [`frame`], [`log`], [`dead`], [`wire`](mod@wire) | pure: names, manifests, the wire; no I/O |
//! | [`text`] | pure: text and times as a terminal shows them |
//! | [`file`](mod@file) | files that are read whole, up to a size |
//! | [`broker`] | NATS; the only module that names `async_nats` |
//! | [`engine`] | WebAssembly; the only module that names `wasmtime` |
//! | [`node`] | takes items and runs them |
//! | [`client`] | what a client can do, for Rust programs and for the command line |
//! | [`config`], [`shutdown`], [`telemetry`] | settings, signals, log output |
//! | [`cli`] | the command line |
//!
//! Imports go down this list's layers only: the pure modules import none of the others, `broker` and `engine` only the pure
//! ones, `node` and `client` those (and never each other), `cli` all.

pub mod broker;
pub mod chain;
pub mod cli;
pub mod client;
pub mod config;
pub mod dead;
pub mod engine;
pub mod file;
pub mod frame;
#[cfg(test)]
mod fuzz;
pub mod held;
pub mod log;
pub mod name;
pub mod node;
/// The former name of [`client`]. Goes with the release after this one.
#[deprecated(note = "renamed to `pcluster::client`; `Root` is `Client`, `RootError` is `ClientError`")]
pub mod root {
    pub use crate::client::*;

    /// The former name of [`Client`].
    pub type Root = Client;
    /// The former name of [`ClientError`].
    pub type RootError = ClientError;
}
pub mod shutdown;
pub mod subject;
pub mod telemetry;
pub mod text;
pub mod wire;
