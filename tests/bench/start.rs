//! How soon a node works, and the memory of an idle node.

use std::time::Instant;

use support::{Cluster, probe_chain};

use crate::report::{Aim, Row, Spread};
use crate::series::Settings;
use crate::usage::resident_mebibytes;

/// Measures the time until the first handled item, and the memory then. The time begins with the process, and compiled code is
/// cached.
pub fn run(settings: Settings) -> Vec<Row> {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("start", &["echo"], ""));
    // Fills the cache.
    drop(cluster.node("warm"));
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        cluster.ok(&["feed", "start", "1"]);
        let watching = cluster.spawn(&["pull", "start", "-n", "1"]);
        let started = Instant::now();
        let node = cluster.spawn(&["node", "--name", "timed"]);
        watching.printed("1");
        times.push(started.elapsed().as_secs_f64() * 1e3);
        memory.push(resident_mebibytes(node.id()));
    }
    vec![
        Row::new("start", "start of a node to the first result pulled, warm cache", Spread::of(times), "ms")
            .with_aim(Some(Aim::AtMost(300.0))),
        Row::new("start", "resident memory of an idle node", Spread::of(memory), "MiB")
            .with_aim(Some(Aim::AtMost(60.0))),
    ]
}
