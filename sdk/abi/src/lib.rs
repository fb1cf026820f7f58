//! The contract between a pcluster node (the host) and a plugin (the guest): every name, number and key that both sides
//! must agree on, and nothing else.
//!
//! A plugin is a `wasm32-wasip1` reactor module. To run one task on one item, the host
//!
//! 1. makes an instance and calls [`INITIALIZE`] if the module exports it;
//! 2. calls [`ALLOC`] with the length of the item, and writes the item (one CBOR data item) at the pointer it gets;
//! 3. calls the export [`TASK_PREFIX`]` + name` with that pointer and length. The buffer belongs to the guest from here on.
//!
//! The host may repeat steps 2 and 3 in the same instance, one item after the other, each with a context of its own. An
//! instance that trapped is not used again.
//!
//! While it runs, the guest calls the imports of [`MODULE`]: [`EMIT`] once per output item, [`FAIL`] to say why it failed,
//! [`LOG`] for a log line, [`CONTEXT_LEN`] and [`CONTEXT_READ`] for what it may know of its surroundings. The task returns a
//! [`Status`]. Outputs count only if it returns [`Status::Done`]; one that is given before the task is called, as in
//! [`INITIALIZE`], [`ALLOC`] or the export of [`INIT_PREFIX`], is a trap. The other imports may be called at any time.
//!
//! A guest that also exports [`EACH_PREFIX`]` + name` may take its items itself: the host then calls that in place of steps 2
//! and 3, once for one item or for several, and the guest calls [`NEXT`] for each. It tells how the item before has ended (what
//! it says the first time is passed over) and gets the length of the next; [`ITEM_READ`] copies that item. A length below zero
//! means that there is none, and the guest returns. There is none after an item that failed. What the export returns is passed
//! over. This spares the host a call into the guest for each item, which costs more than many a task.
//!
//! A task may have a state that is made once for each instance. Then the guest may export [`INIT_PREFIX`]` + name`, and the
//! host may call it once in a new instance, after [`INITIALIZE`] and before [`ALLOC`]. It makes the state from the `config` in
//! the context, where [`id`](context::ID) is empty and [`attempt`](context::ATTEMPT) is 0, as there need not be an item yet. It
//! returns a [`Status`], and says with [`FAIL`] why it failed, as a task does. Once the state is made, calling it again does
//! nothing and returns [`Status::Done`]. If the host does not call it, the guest makes the state itself when the first item
//! comes.
//!
//! A host may keep the memory of an instance in which the state was made, and start later instances from that image. What
//! making the state drew at random or read from a clock is then the same in all of them.
//!
//! ```wat
//! (import "pcluster_v1" "emit"         (func (param $ptr i32) (param $len i32)))
//! (import "pcluster_v1" "fail"         (func (param $ptr i32) (param $len i32)))
//! (import "pcluster_v1" "log"          (func (param $level i32) (param $ptr i32) (param $len i32)))
//! (import "pcluster_v1" "context_len"  (func (result i32)))
//! (import "pcluster_v1" "context_read" (func (param $ptr i32)))
//! (import "pcluster_v1" "next"         (func (param $status i32) (result i32)))
//! (import "pcluster_v1" "item_read"    (func (param $ptr i32)))
//! (export "memory"              (memory 0))
//! (export "pcluster_alloc"      (func (param $len i32) (result i32)))
//! (export "pcluster_task:NAME"  (func (param $ptr i32) (param $len i32) (result i32)))
//! (export "pcluster_each:NAME"  (func (result i32)))  ;; optional
//! (export "pcluster_init:NAME"  (func (result i32)))  ;; optional
//! ```
//!
//! No import names a chain, a stage or a subject: where outputs go is not the guest's to say.
//!
//! Of WASI preview 1 there are clocks that show whole milliseconds, randomness, sleep, standard output and error (which become
//! log lines) and the environment variables that the stage grants. There are no arguments, no files and no network: every other
//! descriptor is a bad one. One call writes at most 64 KiB, gives at most 1 MiB of random bytes, and looks at no more than 1,024
//! buffers or subscriptions. A module that imports anything else is refused, and so are threads, a second memory or table,
//! 64-bit memory, exceptions and references to anything but functions.
//!
//! A custom section named [`SECTION`] describes the tasks, one JSON object per line, so that a plugin can be read without
//! running it:
//!
//! ```json
//! {"abi":1,"name":"split","kind":"generator","doc":"Splits a line into words.","input":"String","output":"String"}
//! ```
//!
//! A task with a state also has `"state"`, the name of its type, after `output`. Only `abi` and `name` are required. A module
//! without the section works too: its tasks are then known by their exports alone.
#![no_std]

/// The version of the ABI that this crate describes.
pub const VERSION: u32 = 1;

/// The module that a guest imports the host's functions from. Its number is [`VERSION`].
pub const MODULE: &str = "pcluster_v1";

/// What the import modules of all ABI versions start with; the version's number follows.
pub const MODULE_PREFIX: &str = "pcluster_v";

/// Import `emit(ptr, len)`: gives out one output item, a single CBOR data item.
pub const EMIT: &str = "emit";

/// Import `fail(ptr, len)`: says in UTF-8 why the task failed, or why it is about to trap. The last call counts.
pub const FAIL: &str = "fail";

/// Import `log(level, ptr, len)`: writes one log line in UTF-8. `level` is a [`Level`].
pub const LOG: &str = "log";

/// Import `context_len() -> len`: the length in bytes of the context, a CBOR map with the keys in [`context`].
pub const CONTEXT_LEN: &str = "context_len";

/// Import `context_read(ptr)`: copies the whole context to `ptr`.
pub const CONTEXT_READ: &str = "context_read";

/// Import `next(status) -> len`: ends an item with this [`Status`] and begins the next, in the export of [`EACH_PREFIX`].
pub const NEXT: &str = "next";

/// Import `item_read(ptr)`: copies the item that [`NEXT`] has begun to `ptr`.
pub const ITEM_READ: &str = "item_read";

/// Export: the guest's linear memory.
pub const MEMORY: &str = "memory";

/// Export, optional: called once for each new instance, before anything else.
pub const INITIALIZE: &str = "_initialize";

/// Export `pcluster_alloc(len) -> ptr`: room for `len` bytes of input, aligned to 1.
pub const ALLOC: &str = "pcluster_alloc";

/// What the export of a task starts with; the task's name follows.
pub const TASK_PREFIX: &str = "pcluster_task:";

/// What the export that makes a task's state starts with, `pcluster_init:name() -> status`; the task's name follows. Optional.
/// The host may call it once for each new instance, before [`ALLOC`].
pub const INIT_PREFIX: &str = "pcluster_init:";

/// What the export starts with that takes a task's items itself; the task's name follows.
pub const EACH_PREFIX: &str = "pcluster_each:";

/// The custom section that describes the tasks.
pub const SECTION: &str = "pcluster";

/// The keys of the context map.
///
/// A host writes [`ID`](context::ID) and [`ATTEMPT`](context::ATTEMPT) last, in this order, so that a guest that handles many
/// items sees soon that nothing else has changed. A guest must not rely on it.
pub mod context {
    /// Text: the name of the chain.
    pub const CHAIN: &str = "chain";
    /// Text: the chain's version as its author wrote it.
    pub const VERSION: &str = "version";
    /// Unsigned: the revision that deploying gave the version.
    pub const REVISION: &str = "revision";
    /// Text: the name of the stage.
    pub const STAGE: &str = "stage";
    /// Text: the id of the item; empty while there is none, that is, in the export of [`INIT_PREFIX`](super::INIT_PREFIX).
    pub const ID: &str = "id";
    /// Unsigned: 1 for the first attempt on this item, 2 for the second, and so on; 0 while there is no item.
    pub const ATTEMPT: &str = "attempt";
    /// Anything: the stage's `config`, null if it has none.
    pub const CONFIG: &str = "config";
}

/// What a task, or making its state, returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// The item is handled; every item emitted goes on. Or the state is made.
    Done = 0,
    /// The item failed, or making the state; another attempt may succeed.
    Failed = 1,
    /// The item failed, or making the state, and no attempt can succeed.
    Fatal = 2,
}

impl Status {
    /// The status with this number, if there is one.
    #[must_use]
    pub const fn from_i32(number: i32) -> Option<Self> {
        match number {
            0 => Some(Self::Done),
            1 => Some(Self::Failed),
            2 => Some(Self::Fatal),
            _ => None,
        }
    }
}

/// The level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum Level {
    /// Something went wrong.
    Error = 1,
    /// Something may be wrong.
    Warn = 2,
    /// Something worth knowing; also what a task prints to its standard output.
    Info = 3,
    /// For whoever debugs the task.
    Debug = 4,
    /// For whoever follows each step of it.
    Trace = 5,
}

impl Level {
    /// Every level, the gravest first.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The level with this number. Numbers below 1 count as 1, numbers above 5 as 5.
    #[must_use]
    pub const fn from_i32(number: i32) -> Self {
        match number {
            i32::MIN..=1 => Self::Error,
            2 => Self::Warn,
            3 => Self::Info,
            4 => Self::Debug,
            _ => Self::Trace,
        }
    }

    /// The level's name in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}
