//! Programs in a storm: their stages, their kills, and the search for what they have left.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::servers::Cluster;
use super::{Chance, PATIENCE, Plan, Report, TIMES};

/// Gives the numbers of an item. Some items leave a process of another session and a file. No process but the first gives outputs, so
/// that a kill of another changes none.
const FAN: &str = "read item || :; \
    if [ $((item % 8)) = 0 ]; then setsid sleep 600 & : > left; fi; \
    number=$((item * TIMES)); end=$((number + TIMES)); while [ $number -lt $end ]; do echo $number; number=$((number + 1)); done";
/// Gives even numbers back, as a worker.
const DROP_ODD: &str = r#"
import json, os

items = open(int(os.environ["PCLUSTER_WORKER_IN"]), encoding="utf-8")
answers = open(int(os.environ["PCLUSTER_WORKER_OUT"]), "w", encoding="utf-8")


def say(*messages):
    answers.write("".join(json.dumps(message) + "\n" for message in messages))
    answers.flush()


say({"hello": {"version": 1}})
for line in items:
    item = json.loads(line)["item"]
    request, value = item["request"], item["value"]
    outputs = [{"output": {"request": request, "value": value}}] if value % 2 == 0 else []
    say(*outputs, {"done": {"request": request}})
"#;
/// The arguments of a node beside those of every storm.
const ARGUMENTS: [&str; 6] = ["--allow-exec", "sh", "--allow-exec", "python3", "--slots", "cores=2,seat=3"];
/// The folder of the nodes' temporary files, in the folder of the storm.
const FOLDER: &str = "temporary";
/// The beginning of the name of a cgroup.
const CGROUP: &str = "pcluster-";

/// A process: its number and when it began, since numbers come again.
type Process = (u32, u64);

/// What was seen of the nodes' programs.
pub(super) struct Programs {
    folder: PathBuf,
    /// The time between two kills. `None` to kill none.
    every: Option<Duration>,
    next: Instant,
    /// The guards and shepherds of killed nodes.
    guards: BTreeSet<Process>,
    /// The names of the nodes' folders.
    incarnations: BTreeSet<String>,
}

impl Programs {
    /// Creates what a storm with programs needs.
    pub(super) fn new(cluster: &Cluster, every: Option<Duration>) -> Self {
        cluster.file("drop_odd.py", DROP_ODD);
        fs::create_dir(cluster.path(FOLDER)).unwrap();
        let user = fs::metadata("/proc/self").unwrap().uid();
        let folder = cluster.path(FOLDER).join(format!("pcluster-programs-{user}"));
        let next = Instant::now() + every.unwrap_or_default();
        Self { folder, every, next, guards: BTreeSet::new(), incarnations: BTreeSet::new() }
    }

    /// Kills a process of a program, or of those that watch over it, if the time has come.
    pub(super) fn strike(&mut self, chance: &mut Chance, report: &mut Report) {
        let Some(every) = self.every.filter(|_| Instant::now() >= self.next) else { return };
        self.next = Instant::now() + chance.between(every / 2, every * 3 / 2);
        self.look();
        let mut programs = self.processes();
        if programs.is_empty() {
            return;
        }
        let process = programs.swap_remove(usize::try_from(chance.next(programs.len() as u64)).unwrap());
        let watchers: Vec<u32> = ancestors(process).filter(|process| is_guard(*process)).collect();
        match (chance.next(10), &watchers[..]) {
            (0, [.., guard]) => {
                kill(*guard);
                report.guards += 1;
                report.tell(format_args!("a guard or its shepherd, {guard}, killed"));
            }
            (1 | 2, [shepherd, ..]) => {
                kill(*shepherd);
                report.shepherds += 1;
                report.tell(format_args!("the shepherd {shepherd} of {process} killed"));
            }
            _ => {
                kill(process);
                report.programs += 1;
            }
        }
    }

    /// Takes note of the guards and folders that there are.
    pub(super) fn look(&mut self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_str().unwrap().to_owned();
            self.incarnations.insert(name.trim_end_matches(".lock").to_owned());
        }
        for process in self.processes() {
            let guards = ancestors(process).filter(|process| is_guard(*process));
            self.guards.extend(guards.filter_map(|guard| Some((guard, began(guard)?))));
        }
    }

    /// Returns the processes of all programs.
    fn processes(&self) -> Vec<u32> {
        let folder = self.folder.to_str().unwrap().as_bytes();
        let is_of_program = |process: &u32| {
            let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            let mut variables = environment.split(|byte| *byte == 0);
            variables.any(|variable| variable.strip_prefix(b"HOME=").is_some_and(|home| home.starts_with(folder)))
        };
        processes().filter(is_of_program).collect()
    }

    /// Waits until nothing of the programs is left. Tells what is. All nodes have ended.
    pub(super) fn search(&self, report: &mut Report) {
        report.remains.extend(none_left(|| {
            let of_programs = self.processes().into_iter();
            let guards = self.guards.iter().filter(|(guard, start)| began(*guard) == Some(*start));
            let processes = of_programs.chain(guards.map(|(guard, _)| *guard)).map(describe);
            let folders = fs::read_dir(&self.folder).into_iter().flatten().flatten();
            let folders = folders.map(|entry| format!("folder {}", entry.path().display()));
            let of_ours = |name: &str| {
                let name = name.strip_prefix(CGROUP).unwrap_or_default();
                self.incarnations.contains(name.split('.').next().unwrap_or_default())
            };
            let cgroups = cgroups().into_iter().filter(|cgroup| of_ours(cgroup));
            processes.chain(folders).chain(cgroups.map(|cgroup| format!("cgroup {cgroup}"))).collect()
        }));
    }
}

/// Waits until all slots of the nodes are free. Tells those that are not.
pub(super) fn settle(cluster: &Cluster, report: &mut Report) {
    report.remains.extend(none_left(|| {
        let nodes: serde_json::Value = serde_json::from_str(&cluster.ok(&["nodes", "--json"])).unwrap();
        let slots = |node: &serde_json::Value| node["slots"].as_array().unwrap().clone();
        let all =
            nodes.as_array().unwrap().iter().flat_map(|node| {
                slots(node).into_iter().map(|slot| (node["name"].to_string(), slot)).collect::<Vec<_>>()
            });
        let taken = all.filter(|(_, slot)| slot["free"] != slot["all"]);
        taken.map(|(node, slot)| format!("{slot} of {node}")).collect()
    }));
}

/// Makes a command one that starts a node with programs.
pub(super) fn equip(cluster: &Cluster, command: &mut Command) {
    command.args(ARGUMENTS).env("TMPDIR", cluster.path(FOLDER));
}

/// Returns the stages of the chain: a process for each item, a task, and workers.
pub(super) fn stages(cluster: &Cluster, plan: &Plan, probe: &str, concurrency: u64) -> String {
    let retry = "retry = { attempts = 1000, backoff = [\"100ms\"] }";
    let fan = FAN.replace("TIMES", &TIMES.to_string());
    let worker = cluster.path("drop_odd.py");
    format!(
        "[[stage]]\nname = \"fan\"\nexec = [\"sh\", \"-c\", {fan:?}]\nneeds = {{ cores = 1, seat = 1 }}\n{retry}\n\
         [[stage]]\nname = \"shaky\"\nplugin = \"{probe}\"\nconfig = {{ micros = {} }}\nisolation = \"worker\"\n\
         concurrency = {concurrency}\n{retry}\n\
         [[stage]]\nname = \"drop_odd\"\nexec = [\"python3\", \"{}\"]\nisolation = \"worker\"\nreuse = 500\n\
         needs = {{ seat = 1 }}\n{retry}\n",
        plan.micros,
        worker.display(),
    )
}

/// Waits until a search finds nothing. Returns what it finds when its time is over.
fn none_left(search: impl Fn() -> Vec<String>) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE / 4;
    loop {
        let found = search();
        if found.is_empty() || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Returns all processes of the machine.
fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Returns the ancestors of a process, the nearest first.
fn ancestors(process: u32) -> impl Iterator<Item = u32> {
    let parent = |process: &u32| stat(*process)?.get(1)?.parse().ok().filter(|parent| *parent != 0);
    std::iter::successors(Some(process), parent).skip(1)
}

/// Returns when a process began. `None` if it has ended.
fn began(process: u32) -> Option<u64> {
    let stat = stat(process)?;
    if stat[0] == "Z" { None } else { stat[19].parse().ok() }
}

/// Returns the fields of a process after its name.
fn stat(process: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may hold anything.
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// Returns `true` if a process is a guard or a shepherd.
fn is_guard(process: u32) -> bool {
    fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|line| line == b"pcluster\0--guard\0")
}

fn describe(process: u32) -> String {
    let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let parent = ancestors(process).next().unwrap_or_default();
    format!("process {process} of {parent}: {}", String::from_utf8_lossy(&line).replace('\0', " "))
}

fn kill(process: u32) {
    // It may have ended.
    let _ = Command::new("kill").args(["-KILL", &process.to_string()]).output();
}

/// Returns the names of the cgroups beside the one of this process.
fn cgroups() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(mount) = mounts.lines().find(|line| line.starts_with("cgroup2 ")).and_then(|line| line.split(' ').nth(1))
    else {
        return Vec::new();
    };
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let entries = fs::read_dir(Path::new(mount).join(own)).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.starts_with(CGROUP)).collect()
}
