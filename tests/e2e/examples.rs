//! The worked examples of programs: the commands and outputs that their pages show. An example whose tools are not installed is
//! skipped, and a line says so.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use support::{Cluster, Process, repository};

use crate::docs::{Shown, run_as_shown, run_as_shown_but, shell, shown_file};

/// Commands of a chain that runs an MPI program, in this order.
pub const MPI: [Shown; 4] = [
    ("plugins/mpi/README.md", "Deploy the chain"),
    ("plugins/mpi/README.md", "Take four and end"),
    ("plugins/mpi/README.md", "Take as many as come"),
    ("plugins/mpi/README.md", "Retry what failed"),
];

/// Commands that run a tool on many files.
pub const PICTURES: [Shown; 1] = [("sdk/PROGRAMS.md", "Pictures with ffmpeg")];

/// Returns `true` if all these commands run well. Otherwise says that an example is skipped.
fn has(example: &str, commands: &[&[&str]]) -> bool {
    let runs = |command: &&[&str]| {
        let mut process = Command::new(command[0]);
        process.args(&command[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        process.status().is_ok_and(|status| status.success())
    };
    let missing = commands.iter().find(|command| !runs(command));
    if let Some(command) = missing {
        // Not by `eprintln!`, which shows nothing of a test that passes.
        _ = writeln!(io::stderr(), "skipped: the example of {example} needs `{}`", command.join(" "));
    }
    missing.is_none()
}

/// Starts a node that runs these programs.
fn node(cluster: &Cluster, folder: &Path, allowed: &[&str]) -> Process {
    let mut command = cluster.command(&["node", "--name", "a"]);
    command.args(allowed.iter().flat_map(|program| ["--allow-exec", program])).current_dir(folder);
    let node = Process::start(command);
    node.said("ready: serving");
    node
}

#[test]
fn an_mpi_program_runs_as_its_page_shows() {
    if !has("MPI", &[&["mpicc", "--version"], &["mpiexec", "--version"], &["make", "--version"]]) {
        return;
    }
    let cluster = Cluster::start();
    let folder = cluster.path("pcluster");
    // A copy, which the page's commands build in and change.
    std::fs::create_dir_all(folder.join("plugins/mpi")).unwrap();
    for name in ["Makefile", "chain.toml", "primes.c"] {
        let path = Path::new("plugins/mpi").join(name);
        std::fs::copy(repository().join(&path), folder.join(&path)).unwrap();
    }
    shell(&cluster, &folder, "make -C plugins/mpi").succeeded();
    run_as_shown(&cluster, &folder, &MPI[..2]);
    let waiting = node(&cluster, &folder, &["mpiexec"]);
    run_as_shown(&cluster, &folder, &MPI[2..3]);
    drop(waiting);
    run_as_shown(&cluster, &folder, &MPI[3..]);
}

#[test]
fn a_tool_runs_on_many_files_as_the_page_shows() {
    if !has("pictures", &[&["ffmpeg", "-version"], &["ffprobe", "-version"]]) {
        return;
    }
    let cluster = Cluster::start();
    let folder = cluster.path("pictures-of-all");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("chain.toml"), shown_file("sdk/PROGRAMS.md", "chain.toml")).unwrap();
    let _node = node(&cluster, &folder, &["ffmpeg", "ffprobe"]);
    run_as_shown_but(&cluster, &folder, &PICTURES, |block| block.replace("2000", "12"));
}
