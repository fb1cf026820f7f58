//! The cgroups of programs: where this process may make them, and the end of those that lost their shepherd.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

/// How long the processes of a cgroup may take to end once they are killed.
const END: Duration = Duration::from_secs(1);
/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(5);

/// The cgroups of a node's programs. The shepherd of each removes it, unless it is killed. Dropping this removes what is left then.
#[derive(Debug)]
pub(crate) struct Cgroups {
    place: PathBuf,
    node: String,
}

impl Cgroups {
    /// Names the cgroups in `place` after a node, which no other has the name of.
    pub(crate) fn new(place: PathBuf, node: &str) -> Self {
        Self { place, node: node.to_owned() }
    }

    /// Returns the path of the cgroup with this number.
    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.place.join(format!("{}{number}", prefix(&self.node)))
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let _ = remove_all(&self.place, &self.node);
    }
}

/// Removes the cgroups of a node that has ended, and ends what is left in them.
pub(crate) fn remove_all(place: &Path, node: &str) -> io::Result<()> {
    let prefix = prefix(node);
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a cgroup, and ends what is left in it.
pub(crate) fn remove(cgroup: &Path) -> io::Result<()> {
    let began = Instant::now();
    loop {
        match fs::remove_dir(cgroup) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && began.elapsed() < END => {
                let _ = fs::write(cgroup.join("cgroup.kill"), "1");
                std::thread::sleep(LOOK);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
    }
}

/// Returns how the names of a node's cgroups begin.
fn prefix(node: &str) -> String {
    format!("pcluster-{node}.")
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_in_a_cgroup_without_its_shepherd_ends_with_it() {
        // Where none may be made, there is nothing to remove.
        let Some(place) = place() else { return };
        let node = format!("test{}", std::process::id());
        let (of_node, of_other) =
            (Cgroups::new(place.clone(), &node), Cgroups::new(place.clone(), &format!("{node}0")));
        let (full, empty, other) = (of_node.path(1), of_node.path(2), of_other.path(1));
        for path in [&full, &empty, &other] {
            fs::create_dir(path).expect("made");
        }
        let mut process = std::process::Command::new("sleep").arg("60").spawn().expect("started");
        fs::write(full.join("cgroup.procs"), process.id().to_string()).expect("joined");
        remove_all(&place, &node).expect("removed");
        assert!(!full.exists() && !empty.exists() && other.exists());
        assert!(!process.wait().expect("ended").success());
        drop(of_other);
        assert!(!other.exists());
    }
}
