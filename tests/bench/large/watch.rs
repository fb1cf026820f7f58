//! What is measured of a run: what processes use, and the peaks of their memory.

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use super::Items;
use crate::drain::Sample;
use crate::usage::{Machine, Used, peak_mebibytes};

/// How often the memory of a command is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What has been used when the clock began.
pub struct Measuring {
    servers: Vec<u32>,
    workers: Vec<u32>,
    used: (Used, Used, Used),
    machine: Machine,
    started: Instant,
}

impl Measuring {
    pub fn start(servers: Vec<u32>, workers: Vec<u32>) -> Self {
        let own = Used::by_trees(&[std::process::id()]);
        let used = (Used::by(&servers), Used::by_trees(&workers), own);
        Self { servers, workers, used, machine: Machine::now(), started: Instant::now() }
    }

    pub fn end(self, items: Items) -> Sample {
        let Self { servers, workers, used: (server, worker, own), machine, started } = self;
        let seconds = started.elapsed().as_secs_f64();
        let (server, worker) = (Used::by(&servers).since(server), Used::by_trees(&workers).since(worker));
        let own = Used::by_trees(&[std::process::id()]).since(own);
        Sample {
            items: items.number as f64,
            bytes: (items.number * items.size()) as f64,
            seconds,
            server,
            worker,
            foreign: Machine::now().foreign_since(machine, own.seconds),
        }
    }
}

/// Peaks of the memory of processes of one kind, in MiB.
#[derive(Debug, Clone, Copy, Default)]
pub struct Peak {
    /// Until a quarter of the items was through.
    pub quarter: f64,
    /// Until the end.
    pub all: f64,
}

impl Peak {
    /// Adds a peak. `is_early` while no more than a quarter of the items is through.
    pub fn add(&mut self, mebibytes: f64, is_early: bool) {
        self.all = self.all.max(mebibytes);
        if is_early {
            self.quarter = self.quarter.max(mebibytes);
        }
    }

    /// Adds what a process has had until now.
    pub fn look(&mut self, process: u32, is_early: bool) {
        self.add(peak_mebibytes(process).unwrap_or_default(), is_early);
    }
}

/// Waits for the end of a process, and watches its peak meanwhile.
pub fn watched(mut child: Child, peak: &mut Peak, is_early: impl Fn() -> bool) -> ExitStatus {
    loop {
        peak.look(child.id(), is_early());
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        std::thread::sleep(LOOK);
    }
}
