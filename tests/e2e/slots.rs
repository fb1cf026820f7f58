//! What items may use at once: slots, and nodes chosen by labels.

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;
use support::{Cluster, Process, eventually, lines, plugin};

/// A stage that runs a shell script.
fn stage(name: &str, script: &str, rest: &str) -> String {
    format!("[[stage]]\nname = \"{name}\"\nexec = [\"sh\", \"-c\", {script:?}]\n{rest}\n")
}

fn chain(name: &str, stages: &str) -> String {
    format!("name = \"{name}\"\nversion = \"1\"\n{stages}")
}

fn node(cluster: &Cluster, name: &str, more: &[&str]) -> Process {
    let arguments = [&["node", "--name", name, "--allow-exec", "sh"], more].concat();
    let mut command = cluster.command(&arguments);
    // Relative to the folder that the node is started in.
    command.env("TMPDIR", ".");
    let node = Process::start(command);
    node.said("ready: serving");
    node
}

#[test]
fn each_item_has_slots_of_its_own() {
    let cluster = Cluster::start();
    // Whoever finds the folder of its slot has the slot of another.
    let script = format!(
        "cd {}; mkdir slot-$PCLUSTER_SLOT_GPU || echo '\"taken\"'; sleep 0.02; rmdir slot-$PCLUSTER_SLOT_GPU; \
         echo \"\\\"$PCLUSTER_SLOT_GPU $CUDA_VISIBLE_DEVICES $PCLUSTER_SLOT_CORES $(sed -n 's/^Cpus_allowed_list:.//p' /proc/self/status)\\\"\"",
        cluster.path("").display()
    );
    cluster.deploy(&chain("gpus", &stage("run", &script, "needs = { gpu = 1, cores = 1 }")));
    let node = node(&cluster, "a", &["--slots", "gpu=3,7"]);
    cluster.run_with_input(&["feed", "gpus"], lines(0..24)).succeeded();
    cluster.ok(&["wait", "gpus"]);
    let told: BTreeSet<String> =
        cluster.pull_all("gpus").iter().map(|told| told.as_str().unwrap().to_owned()).collect();
    for each in &told {
        let [gpu, cuda, cores, allowed] = each.split(' ').collect::<Vec<_>>()[..] else { panic!("{each}") };
        assert!(["3", "7"].contains(&gpu) && gpu == cuda && cores == allowed, "{each}");
    }
    let node_report = &cluster.nodes()[0];
    assert!(["cgroup", "reaper"].contains(&node_report["programs"].as_str().unwrap()), "{node_report}");
    let report = &node_report["slots"];
    let gpus = report.as_array().unwrap().iter().find(|slot| slot["slot"] == "gpu").unwrap();
    assert_eq!(*gpus, json!({ "slot": "gpu", "all": 2, "free": 2 }), "all are free at the end");
    drop(node);
}

#[test]
fn items_wait_on_the_server_until_a_node_has_their_slots() {
    let cluster = Cluster::start();
    let script = format!(
        "cd {}; touch $PCLUSTER_ITEM_ID; while ! test -e go; do sleep 0.05; done; cat",
        cluster.path("").display()
    );
    let stages = stage("run", &script, "needs = { gpu = 1 }") + &stage("free", "cat", "");
    cluster.deploy(&chain("held", &stages));
    cluster.deploy(&chain("beside", &stage("run", "cat", "")));
    let _first = node(&cluster, "a", &["--slots", "gpu=1"]);
    (0..3).for_each(|_| drop(cluster.ok(&["feed", "held", "1"])));
    let stage_of = |status: &serde_json::Value| status["revisions"][0]["stages"][0].clone();
    let is = |running: u64, queued: u64| {
        move |status: &serde_json::Value| {
            let stage = stage_of(status);
            (stage["running"].as_u64(), stage["queued_messages"].as_u64()) == (Some(running), Some(queued))
        }
    };
    cluster.until("held", "one runs and two wait on the server", is(1, 2));
    // Another stage is not held up.
    cluster.ok(&["feed", "beside", "1"]);
    cluster.ok(&["wait", "beside"]);
    let _second = node(&cluster, "b", &["--slots", "gpu=1"]);
    cluster.until("held", "the other node takes one", is(2, 1));
    fs::write(cluster.path("go"), "").unwrap();
    cluster.ok(&["wait", "held"]);
    assert_eq!(cluster.pull_all("held").len(), 3);
}

#[test]
fn an_item_of_all_cores_is_not_starved_by_many_of_one() {
    let cluster = Cluster::start();
    let order = cluster.path("order");
    let script = |name: &str, time: &str| format!("sleep {time}; echo {name} >> {}", order.display());
    cluster
        .deploy(&chain("small", &stage("run", &script("small", "0.03"), "needs = { cores = 1 }\noutput = \"none\"")));
    cluster
        .deploy(&chain("large", &stage("run", &script("large", "0.03"), "needs = { cores = 2 }\noutput = \"none\"")));
    cluster.run_with_input(&["feed", "small"], lines(0..300)).succeeded();
    cluster.run_with_input(&["feed", "large"], lines(0..3)).succeeded();
    let _node = node(&cluster, "a", &["--slots", "cores=2"]);
    cluster.ok(&["wait", "large"]);
    let done = fs::read_to_string(&order).unwrap();
    let small = done.lines().filter(|line| *line == "small").count();
    assert!(small < 300, "the last of all cores came after all of one");
    cluster.ok(&["wait", "small"]);
    eventually("all have run once", || (fs::read_to_string(&order).unwrap().lines().count() == 303).then_some(()));
}

#[test]
fn an_item_that_waits_for_the_next_stage_to_make_room_leaves_it_its_slots() {
    let cluster = Cluster::start();
    let task = |name: &str, task: &str| {
        format!(
            "[[stage]]\nname = \"{name}\"\nplugin = \"{}\"\ntask = \"{task}\"\nneeds = {{ cores = 1 }}\n",
            plugin("probe")
        )
    };
    let program =
        "yes | head -c 65536 | tr -d '\\n' | sed 's/.*/\"&\"/' > line; for i in $(seq 250); do cat line; done";
    for (name, wide) in [("program", stage("wide", program, "")), ("task", task("wide", "obey"))] {
        cluster.deploy(&(chain(name, "[queue]\nlimit = 2\n") + &wide + &task("last", "echo")));
        cluster.ok(&["feed", name, "\"wide 125\""]);
    }
    let _node = node(&cluster, "a", &["--slots", "cores=1"]);
    for name in ["program", "task"] {
        cluster.ok(&["wait", name]);
    }
}

#[test]
fn a_stage_that_no_node_can_run_waits_and_status_says_for_what() {
    let cluster = Cluster::start();
    cluster.deploy(&chain("gpu", &stage("run", "cat", "needs = { gpu = 2 }")));
    cluster.deploy(&chain("zone", &stage("run", "cat", "where = { zone = \"eu\" }")));
    let _poor = node(&cluster, "poor", &["--slots", "gpu=1", "--label", "zone=us"]);
    for (chain, problem) in [
        ("gpu", "stage `run`: it needs gpu = 2, and this node has 1"),
        ("zone", "stage `run`: it runs where zone = eu, and this node has zone = us"),
    ] {
        cluster.ok(&["feed", chain, "1"]);
        let status =
            cluster.until(chain, "a problem is told", |status| !status["problems"].as_array().unwrap().is_empty());
        assert!(status["problems"].to_string().contains(problem), "{status}");
    }
    let rich = node(&cluster, "rich", &["--slots", "gpu=2", "--label", "zone=eu"]);
    rich.said("node `poor` on this machine binds programs to the same cores");
    for chain in ["gpu", "zone"] {
        cluster.ok(&["wait", chain]);
        assert_eq!(cluster.pull_all(chain).len(), 1);
    }
}

#[test]
fn slots_and_labels_that_make_no_sense_are_refused() {
    let cluster = Cluster::start();
    for (arguments, told) in [
        (["--slots", "gpu=0"], "from flag --slots: `gpu=0`: write how many slots there are"),
        (["--slots", "memory=lots"], "from flag --slots: `memory=lots`: write a size"),
        (["--slots", "Gpu"], "from flag --slots: `Gpu` cannot be the name of a slot"),
        (["--label", "zone"], "from flag --label: `zone`: `` cannot be the value of a label"),
        (["--label", "arch=z80"], "from flag --label: `arch` is `"),
    ] {
        cluster.run(&[&["node"], &arguments[..]].concat()).failed(2, told);
    }
}
