//! A storm around a stage that posts to a server: nodes are killed while their tasks wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{ACK_WAIT, Chance, PATIENCE};
use crate::{Cluster, NatsClient, Process, Reply, World, lines, recovering};

/// The header of a key.
const KEY: &str = "idempotency-key";
/// The longest time that the server takes to answer, in milliseconds.
const ANSWER: u64 = 40;
/// Every item whose number is a multiple of this fails once.
const FAILS: u64 = 31;

/// The settings of a storm around a stage that posts.
#[derive(Debug, Clone, Copy)]
pub struct WorldPlan {
    /// Determines when nodes are killed and how long the server takes.
    pub seed: u64,
    /// The number of items.
    pub items: u64,
    /// The number of nodes.
    pub nodes: usize,
    /// The time between two kills.
    pub every: Duration,
    /// The number of items that a node runs at once.
    pub concurrency: u64,
}

/// The counts of such a storm.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct WorldReport {
    /// Items that were fed.
    pub items: u64,
    /// Kills of nodes.
    pub kills: u64,
    /// Requests that the server got.
    pub requests: u64,
    /// Keys that the server got.
    pub keys: u64,
    /// Items that the server never got.
    pub unseen: u64,
    /// Requests without a key.
    pub without_key: u64,
    /// Keys that came with two bodies.
    pub two_bodies: u64,
    /// Items that came under more than one key.
    pub two_keys: u64,
    /// Items without a result.
    pub lost: u64,
    /// Results beside the first of an item.
    pub doubled: u64,
    /// Results that say something else than what the server answered.
    pub foreign: u64,
    /// Dead letters.
    pub letters: u64,
    /// The duration of the storm.
    pub took: Duration,
}

impl WorldReport {
    /// Returns `true` if the server got every item under one key of its own, and every item has come out exactly once.
    pub fn is_exact(&self) -> bool {
        let Self { unseen, without_key, two_bodies, two_keys, lost, doubled, foreign, letters, .. } = self;
        [unseen, without_key, two_bodies, two_keys, lost, doubled, foreign, letters].iter().all(|count| **count == 0)
            && self.keys == self.items
    }
}

impl fmt::Display for WorldReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { items, kills, requests, keys, unseen, without_key, two_bodies, two_keys, .. } = self;
        let Self { lost, doubled, foreign, letters, took, .. } = self;
        writeln!(formatter, "{items} items in {:.0} s, nodes killed {kills}", took.as_secs_f64())?;
        writeln!(
            formatter,
            "requests {requests}, keys {keys}; items never seen {unseen}, requests without a key {without_key}, keys with two \
             bodies {two_bodies}, items with two keys {two_keys}"
        )?;
        write!(formatter, "results lost {lost}, doubled {doubled}, foreign {foreign}, dead letters {letters}")
    }
}

/// Runs a storm around a stage that posts.
pub fn run(plan: &WorldPlan) -> WorldReport {
    let started = Instant::now();
    let cluster = Cluster::start();
    let seed = plan.seed;
    let world = World::start(&cluster, move |asked| {
        let number = asked.body.iter().fold(seed, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
        sleep(Duration::from_millis(number % ANSWER));
        Reply::new(200, asked.body.clone())
    });
    let stage = format!(
        "timeout = \"30s\"\nconcurrency = {}\nretry = {{ attempts = 1000, backoff = [\"100ms\"] }}",
        plan.concurrency
    );
    let manifest = recovering(&world.chain("posts", "ask", &stage));
    cluster.deploy(&manifest.replace("ack_wait = \"1s\"", &format!("ack_wait = \"{}s\"", ACK_WAIT.as_secs())));
    let feeds = feed(&cluster, &world, plan);
    let mut report = WorldReport { items: plan.items, ..WorldReport::default() };
    report.kills = strike(plan, &cluster, &world, feeds);
    report.letters = NatsClient::connect(&cluster).count("PCLUSTER_posts_DEAD");
    look_at_requests(&world, &mut report);
    look_at_results(&cluster, &mut report);
    report.took = started.elapsed();
    report
}

/// Begins to feed the items: half of them packed, half one by one.
fn feed(cluster: &Cluster, world: &World, plan: &WorldPlan) -> Vec<Process> {
    let item = |number: u64| {
        let call = world.post("/items", &number.to_string());
        match number % FAILS {
            0 => json!({ "do": [call], "then": "fail", "attempts": 1 }),
            _ => json!({ "do": [call] }),
        }
    };
    let half = plan.items / 2;
    let parts = [("packed.ndjson", 0..half, "64"), ("single.ndjson", half..plan.items, "1")];
    let feed = |(file, items, pack): (&str, std::ops::Range<u64>, &str)| {
        cluster.file(file, lines(items.map(item)));
        cluster.spawn(&["feed", "posts", "--quiet", "--file", file, "--pack-items", pack])
    };
    parts.into_iter().map(feed).collect()
}

/// Kills nodes until all that was fed is finished. Returns how many.
fn strike(plan: &WorldPlan, cluster: &Cluster, world: &World, mut feeds: Vec<Process>) -> u64 {
    let start = |number: usize| world.node_of(cluster, &format!("n{number}"));
    let mut nodes: Vec<Result<Process, Instant>> = (0..plan.nodes).map(|number| Ok(start(number))).collect();
    let client = NatsClient::connect(cluster);
    let (mut chance, mut kills) = (Chance(plan.seed), 0);
    let mut next = Instant::now() + plan.every;
    let (mut before, mut since) = (u64::MAX, Instant::now());
    loop {
        sleep(Duration::from_millis(100));
        feeds.retain_mut(|feed| !feed.has_ended());
        let left = client.count("PCLUSTER_posts");
        if feeds.is_empty() && left == 0 {
            return kills;
        }
        if left != before {
            (before, since) = (left, Instant::now());
        }
        assert!(since.elapsed() < PATIENCE, "{left} messages are left, and none is finished");
        for (number, node) in nodes.iter_mut().enumerate() {
            if node.as_ref().is_err_and(|until| Instant::now() >= *until) {
                *node = Ok(start(number));
            }
        }
        if Instant::now() < next {
            continue;
        }
        next = Instant::now() + plan.every;
        let struck = usize::try_from(chance.next(plan.nodes as u64)).unwrap();
        if nodes[struck].is_ok() {
            // A process that is dropped is killed.
            nodes[struck] = Err(Instant::now() + chance.between(Duration::ZERO, Duration::from_secs(1)));
            kills += 1;
        }
    }
}

/// Compares what the server got with what was fed.
fn look_at_requests(world: &World, report: &mut WorldReport) {
    let mut bodies: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    let mut keys: BTreeMap<Vec<u8>, BTreeSet<String>> = BTreeMap::new();
    for asked in world.api.requests() {
        report.requests += 1;
        let Some(key) = asked.header(KEY) else {
            report.without_key += 1;
            continue;
        };
        bodies.entry(key.to_owned()).or_default().insert(asked.body.clone());
        keys.entry(asked.body.clone()).or_default().insert(key.to_owned());
    }
    let seen = |number: &u64| keys.contains_key(number.to_string().as_bytes());
    report.keys = bodies.len() as u64;
    report.two_bodies = bodies.values().filter(|bodies| bodies.len() > 1).count() as u64;
    report.two_keys = keys.values().filter(|keys| keys.len() > 1).count() as u64;
    report.unseen = (0..report.items).filter(|number| !seen(number)).count() as u64;
}

/// Compares the results with what the server answered.
fn look_at_results(cluster: &Cluster, report: &mut WorldReport) {
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for result in cluster.pull_all("posts") {
        match result[0]["ok"]["body"].as_str().map(str::parse) {
            Some(Ok(number)) if number < report.items => *counts.entry(number).or_default() += 1,
            _ => report.foreign += 1,
        }
    }
    report.lost = report.items - counts.len() as u64;
    report.doubled = counts.values().map(|count| count - 1).sum();
}
