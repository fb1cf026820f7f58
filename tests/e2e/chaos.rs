//! Chaos: nodes are killed, paused and stopped, and the server is killed, while a chain is fed. Every expected result must come
//! out once. A bounded run is among the tests; `make chaos` runs it for as long as it is told to.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::{Client, Cluster, DEADLINE, Process, eventually, json_lines, plugin};

/// What is fed in a round, in two frames' worth of seconds of work at most.
const ROUND: u64 = 4_000;
/// The nodes that serve the chain.
const NODES: usize = 3;
/// Time between two events.
const BETWEEN: Duration = Duration::from_secs(2);

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    /// A number below this one (xorshift64).
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What happened.
#[derive(Debug, Default)]
struct Report {
    items: u64,
    results: usize,
    kills: u64,
    pauses: u64,
    stops: u64,
    restarts: u64,
    retried: u64,
    lost: usize,
    doubled: usize,
}

/// A chain that makes three of each number, sometimes fails at one, and keeps the even ones.
fn manifest() -> String {
    let plugin = plugin("probe");
    let retry = "retry = { attempts = 30, backoff = [\"20ms\"] }";
    let stage = |name: &str, task: &str, rest: &str| {
        format!("[[stage]]\nname = \"{name}\"\nplugin = \"{plugin}\"\ntask = \"{task}\"\n{retry}\n{rest}\n")
    };
    format!(
        "name = \"chaos\"\nversion = \"1.0\"\n[queue]\nack_wait = \"2s\"\n{}{}{}",
        stage("make", "repeat", "config = { times = 3 }"),
        stage("work", "sleep", "config = { millis = 1 }"),
        stage("keep", "drop_odd", ""),
    )
}

/// Lets things happen to a cluster for as long as `lasts`, and compares what came out with what should have.
fn run(seed: u64, lasts: Duration, with_server: bool) -> Report {
    let mut random = Random(seed.max(1));
    let mut cluster = Cluster::start();
    cluster.deploy(&manifest());
    let mut report = Report::default();
    let name = |number: usize| format!("node-{number}");
    let mut nodes: Vec<Process> = (0..NODES).map(|number| cluster.node(&name(number))).collect();
    let started = Instant::now();
    let mut last = Instant::now();
    let mut fed = 0_u64;
    let (mut feed, mut input) = Process::start_fed(cluster.command(&["feed", "chaos"]));
    while started.elapsed() < lasts || fed == 0 {
        let numbers = (fed..fed + ROUND).fold(String::new(), |text, number| text + &format!("{number}\n"));
        input.write_all(numbers.as_bytes()).unwrap();
        fed += ROUND;
        while started.elapsed() < lasts && last.elapsed() < BETWEEN {
            std::thread::sleep(BETWEEN - last.elapsed().min(BETWEEN));
        }
        last = Instant::now();
        let which = usize::try_from(random.below(NODES as u64)).unwrap();
        match random.below(if with_server { 10 } else { 9 }) {
            0..=4 => {
                nodes[which].signal("KILL");
                let _ = nodes[which].ended();
                nodes[which] = cluster.spawn(&["node", "--name", &name(which)]);
                report.kills += 1;
            }
            5 | 6 => {
                // Longer than `ack_wait`: others get what it has in hand.
                nodes[which].signal("STOP");
                std::thread::sleep(Duration::from_secs(3));
                nodes[which].signal("CONT");
                report.pauses += 1;
            }
            7 | 8 => {
                assert_eq!(nodes[which].stop(), Some(0), "{}", nodes[which].stderr());
                nodes[which] = cluster.spawn(&["node", "--name", &name(which)]);
                report.stops += 1;
            }
            _ => {
                cluster.server.restart();
                report.restarts += 1;
            }
        }
    }
    drop(input);
    assert_eq!(feed.ended(), Some(0), "{}", feed.stderr());
    report.items = fed;
    let client = Client::connect(&cluster);
    // As long as a wait may take here: a queue that was filled for minutes takes a while to empty.
    let deadline = Instant::now() + DEADLINE + lasts;
    while client.count("PCLUSTER_chaos") > 0 {
        assert!(Instant::now() < deadline, "{} messages are stuck; seed {seed}", client.count("PCLUSTER_chaos"));
        std::thread::sleep(Duration::from_millis(200));
    }
    cluster.ok(&["wait", "chaos"]);
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for result in cluster.pull_all("chaos") {
        *counts.entry(result.as_u64().unwrap()).or_default() += 1;
        report.results += 1;
    }
    for number in (0..fed).step_by(2) {
        let came = counts.remove(&number).unwrap_or(0);
        report.lost += 3_usize.saturating_sub(came);
        report.doubled += came.saturating_sub(3);
    }
    report.doubled += counts.values().sum::<usize>();
    assert_eq!(client.count("PCLUSTER_chaos"), 0, "something is left");
    assert_eq!(client.count("PCLUSTER_chaos_DEAD"), 0, "no item fails here");
    let shown =
        eventually("the nodes answer", || Some(json_lines(&cluster.ok(&["nodes", "--json"]).replace('\n', ""))));
    let hops = shown.iter().flat_map(|all| all.as_array()).flatten().flat_map(|node| node["hops"].as_array()).flatten();
    report.retried = hops.filter_map(|hop| hop["retried"].as_u64()).sum();
    report
}

#[test]
fn nothing_is_lost_or_doubled_while_a_node_dies_every_two_seconds() {
    let report = run(7, Duration::from_secs(20), false);
    assert_eq!((report.lost, report.doubled), (0, 0), "{report:?}");
    assert!(report.items >= 20_000 && report.kills > 0, "{report:?}");
}

/// Run by `make chaos`, which says how long and with which seed.
#[test]
fn long_chaos() {
    let Ok(seconds) = std::env::var("PCLUSTER_CHAOS_SECONDS") else { return };
    let clock = || std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into();
    let seed = std::env::var("PCLUSTER_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(clock);
    eprintln!("chaos for {seconds} s with seed {seed}");
    let report = run(seed, Duration::from_secs(seconds.parse().unwrap()), true);
    eprintln!("seed {seed}: {report:#?}");
    assert_eq!((report.lost, report.doubled), (0, 0), "seed {seed}");
}
