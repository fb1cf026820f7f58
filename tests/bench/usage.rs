//! The usage of processes, from `/proc`.

use std::fs;

/// The unit of processor time in `/proc`, in ticks per second. It does not depend on the kernel's clock.
const TICKS: f64 = 100.0;

/// The usage of some processes so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// Processor time of all processes, user and system, in seconds.
    pub seconds: f64,
    /// The most memory of any of the processes, in MiB.
    pub peak: f64,
}

impl Used {
    /// Returns the usage of these processes.
    pub fn by(processes: &[u32]) -> Self {
        let seconds = processes.iter().map(|process| processor_seconds(*process)).sum();
        let peak = processes.iter().map(|process| status_mebibytes(*process, "VmHWM:")).fold(0.0, f64::max);
        Self { seconds, peak }
    }

    /// Returns the usage since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self { seconds: self.seconds - before.seconds, peak: self.peak }
    }
}

/// Processor time of the whole machine so far, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    busy: f64,
    all: f64,
}

impl Machine {
    /// Returns the processor time until now.
    pub fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap();
        let ticks = |text: &str| -> Vec<f64> {
            text.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect()
        };
        // User, nice, system, idle, waiting for the disk, two kinds of interrupts, stolen by the hypervisor.
        let ticks = ticks(text.lines().next().unwrap());
        let all: f64 = ticks[..8].iter().sum();
        Self { busy: (all - ticks[3] - ticks[4]) / TICKS, all: all / TICKS }
    }

    /// Returns the part of the machine that other programs have used since `before`. It is from 0 to 1. `ours` is our own usage,
    /// in seconds.
    pub fn foreign_since(self, before: Self, ours: f64) -> f64 {
        ((self.busy - before.busy - ours) / (self.all - before.all).max(f64::EPSILON)).clamp(0.0, 1.0)
    }
}

/// Returns how many processes are ready to run, averaged over a minute.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// Returns the current memory of a process in MiB.
pub fn resident_mebibytes(process: u32) -> f64 {
    status_mebibytes(process, "VmRSS:")
}

fn status_mebibytes(process: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn processor_seconds(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name before the last parenthesis may hold any characters.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // Fields 14 and 15 of the whole line. Field 1 is the process id.
    let ticks = |field: usize| fields[field - 3].parse::<f64>().unwrap();
    (ticks(14) + ticks(15)) / TICKS
}
