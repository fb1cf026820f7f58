//! The worked examples of programs: the commands and outputs that their pages show, and ranks of MPI that lose their node and their
//! launcher. An example whose tools are not installed is skipped, and a line says so.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use support::{Cluster, Process, eventually, numbers, repository};

use crate::docs::{Shown, run_as_shown, run_as_shown_but, shell, shown_file_of};

/// Commands of a chain that runs an MPI program, in this order.
pub const MPI: [Shown; 4] = [
    ("plugins/mpi/README.md", "Deploy the chain"),
    ("plugins/mpi/README.md", "Take four and end"),
    ("plugins/mpi/README.md", "Take as many as come"),
    ("plugins/mpi/README.md", "Retry what failed"),
];

/// Commands that run a tool on many files.
pub const PICTURES: [Shown; 1] = [("sdk/PROGRAMS.md", "Pictures with ffmpeg")];

/// Commands of a worker in Python that uses a library.
pub const STARS: [Shown; 1] = [("sdk/PROGRAMS.md", "Numbers with numpy")];

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
    // Its items take two processors.
    let two = ["sh", "-c", "test $(nproc) -ge 2"];
    if !has("MPI", &[&["mpicc", "--version"], &["mpiexec", "--version"], &["make", "--version"], &two]) {
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
fn no_rank_is_left_when_its_node_and_its_launcher_are_killed_at_once() {
    if !has("MPI", &[&["mpiexec", "--version"]]) {
        return;
    }
    let cluster = Cluster::start();
    // A launcher starts any program. The first attempt waits for ever, with a process of a session of its own for each rank.
    let rank = "if [ $PCLUSTER_ATTEMPT = 1 ]; then trap '' TERM; setsid sleep 300 & echo $$ $! > $1/rank.$$; wait; sleep 300; fi\n\
                [ ${PMI_RANK:-$OMPI_COMM_WORLD_RANK} != 0 ] || echo 7\n";
    cluster.file("rank.sh", rank);
    let marks = cluster.path("marks");
    std::fs::create_dir(&marks).unwrap();
    let launch = format!("echo $$ > {0}/launcher; exec mpiexec -n 2 sh ./rank.sh {0}", marks.display());
    cluster.deploy(&support::recovering(&format!(
        "name = \"ranks\"\nversion = \"1\"\n[[stage]]\nname = \"run\"\nexec = [\"sh\", \"-c\", {launch:?}]\n\
         files = [\"rank.sh\"]\n[stage.env]\nOMPI_ALLOW_RUN_AS_ROOT = \"1\"\nOMPI_ALLOW_RUN_AS_ROOT_CONFIRM = \"1\"\n\
         OMPI_MCA_rmaps_base_oversubscribe = \"1\"\n"
    )));
    let killed = node(&cluster, &cluster.path(""), &["sh"]);
    cluster.ok(&["feed", "ranks", "1"]);
    let processes = eventually("both ranks run", || {
        let files =
            std::fs::read_dir(&marks).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
        let processes: String = files.filter(|text| text.ends_with('\n')).collect();
        let processes: Vec<String> = processes.split_whitespace().map(str::to_owned).collect();
        (processes.len() == 5).then_some(processes)
    });
    let launcher = std::fs::read_to_string(marks.join("launcher")).unwrap();
    let kill = format!("kill -KILL {} {launcher}", killed.id());
    shell(&cluster, &marks, &kill).succeeded();
    for process in processes {
        eventually("its processes have ended", || {
            let stat = std::fs::read_to_string(Path::new("/proc").join(&process).join("stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        });
    }
    let _other = node(&cluster, &cluster.path(""), &["sh"]);
    cluster.ok(&["wait", "ranks"]);
    assert_eq!(numbers(&cluster.pull_all("ranks")), [7]);
}

#[test]
fn a_tool_runs_on_many_files_as_the_page_shows() {
    if !has("pictures", &[&["ffmpeg", "-version"], &["ffprobe", "-version"]]) {
        return;
    }
    let cluster = Cluster::start();
    let folder = cluster.path("pictures-of-all");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("chain.toml"), shown_file_of(PICTURES[0].0, PICTURES[0].1, "chain.toml")).unwrap();
    let _node = node(&cluster, &folder, &["ffmpeg", "ffprobe"]);
    run_as_shown_but(&cluster, &folder, &PICTURES, |block| block.replace("2000", "12"));
}

#[test]
fn a_worker_with_a_library_runs_as_the_page_shows() {
    if !has("numpy", &[&["/usr/bin/python3", "-c", "import numpy"]]) {
        return;
    }
    let cluster = Cluster::start();
    let folder = cluster.path("stars");
    std::fs::create_dir(&folder).unwrap();
    let (page, section) = STARS[0];
    for name in ["chain.toml", "nearest.py"] {
        std::fs::write(folder.join(name), shown_file_of(page, section, name)).unwrap();
    }
    let _node = node(&cluster, &folder, &["/usr/bin/python3"]);
    run_as_shown_but(&cluster, &folder, &STARS, |block| block.replace("2000", "20"));
}
