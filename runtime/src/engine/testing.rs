//! Helpers of the engine's tests: one engine for all of them, and plugins in the text format of WebAssembly.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use pcluster_abi::Level;

use super::idle::Instances;
use super::limits::Limits;
use super::static_context::StaticContext;
use super::task::Task;
use super::{Engine, EngineError, EngineSettings, Plugin};
use crate::chain::isolation::Reuse;
use crate::name::Digest;
use crate::run::call::{Call, ItemSource};
use crate::run::failure::Failure;
use crate::run::output::{FrameOutputs, Outputs};

/// The limits of guests in these tests.
pub(super) const LIMITS: Limits =
    Limits { timeout: Duration::from_secs(30), memory: 1 << 20, output_item_bytes: 64 << 10 };

/// Limits with a short timeout, for guests that never end.
pub(super) const BRIEF: Limits = Limits { timeout: Duration::from_millis(50), ..LIMITS };

/// A CBOR item for tests that need any.
pub(super) const ITEM: &[u8] = b"\x05";

/// Returns the engine of most tests. Guests of every kind reuse its slots.
pub(super) fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| engine_with(16))
}

/// Returns an engine that keeps the image of every plugin with a state apart from its code.
pub(super) fn splitting() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| engine_with(16).splitting())
}

/// Returns an engine with this many slots.
pub(super) fn engine_with(instances: u32) -> Engine {
    Engine::new(&EngineSettings { instances, ..EngineSettings::default() }).expect("an engine")
}

/// Loads a plugin. One that imports `call` says so in its description.
pub(super) fn load(engine: &Engine, wat: &str) -> Result<Plugin, EngineError> {
    const CALLS: &str = r#"(@custom "pcluster" "{\"abi\":1,\"name\":\"t\",\"calls\":[\"http\"]}")"#;
    let described =
        wat.contains(r#""pcluster_v1" "call" "#).then(|| wat.replacen("(memory", &format!("{CALLS} (memory"), 1));
    let wat = described.as_deref().unwrap_or(wat);
    let bytes = wat::parse_str(wat).unwrap_or_else(|error| panic!("{error}\n{wat}"));
    engine.load(&Digest::of(&bytes), bytes)
}

/// Returns the task `t` of a plugin.
pub(super) fn task(wat: &str, limits: Limits) -> Task {
    task_on(engine(), wat, limits)
}

/// Returns the task `t` of a plugin on this engine.
pub(super) fn task_on(engine: &Engine, wat: &str, limits: Limits) -> Task {
    let plugin = load(engine, wat).unwrap_or_else(|error| panic!("{error}\n{wat}"));
    let static_context = StaticContext::new(vec![], vec!["NAME=value".to_owned()]);
    plugin.task("t", limits, static_context, Reuse::default()).expect("a task `t`")
}

/// Runs a task on [`ITEM`].
pub(super) async fn run(task: &Task) -> Result<Vec<Bytes>, Failure> {
    run_on(task, ITEM, &Arc::default()).await
}

/// Runs a task on these bytes and keeps its log lines.
pub(super) async fn run_on(task: &Task, item: &[u8], lines: &Arc<Lines>) -> Result<Vec<Bytes>, Failure> {
    let source: Arc<Lines> = Arc::clone(lines);
    let outputs = task.run(Bytes::copy_from_slice(item), Call { source, position: 0 }, &task.instances()).await?;
    Ok(items(&outputs))
}

/// Returns outputs of a task, which are all in memory.
pub(super) fn items(outputs: &Outputs) -> Vec<Bytes> {
    outputs.all().items().map(Bytes::copy_from_slice).collect()
}

impl Engine {
    /// Returns the engine so that it keeps the image of every plugin with a state apart from its code.
    pub(crate) fn splitting(self) -> Self {
        Self { split_from: 0, ..self }
    }
}

impl Task {
    /// Runs the task on one item and returns its outputs.
    pub(crate) async fn run(&self, item: Bytes, call: Call, instances: &Instances) -> Result<Outputs, Failure> {
        let mut given = FrameOutputs::default();
        self.run_all(item, call, instances, &mut given).await.map_err(|(_, failure)| failure)?;
        Ok(given.into_outputs())
    }
}

impl Call {
    /// Returns a call without an item or a caller.
    pub(crate) fn idle() -> Self {
        struct Nobody;
        impl ItemSource for Nobody {
            fn id(&self, _: usize) -> String {
                String::new()
            }
            fn attempt(&self) -> u64 {
                0
            }
            fn log(&self, _: usize, _: Level, _: String) {}
            fn stream(self: Arc<Self>, _: usize, _: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
                Box::pin(std::future::ready(Ok(())))
            }
        }
        Self { source: Arc::new(Nobody), position: 0 }
    }
}

/// The log lines of an execution.
#[derive(Default)]
pub(super) struct Lines(Mutex<Vec<(Level, String)>>);

impl ItemSource for Lines {
    fn id(&self, _: usize) -> String {
        "id".to_owned()
    }

    fn attempt(&self) -> u64 {
        1
    }

    fn log(&self, _: usize, level: Level, line: String) {
        self.0.lock().expect("no panic").push((level, line));
    }

    fn stream(self: Arc<Self>, _: usize, _: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Lines {
    /// Returns the lines so far.
    pub(super) fn all(&self) -> Vec<(Level, String)> {
        self.0.lock().expect("no panic").clone()
    }
}
