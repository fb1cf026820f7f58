//! Tasks that run in the process of the tests, by the engine of a node and without a server.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ciborium::Value;
use futures_util::future::BoxFuture;
use pcluster::internal::{
    Call, Compiler, Engine, EngineSettings, Failure, FrameOutputs, Isolation, ItemSource, Limits, Outputs, Plugin,
    Reuse, StaticContext, Surroundings, Task, to_cbor,
};
use pcluster::name::Digest;
use pcluster_abi::{Level, context};
use tokio::runtime::Runtime;

/// The caller of a task in this process, which keeps the lines of the log.
#[derive(Default)]
pub struct Caller(Mutex<Vec<(Level, String)>>);

impl ItemSource for Caller {
    fn id(&self, _: usize) -> String {
        "an-id".to_owned()
    }

    fn attempt(&self) -> u64 {
        2
    }

    fn log(&self, _: usize, level: Level, line: String) {
        self.0.lock().unwrap().push((level, line));
    }

    fn stream(self: Arc<Self>, _: usize, _: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A task that runs in this process.
pub struct Tried {
    plugin: Plugin,
    runtime: Runtime,
    task: Task,
    caller: Arc<Caller>,
}

/// Loads a plugin. Its code is kept for other tests.
pub fn load(file: &Path) -> Plugin {
    load_with(file, None)
}

/// Does the same with this compiler. `None` compiles in this process.
pub fn load_with(file: &Path, compiler: Option<Compiler>) -> Plugin {
    let bytes = std::fs::read(file).unwrap();
    let (cache, compiler) = (Some(std::env::temp_dir().join("pcluster-e2e-cache")), compiler.map(Arc::new));
    let engine = Engine::new(&EngineSettings { instances: 8, cache, compiler, ..EngineSettings::default() }).unwrap();
    engine.load(&Digest::of(&bytes), bytes).unwrap()
}

fn surrounding(config: Value, variables: &[&str]) -> StaticContext {
    let names = [context::CHAIN, context::STAGE, context::VERSION].map(|key| (key, Value::from("tried")));
    let rest = [(context::REVISION, Value::from(1)), (context::CONFIG, config)];
    let variables = variables.iter().map(|variable| (*variable).to_owned()).collect();
    StaticContext::new(names.into_iter().chain(rest).collect(), variables)
}

impl Tried {
    /// Loads a task with a stage's `config` and environment variables.
    pub fn new(plugin: &Plugin, name: &str, config: Value, variables: &[&str], isolation: Isolation) -> Self {
        Self::within(64 << 20, plugin, name, config, variables, isolation)
    }

    /// Does the same with this much memory for an instance, in bytes.
    pub fn within(
        memory: u64,
        plugin: &Plugin,
        name: &str,
        config: Value,
        variables: &[&str],
        isolation: Isolation,
    ) -> Self {
        let limits = Limits { timeout: Duration::from_mins(2), memory, output_item_bytes: 4 << 20 };
        let reuse = Reuse { isolation, items: None };
        let task = plugin.task(name, limits, surrounding(config, variables), reuse).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { plugin: plugin.clone(), runtime, task, caller: Arc::default() }
    }

    /// Starts every instance from a snapshot.
    pub fn with_state(mut self, name: &str) -> Self {
        let made = self.plugin.with_state(name, "", &self.task, Surroundings::silent());
        self.task = self.runtime.block_on(made).unwrap().unwrap();
        self
    }

    /// Runs the task on an item. Returns its outputs back to back.
    pub fn run(&self, item: Bytes) -> Result<Bytes, Failure> {
        let (instances, mut outputs) = (self.task.instances(), FrameOutputs::default());
        let call = Call { source: Arc::clone(&self.caller) as Arc<dyn ItemSource>, position: 0 };
        let ran = self.runtime.block_on(self.task.run_all(item, call, &instances, &mut outputs));
        ran.map(|()| outputs.into_outputs().into_payload()).map_err(|(_, failure)| failure)
    }

    /// Runs the task on an item, which must succeed with one output.
    pub fn value(&self, item: &Value) -> Value {
        let output = self.run(to_cbor(item)).unwrap_or_else(|failure| panic!("{item:?}: {}", failure.reason));
        ciborium::from_reader(&*output).unwrap()
    }

    /// Returns how many pages of memory the instance puts back after each item. `None` if the system cannot tell them.
    pub fn pages_put_back(&self) -> Option<usize> {
        self.task.pages_put_back()
    }

    /// Returns the lines of the log so far.
    pub fn lines(&self) -> Vec<(Level, String)> {
        self.caller.0.lock().unwrap().clone()
    }

    /// Runs the task on items one after the other, in one instance if the isolation keeps it. Each must succeed.
    pub fn run_many(&self, items: impl IntoIterator<Item = Value>) -> Value {
        let instances = self.task.instances();
        let mut last = Value::Null;
        for item in items {
            let mut outputs = FrameOutputs::default();
            let call = Call { source: Arc::clone(&self.caller) as Arc<dyn ItemSource>, position: 0 };
            self.runtime
                .block_on(self.task.run_all(to_cbor(&item), call, &instances, &mut outputs))
                .unwrap_or_else(|(_, failure)| panic!("{item:?}: {}", failure.reason));
            last = ciborium::from_reader(&*outputs.into_outputs().into_payload()).unwrap();
        }
        last
    }
}
