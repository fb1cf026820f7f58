//! `pcluster run` in a pipe: beside `jq`, a pool of Python processes and GNU parallel on the same lines, and beside the engine alone.

mod alone;

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use support::{Cluster, plugin, repository};
use tempfile::TempDir;

use crate::authors::{Author, Language, PYTHON, RUST, TYPESCRIPT};
use crate::drain::{Load, Sample};
use crate::report::{Aim, Row};
use crate::series::{Measured, Series, Settings, Variant};
use crate::usage::{Machine, Used, waited_for_seconds};
use crate::words::{self, STAGES};

/// The work of all tools, as a filter of jq: that of the second of the three typical stages.
const FILTER: &str =
    r#"{id, text: (.text | ascii_upcase), words: (.text | split(" ") | map(select(. != "")) | length)}"#;
/// The lines that a process of GNU parallel gets at once.
const BLOCK: &str = "10000";
/// How many times fewer lines the tools with jq get, whose `ascii_upcase` takes most of its time: rates are compared.
const FEWER: usize = 20;

/// A file of records, one on each line.
struct Lines {
    folder: TempDir,
    number: usize,
}

/// Measures the tools on the same lines, then the three typical stages with and without a command around the engine.
pub fn run(settings: Settings) -> Vec<Row> {
    let cluster = Cluster::start();
    let author = Author::new(&cluster);
    let packs = settings.either(3907, FEWER);
    let lines = Lines::write(&words::packed_in(packs));
    let fewer = Lines::write(&words::packed_in(packs / FEWER));
    let mut series = Series::new("pipe");
    let jq = series.add(Variant::new("jq", || fewer.through(jq())));
    series.add(Variant::new("GNU parallel, jq", || fewer.through(parallel())).to(jq));
    series.add(Variant::new("Python, a pool of processes", || lines.through(pool())).to(jq));
    for language in [RUST, PYTHON, TYPESCRIPT] {
        let built = w1(&author, &language);
        for isolation in ["item", "worker"] {
            let manifest = manifest(&cluster, &language, &built, &STAGES[1..2], isolation);
            let name = format!("run, {}, isolation {isolation}", language.title);
            series.add(Variant::new(name, in_run(&lines, &cluster, manifest)).to(jq));
        }
    }
    let mut rows = series.run(settings);
    rows.extend(beside_engine(&cluster, settings));
    rows
}

/// Measures the three stages in `run`, and in the engine alone on as many threads.
fn beside_engine(cluster: &Cluster, settings: Settings) -> Vec<Row> {
    let load = words::packed_in(settings.either(800, 8));
    let lines = Lines::write(&load);
    let mut series = Series::new("pipe");
    let built = Ok(PathBuf::from(plugin("probe")));
    for isolation in ["item", "worker"] {
        let load = &load;
        let engine = move || Ok(alone::sample(Path::new(&plugin("probe")), load, isolation == "worker"));
        let engine = series.add(Variant::new(format!("W1, the engine alone, isolation {isolation}"), engine));
        let manifest = manifest(cluster, &RUST, &built, &STAGES, isolation);
        let run = in_run(&lines, cluster, manifest);
        let run = Variant::new(format!("W1, run, isolation {isolation}"), run).to(engine);
        series.add(run.aim(Aim::RatioAtLeast(0.9)));
    }
    series.run(settings)
}

impl Lines {
    /// Writes the records of a load.
    fn write(load: &Load) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut file = BufWriter::new(File::create(folder.path().join("in.ndjson")).unwrap());
        for item in &load.items {
            let record: serde_json::Value = ciborium::from_reader(item.as_ref()).unwrap();
            writeln!(file, "{record}").unwrap();
        }
        file.flush().unwrap();
        Self { folder, number: load.items.len() }
    }

    /// Measures a command that reads the lines and writes as many. The error says what is missing.
    fn through(&self, mut command: Command) -> Measured {
        let [from, to] = ["in.ndjson", "out.ndjson"].map(|name| self.folder.path().join(name));
        command.stdin(File::open(from).unwrap()).stdout(File::create(&to).unwrap()).stderr(Stdio::piped());
        let (machine, before, started) = (Machine::now(), waited_for_seconds(), Instant::now());
        let program = Path::new(command.get_program()).display().to_string();
        let process = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        let output = process.wait_with_output().unwrap();
        let (seconds, used) = (started.elapsed().as_secs_f64(), waited_for_seconds() - before);
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(BufReader::new(File::open(to).unwrap()).lines().count(), self.number, "{program} loses lines");
        Ok(Sample {
            items: self.number as f64,
            bytes: 0.0,
            seconds,
            server: Used::default(),
            worker: Used { seconds: used, peak: 0.0 },
            foreign: Machine::now().foreign_since(machine, used),
        })
    }
}

fn jq() -> Command {
    let mut command = Command::new("jq");
    command.args(["-c", FILTER]);
    command
}

/// Returns the command for a pool of as many processes as the machine has processors, which gives results in order.
fn pool() -> Command {
    let mut command = Command::new("python3");
    command.arg(repository().join("tests/bench/pool_w1.py"));
    command
}

/// Returns the command for GNU parallel: a process of jq for some of the lines, in order.
fn parallel() -> Command {
    let mut command = Command::new("parallel");
    command.args(["--keep-order", "--pipe", "-N", BLOCK, "jq", "-c"]).arg(format!("'{FILTER}'"));
    command
}

/// Builds the three stages in a language.
fn w1(author: &Author<'_>, language: &Language) -> Result<PathBuf, String> {
    match language.name {
        "rust" => Ok(plugin("probe").into()),
        name => author.plugin(language, &format!("pipe-{name}"), Some(&language.w1())),
    }
}

/// Writes the manifest of some of the stages. Returns its path.
fn manifest(
    cluster: &Cluster,
    language: &Language,
    built: &Result<PathBuf, String>,
    tasks: &[&str],
    isolation: &str,
) -> Result<PathBuf, String> {
    let plugin = built.as_ref().map_err(Clone::clone)?.display().to_string();
    let stage = |task: &&str| {
        format!("[[stage]]\nname = \"{task}\"\ntask = \"{task}\"\nplugin = {plugin:?}\nisolation = \"{isolation}\"\n")
    };
    let stages: String = tasks.iter().map(stage).collect();
    let name = format!("{}-{isolation}-{}.toml", language.name, tasks.len());
    Ok(cluster.file(&name, format!("name = \"pipe\"\nversion = \"1\"\n{stages}")))
}

/// Returns the measurement of `pcluster run` on the lines. The plugin is compiled before.
fn in_run<'a>(lines: &'a Lines, cluster: &'a Cluster, manifest: Result<PathBuf, String>) -> impl Fn() -> Measured + 'a {
    move || {
        let manifest = manifest.clone()?.display().to_string();
        cluster.run_with_input(&["run", "-q", &manifest], b"").succeeded();
        lines.through(cluster.command(&["run", "-q", &manifest]))
    }
}
