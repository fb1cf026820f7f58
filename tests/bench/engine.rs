//! The cost of the engine alone: one item after the other, on one thread, without a server.

pub mod languages;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ciborium::Value;
use futures_util::future::BoxFuture;
use pcluster::internal::{
    Call, Engine, EngineSettings, Failure, FrameOutputs, Isolation, ItemSource, Limits, Outputs, Plugin, Reuse,
    StaticContext, Surroundings, Task,
};
use pcluster::name::Digest;
use pcluster_abi::{Level, context};
use support::plugin;
use tokio::runtime::Runtime;

use crate::drain::text;
use crate::relays::{BYTES, PACK};
use crate::report::{Aim, Row, Spread};
use crate::series::Settings;

/// A task that is measured under a name.
struct Variant {
    name: String,
    tried: Tried,
    /// The items of a run, and how many share a frame.
    items: usize,
    pack: usize,
    aim: Option<Aim>,
}

impl Variant {
    fn new(name: impl Into<String>, tried: Tried, items: usize, pack: usize, aim: Option<Aim>) -> Self {
        Self { name: name.into(), tried, items, pack, aim }
    }
}

/// Measures fresh instances, instances with a state, and reused instances, in all languages.
pub fn run(settings: Settings) -> Vec<Row> {
    let items = settings.either(80, 4) * PACK;
    let echo = || Tried::new("echo", &Value::Null);
    let no_start = Value::Map(Vec::new());
    let of_rust = [
        ("fresh instance", echo(), 1, Some(Aim::AtMost(10.0))),
        ("fresh instance, state made in each", Tried::new("count_up", &no_start), 1, None),
        ("fresh instance, state made before", Tried::new("count_up", &no_start).with_state(), 1, None),
        ("reused instance, 1 item in a frame", echo().reused(), 1, None),
        ("reused instance, 256 items in a frame", echo().reused(), PACK, None),
    ];
    let mut variants: Vec<Variant> =
        of_rust.into_iter().map(|(name, tried, pack, aim)| Variant::new(name, tried, items, pack, aim)).collect();
    let (of_languages, mut missing) = languages::variants(items);
    variants.extend(of_languages);
    let mut micros: Vec<Vec<f64>> = variants.iter().map(|_| Vec::new()).collect();
    for round in 1..=settings.rounds {
        for (Variant { name, tried, items, pack, .. }, micros) in variants.iter().zip(&mut micros) {
            micros.push(tried.micros(items / pack, *pack));
            eprintln!("engine, round {round}: {name}: {:.2} µs", micros[round - 1]);
        }
    }
    let fresh = &micros[0];
    let rows = variants.iter().zip(&micros).map(|(Variant { name, aim, .. }, micros)| {
        let ratio = Spread::of(micros.iter().zip(fresh).map(|(micros, fresh)| micros / fresh));
        let row = Row::new("engine", name, Spread::of(micros.iter().copied()), "µs/item");
        let row = if std::ptr::eq(micros, fresh) { row } else { row.with_ratio(ratio, &variants[0].name) };
        row.with_aim(*aim)
    });
    let mut rows: Vec<Row> = rows.collect();
    rows.append(&mut missing);
    rows
}

/// Loads a plugin into an engine of its own.
pub fn loaded(plugin: &Path) -> Plugin {
    let bytes = std::fs::read(plugin).unwrap();
    let engine = Engine::new(&EngineSettings { instances: 100, ..EngineSettings::default() }).unwrap();
    engine.load(&Digest::of(&bytes), bytes).unwrap()
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
        Self::of(&loaded(Path::new(&plugin("probe"))), name, config)
    }

    /// Takes a task of a plugin with a `config`. Each item has a fresh instance.
    pub fn of(plugin: &Plugin, name: &'static str, config: &Value) -> Self {
        let nothing = [context::CHAIN, context::STAGE, context::VERSION].map(|key| (key, "".into()));
        let numbers = [(context::REVISION, 1.into()), (context::CONFIG, config.clone())];
        let static_context = StaticContext::new(nothing.into_iter().chain(numbers).collect(), Vec::new());
        let task = task(plugin, name, &static_context, Reuse::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { name, runtime, plugin: plugin.clone(), static_context, task, item: text(BYTES) }
    }

    /// Runs the task on another item than a text.
    pub fn with_item(self, item: Bytes) -> Self {
        Self { item, ..self }
    }

    /// Uses one instance for all items. It makes its state itself unless [`Tried::with_state`] follows.
    pub fn reused(mut self) -> Self {
        let reuse = Reuse { isolation: Isolation::Worker, items: None };
        self.task = task(&self.plugin, self.name, &self.static_context, reuse);
        self
    }

    /// Starts every instance with a state that is made once, if the task has one.
    pub fn with_state(mut self) -> Self {
        let made = self.plugin.with_state(self.name, "", &self.task, Surroundings::silent());
        if let Some(task) = self.runtime.block_on(made).unwrap() {
            self.task = task;
        }
        self
    }

    /// Returns the average microseconds of an item. The average is over so many frames of so many items.
    pub fn micros(&self, frames: usize, pack: usize) -> f64 {
        let run = async {
            let started = Instant::now();
            for _ in 0..frames {
                assert_eq!(self.run(vec![self.item.clone(); pack]).await.len(), pack);
            }
            started.elapsed()
        };
        self.runtime.block_on(run).as_secs_f64() * 1e6 / (frames * pack) as f64
    }

    /// Returns the outputs of a frame with these items.
    pub fn outputs(&self, items: Vec<Bytes>) -> Vec<Bytes> {
        let outputs = self.runtime.block_on(self.run(items));
        outputs.into_items().into_iter().map(|item| item.into_whole().unwrap()).collect()
    }

    /// Runs the items of a frame as a node does.
    async fn run(&self, items: Vec<Bytes>) -> Outputs {
        let frame = Arc::new(Frame { items, begun: AtomicUsize::new(0) });
        let (instances, mut given) = (self.task.instances(), FrameOutputs::default());
        while let Some((position, item)) = frame.next(Instant::now()) {
            let call = Call { source: Arc::clone(&frame) as Arc<dyn ItemSource>, position };
            self.task.run_all(item, call, &instances, &mut given).await.unwrap();
        }
        given.into_outputs()
    }
}

/// The items of a frame.
struct Frame {
    items: Vec<Bytes>,
    begun: AtomicUsize,
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
        Some((position, self.items.get(position)?.clone()))
    }

    fn stream(self: Arc<Self>, _: usize, _: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn task(plugin: &Plugin, name: &str, static_context: &StaticContext, reuse: Reuse) -> Task {
    let limits = Limits { timeout: Duration::from_secs(5), memory: 64 << 20, output_item_bytes: 1 << 20 };
    plugin.task(name, limits, static_context.clone(), reuse).unwrap()
}
