//! Large items through a chain: fed by `pcluster feed`, saved by `pcluster pull`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::Process;

use super::watch::{Measuring, Peak, watched};
use super::{Items, SMALL, content};
use crate::chain::Chain;
use crate::drain::Sample;
use crate::stand::Stand;

/// The name of the chain, and the stream of its object store.
const CHAIN: &str = "bench";
const STORE: &str = "OBJ_pcluster_large_bench";
/// The bytes of a chunk.
const CHUNK: usize = 128 << 10;
/// How often to look for results.
const LOOK: Duration = Duration::from_millis(20);
/// The longest wait until nothing is left: a sweep, and what it spares.
const SWEPT: Duration = Duration::from_mins(5);

/// What is seen of a run beside its rate.
pub struct Seen {
    pub node: Peak,
    pub feeder: Peak,
    pub puller: Peak,
    /// Messages that the object store has taken, for each chunk of the fed items.
    pub stored: f64,
    /// Bytes in the object store when nothing more went, and how long that took.
    pub left: f64,
    pub seconds: f64,
}

/// The items that have come out, by their number.
#[derive(Default)]
struct Results {
    numbers: BTreeSet<usize>,
}

/// Feeds items to a chain and pulls its results, while its node runs. Each byte of a result is `changes` more than it was.
pub fn sample(chain: &Chain, items: Items, changes: u8) -> Result<(Sample, Seen), String> {
    let stand = Stand::start();
    chain.deploy(&stand)?;
    let nodes = chain.start_nodes(&stand);
    let content = content(items);
    let folder = stand.cluster.path("results");
    fs::create_dir(&folder).unwrap();
    let number = items.number.to_string();
    let pull = ["pull", CHAIN, "-n", &number, "--output", folder.to_str().unwrap()];
    let pull = stand.cluster.command(&pull);
    let (come, node) = (AtomicUsize::new(0), nodes[0].id());
    let is_early = || come.load(Ordering::Relaxed) <= items.number.div_ceil(4);
    let measuring = Measuring::start(stand.servers(), nodes.iter().map(Process::id).collect());
    let (mut sample, mut peak) = (None, Peak::default());
    let (feeder, puller) = std::thread::scope(|scope| {
        let puller = scope.spawn(|| pulled(pull, is_early));
        let feeder = scope.spawn(|| fed(&stand, items, content, &come));
        let mut results = Results::default();
        while !puller.is_finished() {
            std::thread::sleep(LOOK);
            results.take(&folder, items, changes);
            come.store(results.numbers.len(), Ordering::Relaxed);
            peak.look(node, is_early());
        }
        sample = Some(measuring.end(items));
        results.take(&folder, items, changes);
        assert_eq!(results.numbers, (0..items.number).collect(), "results");
        (feeder.join().unwrap(), puller.join().unwrap())
    });
    let (left, stored, seconds) = remains(&stand);
    let chunks = items.number * items.size().div_ceil(CHUNK);
    let seen = Seen { node: peak, feeder, puller, stored: stored as f64 / chunks as f64, left, seconds };
    Ok((sample.unwrap(), seen))
}

/// Pulls all results. Returns the peak of memory.
fn pulled(mut pull: Command, is_early: impl Fn() -> bool) -> Peak {
    let mut peak = Peak::default();
    let child = pull.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    assert!(watched(child, &mut peak, is_early).success(), "{pull:?}");
    peak
}

/// Feeds all items: from memory to one feeder, or each from a file by a feeder of its own. Returns the peak of memory.
fn fed(stand: &Stand, items: Items, content: Vec<u8>, come: &AtomicUsize) -> Peak {
    if items.mebibytes <= SMALL {
        fed_from_memory(stand, items, &content, come)
    } else {
        fed_from_file(stand, items, content, come)
    }
}

/// Waits until the chain has room for an item.
fn wait_for_room(items: Items, number: usize, come: &AtomicUsize) {
    while number >= come.load(Ordering::Relaxed) + items.in_chain {
        std::thread::sleep(LOOK);
    }
}

fn fed_from_memory(stand: &Stand, items: Items, content: &[u8], come: &AtomicUsize) -> Peak {
    let mut feed = stand.cluster.command(&["feed", CHAIN, "--quiet", "--format", "cbor", "--file", "-"]);
    let mut child = feed.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut input = BufWriter::new(child.stdin.take().unwrap());
    let written = AtomicUsize::new(0);
    let mut peak = Peak::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let size = u32::try_from(content.len()).unwrap();
            for number in 0..items.number {
                wait_for_room(items, number, come);
                // A byte string with a length of four bytes.
                input.write_all(&[0x5a]).and_then(|()| input.write_all(&size.to_be_bytes())).unwrap();
                let head = (number as u64).to_le_bytes();
                input.write_all(&head).and_then(|()| input.write_all(&content[head.len()..])).unwrap();
                written.store(number, Ordering::Relaxed);
            }
            drop(input);
        });
        let is_early = || written.load(Ordering::Relaxed) <= items.number / 4;
        assert!(watched(child, &mut peak, is_early).success(), "{feed:?}");
    });
    peak
}

fn fed_from_file(stand: &Stand, items: Items, content: Vec<u8>, come: &AtomicUsize) -> Peak {
    let path = stand.cluster.file("item", &content);
    drop(content);
    let file = File::options().write(true).open(&path).unwrap();
    let feed = ["feed", CHAIN, "--quiet", "--format", "bytes", "--file", path.to_str().unwrap()];
    let mut peak = Peak::default();
    for number in 0..items.number {
        wait_for_room(items, number, come);
        file.write_all_at(&(number as u64).to_le_bytes(), 0).unwrap();
        let mut feed = stand.cluster.command(&feed);
        let child = feed.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        assert!(watched(child, &mut peak, || number <= items.number / 4).success(), "{feed:?}");
    }
    peak
}

impl Results {
    /// Takes the results that are there, and removes their files.
    fn take(&mut self, folder: &Path, items: Items, changes: u8) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let file = File::open(&path).unwrap();
            assert_eq!(file.metadata().unwrap().len(), items.size() as u64, "{}", path.display());
            let mut head = [0; 8];
            file.read_exact_at(&mut head, 0).unwrap();
            let number = u64::from_le_bytes(head.map(|byte| byte.wrapping_sub(changes)));
            assert!(self.numbers.insert(usize::try_from(number).unwrap()), "item {number} came twice");
            fs::remove_file(path).unwrap();
        }
    }
}

/// Waits until nothing is left of the items. Returns the bytes that are left, the messages that the object store has ever taken, and
/// the seconds until then.
fn remains(stand: &Stand) -> (f64, u64, f64) {
    let started = Instant::now();
    loop {
        let state = stand.run(stand.jetstream.get_stream(STORE)).unwrap().cached_info().state.clone();
        if state.messages == 0 || started.elapsed() > SWEPT {
            return (state.bytes as f64, state.last_sequence, started.elapsed().as_secs_f64());
        }
        std::thread::sleep(LOOK);
    }
}
