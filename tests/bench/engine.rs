//! What the engine alone costs: one item at a time through an instance, on one thread and without a server.

use std::time::{Duration, Instant};

use ciborium::Value;
use pcluster::chain::isolation::{Isolation, Reuse};
use pcluster::engine::limits::Limits;
use pcluster::engine::task::{Call, Surroundings, Task};
use pcluster::engine::{Engine, EngineSettings, Plugin};
use pcluster::name::Digest;
use pcluster_abi::context;
use tokio::runtime::Runtime;

use crate::drain::text;
use crate::relays::BYTES;
use crate::report::{Aim, Row, Spread};
use crate::series::Settings;
use crate::support::plugin;

/// Measures instances that are fresh, that start with state, and that are used again.
pub fn run(settings: Settings) -> Vec<Row> {
    let items = settings.either(20_000, 500);
    let echo = || Tried::new("echo", &Value::Null);
    let no_start = Value::Map(Vec::new());
    let variants = [
        ("fresh instance", echo(), Some(Aim::AtMost(10.0))),
        ("fresh instance, state made in each", Tried::new("count_up", &no_start), None),
        ("fresh instance, state made before", Tried::new("count_up", &no_start).with_state(), None),
        ("reused instance", echo().reused(), None),
    ];
    let mut micros = variants.each_ref().map(|_| Vec::new());
    for round in 1..=settings.rounds {
        for ((name, tried, _), micros) in variants.iter().zip(&mut micros) {
            micros.push(tried.micros(items));
            eprintln!("engine, round {round}: {name}: {:.2} µs", micros[round - 1]);
        }
    }
    let fresh = &micros[0];
    let rows = variants.iter().zip(&micros).map(|((name, _, aim), micros)| {
        let ratio = Spread::of(micros.iter().zip(fresh).map(|(micros, fresh)| micros / fresh));
        let row = Row::new("engine", *name, Spread::of(micros.iter().copied()), "µs/item");
        let row = if std::ptr::eq(micros, fresh) { row } else { row.with_ratio(ratio, variants[0].0) };
        row.with_aim(*aim)
    });
    rows.collect()
}

/// A task that is run without a node.
pub struct Tried {
    name: &'static str,
    runtime: Runtime,
    plugin: Plugin,
    surroundings: Surroundings,
    task: Task,
}

impl Tried {
    /// A task of the probe plugin with the `config` of its stage, with a fresh instance for each item.
    pub fn new(name: &'static str, config: &Value) -> Self {
        let bytes = std::fs::read(plugin("probe")).unwrap();
        let engine = Engine::new(&EngineSettings { instances: 100, cache: None }).unwrap();
        let plugin = engine.load(&Digest::of(&bytes), bytes).unwrap();
        let nothing = [context::CHAIN, context::STAGE, context::VERSION].map(|key| (key, "".into()));
        let numbers = [(context::REVISION, 1.into()), (context::CONFIG, config.clone())];
        let surroundings = Surroundings::new(nothing.into_iter().chain(numbers).collect(), Vec::new());
        let task = task(&plugin, name, &surroundings, Reuse::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { name, runtime, plugin, surroundings, task }
    }

    /// The same with one instance for all items.
    fn reused(mut self) -> Self {
        let reuse = Reuse { isolation: Isolation::Worker, items: None };
        self.task = task(&self.plugin, self.name, &self.surroundings, reuse);
        self
    }

    /// The same with state that is made once, which every instance starts with.
    fn with_state(mut self) -> Self {
        let made = self.plugin.with_state(self.name, &self.task, Box::new(|_, _| {}));
        self.task = self.runtime.block_on(made).unwrap().unwrap();
        self
    }

    /// Microseconds for an item, on average over so many.
    pub fn micros(&self, items: u32) -> f64 {
        let item = text(BYTES);
        let call = Call::idle();
        let run = async {
            let started = Instant::now();
            for _ in 0..items {
                // As if each were in a frame of its own.
                let instances = self.task.instances();
                assert_eq!(self.task.run(&item, call.clone(), &instances).await.unwrap().len(), 1);
            }
            started.elapsed()
        };
        self.runtime.block_on(run).as_secs_f64() * 1e6 / f64::from(items)
    }
}

fn task(plugin: &Plugin, name: &str, surroundings: &Surroundings, reuse: Reuse) -> Task {
    let limits = Limits { timeout: Duration::from_secs(5), memory: 64 << 20, output_item_bytes: 1 << 20 };
    plugin.task(name, limits, surroundings.clone(), reuse).unwrap()
}
