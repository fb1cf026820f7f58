//! Pullers and nodes of large items on disks without room. The disks are small file systems in memory, which only the process and
//! what it starts can see. Where the system does not allow that, a test is skipped, and a line says so.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::process::{Command, Stdio};

use support::{Cluster, NatsClient, Objects, Process, Run, eventually, probe_chain, with_table};

const MIB: usize = 1 << 20;

/// Returns `true` if file systems can be mounted. Otherwise says that a test is skipped.
pub fn can_mount(test: &str) -> bool {
    let mut mount = Command::new("unshare");
    mount.args(["--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
    let mount = mount.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let can = mount.is_ok_and(|status| status.success());
    if !can {
        // Not by `eprintln!`, which shows nothing of a test that passes.
        _ = writeln!(io::stderr(), "skipped: {test} needs `unshare --user --map-root-user --mount` and `mount`");
    }
    can
}

/// Returns a script that runs with a disk of this size in MiB mounted at `disk`, in the folder of the test. `"$@"` is the command.
pub fn with_disk(cluster: &Cluster, size: usize, script: &str, command: &Command) -> Command {
    fs::create_dir_all(cluster.path("disk")).unwrap();
    let script = format!("mount -t tmpfs -o size={size}m tmpfs disk || exit 99; {script}");
    let mut mounted = Command::new("unshare");
    mounted.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"]);
    mounted.arg(command.get_program()).args(command.get_args()).current_dir(cluster.path(""));
    mounted.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    mounted
}

/// Bytes that differ from place to place and from seed to seed.
fn noise(length: usize, seed: usize) -> Vec<u8> {
    (0..length / 4).flat_map(|at| u32::try_from(at * 7 + seed).unwrap().to_le_bytes()).collect()
}

#[test]
fn results_that_find_no_room_on_a_full_disk_go_back_and_leave_no_part() {
    if !can_mount("a puller on a full disk") {
        return;
    }
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&with_table("[queue]\nlarge = \"1KiB\"", &probe_chain("full", &["echo"], "memory = \"64MiB\"")));
    let _node = cluster.node("a");
    let items: Vec<(String, Vec<u8>)> = (0..4).map(|number| (format!("i{number}"), noise(6 * MIB, number))).collect();
    for (name, content) in &items {
        cluster.file(name, content);
        cluster.ok(&["feed", "full", "-f", name, "--format", "bytes", "--id", name]);
    }
    cluster.ok(&["wait", "full"]);
    // What was saved is copied out of the disk before that is gone. One may fit, and never two.
    let script = "\"$@\"; status=$?; ls -A disk > listed; cp -r disk saved; exit $status";
    let pull = cluster.command(&["pull", "full", "-t", "0", "-n", "4", "--output", "disk"]);
    let run = Run::of(with_disk(&cluster, 8, script, &pull), b"");
    assert!(run.stderr.contains("in `disk`: No space left on device"), "{}", run.stderr);
    let run = run.failed(1, "it was given back");
    let listed: BTreeSet<String> =
        fs::read_to_string(cluster.path("listed")).unwrap().lines().map(str::to_owned).collect();
    assert!(listed.len() <= 1, "{listed:?}");
    assert_eq!(
        run.stdout.lines().map(|path| path.trim_start_matches("disk/").to_owned()).collect::<BTreeSet<_>>(),
        listed
    );
    // All others come again, into the same folder.
    let pulled = cluster.ok(&["pull", "full", "--all", "--output", "saved"]);
    assert_eq!(pulled.lines().count() + listed.len(), items.len(), "none comes twice");
    for (name, content) in &items {
        assert!(fs::read(cluster.path("saved").join(name)).unwrap() == *content, "{name} is whole");
    }
    assert_eq!(fs::read_dir(cluster.path("saved")).unwrap().count(), items.len());
    assert!(Objects::of(&client, "full").subjects().is_empty());
}

/// A program that hands on what it gets, and one that gives 30 MiB.
fn programs() -> String {
    let stage = |name: &str, script: &str| {
        format!(
            "name = \"{name}\"\nversion = \"1\"\n[queue]\nlarge = \"1KiB\"\nack_wait = \"1s\"\n[[stage]]\nname = \"run\"\n\
             exec = [\"sh\", \"-c\", {script:?}]\ninput = \"bytes\"\noutput = \"bytes\"\n\
             retry = {{ attempts = 100, backoff = [\"100ms\"] }}\n"
        )
    };
    stage("input", "cat") + "\0" + &stage("output", "head -c 31457280 /dev/zero")
}

#[test]
fn a_node_on_a_full_disk_says_so_and_loses_no_item() {
    if !can_mount("a node on a full disk") {
        return;
    }
    let cluster = Cluster::start();
    for manifest in programs().split('\0') {
        cluster.deploy(manifest);
    }
    let content = noise(30 * MIB, 5);
    cluster.file("scan", &content);
    cluster.ok(&["feed", "input", "-f", "scan", "--format", "bytes"]);
    cluster.run_with_input(&["feed", "output", "--format", "bytes"], "x").succeeded();
    let command = cluster.command(&["node", "--name", "full", "--allow-exec", "sh"]);
    let mut command = with_disk(&cluster, 20, "TMPDIR=$PWD/disk exec \"$@\"", &command);
    command.env_remove("TMPDIR");
    let mut full = Process::start(command);
    full.said("ready: serving");
    for (chain, problem) in [
        (
            "input",
            "a large item cannot be fetched: cannot make a file for a large item: it has 30.0 MiB, and the folder for",
        ),
        ("output", "standard output cannot be kept: the folder for temporary files has only "),
    ] {
        full.said(&format!("cannot run items here; no attempt is lost chain={chain} "));
        eventually("status tells the problem", || {
            cluster.run(&["status", chain]).stderr.contains(problem).then_some(())
        });
    }
    for chain in ["input", "output"] {
        assert_eq!(cluster.status(chain)["dead"], 0, "{chain}: nothing is given up");
    }
    assert!(!full.has_ended());
    let _other = cluster.node_with("roomy", &["--allow-exec", "sh"]);
    for (chain, content) in [("input", content), ("output", vec![0; 30 * MIB])] {
        cluster.ok(&["wait", chain]);
        let folder = format!("{chain}.out");
        cluster.ok(&["pull", chain, "--all", "--output", &folder]);
        let saved: Vec<_> = fs::read_dir(cluster.path(&folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(saved.len(), 1, "{chain}: once");
        assert!(fs::read(&saved[0]).unwrap() == content, "{chain}: whole");
    }
    assert_eq!(full.stop(), Some(0), "{}", full.stderr());
}
