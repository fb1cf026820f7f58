//! Where this process may make cgroups.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the folder in which a node may make cgroups for its programs. `None` if there is none.
///
/// Only version 2 ends all processes of a group in one step. It needs no controller for that.
pub(crate) fn place() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let (root, mount) = mounts.lines().find_map(mount)?;
    let below = Path::new(own).strip_prefix(root).ok()?;
    let place = Path::new(mount).join(below);
    // The system shows by making one that it lets us, and has the file that ends a group.
    let trial = place.join(format!("pcluster-{}-trial", std::process::id()));
    fs::create_dir(&trial).ok()?;
    let has_kill = trial.join("cgroup.kill").exists();
    let may_join = fs::OpenOptions::new().write(true).open(trial.join("cgroup.procs")).is_ok();
    fs::remove_dir(&trial).ok()?;
    // Where this is refused, or the system counts nothing, the watch of each program holds alone.
    for controller in ["+memory", "+pids"] {
        let _ = fs::write(place.join("cgroup.subtree_control"), controller);
    }
    (has_kill && may_join).then_some(place)
}

/// Returns the root and the folder of a mount of version 2. `None` for any other mount.
fn mount(line: &str) -> Option<(&str, &str)> {
    let (fields, kind) = line.split_once(" - ")?;
    if !kind.starts_with("cgroup2 ") {
        return None;
    }
    let mut fields = fields.split(' ').skip(3);
    Some((fields.next()?, fields.next()?))
}
