//! How soon a node works, and what it takes up when it does not.

use std::time::Instant;

use crate::support::{Cluster, eventually, probe_chain};
use crate::{Row, spread};

const ROUNDS: usize = 7;

/// Measures from the start of the process to the first item done, with compiled code in the cache, and the memory then.
pub fn run() -> Vec<Row> {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("start", &["echo"], ""));
    // Fills the cache.
    drop(cluster.node("warm"));
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        cluster.ok(&["feed", "start", "1"]);
        let watching = cluster.spawn(&["pull", "start", "-n", "1"]);
        let started = Instant::now();
        let node = cluster.spawn(&["node", "--name", "timed"]);
        watching.printed("1");
        times.push(started.elapsed().as_secs_f64() * 1e3);
        memory.push(resident_mebibytes(node.id()));
    }
    vec![
        Row::new("node: start to first result pulled, warm cache", spread(&times, " ms"), "300 ms"),
        Row::new("node: resident memory when idle", spread(&memory, " MiB"), "60 MiB"),
    ]
}

/// The resident memory of a process, from `/proc`.
pub fn resident_mebibytes(process: u32) -> f64 {
    eventually("the process has a status", || {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
    })
}
