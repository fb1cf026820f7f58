//! Hostile guests: they get out of the sandbox nowhere, and harm no other chain.

use std::fmt::Write;

use support::{Cluster, NatsClient, json_lines, lines, numbers, probe_chain, repository};

#[test]
fn a_task_reaches_no_file_no_network_no_program_and_no_thread() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("escape", &["escape"], ""));
    let _node = cluster.node("a");
    cluster.ok(&["feed", "escape", "1"]);
    let result = &json_lines(&cluster.ok(&["pull", "escape", "-n", "1"]))[0];
    let tried = result.as_object().unwrap();
    assert!(!tried.is_empty());
    for (what, came) in tried {
        assert!(came.as_str().unwrap().starts_with("refused: "), "{what}: {came}");
    }
}

#[test]
fn tasks_that_mean_harm_end_as_dead_letters_while_a_node_serves_the_others() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.file("hostile.wasm", wat::parse_file(repository().join("tests/e2e/plugins/hostile.wat")).unwrap());
    let cases = [
        ("overflow", "1m", "trap", "call stack exhausted"),
        ("exit", "1m", "trap", "the task ended the program with exit status 0"),
        ("wild", "1m", "trap", "`emit` was called with a pointer or length outside of the guest's memory"),
        ("greedy", "1m", "memory", "the task wanted more than its memory of 4.0 MiB"),
        ("busy", "300ms", "timeout", "the task took longer than its timeout of 300ms"),
        ("status", "1m", "trap", "the task returned a status that ABI 1 does not have"),
    ];
    for (task, timeout, ..) in cases {
        let mut manifest = format!("name = \"{task}\"\nversion = \"1\"\n[[stage]]\nname = \"{task}\"\n");
        write!(
            manifest,
            "plugin = \"hostile.wasm\"\nmemory = \"4MiB\"\ntimeout = \"{timeout}\"\nretry = {{ attempts = 1 }}"
        )
        .unwrap();
        cluster.deploy(&manifest);
    }
    cluster.deploy(&probe_chain("sound", &["echo", "count_static"], ""));
    let mut node = cluster.node("a");
    let pid = node.id();
    for (task, ..) in cases {
        cluster.run_with_input(&["feed", task], lines(0..20)).succeeded();
        cluster.run_with_input(&["feed", "sound"], lines(0..20)).succeeded();
    }
    // Each of them ran in an instance of its own.
    assert_eq!(numbers(&cluster.pull_all("sound")), vec![1; 20 * cases.len()]);
    for (task, _, kind, reason) in cases {
        cluster.ok(&["wait", task]);
        for letter in client.messages(&format!("PCLUSTER_{task}_DEAD"), 20) {
            assert_eq!(letter.header("Pcluster-Failure"), kind, "{task}: {}", letter.header("Pcluster-Reason"));
            assert!(letter.header("Pcluster-Reason").contains(reason), "{task}: {}", letter.header("Pcluster-Reason"));
        }
        assert_eq!(client.items_now(&format!("PCLUSTER_{task}_OUT")), 0, "{task}");
    }
    let nodes = cluster.nodes();
    assert_eq!((nodes.len(), nodes[0]["pid"].as_u64()), (1, Some(pid.into())), "the node has lived through it");
    assert_eq!(node.stop(), Some(0), "{}", node.stderr());
}
