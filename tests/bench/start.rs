//! How soon a node works, and the memory of an idle node.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use support::{Cluster, build_python, probe_chain};

use crate::report::{Aim, Row, Spread};
use crate::series::Settings;
use crate::usage::resident_mebibytes;

/// The stages of the chain in Python.
const STAGES: usize = 3;

/// Measures the time until the first handled item, and the memory then. The time begins with the process, and compiled code is
/// cached.
pub fn run(settings: Settings) -> Vec<Row> {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("start", &["echo"], ""));
    let (times, memory) = restarts(&cluster, "start", settings);
    let mut rows = vec![
        Row::new("start", "start of a node to the first result pulled, warm cache", Spread::of(times), "ms")
            .with_aim(Some(Aim::AtMost(300.0))),
        Row::new("start", "resident memory of an idle node", Spread::of(memory), "MiB")
            .with_aim(Some(Aim::AtMost(60.0))),
    ];
    rows.extend(python(settings));
    rows
}

/// Starts a node on a chain again and again. Returns the milliseconds until its first result, and its memory in MiB then.
fn restarts(cluster: &Cluster, chain: &str, settings: Settings) -> (Vec<f64>, Vec<f64>) {
    // Fills the cache.
    drop(cluster.node("warm"));
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        cluster.ok(&["feed", chain, "1"]);
        let watching = cluster.spawn(&["pull", chain, "-n", "1"]);
        let started = Instant::now();
        let node = cluster.spawn(&["node", "--name", "timed"]);
        watching.printed("1");
        times.push(started.elapsed().as_secs_f64() * 1e3);
        memory.push(resident_mebibytes(node.id()));
    }
    (times, memory)
}

/// Measures the same for a chain of tasks in Python, and how soon a node works on another plugin in Python.
fn python(settings: Settings) -> Vec<Row> {
    let cluster = Cluster::start();
    cluster.deploy(&python_chain(&cluster, "first"));
    let (times, memory) = restarts(&cluster, "first", settings);
    let _node = cluster.node("node");
    let second = (0..settings.rounds).map(|round| {
        let chain = format!("second-{round}");
        let manifest = python_chain(&cluster, &chain);
        cluster.deploy(&manifest);
        let deployed = Instant::now();
        cluster.ok(&["feed", &chain, "1"]);
        cluster.ok(&["pull", &chain, "-n", "1"]);
        deployed.elapsed().as_secs_f64() * 1e3
    });
    let second = Spread::of(second.collect::<Vec<_>>());
    let name = format!("start of a node to the first result of {STAGES} stages in Python, warm cache");
    vec![
        Row::new("start", name, Spread::of(times), "ms").with_aim(Some(Aim::AtMost(500.0))),
        Row::new("start", "resident memory of that node", Spread::of(memory), "MiB"),
        Row::new("start", "deploy of another plugin in Python to its first result", second, "ms")
            .with_aim(Some(Aim::AtMost(500.0))),
    ]
}

/// Builds a plugin in Python of its own, and returns the manifest of a chain that runs it.
fn python_chain(cluster: &Cluster, name: &str) -> String {
    let (source, plugin): (PathBuf, PathBuf) = (cluster.path(name), cluster.path(&format!("{name}.wasm")));
    fs::create_dir_all(&source).unwrap();
    let text = format!("from pcluster import task\n\n\n@task\ndef same(item):\n    return item  # {name}\n");
    fs::write(source.join("tasks.py"), text).unwrap();
    build_python(&source, &plugin).succeeded();
    let stage =
        |number| format!("[[stage]]\nname = \"s{number}\"\ntask = \"same\"\nplugin = \"{}\"\n", plugin.display());
    let stages: String = (1..=STAGES).map(stage).collect();
    format!("name = \"{name}\"\nversion = \"1.0\"\n{stages}")
}
