//! A chain to measure.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::pull::OrderedConfig;
use futures_util::StreamExt;
use pcluster::client::{Client, Item, Packing};
use pcluster::internal::{self, Lane, dead_stream, results_stream, work_stream};
use pcluster::name::{ChainName, Revision, StageName};
use support::{Nats, Process, plugin};

use crate::drain::{Drain, Load, Sample, Until, held};
use crate::series::Measured;
use crate::stand::Stand;

/// The name of the chain.
const NAME: &str = "bench";
/// The values of `isolation`, the strictest first.
pub const ISOLATIONS: [&str; 3] = ["item", "frame", "worker"];

/// The most time until a node has compiled a plugin and has handled the first items.
const STUCK: Duration = Duration::from_mins(5);

/// A chain of a plugin's tasks, and the nodes that serve it.
#[derive(Debug, Clone)]
pub struct Chain {
    /// The task of each stage.
    pub tasks: Vec<&'static str>,
    /// The plugin that has the tasks, if it is not the probe. It is compiled before the clock begins.
    pub plugin: Option<PathBuf>,
    /// The lines of a stage in place of a task, and the program that nodes run for it.
    pub program: Option<(String, &'static str)>,
    pub isolation: &'static str,
    /// `true` if all stages run in one hop.
    pub inline: bool,
    /// More lines for each stage.
    pub stage: String,
    /// More lines for the manifest.
    pub top: String,
    /// More arguments for the nodes.
    pub node: Vec<String>,
    pub nodes: usize,
    /// The number of other, idle chains that are deployed.
    pub idle: usize,
}

impl Chain {
    /// Creates a chain of these tasks with default settings, on one node.
    pub fn of(tasks: &[&'static str]) -> Self {
        Self {
            tasks: tasks.to_owned(),
            plugin: None,
            program: None,
            isolation: "item",
            inline: false,
            stage: String::new(),
            top: String::new(),
            node: Vec::new(),
            nodes: 1,
            idle: 0,
        }
    }

    /// Creates a chain of one stage that runs a program, which the nodes allow.
    pub fn of_program(lines: String, allowed: &'static str) -> Self {
        Self { program: Some((lines, allowed)), ..Self::of(&[""]) }
    }

    /// Sets the isolation of all stages.
    #[must_use]
    pub fn isolated(self, isolation: &'static str) -> Self {
        Self { isolation, ..self }
    }

    /// Runs the chain on a server of its own. Each fed item must give one result.
    pub fn sample(&self, load: &Load) -> Measured {
        self.sample_on(&Stand::start(), load, 1)
    }

    /// Runs the chain on these servers, several times in a row.
    pub fn sample_on<S: Nats>(&self, stand: &Stand<S>, load: &Load, times: usize) -> Measured {
        self.deploy(stand)?;
        let nodes = self.start_nodes(stand);
        let workers: Vec<u32> = nodes.iter().map(Process::id).collect();
        let servers = stand.servers();
        let (stream, consumer) = (work_stream(&name()), consumer());
        let warm = self.warm(stand, load);
        let drain = Drain {
            jetstream: &stand.jetstream,
            stream: &stream,
            consumer: &consumer,
            until: Until::Empty,
            servers: &servers,
            workers: &workers,
        };
        let run = || stand.run(drain.run(load, feed(&stand.client, load)));
        let sample = (1..times).fold(run(), |sample: Sample, _| sample.and(run()));
        let gives = self.program.as_ref().is_none_or(|(lines, _)| !lines.contains("output = \"none\""));
        stand.run(check(stand, if gives { load.items.len() * times + warm } else { 0 }));
        Ok(sample)
    }

    /// Waits until the nodes have compiled a plugin that may be new to them. Returns how many items they have handled for it.
    fn warm<S: Nats>(&self, stand: &Stand<S>, load: &Load) -> usize {
        if self.plugin.is_none() {
            return 0;
        }
        let first = Load { items: load.items.iter().take(load.pack).cloned().collect(), pack: load.pack };
        stand.run(async {
            feed(&stand.client, &first).await;
            let started = Instant::now();
            while held(&stand.jetstream, &work_stream(&name())).await > 0 {
                assert!(started.elapsed() < STUCK, "the first items are not handled");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        first.items.len()
    }

    /// Deploys the chain. The error is the reason of a refusal.
    pub fn deploy<S: Nats>(&self, stand: &Stand<S>) -> Result<(), String> {
        for number in 0..self.idle {
            self.deploy_as(stand, &format!("idle{number}"))?;
        }
        self.deploy_as(stand, NAME)
    }

    fn deploy_as<S: Nats>(&self, stand: &Stand<S>, name: &str) -> Result<(), String> {
        let file = stand.cluster.file(&format!("{name}.toml"), self.manifest(name));
        stand.run(stand.client.deploy(&file)).map(drop).map_err(|error| error.to_string())
    }

    /// Starts the nodes and waits until each is ready.
    pub fn start_nodes<S: Nats>(&self, stand: &Stand<S>) -> Vec<Process> {
        let mut arguments: Vec<&str> = self.node.iter().map(String::as_str).collect();
        if let Some((_, allowed)) = &self.program {
            arguments.extend(["--allow-exec", allowed]);
        }
        (0..self.nodes).map(|number| stand.cluster.node_with(&format!("node{number}"), &arguments)).collect()
    }

    fn manifest(&self, name: &str) -> String {
        let plugin = self.plugin.as_ref().map_or_else(|| plugin("probe"), |plugin| plugin.display().to_string());
        let mut manifest = format!("name = \"{name}\"\nversion = \"1.0\"\n{}\n", self.top);
        for (number, task) in self.tasks.iter().enumerate() {
            let (stage, isolation, inline) = (stage(number), self.isolation, self.inline && number > 0);
            if let Some((lines, _)) = &self.program {
                let _ = writeln!(manifest, "[[stage]]\nname = \"{stage}\"\n{lines}");
                continue;
            }
            let _ = writeln!(manifest, "[[stage]]\nname = \"{stage}\"\ntask = \"{task}\"\nplugin = \"{plugin}\"");
            let _ = writeln!(manifest, "isolation = \"{isolation}\"\ninline = {inline}\n{}", self.stage);
        }
        manifest
    }
}

/// Returns the consumer of the first queue.
fn consumer() -> String {
    Lane::Work.consumer(Revision::new(1), &stage(0).parse::<StageName>().unwrap())
}

/// Returns the name of the chain.
pub fn name() -> ChainName {
    NAME.parse().unwrap()
}

fn stage(number: usize) -> String {
    format!("stage{number}")
}

/// Feeds the items. Each message has exactly as many as the load says.
pub async fn feed(client: &Client, load: &Load) {
    let mut packing = Packing::default();
    (packing.items, packing.bytes, packing.wait) = (load.pack, usize::MAX, Duration::from_hours(1));
    let mut feeder = client.feeder(&name()).await.unwrap().with_packing(packing);
    for cbor in &load.items {
        feeder.feed(Item::from_cbor(cbor.clone())).await.unwrap();
    }
    assert_eq!(feeder.finish().await.unwrap().accepted, load.items.len() as u64);
}

/// Checks that every item gave a result, and none a dead letter.
async fn check<S: Nats>(stand: &Stand<S>, items: usize) {
    let (results, dead) = (results_stream(&name()), dead_stream(&name()));
    assert_eq!(held(&stand.jetstream, &dead).await, 0, "items have failed");
    let stream = stand.jetstream.get_stream_no_info(&results).await.unwrap();
    // Holder notes are in the same stream under another subject.
    let config = OrderedConfig { filter_subject: internal::results(&name()), ..Default::default() };
    let consumer = stream.create_consumer(config).await.unwrap();
    let messages = usize::try_from(consumer.cached_info().num_pending).unwrap();
    let mut messages = consumer.messages().await.unwrap().take(messages);
    let mut found = 0;
    while let Some(message) = messages.next().await {
        found += internal::split(&message.unwrap().payload).unwrap().len();
    }
    assert_eq!(found, items, "results");
}
