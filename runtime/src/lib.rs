//! pcluster runs chains of sandboxed WebAssembly tasks and native programs over NATS JetStream.
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
//! decides what becomes of it (`node`), runs its task (`engine`) or program (`program`), and its outputs go back to the
//! server, until a client pulls the results.
//!
//! | module | what |
//! |---|---|
//! | `name`, `chain`, `subject`, `frame`, `log`, `dead`, `report`, `held`, `wire`, `kind`, `backoff` | pure: names, manifests, the wire, kinds of errors; no I/O |
//! | `run` | what a run of an item takes and gives, whatever runs it: outputs, failures, the memory budget |
//! | `slots` | what items of a node may use at once, and the line of those who wait |
//! | `contract` | pure: JSON Schemas of what tasks take and give; whether what one gives is what the next takes |
//! | `counted`, `lock`, `contents` | a counter that falls by itself; a lock that survives a panic; a set of contents that grows |
//! | `machine` | what the machine lets this process use |
//! | `text` | pure: text and times as a terminal shows them |
//! | `diagnostic` | pure: mistakes in files of users, with their places |
//! | `file` | files that are read whole, up to a size |
//! | `broker` | NATS; the only module that names `async_nats` |
//! | `engine` | WebAssembly; the only module that names `wasmtime` |
//! | `calls` | what tasks reach by grant: HTTP, secrets, the rules of grants, keys and records; knows neither NATS nor WebAssembly |
//! | `program` | processes of the machine: their guard, their ends, workers, shipped files; knows neither NATS nor WebAssembly |
//! | `build` | makes plugins from the folders of their authors, with the tools of their languages |
//! | `node` | takes items and runs them |
//! | `desk` | runs a chain in this process, without a server, with what `node` runs items with |
//! | `cases` | cases of a chain: their files, what must come of them, and what has |
//! | `client` | what a client can do, for Rust programs and for the command line |
//! | `config`, `shutdown`, `telemetry` | settings, signals, log output |
//! | `cli` | the command line |
//!
//! Imports go down this list's layers only: the pure modules import none of the others, `broker`, `engine` and `program` only the
//! pure ones, `run`, `slots` and of `calls` what they hand on, `build` of `engine` what reads a plugin, `node` and `client` those (and
//! never each other), `desk` these, `cases` of `desk` what runs them, `cli` all.
//!
//! # Glossary
//!
//! | word | meaning |
//! |---|---|
//! | chain | a named list of stages; what is deployed |
//! | contract | what a task takes and gives, as JSON Schemas |
//! | misfit | a value that a stage gives and the next does not take |
//! | stage | one step of a chain: a task of a plugin, with its limits |
//! | hop | a stage with a queue in front of it, and the inline stages that run with it |
//! | version, revision | the author's label of what is deployed; the number that the registry gives it |
//! | item | one value, as CBOR; a stage takes one and gives none, one or many |
//! | large item, reference | an item whose bytes are an object of the chain's object store; what a message holds in its place |
//! | record | of a large item, the note which message refers to its object; the object goes with the last |
//! | frame | the items of one message, which travel together |
//! | inbound frame | a frame that a node was handed, with the record of its attempts |
//! | lane | one of the queues in front of a hop: work, retry, quarantine, parked |
//! | attempt | one run of an item; a *lost attempt* ended without an outcome, because its node died or was cut off |
//! | requeue | to put items of a frame back into a lane, for another attempt or another node |
//! | defer | to requeue an item so that it runs in a frame of its own |
//! | stream | to publish outputs of an item that still runs |
//! | dead letter | an item that failed for good, with its reason and attempts |
//! | quarantine | where items run alone that their nodes may have died of |
//! | park | to keep a message of a limited stage aside while its back-off lasts |
//! | commit | to store what a frame leaves behind, so that it counts once |
//! | outbox | the streams of a chain, as a commit sees them |
//! | grant | what a stage may reach outside of its sandbox: its manifest asks for it |
//! | ceiling | what the operator of a node allows; a grant lies inside of it |
//! | door | what all calls of a stage go through: it holds them against the grants, counts and records them |
//! | slot | a thing of a node that one item has at a time, such as a core or a device; in `engine`, room for one instance |
//! | ticket | a place in the line for slots |
//! | guard, shepherd | the process that starts the programs of a node; the one that ends all that descends from a program |
//! | worker | of a stage, a process that takes one item after another; of a hop, what takes its messages |
//! | permit | leave to run, to keep a slot, or to send; given back when dropped |
//! | phase | what the workers of a revision must do: run, drain, interrupt |
//! | incarnation | one run of a node's program |
//! | holder | a node that had a frame in hand; a *holder note* says so on the server |
//! | feeder, puller | what feeds items to a chain; what takes its results |
//! | registry | the KV bucket with chains, their states and manifests |
//! | layout | how the streams of a chain are configured |
//! | retire | to end an older revision once it has run empty |

mod archive;
mod backoff;
mod broker;
mod build;
mod calls;
mod cases;
mod chain;
mod cli;
pub mod client;
mod config;
mod contents;
mod contract;
mod counted;
mod dead;
mod desk;
mod diagnostic;
mod engine;
mod file;
mod frame;
#[cfg(test)]
mod fuzz;
mod held;
mod kind;
mod lock;
mod log;
mod machine;
pub mod name;
pub mod node;
mod program;
mod report;
mod run;
mod shutdown;
mod slots;
mod subject;
mod telemetry;
mod text;
mod wire;

/// The manifest of a chain, as its author writes it.
pub mod manifest {
    pub use crate::chain::manifest::{
        Exits, Input, Manifest, Need, Queue, Records, Results, Retry, Stage, StageSchemas,
    };
    pub use crate::frame::format::Format;
}

/// Why something failed.
///
/// The text of an error includes the text of its [source](std::error::Error::source).
pub mod error {
    pub use crate::archive::pack::FilesError;
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

    /// Gives an error whose failures are all of one kind its `kind`.
    macro_rules! kinds {
        ($($error:ty => $kind:ident),+ $(,)?) => {
            $(impl $error {
                /// Returns the kind of failure.
                pub fn kind(&self) -> ErrorKind {
                    ErrorKind::$kind
                }
            })+
        };
    }

    kinds! {
        NameError => InvalidArgument,
        IdError => InvalidArgument,
        DigestError => InvalidArgument,
        ManifestError => InvalidManifest,
        ChainError => InvalidManifest,
        InspectError => InvalidManifest,
        WireError => Incompatible,
        EngineError => Other,
    }
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
    pub use crate::engine::compiler::{Compiler, CompilerLimits};
    pub use crate::engine::limits::Limits;
    pub use crate::engine::snapshot::Surroundings;
    pub use crate::engine::static_context::StaticContext;
    pub use crate::engine::task::Task;
    pub use crate::engine::{Engine, EngineSettings, Plugin};
    pub use crate::frame::cbor::split;
    pub use crate::frame::format::to_cbor;
    pub use crate::run::call::{Call, ItemSource};
    pub use crate::run::failure::Failure;
    pub use crate::run::output::{FrameOutputs, Outputs};
    pub use crate::subject::{Lane, dead_stream, intake, results, results_stream, work_stream};
}
