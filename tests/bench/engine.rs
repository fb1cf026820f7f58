//! The cost of the engine alone: one item after the other, on one thread, without a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ciborium::{Value, cbor};
use futures_util::future::BoxFuture;
use pcluster::internal::{
    Call, Engine, EngineSettings, Failure, FrameOutputs, Isolation, ItemSource, Limits, Outputs, Plugin, Reuse,
    StaticContext, Surroundings, Task, to_cbor,
};
use pcluster::name::Digest;
use pcluster_abi::{Level, context};
use support::{Run, installed_packages, plugin, python, repository};
use tokio::runtime::Runtime;

use crate::drain::text;
use crate::relays::{BYTES, PACK};
use crate::report::{Aim, Row, Spread};
use crate::series::Settings;

/// Measures fresh instances, instances with a state, and reused instances.
pub fn run(settings: Settings) -> Vec<Row> {
    let items = settings.either(80, 4) * PACK;
    let echo = || Tried::new("echo", &Value::Null);
    let no_start = Value::Map(Vec::new());
    let python = python_plugin();
    let record = |name: &'static str| Tried::of(&python, name, &Value::Null).with_item(python_record());
    let variants = [
        ("fresh instance", echo(), 1, Some(Aim::AtMost(10.0))),
        ("fresh instance, state made in each", Tried::new("count_up", &no_start), 1, None),
        ("fresh instance, state made before", Tried::new("count_up", &no_start).with_state(), 1, None),
        ("reused instance, 1 item in a frame", echo().reused(), 1, None),
        ("reused instance, 256 items in a frame", echo().reused(), PACK, None),
        ("Python, a record, fresh instance", record("record").with_state(), 1, Some(Aim::AtMost(45.0))),
        ("Python, a record, reused instance", record("record").reused().with_state(), PACK, Some(Aim::AtMost(5.0))),
        ("Python, a record by pydantic, fresh instance", record("model").with_state(), 1, Some(Aim::AtMost(120.0))),
        ("Python, a record by pydantic, reused instance", record("model").reused().with_state(), PACK, None),
    ];
    let mut micros = variants.each_ref().map(|_| Vec::new());
    for round in 1..=settings.rounds {
        for ((name, tried, pack, _), micros) in variants.iter().zip(&mut micros) {
            micros.push(tried.micros(items / pack, *pack));
            eprintln!("engine, round {round}: {name}: {:.2} µs", micros[round - 1]);
        }
    }
    let fresh = &micros[0];
    let rows = variants.iter().zip(&micros).map(|((name, _, _, aim), micros)| {
        let ratio = Spread::of(micros.iter().zip(fresh).map(|(micros, fresh)| micros / fresh));
        let row = Row::new("engine", *name, Spread::of(micros.iter().copied()), "µs/item");
        let row = if std::ptr::eq(micros, fresh) { row } else { row.with_ratio(ratio, variants[0].0) };
        row.with_aim(*aim)
    });
    rows.collect()
}

/// A task that runs without a node.
pub struct Tried {
    name: &'static str,
    runtime: Runtime,
    plugin: Plugin,
    static_context: StaticContext,
    task: Task,
    item: Bytes,
}

impl Tried {
    /// Loads a task of the probe plugin with a `config`. Each item has a fresh instance.
    pub fn new(name: &'static str, config: &Value) -> Self {
        Self::of(Path::new(&plugin("probe")), name, config)
    }

    /// Loads a task of a plugin with a `config`. Each item has a fresh instance.
    fn of(plugin: &Path, name: &'static str, config: &Value) -> Self {
        let bytes = std::fs::read(plugin).unwrap();
        let engine = Engine::new(&EngineSettings { instances: 100, ..EngineSettings::default() }).unwrap();
        let plugin = engine.load(&Digest::of(&bytes), bytes).unwrap();
        let nothing = [context::CHAIN, context::STAGE, context::VERSION].map(|key| (key, "".into()));
        let numbers = [(context::REVISION, 1.into()), (context::CONFIG, config.clone())];
        let static_context = StaticContext::new(nothing.into_iter().chain(numbers).collect(), Vec::new());
        let task = task(&plugin, name, &static_context, Reuse::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { name, runtime, plugin, static_context, task, item: text(BYTES) }
    }

    /// Runs the task on another item than a text.
    fn with_item(self, item: Bytes) -> Self {
        Self { item, ..self }
    }

    /// Uses one instance for all items. It makes its state itself unless [`Tried::with_state`] follows.
    fn reused(mut self) -> Self {
        let reuse = Reuse { isolation: Isolation::Worker, items: None };
        self.task = task(&self.plugin, self.name, &self.static_context, reuse);
        self
    }

    /// Starts every instance with a state that is made once.
    fn with_state(mut self) -> Self {
        let made = self.plugin.with_state(self.name, "", &self.task, Surroundings::silent());
        self.task = self.runtime.block_on(made).unwrap().unwrap();
        self
    }

    /// Returns the average microseconds of an item. The average is over so many frames of so many items.
    pub fn micros(&self, frames: usize, pack: usize) -> f64 {
        let run = async {
            let started = Instant::now();
            for _ in 0..frames {
                let frame = Arc::new(Frame { item: self.item.clone(), begun: AtomicUsize::new(0), pack });
                assert_eq!(self.run(&frame).await.len(), pack);
            }
            started.elapsed()
        };
        self.runtime.block_on(run).as_secs_f64() * 1e6 / (frames * pack) as f64
    }

    /// Runs the items of a frame as a node does.
    async fn run(&self, frame: &Arc<Frame>) -> Outputs {
        let (instances, mut given) = (self.task.instances(), FrameOutputs::default());
        while let Some((position, item)) = frame.next(Instant::now()) {
            let call = Call { source: Arc::clone(frame) as Arc<dyn ItemSource>, position };
            self.task.run_all(item, call, &instances, &mut given).await.unwrap();
        }
        given.into_outputs()
    }
}

/// Builds the tasks in Python, with pydantic. Returns the plugin.
fn python_plugin() -> PathBuf {
    let plugin = repository().join("target/bench/record.wasm");
    let [folder, out, packages] =
        [repository().join("tests/bench/record"), plugin.clone(), installed_packages("python-tasks")]
            .map(|path| path.display().to_string());
    Run::of(python(&["-m", "pcluster.build", &folder, "-o", &out, "--packages", &packages]), b"").succeeded();
    plugin
}

/// Returns a record of some 200 bytes.
fn python_record() -> Bytes {
    let record = cbor!({
        "id" => 4711, "customer" => "ada@example.com", "articles" => ["tea", "milk", "sugar"], "total" => 12.75,
        "paid" => true, "zone" => "eu-west-1",
        "note" => "please ring twice, the bell is hard to hear from the garden behind the house"
    });
    to_cbor(&record.unwrap())
}

/// A frame with several copies of an item.
struct Frame {
    item: Bytes,
    begun: AtomicUsize,
    pack: usize,
}

impl ItemSource for Frame {
    fn id(&self, _: usize) -> String {
        String::new()
    }

    fn attempt(&self) -> u64 {
        1
    }

    fn log(&self, _: usize, _: Level, _: String) {}

    fn next(&self, _: Instant) -> Option<(usize, Bytes)> {
        let position = self.begun.fetch_add(1, Ordering::Relaxed);
        (position < self.pack).then(|| (position, self.item.clone()))
    }

    fn stream(self: Arc<Self>, _: usize, _: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn task(plugin: &Plugin, name: &str, static_context: &StaticContext, reuse: Reuse) -> Task {
    let limits = Limits { timeout: Duration::from_secs(5), memory: 64 << 20, output_item_bytes: 1 << 20 };
    plugin.task(name, limits, static_context.clone(), reuse).unwrap()
}
