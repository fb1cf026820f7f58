//! Programs as stages: a process for each item beside `xargs`, and workers beside Celery.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use support::repository;

use crate::beside;
use crate::chain::Chain;
use crate::drain::{Load, Sample};
use crate::report::{Aim, Row};
use crate::series::{Series, Settings, Variant};
use crate::usage::{Machine, Used, waited_for_seconds};

/// Items that share a message.
const PACK: usize = 64;

/// Measures programs that do nothing, or sleep, beside the tool that starts as many at once.
pub fn run(settings: Settings) -> Vec<Row> {
    let mut series = Series::new("programs");
    let quick = settings.either(1, 100);
    for (program, argument, items, aim) in [("true", "", 4000, 0.5), ("sleep", "0.02", 1000, 0.91)] {
        let items = items / quick;
        let shown = format!("{program} {argument}");
        let shown = shown.trim();
        let xargs = Variant::new(format!("xargs, {shown}"), move || Ok(xargs(program, argument, items)));
        let xargs = series.add(xargs);
        let exec = if argument.is_empty() { format!("[{program:?}]") } else { format!("[{program:?}, {argument:?}]") };
        let chain = Chain::of_program(format!("exec = {exec}\ninput = \"none\"\noutput = \"none\""), program);
        let load = integers(items);
        let variant = Variant::new(format!("a process for each item, {shown}"), move || chain.sample(&load));
        series.add(variant.to(xargs).aim(Aim::RatioAtLeast(aim)));
    }
    let items = 5000 / quick;
    let celery =
        series.add(Variant::new("Celery, two prefork processes", move || beside::celery("celery_square", items)));
    let worker = repository().join("tests/bench/square.py");
    let worker =
        format!("exec = [\"python3\", \"square.py\"]\nfiles = [\"{}\"]\nisolation = \"worker\"", worker.display());
    for (name, pack, items) in [("single-item", 1, 10_000), ("64-item", PACK, 40_000)] {
        let (chain, load) = (Chain::of_program(worker.clone(), "python3"), integers(items / quick).packed(pack));
        let variant = Variant::new(format!("workers in Python, {name} frames"), move || chain.sample(&load));
        series.add(variant.to(celery).aim(Aim::RatioAtLeast(5.0)));
    }
    series.run(settings)
}

fn integers(items: usize) -> Load {
    Load { items: (0..items).map(|item| pcluster::internal::to_cbor(&item)).collect(), pack: PACK }
}

/// Starts a program for each item, as many at once as the machine has processors.
fn xargs(program: &str, argument: &str, items: usize) -> Sample {
    let processors = std::thread::available_parallelism().unwrap().to_string();
    let mut command = Command::new("xargs");
    command.args(["-P", &processors, "-n", "1", program]).stdin(Stdio::piped());
    // Each line is the argument of one process.
    let lines = format!("{}\n", if argument.is_empty() { "1" } else { argument }).repeat(items);
    let (machine, before, started) = (Machine::now(), waited_for_seconds(), Instant::now());
    let mut process = command.spawn().unwrap();
    process.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(process.wait().unwrap().success());
    let (seconds, used) = (started.elapsed().as_secs_f64(), waited_for_seconds() - before);
    Sample {
        items: items as f64,
        bytes: 0.0,
        seconds,
        server: Used::default(),
        worker: Used { seconds: used, peak: 0.0 },
        foreign: Machine::now().foreign_since(machine, used),
    }
}
