//! What the machine lets this process use.

use std::path::{Path, PathBuf};

/// Bytes assumed for a machine whose memory cannot be read.
const MACHINE_UNKNOWN: u64 = 2 << 30;

/// Returns the bytes of memory that this process may use: those of the machine, or of its control group.
pub(crate) fn memory() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = limit_files(Path::new("/sys/fs/cgroup"), &groups).into_iter().filter_map(|file| limit(&file)).min();
    machine.into_iter().chain(group).min().unwrap_or(MACHINE_UNKNOWN)
}

/// Returns `true` if memory of this process may be swapped out.
pub(crate) fn swaps() -> bool {
    let areas = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    has_area(&areas) && !swap_files(Path::new("/sys/fs/cgroup"), &groups).iter().any(|file| limit(file) == Some(0))
}

/// Returns `true` if there is an area for swapping, below the line of headings.
fn has_area(swaps: &str) -> bool {
    swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

/// Returns the files with the limits of what the control groups of a process may swap out. Version 1 has none of its own.
fn swap_files(root: &Path, groups: &str) -> Vec<PathBuf> {
    let files = limit_files(root, groups).into_iter();
    files.filter(|file| file.ends_with("memory.max")).map(|file| file.with_file_name("memory.swap.max")).collect()
}

/// Reads the bytes from a line `MemTotal:  24684096 kB`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Reads the limit of a control group. `None` if it is the word `max`.
fn limit(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Returns the files with the limits of a process's control groups, of both versions.
///
/// A group is bound by the groups that it is part of. In a container the path may be valid only outside of it, so the root is
/// read too.
fn limit_files(root: &Path, groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, name) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            several if several.split(',').any(|one| one == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        let group = root.join(path.trim_start_matches('/'));
        files.extend(group.ancestors().take_while(|folder| folder.starts_with(&root)).map(|folder| folder.join(name)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_machine_is_read() {
        assert_eq!(total("MemTotal:       24684096 kB\nMemFree:  1 kB\n"), Some(24_684_096 << 10));
        assert_eq!(total("nothing"), None);
        assert!(memory() > 0);
    }

    #[test]
    fn swapping_needs_an_area_and_a_group_that_may() {
        let headings = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(!has_area("") && !has_area(headings));
        assert!(has_area(&format!("{headings}/dev/zram0 partition 1024 0 100\n")));
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("a/b")).expect("folders");
        std::fs::write(folder.path().join("a/memory.swap.max"), "0\n").expect("written");
        let files = swap_files(folder.path(), "0::/a/b\n5:memory:/x\n");
        assert_eq!(files.iter().filter(|file| limit(file) == Some(0)).count(), 1, "{files:?}");
    }

    #[test]
    fn the_groups_of_both_versions_and_those_above_them_are_looked_at() {
        let files = |groups| -> Vec<String> {
            let files = limit_files(Path::new("/g"), groups);
            files.iter().map(|file| file.display().to_string()).collect()
        };
        assert_eq!(files("0::/a/b\n"), ["/g/a/b/memory.max", "/g/a/memory.max", "/g/memory.max"]);
        let old = ["/g/memory/x/memory.limit_in_bytes", "/g/memory/memory.limit_in_bytes"];
        assert_eq!(files("3:cpuset:/\n4:memory:/x\n"), old);
        assert!(files("1:cpu:/\nrubbish\n").is_empty());
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("memory.max");
        for (text, read) in [("max\n", None), ("1048576\n", Some(1 << 20))] {
            std::fs::write(&file, text).expect("written");
            assert_eq!(limit(&file), read);
        }
    }
}
