//! A node that has compiled nothing: how soon it gives its first result, and what compiling takes.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pcluster::internal::work_stream;
use support::Process;

use crate::chain::{self, Chain, feed};
use crate::drain::{Load, held};
use crate::engine::languages::word;
use crate::stand::Stand;
use crate::usage::{children_peak, children_seconds, peak_mebibytes};

/// How often the processes that compile are looked at.
const LOOK: Duration = Duration::from_millis(5);
/// The most time until the first result.
const STUCK: Duration = Duration::from_mins(5);

/// What a node took.
pub struct Compiled {
    /// The seconds from its start to its first result.
    pub first: f64,
    /// The same for a node that finds the code compiled.
    pub again: f64,
    /// Processor time of the processes that compile, in seconds.
    pub processor: f64,
    /// The most memory of one of them, in MiB.
    pub compiler: f64,
    /// The most memory of the node itself until then, in MiB.
    pub node: f64,
}

/// Measures a node with the task of a plugin.
pub fn sample(plugin: &Path, task: &'static str) -> Result<Compiled, String> {
    let stand = Stand::start();
    Chain { plugin: Some(plugin.to_owned()), ..Chain::of(&[task]) }.deploy(&stand)?;
    let compiled = until_first(&stand, word());
    let again = until_first(&stand, word()).first;
    Ok(Compiled { again, ..compiled })
}

/// Starts a node with an item that waits, and stops it when the item is handled.
fn until_first(stand: &Stand, item: Bytes) -> Compiled {
    stand.run(feed(&stand.client, &Load { items: vec![item], pack: 1 }));
    let mut command = stand.cluster.command(&["node", "--name", "compiling"]);
    command.env("PCLUSTER_CACHE", stand.cluster.path("cache-of-the-node"));
    let started = Instant::now();
    let mut node = Process::start(command);
    let mut compiler = 0.0_f64;
    while stand.run(held(&stand.jetstream, &work_stream(&chain::name()))) > 0 {
        assert!(started.elapsed() < STUCK, "the first item is not handled");
        compiler = compiler.max(children_peak(node.id()));
        std::thread::sleep(LOOK);
    }
    let first = started.elapsed().as_secs_f64();
    let processor = children_seconds(node.id());
    let peak = peak_mebibytes(node.id()).unwrap();
    node.stop();
    Compiled { first, again: 0.0, processor, compiler, node: peak }
}
