//! Stages whose processes stay and take one item after another.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::{Cluster, Process, json_lines, lines, numbers, repository};

/// The worker that the page for their authors shows.
fn worker_of_the_page() -> String {
    let page = fs::read_to_string(repository().join("runtime/WORKERS.md")).unwrap();
    let code = page.split("```python\n").nth(1).and_then(|rest| rest.split("```").next());
    code.expect("the page shows a worker").to_owned()
}

fn chain(name: &str, worker: &Path, rest: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"1\"\n[[stage]]\nname = \"run\"\nexec = [\"python3\", \"{}\"]\n\
         isolation = \"worker\"\n{rest}\n",
        worker.display()
    )
}

fn node(cluster: &Cluster, name: &str, path: Option<&str>) -> Process {
    let temporary = cluster.path(name);
    fs::create_dir_all(&temporary).unwrap();
    let mut command = cluster.command(&["node", "--name", name, "--allow-exec", "python3"]);
    command.env("TMPDIR", temporary);
    if let Some(path) = path {
        command.env("PATH", format!("{}:{path}", std::env::var("PATH").unwrap()));
    }
    let node = Process::start(command);
    node.said("ready: serving");
    node
}

#[test]
fn the_worker_of_the_page_takes_one_item_after_another() {
    let cluster = Cluster::start();
    let worker = cluster.file("worker.py", worker_of_the_page());
    cluster.deploy(&chain(
        "page",
        &worker,
        "concurrency = 1\nreuse = 150\nretry = { attempts = 2, backoff = [\"10ms\"] }",
    ));
    let mut node = node(&cluster, "a", None);
    cluster.run_with_input(&["feed", "page"], lines(0..200)).succeeded();
    cluster.ok(&["feed", "page", "\"fail\""]);
    cluster.ok(&["wait", "page"]);
    let results = cluster.pull_all("page");
    let values: Vec<Value> = results.iter().map(|result| result["value"].clone()).collect();
    assert_eq!(numbers(&values), (0..200).collect::<Vec<_>>());
    let mut processes: Vec<u64> = results.iter().map(|result| result["by"].as_u64().unwrap()).collect();
    processes.sort_unstable();
    processes.dedup();
    assert_eq!(processes.len(), 2, "one was replaced after 150 items");
    let letters = json_lines(&cluster.ok(&["dead", "ls", "page", "--json"]));
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((&letter["failure"], &letter["attempts"]), (&json!("error"), &json!(2)));
    assert_eq!(letter["reason"], json!("this item cannot be handled"));
    assert_eq!(node.stop(), Some(0));
    for process in processes {
        assert!(!Path::new("/proc").join(process.to_string()).exists(), "no worker is left");
    }
    let user = fs::metadata("/proc/self").map(|data| std::os::unix::fs::MetadataExt::uid(&data)).unwrap();
    let folder = cluster.path("a").join(format!("pcluster-programs-{user}"));
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "no folder is left");
}

#[test]
fn a_worker_that_does_not_start_costs_no_attempt_is_shown_and_another_node_goes_on() {
    let cluster = Cluster::start();
    let script = "import os, sys\nif '/broken' in os.environ['PATH']:\n    sys.exit('there is no model')\n";
    let worker = cluster.file("worker.py", format!("{script}{}", worker_of_the_page()));
    cluster.deploy(&chain("start", &worker, "retry = { attempts = 1 }"));
    let _broken = node(&cluster, "broken", Some("/broken"));
    cluster.ok(&["feed", "start", "7"]);
    let status =
        cluster.until("start", "the problem is shown", |status| !status["problems"].as_array().unwrap().is_empty());
    let problem = status["problems"][0].to_string();
    let expected =
        "stage `run`: its worker does not start: the program ended with status 1; it said: there is no model";
    assert!(problem.contains(expected), "{problem}");
    let _well = node(&cluster, "well", None);
    cluster.ok(&["wait", "start"]);
    assert_eq!(cluster.pull_all("start")[0]["value"], json!(7));
    assert_eq!(cluster.ok(&["dead", "ls", "start", "--json"]), "");
}
