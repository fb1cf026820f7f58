//! The contract between a node (the host) and a plugin (the guest).
//!
//! It consists of all names, numbers and keys that both sides must agree on.
//!
//! A plugin is a `wasm32-wasip1` reactor module. To run one task on one item, the host
//!
//! 1. makes an instance and calls [`INITIALIZE`] if the module exports it;
//! 2. calls [`ALLOC`] with the length of the item, and writes the item (one CBOR data item) at the pointer it gets;
//! 3. calls the export [`TASK_PREFIX`]` + name` with that pointer and length. The buffer belongs to the guest from here on.
//!
//! The host may repeat steps 2 and 3 in the same instance, for one item after the other, each with its own context. It never uses
//! an instance again after a trap.
//!
//! While a task runs, it calls the imports of [`MODULE`]: [`EMIT`] for each output, [`FAIL`] with the reason of a failure,
//! [`LOG`] for a log line, [`CONTEXT_LEN`] and [`CONTEXT_READ`] for its context. The task returns a [`Status`]. Outputs count
//! only if it returns [`Status::Done`]. Calling [`EMIT`] before the task is called, as in [`INITIALIZE`], [`ALLOC`] or the export
//! of [`INIT_PREFIX`], is a trap. The other imports may be called at any time.
//!
//! A guest that also exports [`EACH_PREFIX`]` + name` may fetch its items itself. The host then calls that export in place of
//! steps 2 and 3, for one or more items, and the guest calls [`NEXT`] for each. With [`NEXT`] it passes the status of the item
//! before (the first is ignored) and gets the length of the next item. [`ITEM_READ`] copies that item. A negative length means
//! that there is no further item, and the guest returns. No item follows one that failed. The host ignores the value that the
//! export returns. This spares the host a call into the guest for each item, which costs more than many a task.
//!
//! A task may have a state that is made once per instance. Then the guest may export [`INIT_PREFIX`]` + name`, and the host may
//! call it once in a new instance, after [`INITIALIZE`] and before [`ALLOC`]. The export makes the state from the `config` in the
//! context. There need not be an item yet, so [`id`](context::ID) is empty and [`attempt`](context::ATTEMPT) is 0. The export
//! returns a [`Status`], and calls [`FAIL`] with the reason of a failure, as a task does. Once the state is made, another call
//! does nothing and returns [`Status::Done`]. If the host does not call the export, the guest makes the state itself for the
//! first item.
//!
//! A task reaches the world by [`CALL`], if its stage was granted to. It passes the name of the call and a request in CBOR, and gets
//! the length of a response, which [`CALL_READ`] copies. A negative result `n` means that the call has failed: then `!n` is the
//! length of a failure, which [`CALL_READ`] copies too. [`call`](mod@call) lists the names, requests, responses and failures. The guest
//! is suspended meanwhile. A failed call does not end the item: the task decides. A task that fails may say with [`RETRY_AFTER`]
//! how long the next attempt waits, in place of the stage's back-off. An initializer may call what `init` in
//! [`call`](mod@call) says.
//!
//! An item may have a topic, which the host writes into the context, and which its outputs get too. A guest that gives an output
//! another topic calls [`EMIT_TO`] in its place.
//!
//! A host may save the memory and the globals of an instance after its state was made, and start later instances from that snapshot.
//! Random numbers and times that the state was made from are then the same in all of them. What the state is made of must be in the
//! memory and in globals of numbers: a module that can change its table (`table.set` and its kin), drops segments, or has a global
//! that may change and holds a reference gets no snapshots, and each instance makes its state itself.
//!
//! ```wat
//! (import "pcluster_v1" "emit"         (func (param $ptr i32) (param $len i32)))
//! (import "pcluster_v1" "emit_to"      (func (param $topic i32) (param $topic_len i32) (param $ptr i32) (param $len i32)))
//! (import "pcluster_v1" "fail"         (func (param $ptr i32) (param $len i32)))
//! (import "pcluster_v1" "log"          (func (param $level i32) (param $ptr i32) (param $len i32)))
//! (import "pcluster_v1" "context_len"  (func (result i32)))
//! (import "pcluster_v1" "context_read" (func (param $ptr i32)))
//! (import "pcluster_v1" "next"         (func (param $status i32) (result i32)))
//! (import "pcluster_v1" "item_read"    (func (param $ptr i32)))
//! (import "pcluster_v1" "call"         (func (param $name i32) (param $name_len i32) (param $ptr i32) (param $len i32) (result i32)))
//! (import "pcluster_v1" "call_read"    (func (param $ptr i32)))
//! (import "pcluster_v1" "retry_after"  (func (param $millis i64)))
//! (export "memory"              (memory 0))
//! (export "pcluster_alloc"      (func (param $len i32) (result i32)))
//! (export "pcluster_task:NAME"  (func (param $ptr i32) (param $len i32) (result i32)))
//! (export "pcluster_each:NAME"  (func (result i32)))  ;; optional
//! (export "pcluster_init:NAME"  (func (result i32)))  ;; optional
//! (export "pcluster_schema:NAME" (func (result i64)))  ;; optional
//! ```
//!
//! Languages that cannot export a name with a colon write `_` in its place, as in `pcluster_task_NAME`. If a module exports both for a
//! task, the one with the colon counts.
//!
//! No import names a chain, a stage or a subject: a guest cannot choose where its outputs go, but for their topic.
//!
//! A guest can use these parts of WASI preview 1: clocks with a resolution of a millisecond, random bytes, sleep, standard output
//! and error (which become log lines), and the environment variables that the stage grants. It has no arguments, no files and no
//! network: all other descriptors are bad. A call writes at most 64 KiB, returns at most 1 MiB of random bytes, and takes at most
//! 1,024 buffers or subscriptions. The host refuses a module with other imports, and a module with threads, a second memory or
//! table, 64-bit memory, exceptions, or references to anything but functions.
//!
//! A custom section named [`SECTION`] describes the tasks, so that a plugin can be read without running it. It has one JSON
//! object per line:
//!
//! ```json
//! {"abi":1,"name":"split","kind":"generator","doc":"Splits a line into words.","input":"String","output":"String"}
//! ```
//!
//! A task with a state also has `"state"`, the name of its type, after `output`. A task that calls has `"calls"`, a list of what
//! it calls: `http`, `kv`, `objects`, `publish`, `secrets`. A call that the list lacks is denied, and a module that imports
//! [`CALL`] must list calls for at least one task. A task may have `"schema"`, an object with JSON Schemas of what it takes, as
//! `input`, and of each item that it gives, as `output`. They are held against those of the stages beside it. Only `abi` and `name`
//! are required. Without the section, the tasks of a module are known by their exports alone.
//!
//! A guest whose language makes schemas only as it runs may export [`SCHEMA_PREFIX`]` + name` in place of `"schema"`. It returns the
//! pointer to such an object, as JSON, in the lower half of the result, and its length in bytes in the upper half; 0 for none. It is
//! called in an instance of its own, which may call nothing but WASI and [`LOG`], when a plugin is built, deployed or shown, and
//! never by a node. What `pcluster build` makes has the schemas in the section.
#![no_std]

/// The version of the ABI that this crate describes.
pub const VERSION: u32 = 1;

/// The module of the imports that a guest calls. Its number is [`VERSION`].
pub const MODULE: &str = "pcluster_v1";

/// The prefix of the import modules of all ABI versions. The version follows.
pub const MODULE_PREFIX: &str = "pcluster_v";

/// Import `emit(ptr, len)`: publishes one output, a single CBOR data item.
pub const EMIT: &str = "emit";

/// Import `emit_to(topic, topic_len, ptr, len)`: publishes one output as [`EMIT`] does, with another topic than the item's.
///
/// A topic is 1 to 128 characters of `A-Z`, `a-z`, `0-9`, `-` and `_`; an empty text stands for none. Any other text is a trap.
pub const EMIT_TO: &str = "emit_to";

/// Import `fail(ptr, len)`: sets the reason of a failure or trap, in UTF-8. The last call counts.
pub const FAIL: &str = "fail";

/// Import `log(level, ptr, len)`: writes one log line in UTF-8. `level` is a [`Level`].
pub const LOG: &str = "log";

/// Import `context_len() -> len`: returns the length of the context in bytes. The context is a CBOR map with the keys in
/// [`context`].
pub const CONTEXT_LEN: &str = "context_len";

/// Import `context_read(ptr)`: copies the whole context to `ptr`.
pub const CONTEXT_READ: &str = "context_read";

/// Import `next(status) -> len`: ends an item with a [`Status`] and begins the next. Only called in the export of
/// [`EACH_PREFIX`].
pub const NEXT: &str = "next";

/// Import `item_read(ptr)`: copies the item that [`NEXT`] has begun to `ptr`.
pub const ITEM_READ: &str = "item_read";

/// Import `call(name, name_len, ptr, len) -> length`: calls the host. See [`call`](mod@call).
pub const CALL: &str = "call";

/// Import `call_read(ptr)`: copies the response or failure of the last call to `ptr`.
pub const CALL_READ: &str = "call_read";

/// Import `retry_after(millis)`: sets how long the next attempt waits if the item fails without being fatal. At most an hour. The
/// last call counts.
pub const RETRY_AFTER: &str = "retry_after";

/// Export: the guest's linear memory.
pub const MEMORY: &str = "memory";

/// Export, optional: called once for each new instance, before anything else.
pub const INITIALIZE: &str = "_initialize";

/// Export `pcluster_alloc(len) -> ptr`: returns room for `len` bytes of input, aligned to 1.
pub const ALLOC: &str = "pcluster_alloc";

/// The prefix of the export of a task. The task's name follows.
pub const TASK_PREFIX: &str = "pcluster_task:";

/// The prefixes of the export of a task. The second is for languages whose names cannot have a colon. The first counts.
pub const TASK_PREFIXES: [&str; 2] = [TASK_PREFIX, "pcluster_task_"];

/// The prefix of the optional export that makes a task's state. The task's name follows.
///
/// The export `pcluster_init:name() -> status` may be called once in each new instance, before [`ALLOC`].
pub const INIT_PREFIX: &str = "pcluster_init:";

/// The prefixes of the export that makes a task's state, as [`TASK_PREFIXES`].
pub const INIT_PREFIXES: [&str; 2] = [INIT_PREFIX, "pcluster_init_"];

/// The prefix of the export that fetches a task's items itself. The task's name follows.
pub const EACH_PREFIX: &str = "pcluster_each:";

/// The prefixes of the export that fetches a task's items itself, as [`TASK_PREFIXES`].
pub const EACH_PREFIXES: [&str; 2] = [EACH_PREFIX, "pcluster_each_"];

/// The prefix of the optional export that tells the schemas of a task. The task's name follows.
pub const SCHEMA_PREFIX: &str = "pcluster_schema:";

/// The prefixes of the export that tells the schemas of a task, as [`TASK_PREFIXES`].
pub const SCHEMA_PREFIXES: [&str; 2] = [SCHEMA_PREFIX, "pcluster_schema_"];

/// The custom section that describes the tasks.
pub const SECTION: &str = "pcluster";

/// The keys of the context map.
///
/// A host writes [`ID`](context::ID) and [`ATTEMPT`](context::ATTEMPT) last, in this order, so that a guest with many items sees
/// quickly that nothing else has changed. A guest must not rely on this order.
pub mod context {
    /// Text: the name of the chain.
    pub const CHAIN: &str = "chain";
    /// Text: the version of the chain as its author wrote it.
    pub const VERSION: &str = "version";
    /// Unsigned: the revision number of the version.
    pub const REVISION: &str = "revision";
    /// Text: the name of the stage.
    pub const STAGE: &str = "stage";
    /// Text: the topic of the item. Absent if it has none.
    pub const TOPIC: &str = "topic";
    /// Text: the id of the item. Empty if there is no item, as in the export of [`INIT_PREFIX`](super::INIT_PREFIX).
    pub const ID: &str = "id";
    /// Unsigned: 1 for the first attempt on this item, 2 for the second, and so on. 0 if there is no item.
    pub const ATTEMPT: &str = "attempt";
    /// Any value: the `config` of the stage. Null if it has none.
    pub const CONFIG: &str = "config";
}

pub mod call;

/// The status that a task or the making of its state returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// The item is handled and its outputs count. Or the state is made.
    Done = 0,
    /// The item or the making of the state failed. Another attempt may succeed.
    Failed = 1,
    /// The item or the making of the state failed. No attempt can succeed.
    Fatal = 2,
}

impl Status {
    /// Returns the status with this number. `None` if there is none.
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
    /// Something worth knowing. The standard output of a task has this level too.
    Info = 3,
    /// Details for debugging a task.
    Debug = 4,
    /// Every step of a task.
    Trace = 5,
}

impl Level {
    /// All levels, the most severe first.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// Returns the level with this number. Numbers below 1 count as 1, numbers above 5 as 5.
    pub const fn from_i32(number: i32) -> Self {
        match number {
            i32::MIN..=1 => Self::Error,
            2 => Self::Warn,
            3 => Self::Info,
            4 => Self::Debug,
            _ => Self::Trace,
        }
    }

    /// Returns the name of the level in lower case.
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
