//! The memory that a node takes: one budget for all chains.

use support::{
    Cluster, NatsClient, Process, Run, eventually, lines, numbers, plugin, probe_chain, sequence, with_table,
};

const MIB: u64 = 1 << 20;

/// The most memory that a process has had, in bytes.
fn most_resident(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn many_chains_with_large_items_stay_within_the_budget_of_their_node() {
    const CHAINS: usize = 12;
    const ITEMS: usize = 16;
    const BUDGET: u64 = 128;
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let chains: Vec<String> = (0..CHAINS).map(|number| format!("c{number}")).collect();
    let item = format!("\"{}\"", "x".repeat(512 << 10));
    for chain in &chains {
        // The second and the third stage run the same task as the first.
        let manifest = probe_chain(chain, &["echo", "echo", "echo"], "concurrency = 16");
        let manifest = manifest.replacen("\"echo\"", "\"one\"\ntask = \"echo\"", 1);
        let manifest = manifest.replacen("name = \"echo\"", "name = \"two\"\ntask = \"echo\"", 1);
        cluster.deploy(&manifest);
        for _ in 0..ITEMS {
            client
                .publish(&format!("pcluster.{chain}.in"), &[("Content-Type", "application/json")], item.clone())
                .unwrap();
        }
    }
    let node = cluster.node_with("a", &["--memory", &format!("{BUDGET}MiB")]);
    eventually("every item has come through", || {
        let done = chains.iter().map(|chain| client.results(chain)).sum::<u64>();
        (done == (CHAINS * ITEMS) as u64).then_some(())
    });
    let most = most_resident(&node);
    eprintln!("resident at most {} MiB", most / MIB);
    assert!(most < (BUDGET + BUDGET / 2) * MIB, "it took {} MiB", most / MIB);
    assert_eq!(cluster.nodes()[0]["memory"], BUDGET * MIB);
    eventually("all memory is given back but for what is asked for", || {
        (cluster.nodes()[0]["memory_used"].as_u64().unwrap() < BUDGET * MIB / 2).then_some(())
    });
    assert!(cluster.ok(&["nodes"]).contains("/128.0M"), "{}", cluster.ok(&["nodes"]));
}

#[test]
fn large_messages_behind_many_small_ones_stay_within_the_budget() {
    const SMALL: usize = 1_000;
    const LARGE: usize = 250;
    const BUDGET: u64 = 96;
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("mixed", &["echo"], ""));
    let large = format!("\"{}\"", "x".repeat(512 << 10));
    for item in std::iter::repeat_n("1", SMALL).chain(std::iter::repeat_n(large.as_str(), LARGE)).chain(["2"]) {
        client.publish("pcluster.mixed.in", &[("Content-Type", "application/json")], item.to_owned()).unwrap();
    }
    let node = cluster.node_with("a", &["--memory", &format!("{BUDGET}MiB")]);
    eventually("every item has come through", || (client.results("mixed") == (SMALL + LARGE + 1) as u64).then_some(()));
    let most = most_resident(&node);
    eprintln!("resident at most {} MiB", most / MIB);
    assert!(most < (BUDGET + BUDGET / 2) * MIB, "it took {} MiB", most / MIB);
}

#[test]
fn generators_that_wait_for_full_queues_stay_within_the_budget_and_all_go_on() {
    const CHAINS: usize = 8;
    const ITEMS: usize = 8;
    const OUTPUTS: usize = 66;
    const BUDGET: u64 = 128;
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let chains: Vec<String> = (0..CHAINS).map(|number| format!("c{number}")).collect();
    let narrow = format!("[[stage]]\nname = \"narrow\"\nplugin = \"{}\"\ntask = \"env\"\n", plugin("probe"));
    for chain in &chains {
        let manifest = with_table("[queue]\nlimit = 10", &probe_chain(chain, &["obey"], "concurrency = 8"));
        cluster.deploy(&format!("{manifest}{narrow}concurrency = 1\n"));
        for _ in 0..ITEMS {
            // More than is held, and more of all together than the next queue takes.
            client.publish(&format!("pcluster.{chain}.in"), &[], sequence([format!("wide {OUTPUTS}")])).unwrap();
        }
    }
    let node = cluster.node_with("a", &["--memory", &format!("{BUDGET}MiB")]);
    eventually("every generator has come to its end", || {
        (chains.iter().map(|chain| client.count(&format!("PCLUSTER_{chain}"))).sum::<u64>() == 0).then_some(())
    });
    let most = most_resident(&node);
    eprintln!("resident at most {} MiB", most / MIB);
    // A node without items has 45 MiB in a debug build, and the allocator keeps some of what was freed. All outputs are 264 MiB.
    assert!(most < (BUDGET + 96) * MIB, "it took {} MiB", most / MIB);
    for chain in &chains {
        assert_eq!(client.items_now(&format!("PCLUSTER_{chain}_OUT")), ITEMS * OUTPUTS, "{chain}");
        assert_eq!(client.count(&format!("PCLUSTER_{chain}_DEAD")), 0, "{chain}");
    }
}

#[test]
fn a_node_with_little_address_space_runs_items_all_the_same() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("small", &["echo"], ""));
    cluster.run_with_input(&["feed", "small"], lines(0..50)).succeeded();
    let node = cluster.command(&["node", "--until-empty"]);
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -v 20000000; exec \"$0\" \"$@\""]).arg(node.get_program()).args(node.get_args());
    for (name, value) in node.get_envs() {
        limited.env(name, value.unwrap());
    }
    Run::of(limited, b"").failed(0, "lift `ulimit -v` or lower `--instances`");
    assert_eq!(numbers(&cluster.pull_all("small")), (0..50).collect::<Vec<_>>());
}
