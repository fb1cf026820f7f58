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

    /// Returns the usage of these processes and of all that descend from them, if no process runs that will soon end.
    pub fn by_trees(processes: &[u32]) -> Self {
        let trees: Vec<u32> = processes.iter().flat_map(|process| tree(*process)).collect();
        let used = Self::by(processes);
        let seconds = trees.iter().map(|process| fields_sum(*process, &[14, 15, 16, 17])).sum();
        Self { seconds, ..used }
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

/// Returns the most memory of a process so far in MiB. `None` if it has ended.
pub fn peak_mebibytes(process: u32) -> Option<f64> {
    status_field(process, "VmHWM:")
}

fn status_mebibytes(process: u32, field: &str) -> f64 {
    status_field(process, field).unwrap()
}

fn status_field(process: u32, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

/// Returns the most memory of any process that descends from this one, in MiB. 0 if there is none.
pub fn children_peak(process: u32) -> f64 {
    tree(process).into_iter().skip(1).filter_map(peak_mebibytes).fold(0.0, f64::max)
}

/// Returns the processor time of the children that a process has waited for, and of theirs.
pub fn children_seconds(process: u32) -> f64 {
    fields_sum(process, &[16, 17])
}

/// Returns the processor time of the children that this program has waited for, and of theirs.
pub fn waited_for_seconds() -> f64 {
    children_seconds(std::process::id())
}

/// Returns a process and its descendants.
fn tree(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    // Each child is listed by the thread that started it.
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: String = children.collect();
    let children = children.split_whitespace().flat_map(|child| tree(child.parse().unwrap()));
    [process].into_iter().chain(children).collect()
}

fn processor_seconds(process: u32) -> f64 {
    // User and system.
    fields_sum(process, &[14, 15])
}

/// Returns the sum of times of a process, in seconds. Each is named by its field of the whole line. Field 1 is the process id.
fn fields_sum(process: u32, times: &[usize]) -> f64 {
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { return 0.0 };
    // The name before the last parenthesis may hold any characters.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    times.iter().map(|field| fields[field - 3].parse::<f64>().unwrap()).sum::<f64>() / TICKS
}
