//! All processes of one program.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

use super::message::Bounds;

/// The file with the most memory of a cgroup.
const MEMORY_MAX: &str = "memory.max";

/// All processes that descend from this one.
///
/// This process is their reaper: a process whose parent has ended becomes its child, whatever group or session it has made. A
/// cgroup beside that ends all of them in one step, also while they fork.
#[derive(Debug)]
pub(crate) struct Tree {
    cgroup: Option<PathBuf>,
}

impl Tree {
    /// Creates an empty tree, with a cgroup of its own if a place for one is given and the system lets it be made.
    ///
    /// The cgroup has the bounds too where the system counts for it. The watch holds everywhere.
    pub(crate) fn new(cgroup: Option<&OsStr>, bounds: Bounds) -> Self {
        let cgroup = cgroup.map(PathBuf::from).filter(|cgroup| fs::create_dir(cgroup).is_ok());
        if let Some(cgroup) = &cgroup {
            let set = |file: &str, value: u64| fs::write(cgroup.join(file), value.to_string());
            if let Some(bytes) = bounds.memory
                && set(MEMORY_MAX, bytes).is_ok()
            {
                // It ends as a whole.
                let _ = (set("memory.swap.max", 0), set("memory.oom.group", 1));
            }
            if let Some(count) = bounds.processes {
                // One more, so that the watch sees it.
                let _ = set("pids.max", count.saturating_add(1));
            }
        }
        Self { cgroup }
    }

    /// Returns the most memory of its cgroup if the system has ended processes for it.
    pub(crate) fn memory_exceeded(&self) -> Option<u64> {
        let read = |file: &str| fs::read_to_string(self.cgroup.as_ref()?.join(file)).ok();
        let events = read("memory.events")?;
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        if kills == "0" { None } else { read(MEMORY_MAX)?.trim().parse().ok() }
    }

    /// Returns its cgroup.
    pub(crate) fn cgroup(&self) -> Option<&Path> {
        self.cgroup.as_deref()
    }

    /// Returns all processes.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let mut all = descendants();
        if let Some(cgroup) = &self.cgroup {
            all.extend(pids(&fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default()));
            all.sort_unstable_by_key(|process| process.as_raw_nonzero());
            all.dedup();
        }
        all
    }

    /// Asks all processes to end.
    pub(crate) fn terminate(&self) {
        for process in self.processes() {
            let _ = kill_process(process, Signal::TERM);
            // A stopped process sees no signal before it goes on.
            let _ = kill_process(process, Signal::CONT);
        }
    }

    /// Ends all processes, and returns once none is left. `note` receives each that was a child.
    pub(crate) fn kill(&self, mut note: impl FnMut(Pid, WaitStatus)) {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((process, status))) => {
                    note(process, status);
                    continue;
                }
                Ok(None) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
            if let Some(cgroup) = &self.cgroup {
                let _ = fs::write(cgroup.join("cgroup.kill"), "1");
            }
            // Each that ends makes its children ours.
            for child in children() {
                let _ = kill_process(child, Signal::KILL);
            }
            if let Ok(Some((process, status))) = wait(WaitOptions::empty()) {
                note(process, status);
            }
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            // The system takes a moment to see that the last process has left.
            for _ in 0..100 {
                match fs::remove_dir(cgroup) {
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                    _ => break,
                }
            }
        }
    }
}

/// Returns the children of this process.
pub(crate) fn children() -> Vec<Pid> {
    // The system may have been built without these lists.
    children_of("self").unwrap_or_else(children_by_parent)
}

/// Returns what descends from this process.
fn descendants() -> Vec<Pid> {
    let mut all = children();
    let mut next = 0;
    while let Some(process) = all.get(next).copied() {
        next += 1;
        all.extend(children_of(&process.as_raw_nonzero().to_string()).unwrap_or_default());
    }
    all
}

/// Returns the children of a process: those of all its threads.
fn children_of(process: &str) -> Option<Vec<Pid>> {
    let mut all = Vec::new();
    for thread in fs::read_dir(format!("/proc/{process}/task")).ok()?.flatten() {
        all.extend(pids(&fs::read_to_string(thread.path().join("children")).ok()?));
    }
    Some(all)
}

/// Returns the children of this process by looking at every process.
fn children_by_parent() -> Vec<Pid> {
    let own = rustix::process::getpid();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let process = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            (parent(&entry.path())? == own).then_some(process)
        })
        .collect()
}

fn parent(process: &Path) -> Option<Pid> {
    let status = fs::read_to_string(process.join("stat")).ok()?;
    // The name in parentheses may hold anything.
    let parent = status.rsplit_once(')')?.1.split_whitespace().nth(1)?;
    Pid::from_raw(parent.parse().ok()?)
}

fn pids(list: &str) -> impl Iterator<Item = Pid> {
    list.split_whitespace().filter_map(|word| Pid::from_raw(word.parse().ok()?))
}
