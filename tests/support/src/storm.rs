//! A storm: random events, determined by one seed, while a chain of three stages is fed.
//!
//! Nodes are killed, paused, stopped and cut off. The server is killed, or one of three. Programs of the chain are killed, and what watches
//! over them. Items may be large. Several clients deploy at once. Another chain receives
//! messages that no client library can read. At the end, every result is searched for. The storm reads the results by the page of
//! the wire alone.

mod chance;
mod feeder;
mod large;
mod look;
mod member;
mod programs;
mod report;
mod servers;
mod steps;
mod trace;
mod world;

use std::ops::AddAssign;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use async_nats::jetstream;
use futures_util::TryStreamExt;

use crate::{NatsClient, RawClient, Run, plugin};
use chance::Chance;
use feeder::Feeder;
use look::look;
use member::{Member, tend};
use programs::Programs;
use servers::{Cluster, Ground};
use trace::Trace;

pub use report::Report;
pub use world::{WorldPlan, WorldReport, run as run_world};

/// A node's items go to other nodes after this time without acknowledgement.
const ACK_WAIT: Duration = Duration::from_secs(2);
/// The longest pause of a node with programs.
const PAUSE: Duration = Duration::from_secs(20);
/// The number of outputs of an item.
const TIMES: u64 = 3;
/// The most time for a restart of a node or for an answer.
const PATIENCE: Duration = Duration::from_mins(2);
/// The most time for the queued messages. Other programs may take most of the machine, and requeued messages wait beside new
/// frames with many more items.
const HANDLED: Duration = Duration::from_mins(10);
/// Clients that deploy the same version at once, each with other content.
const DEPLOYERS: u64 = 3;
/// Header blocks that the server accepts and client libraries do not.
const ODD: [&[u8]; 5] = [
    b"NATS/1.0\r\nX: a\rb\r\n\r\n",
    b"NATS/1.0\r\nX Customer: ada\r\n\r\n",
    b"NATS/1.0\r\nX-Name: Andr\xe9\r\n\r\n",
    b"NATS/1.0 404 No Messages\r\n\r\n",
    b"NATS/1.0\r\n: none\r\n\r\n",
];
/// A header block that all clients can read.
const GOOD: &[u8] = b"NATS/1.0\r\nX-Customer: ada\r\n\r\n";

/// The settings of a storm.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Determines all random events.
    pub seed: u64,
    /// The most items to feed. No more are fed after `duration`.
    pub items: u64,
    /// How long to feed.
    pub duration: Duration,
    /// The number of nodes.
    pub nodes: usize,
    /// The number of servers, 1 or 3. Each of three keeps all streams.
    pub servers: u32,
    /// The time between two events.
    pub every: Duration,
    /// The duration of an item in the second stage, in microseconds.
    pub micros: u64,
    /// `true` for all events, `false` to only kill nodes and programs.
    pub all: bool,
    /// The time between two kills of programs, of which the chain has two then. `None` for a chain of tasks.
    pub programs: Option<Duration>,
    /// `true` for a chain of large items, one of whose stages is a program.
    pub large: bool,
    /// `true` if results tell the steps that they went through.
    pub records: bool,
    /// Where to write all messages that pass through the server. The nodes write what they do beside it.
    pub trace: Option<PathBuf>,
}

impl Plan {
    /// Returns `true` if a stage runs a program.
    fn has_programs(&self) -> bool {
        self.large || self.programs.is_some()
    }
}

/// Runs a storm.
pub fn run(plan: &Plan) -> Report {
    let started = Instant::now();
    let mut cluster = servers::start(plan);
    let _trace = plan.trace.as_ref().map(|file| Trace::start(&servers::urls(&cluster)[0], file));
    let mut programs = plan.has_programs().then(|| Programs::new(&cluster, plan.programs));
    cluster.deploy(&manifest(&cluster, plan, 0, 0));
    let plugin = plugin("probe");
    cluster.deploy(&format!(
        "name = \"odd\"\nversion = \"1.0\"\nreplicas = {}\n[queue]\nack_wait = \"{}s\"\n[[stage]]\nname = \"echo\"\nplugin = \"{plugin}\"\n\
         retry = {{ attempts = 1000, backoff = [\"100ms\"] }}\n",
        plan.servers,
        ACK_WAIT.as_secs()
    ));
    let mut members: Vec<Member> = (0..plan.nodes).map(|number| Member::start(&cluster, plan, number)).collect();
    let feeder = Feeder::start(&cluster, plan);
    let mut chance = Chance(plan.seed);
    let mut report = Report::default();
    let mut next = Instant::now() + plan.every;
    while !feeder.is_done() {
        std::thread::sleep(Duration::from_millis(20));
        tend(&cluster, plan, &mut members);
        if let Some(programs) = &mut programs {
            programs.strike(&mut chance, &mut report);
        }
        if Instant::now() < next {
            continue;
        }
        if let Some(programs) = &mut programs {
            programs.look();
        }
        strike(plan, &mut chance, &mut cluster, &mut members, &mut report);
        next = Instant::now() + chance.between(plan.every / 2, plan.every * 3 / 2);
    }
    for member in &mut members {
        member.until = member.until.map(|_| Instant::now());
    }
    tend(&cluster, plan, &mut members);
    (report.items, report.messages) = feeder.finish();
    report.tell("all is fed");
    for chain in ["storm", "odd"] {
        settle(&cluster, chain, &report);
        report.tell(format_args!("{chain} is empty"));
    }
    let client = NatsClient::connect(&cluster);
    let kept = client.items_now("PCLUSTER_odd_OUT") as u64 + client.count("PCLUSTER_odd_DEAD");
    report.odd_lost = report.odd.abs_diff(kept);
    report.again = client.handed_out_again("PCLUSTER_storm");
    let nodes: serde_json::Value = serde_json::from_str(&cluster.ok(&["nodes", "--json"])).unwrap();
    let hops = nodes.as_array().unwrap().iter().flat_map(|node| node["hops"].as_array().unwrap());
    report.duplicates = hops.map(|hop| hop["duplicates"].as_u64().unwrap()).sum();
    // A client may read from any copy.
    servers::await_copies(&cluster, 0, || {});
    look(&cluster, plan, &mut report);
    if plan.large {
        large::take(&cluster, &client, &mut report);
    }
    if let Some(programs) = &mut programs {
        programs.look();
        programs::settle(&cluster, &mut report);
        for mut node in members.into_iter().filter_map(|member| member.process) {
            node.stop();
        }
        programs.search(&mut report);
    }
    report.took = started.elapsed();
    report
}

/// Waits until all messages are handled. Fails if their number stays the same for too long.
fn settle(cluster: &Cluster, chain: &str, report: &Report) {
    let client = NatsClient::connect(cluster);
    let mut left = u64::MAX;
    loop {
        let waited = cluster.run(&["wait", chain, "--timeout", "50s"]);
        if waited.code == Some(0) {
            return;
        }
        let now = client.count(&format!("PCLUSTER_{chain}"));
        if now >= left {
            show(&client, chain, report);
            panic!("{chain}: {now} messages are left and get no less: {}", waited.stderr);
        }
        left = now;
    }
}

/// Prints the events and the queues of a chain. Used if the chain makes no progress.
fn show(client: &NatsClient, chain: &str, report: &Report) {
    eprintln!("{}", report.story.join("\n"));
    let stream = format!("PCLUSTER_{chain}");
    for (subject, messages) in client.by_subject(&stream).iter().filter(|(_, messages)| **messages > 1) {
        eprintln!("{messages} in {subject}");
    }
    client.with(async |jetstream| {
        let stream = jetstream.get_stream(stream).await.unwrap();
        eprintln!("{:?}", stream.cached_info().config.subjects);
        let consumers: Vec<_> = stream.consumers().try_collect().await.unwrap();
        for consumer in consumers {
            eprintln!(
                "{}: {} to hand out, {} handed out, {} of them again, {} requests, acknowledged up to {}",
                consumer.name,
                consumer.num_pending,
                consumer.num_ack_pending,
                consumer.num_redelivered,
                consumer.num_waiting,
                consumer.ack_floor.stream_sequence,
            );
        }
    });
}

/// Returns a version of the chain with the content of one deployer. All contents give the same results.
fn manifest(cluster: &Cluster, plan: &Plan, version: u64, deployer: u64) -> String {
    let probe = plugin("probe");
    let mut manifest = format!(
        "name = \"storm\"\nversion = \"1.{version}\"\nreplicas = {}\n[results]\nrecords = {}\n\
         [queue]\nack_wait = \"{}s\"\nlimit = {}\nduplicate_window = \"10m\"\n",
        plan.servers,
        if plan.records { "\"all\"" } else { "false" },
        ACK_WAIT.as_secs(),
        if plan.has_programs() { 5 } else { 500 } * (5 - version % 3) / 5,
    );
    if plan.large {
        return manifest + &large::queue() + &large::stages(&probe, 8 + deployer);
    }
    if plan.programs.is_some() {
        return manifest + &programs::stages(cluster, plan, &probe, 8 + deployer);
    }
    for (task, isolation) in [("fan", "item"), ("shaky", "worker"), ("drop_odd", "frame")] {
        // Lost attempts count too, and this test is not about their limit.
        manifest.add_assign(&format!(
            "[[stage]]\nname = \"{task}\"\nplugin = \"{probe}\"\nconfig = {{ times = {TIMES}, micros = {} }}\n\
             isolation = \"{isolation}\"\nconcurrency = {}\nretry = {{ attempts = 1000, backoff = [\"100ms\"] }}\n",
            plan.micros,
            8 + deployer,
        ));
    }
    manifest
}

/// Strikes one of the nodes that are running.
fn strike(plan: &Plan, chance: &mut Chance, cluster: &mut Cluster, members: &mut [Member], report: &mut Report) {
    let kind = if plan.all { chance.next(18) } else { 0 };
    match kind {
        12 if plan.servers > 1 => {
            servers::await_copies(cluster, servers::LAG, || tend(cluster, plan, members));
            report.tell("a server is killed");
            let number = servers::kill_one(cluster, chance).unwrap();
            report.restarts += 1;
            report.tell(format_args!("server {number}, killed before, is back"));
            return;
        }
        12 => {
            report.tell("all is left alone, so that the server can be killed");
            let killed = kill_server(plan, chance, cluster, members, report);
            report.killed.push(killed);
            report.restarts += 1;
            report.tell("the server, killed before, is back");
            return;
        }
        13 => return deploy(plan, cluster, report),
        14..=17 => return odd(chance, cluster, report),
        _ => {}
    }
    let there: Vec<usize> = (0..members.len()).filter(|number| members[*number].until.is_none()).collect();
    let Some(&number) = there.get(usize::try_from(chance.next(plan.nodes as u64)).unwrap()) else { return };
    let member = &mut members[number];
    let Some(process) = &mut member.process else { return };
    match kind {
        0..=4 => {
            member.process = None;
            member.until = Some(Instant::now() + chance.between(Duration::ZERO, Duration::from_secs(1)));
            report.kills += 1;
            report.tell(format_args!("n{number} killed"));
        }
        5..=7 => {
            process.signal("STOP");
            let most = if plan.has_programs() { PAUSE } else { ACK_WAIT * 5 / 2 };
            member.until = Some(Instant::now() + chance.between(ACK_WAIT, most));
            report.pauses += 1;
            report.tell(format_args!("n{number} paused"));
        }
        8..=10 => {
            member.cut();
            member.until = Some(Instant::now() + chance.between(Duration::ZERO, ACK_WAIT * 5 / 2));
            report.cuts += 1;
            report.tell(format_args!("n{number} cut off"));
        }
        _ => {
            process.signal("TERM");
            report.stops += 1;
            report.tell(format_args!("n{number} stopped"));
        }
    }
}

/// Feeds messages that no client library can read.
///
/// A few go to a chain of their own, with readable ones between them. Sometimes one goes to the chain of the storm, where it is
/// not readable as items either.
fn odd(chance: &mut Chance, cluster: &Cluster, report: &mut Report) {
    // This client sends nothing again.
    servers::await_copies(cluster, servers::LAG, || {});
    let mut client = RawClient::connect(cluster);
    let block = |chance: &mut Chance| ODD[usize::try_from(chance.next(ODD.len() as u64)).unwrap()];
    for _ in 0..=chance.next(5) {
        client.publish("pcluster.odd.in", block(chance), b"\x01");
        client.publish("pcluster.odd.in", GOOD, b"\x01");
    }
    report.odd += client.stored() as u64;
    if chance.next(2) == 0 {
        client.publish("pcluster.storm.in", block(chance), b"\xff");
        report.spoilt += client.stored() as u64;
        report.tell("an odd message in the storm");
    }
}

/// Deploys the next version from several clients at once. Each has other content.
fn deploy(plan: &Plan, cluster: &Cluster, report: &mut Report) {
    report.deploys += 1;
    let version = report.deploys;
    report.tell(format_args!("1.{version} is deployed"));
    let deployers = (0..DEPLOYERS).map(|deployer| {
        let text = manifest(cluster, plan, report.deploys, deployer);
        let file = cluster.file(&format!("storm-{}-{deployer}.toml", report.deploys), text);
        let command = cluster.command(&["deploy", file.to_str().unwrap()]);
        std::thread::spawn(|| Run::of(command, b""))
    });
    let deployers: Vec<_> = deployers.collect();
    let ended: Vec<Run> = deployers.into_iter().map(|deployer| deployer.join().unwrap()).collect();
    let deployed = ended.iter().filter(|run| run.code == Some(0)).count();
    if deployed != 1 {
        report.clashes += 1;
        for run in ended {
            eprintln!("deploy of 1.{} ended with {:?}: {}{}", report.deploys, run.code, run.stdout, run.stderr);
        }
    }
}

/// Kills the server in a calm moment, with all earlier messages handled. Returns when it was killed.
///
/// A killed server forgets the keys of messages that have left the stream. So exactly-once does not survive two deaths together:
/// a node that dies between storing its outputs and acknowledging its input, and the server before another node has asked for
/// these keys.
fn kill_server(
    plan: &Plan,
    chance: &mut Chance,
    cluster: &mut Cluster,
    members: &mut [Member],
    report: &Report,
) -> SystemTime {
    let deadline = Instant::now() + HANDLED;
    let calm = Instant::now() + ACK_WAIT * 5;
    while Instant::now() < calm || members.iter().any(|member| member.until.is_some()) {
        tend(cluster, plan, members);
        std::thread::sleep(Duration::from_millis(20));
    }
    let client = NatsClient::connect(cluster);
    let before = client.with(last_sequence);
    while !client.with(async |jetstream| is_handled(jetstream, before).await) {
        if Instant::now() > deadline {
            show(&client, "storm", report);
            panic!("the messages up to {before} are not handled, though all is calm");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let away = chance.between(Duration::from_millis(100), Duration::from_secs(2));
    let killed = SystemTime::now();
    if let Ground::One(server) = &mut cluster.server {
        server.restart_after(|| std::thread::sleep(away));
    }
    killed
}

async fn last_sequence(jetstream: &jetstream::Context) -> u64 {
    jetstream.get_stream("PCLUSTER_storm").await.unwrap().get_info().await.unwrap().state.last_sequence
}

/// Returns `true` if all messages up to this sequence are acknowledged.
async fn is_handled(jetstream: &jetstream::Context, sequence: u64) -> bool {
    let stream = jetstream.get_stream("PCLUSTER_storm").await.unwrap();
    let consumers: Vec<_> = stream.consumers().try_collect().await.unwrap();
    consumers.iter().all(|consumer| {
        let is_idle = consumer.num_pending == 0 && consumer.num_ack_pending == 0;
        is_idle || consumer.ack_floor.stream_sequence >= sequence
    })
}
