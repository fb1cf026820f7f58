//! What the engine alone costs: one item through a fresh instance, without a server.

use std::time::{Duration, Instant};

use pcluster::chain::isolation::Reuse;
use pcluster::engine::limits::Limits;
use pcluster::engine::task::{Call, Surroundings, Task};
use pcluster::engine::{Engine, EngineSettings};
use pcluster::frame::format::to_cbor;
use pcluster::name::Digest;

use crate::support::plugin;
use crate::{Row, spread};

const ITEMS: u32 = 20_000;
const ROUNDS: usize = 5;
/// The length of the text that goes through.
const LENGTH: usize = 250;

/// Measures the time per item on one thread.
pub fn run() -> Vec<Row> {
    let engine = Engine::new(&EngineSettings { instances: 100, cache: None }).unwrap();
    let bytes = std::fs::read(plugin("probe")).unwrap();
    let limits = Limits { timeout: Duration::from_secs(5), memory: 64 << 20, output_item_bytes: 1 << 20 };
    let loaded = engine.load(&Digest::of(&bytes), bytes).unwrap();
    let task = loaded.task("echo", limits, Surroundings::default(), Reuse::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rounds: Vec<f64> = (0..ROUNDS).map(|_| runtime.block_on(round(&task))).collect();
    vec![Row::new("engine: an item of 250 bytes in a fresh instance", spread(&rounds, " µs"), "10 µs")]
}

async fn round(task: &Task) -> f64 {
    let item = to_cbor(&"x".repeat(LENGTH));
    let call = Call::idle();
    let started = Instant::now();
    for _ in 0..ITEMS {
        assert_eq!(task.run(&item, call.clone(), &task.instances()).await.unwrap().len(), 1);
    }
    started.elapsed().as_secs_f64() * 1e6 / f64::from(ITEMS)
}
