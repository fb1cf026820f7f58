//! What the processes of a program use together.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::message::{Bounds, Exceeded};
use super::tree::Tree;

/// How often memory and processes are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often the folder is looked at.
const LOOK_AT_FOLDER: Duration = Duration::from_secs(1);
/// A look at a folder of many files takes long. The next comes after this many times as long.
const PAUSE: u32 = 20;

/// Looks at what a program uses.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    bounds: Bounds,
    folder: &'a Path,
    next: Option<Instant>,
    next_of_folder: Option<Instant>,
    grown: Option<u64>,
}

impl<'a> Watch<'a> {
    /// Creates a watch that begins now.
    pub(crate) fn new(bounds: Bounds, folder: &'a Path) -> Self {
        let now = Instant::now();
        Self {
            bounds,
            folder,
            next: (bounds.memory.is_some() || bounds.processes.is_some()).then(|| now + LOOK),
            next_of_folder: bounds.folder.map(|_| now + LOOK_AT_FOLDER),
            grown: None,
        }
    }

    /// Returns the time of the next look. `None` if nothing is bounded.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next.into_iter().chain(self.next_of_folder).min()
    }

    /// Returns the memory of the program, once it has grown past what is told.
    pub(crate) fn take_grown(&mut self) -> Option<u64> {
        self.grown.take()
    }

    /// Returns the bound that the program exceeds.
    pub(crate) fn look(&mut self, tree: &Tree) -> Option<Exceeded> {
        let now = Instant::now();
        if self.next.is_some_and(|next| next <= now) {
            self.next = Some(now + LOOK);
            let processes = tree.processes();
            let all = || processes.iter().copied();
            if let Some(max) = self.bounds.processes {
                let count = all().map(threads).sum();
                if count > max {
                    return Some(Exceeded::Processes(count));
                }
            }
            if let Some(first) = self.bounds.grown.or(self.bounds.memory) {
                // Pages that several processes share count once in the exact figure, which costs more to get.
                if all().map(resident).sum::<u64>() > first {
                    let exact = all().map(|process| proportional(process).unwrap_or_else(|| resident(process))).sum();
                    if self.bounds.memory.is_some_and(|max| exact > max) {
                        return Some(Exceeded::Memory(exact));
                    }
                    if self.bounds.grown.is_some_and(|grown| exact > grown) {
                        (self.grown, self.bounds.grown) = (Some(exact), None);
                    }
                }
            }
        }
        if self.next_of_folder.is_some_and(|next| next <= now) {
            let bytes = size(self.folder);
            self.next_of_folder = Some(Instant::now() + LOOK_AT_FOLDER.max(now.elapsed() * PAUSE));
            if self.bounds.folder.is_some_and(|max| bytes > max) {
                return Some(Exceeded::Folder(bytes));
            }
        }
        None
    }
}

/// Returns the number of threads of a process.
fn threads(process: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap_or_default();
    let rest = status.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().nth(17).and_then(|threads| threads.parse().ok()).unwrap_or(1)
}

/// Returns the bytes of memory of a process, with all that it shares.
fn resident(process: Pid) -> u64 {
    let sizes = fs::read_to_string(format!("/proc/{}/statm", process.as_raw_nonzero())).unwrap_or_default();
    let pages: u64 = sizes.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages.saturating_mul(rustix::param::page_size() as u64)
}

/// Returns the bytes of memory of a process, with its share of what several have.
fn proportional(process: Pid) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.as_raw_nonzero())).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// Returns the bytes that a folder takes on its disk. Follows no link.
pub(crate) fn size(folder: &Path) -> u64 {
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            // Not the target of a link.
            let Ok(data) = entry.metadata() else { continue };
            bytes += data.blocks().saturating_mul(512);
            if data.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    bytes
}
