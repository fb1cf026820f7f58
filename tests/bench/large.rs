//! Large items through three stages, beside an object store that the same client fills and reads.
//!
//! The clock runs from the start of the feeder to the end of the puller. Each item is a file, and each result becomes one.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use crate::chain::Chain;
use crate::drain::Sample;
use crate::report::{Row, Spread};
use crate::series::{Measured, Series, Settings, Variant};
use crate::stand::Stand;
use crate::usage::{Machine, Used, peak_mebibytes};

/// The name of the chain.
const CHAIN: &str = "bench";
/// A stage that hands its item on with other bytes, so that each stage stores an item of its own.
const CHANGE: &str =
    "exec = [\"sh\", \"-c\", \"printf x; cat\"]\ninput = \"bytes\"\noutput = \"bytes\"\ntimeout = \"10m\"";
/// A stage that hands its item on as it is.
const COPY: &str = "exec = [\"cat\"]\ninput = \"bytes\"\noutput = \"bytes\"\ntimeout = \"10m\"";
/// How often the memory of a command is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Items of one size.
#[derive(Debug, Clone, Copy)]
struct Items {
    number: usize,
    mebibytes: usize,
}

/// Peaks of memory in MiB, of feeders and of pullers.
#[derive(Default)]
struct Peaks {
    feeder: Vec<f64>,
    puller: Vec<f64>,
}

/// Measures items of two sizes: many, and few that are as large as they may be.
pub fn run(settings: Settings) -> Vec<Row> {
    let many = settings.either(Items { number: 100, mebibytes: 10 }, Items { number: 3, mebibytes: 10 });
    let few = settings.either(Items { number: 2, mebibytes: 1024 }, Items { number: 1, mebibytes: 64 });
    [many, few].into_iter().flat_map(|items| compare(settings, items)).collect()
}

fn compare(settings: Settings, items: Items) -> Vec<Row> {
    let Items { number, mebibytes } = items;
    let peaks = RefCell::new(Peaks::default());
    let mut series = Series::new("large");
    let shown = format!("{number} of {mebibytes} MiB");
    let bare = Variant::new(format!("{shown}: put and get"), || Ok(bare(items))).in_megabytes();
    let bare = series.add(bare);
    for (what, stage, program) in [("handed on by", COPY, "cat"), ("changed by", CHANGE, "sh")] {
        let chain = Chain { tasks: vec![""; 3], ..Chain::of_program(stage.to_owned(), program) };
        let peaks = &peaks;
        let variant = Variant::new(format!("{shown}: {what} three stages"), move || through(&chain, items, peaks));
        series.add(variant.in_megabytes().to(bare));
    }
    let mut rows = series.run(settings);
    let Peaks { feeder, puller } = peaks.into_inner();
    for (what, peaks) in [("feeder", feeder), ("puller", puller)] {
        rows.push(Row::new("large", format!("{shown}: peak memory of the {what}"), Spread::of(peaks), "MiB"));
    }
    rows
}

/// Puts items into an object store, one after the other, and gets each once it is there.
fn bare(items: Items) -> Sample {
    let stand = Stand::start();
    let content = content(items.mebibytes);
    let measuring = Measuring::start(stand.servers(), vec![std::process::id()]);
    stand.run(async {
        let config = async_nats::jetstream::object_store::Config { bucket: CHAIN.to_owned(), ..Default::default() };
        let store = stand.jetstream.create_object_store(config).await.unwrap();
        for number in 0..items.number {
            let name = number.to_string();
            store.put(name.as_str(), &mut content.as_slice()).await.unwrap();
            let mut part = vec![0; 1 << 20];
            let (mut object, mut size) = (store.get(&name).await.unwrap(), 0);
            loop {
                match object.read(&mut part).await.unwrap() {
                    0 => break,
                    bytes => size += bytes,
                }
            }
            assert_eq!(size, content.len());
            store.delete(&name).await.unwrap();
        }
    });
    measuring.end(items)
}

/// Feeds items to a chain, and pulls its results, while its nodes run.
fn through(chain: &Chain, items: Items, peaks: &RefCell<Peaks>) -> Measured {
    let stand = Stand::start();
    chain.deploy(&stand)?;
    let nodes = chain.start_nodes(&stand);
    let workers: Vec<u32> = nodes.iter().map(support::Process::id).collect();
    let file = stand.cluster.path("item");
    File::create(&file).and_then(|mut file| file.write_all(&content(items.mebibytes))).unwrap();
    let results = stand.cluster.path("results");
    let measuring = Measuring::start(stand.servers(), workers);
    let number = items.number.to_string();
    let pull = &["pull", CHAIN, "-n", &number, "--output", results.to_str().unwrap()];
    let pull = stand.cluster.command(pull);
    let puller = std::thread::spawn(move || watched(pull));
    let feed = &["feed", CHAIN, "--quiet", "--format", "bytes", "--file", file.to_str().unwrap()];
    for _ in 0..items.number {
        peaks.borrow_mut().feeder.push(watched(stand.cluster.command(feed)));
    }
    let pull = puller.join().unwrap();
    peaks.borrow_mut().puller.push(pull);
    let sample = measuring.end(items);
    let sizes: Vec<u64> = written(&results).iter().map(|path| fs::metadata(path).unwrap().len()).collect();
    let least = (items.mebibytes as u64) << 20;
    assert_eq!(sizes.len(), items.number, "results");
    assert!(sizes.iter().all(|size| (least..=least + 3).contains(size)), "{sizes:?}");
    Ok(sample)
}

/// What has been used when the clock began.
struct Measuring {
    servers: Vec<u32>,
    workers: Vec<u32>,
    used: (Used, Used, Used),
    machine: Machine,
    started: Instant,
}

impl Measuring {
    fn start(servers: Vec<u32>, workers: Vec<u32>) -> Self {
        let own = Used::by_trees(&[std::process::id()]);
        let used = (Used::by(&servers), Used::by_trees(&workers), own);
        Self { servers, workers, used, machine: Machine::now(), started: Instant::now() }
    }

    fn end(self, items: Items) -> Sample {
        let Self { servers, workers, used: (server, worker, own), machine, started } = self;
        let seconds = started.elapsed().as_secs_f64();
        let (server, worker) = (Used::by(&servers).since(server), Used::by_trees(&workers).since(worker));
        let own = Used::by_trees(&[std::process::id()]).since(own);
        Sample {
            items: items.number as f64,
            bytes: (items.number * items.mebibytes) as f64 * f64::from(1 << 20),
            seconds,
            server,
            worker,
            foreign: Machine::now().foreign_since(machine, own.seconds),
        }
    }
}

/// Runs a command to its end. Returns its peak of memory in MiB.
fn watched(mut command: Command) -> f64 {
    let mut child: Child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let mut peak: f64 = 0.0;
    loop {
        peak = peak.max(peak_mebibytes(child.id()).unwrap_or_default());
        match child.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success(), "{command:?}");
                return peak;
            }
            None => std::thread::sleep(LOOK),
        }
    }
}

fn written(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Returns bytes that no compression makes less.
fn content(mebibytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut content = Vec::with_capacity(mebibytes << 20);
    while content.len() < mebibytes << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content
}
