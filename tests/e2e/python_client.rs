//! The client in Python, against a server and a node. It knows of us what the page of the wire says.

use std::fs;
use std::process::Command;

use support::{Cluster, Run, plugin, python_packages, repository};

/// Returns a command that runs Python with the client and what it needs.
fn python(cluster: &Cluster, arguments: &[&str]) -> Command {
    let program = cluster.command(&[]);
    let mut command = Command::new("python3");
    command.args(arguments).env("PYTHONPATH", python_packages("python-client")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("PROGRAM", program.get_program()).env("PROBE", plugin("probe"));
    command
}

#[test]
fn a_client_in_python_feeds_and_takes_what_the_wire_says() {
    let cluster = Cluster::start();
    let _node = cluster.node("a");
    let mut checks = python(&cluster, &["-m", "unittest", "--quiet", "against_server"]);
    checks.current_dir(repository().join("sdk/python/tests"));
    Run::of(checks, b"").succeeded();
}

#[test]
fn the_example_of_a_client_in_python_runs() {
    let cluster = Cluster::start();
    let _node = cluster.node("a");
    let page = fs::read_to_string(repository().join("sdk/python/README.md")).unwrap();
    let example = page.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let script = cluster.file("notebook.py", example);
    let manifest =
        format!("name = \"words\"\nversion = \"1.0\"\n[[stage]]\nname = \"echo\"\nplugin = {:?}\n", plugin("probe"));
    cluster.file("chain.toml", manifest);
    let program = cluster.command(&[]);
    let folder = std::path::Path::new(program.get_program()).parent().unwrap().display().to_string();
    let mut run = python(&cluster, &[script.to_str().unwrap()]);
    run.current_dir(cluster.path("")).env("PATH", format!("{folder}:{}", std::env::var("PATH").unwrap()));
    let out = Run::of(run, b"").succeeded();
    assert!(out.contains("1000 items fed"), "{out}");
    assert_eq!(out.lines().filter(|line| line.contains('#')).count(), 10, "{out}");
    assert_eq!(cluster.status("words")["result_messages"], 0);
}
