//! Overload: full queues, and tasks with a million outputs. Nothing is lost, nothing blocks forever, and memory stays bounded.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;

use support::{
    Cluster, NatsClient, Process, eventually, json_lines, lines, numbers, plugin, probe_chain, recovering, sequence,
    with_table,
};

/// More than a process here may hold, in MiB.
const MEMORY_MAX: u64 = 200;

/// What a process holds in memory now, in MiB.
fn memory(process: &Process) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{}/statm", process.id())).unwrap_or_default();
    let resident = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    resident * 4 / 1024
}

#[test]
fn queues_stay_at_their_limit_while_a_quick_stage_feeds_a_slow_one() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    // Three items of each give three; each waits a moment in the last stage.
    let rest = "config = { times = 3, millis = 10 }\nconcurrency = 4";
    cluster.deploy(&with_table("[queue]\nlimit = 20", &probe_chain("slow", &["repeat", "sleep"], rest)));
    cluster.file("numbers.ndjson", lines(0..600));
    let nodes = [cluster.node("a"), cluster.node("b")];
    let mut feed = cluster.spawn(&["feed", "slow", "-f", "numbers.ndjson", "--pack-items", "1"]);
    let (mut most, mut memory_most, mut full) = (0, 0, 0);
    eventually("feeding ends", || {
        let queued = client.by_subject("PCLUSTER_slow");
        let waiting = queued.iter().filter(|(subject, _)| subject.contains(".work."));
        most = most.max(waiting.map(|(_, messages)| *messages).max().unwrap_or(0));
        full += usize::from(queued.get("pcluster.slow.work.1.repeat") == Some(&20));
        memory_most = nodes.iter().chain([&feed]).map(memory).fold(memory_most, u64::max);
        feed.stderr().contains("fed 600 items in ").then_some(())
    });
    assert_eq!(feed.ended(), Some(0), "{}", feed.stderr());
    assert_eq!(most, 20);
    assert!(full > 3, "the first queue was full {full} times: feeding was never held up");
    cluster.ok(&["wait", "slow"]);
    assert_eq!(numbers(&cluster.pull_all("slow")), (0..1_800).map(|number| number / 3).collect::<Vec<_>>());
    assert!((5..MEMORY_MAX).contains(&memory_most), "{memory_most} MiB");
}

#[test]
fn a_queue_full_of_items_that_fail_goes_on_and_holds_back_what_is_fed() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let rest = "config = { failures = 3 }\nretry = { attempts = 5, backoff = [\"200ms\"] }";
    cluster.deploy(&with_table("[queue]\nlimit = 10", &probe_chain("failing", &["flaky", "echo"], rest)));
    let _nodes = [cluster.node("a"), cluster.node("b")];
    cluster.file("numbers.ndjson", lines(0..300));
    let mut feed = cluster.spawn(&["feed", "failing", "-f", "numbers.ndjson", "--pack-items", "1"]);
    let mut most = 0;
    eventually("feeding ends", || {
        most = most.max(client.count("PCLUSTER_failing"));
        feed.stderr().contains("fed 300 items in ").then_some(())
    });
    assert_eq!(feed.ended(), Some(0), "{}", feed.stderr());
    cluster.ok(&["wait", "failing"]);
    assert_eq!(numbers(&cluster.pull_all("failing")), (0..300).collect::<Vec<_>>());
    // Ten wait, and each node takes what it has room for until it knows that as many were put back.
    assert!(most < 200, "{most} messages of a queue of 10");
}

#[test]
fn a_message_of_more_items_than_the_queue_holds_messages_is_shared_and_done() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let rest = "config = { millis = 20, times = 1 }\nconcurrency = 2";
    cluster.deploy(&with_table("[queue]\nlimit = 5", &probe_chain("many", &["sleep", "repeat"], rest)));
    let _node = cluster.node("a");
    client.publish("pcluster.many.in", &[], sequence(0..500)).unwrap();
    cluster.ok(&["wait", "many"]);
    assert_eq!(numbers(&cluster.pull_all("many")), (0..500).collect::<Vec<_>>());
}

#[test]
fn outputs_that_the_next_queue_could_never_hold_at_once_go_on_in_parts() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let probe = plugin("probe");
    let manifest = format!(
        "name = \"wide\"\nversion = \"1.0\"\n[queue]\nlimit = 3\n\
         [[stage]]\nname = \"obey\"\nplugin = \"{probe}\"\n[[stage]]\nname = \"echo\"\nplugin = \"{probe}\"\n"
    );
    cluster.deploy(&manifest);
    let _node = cluster.node("a");
    // 3 MiB of one item by itself; of two items side by side, one after the other; 40,000 small ones.
    client.publish("pcluster.wide.in", &[], sequence(["wide 48 a"])).unwrap();
    client.publish("pcluster.wide.in", &[], sequence(["wide 48 b", "echo 1 c", "wide 48 d"])).unwrap();
    client.publish("pcluster.wide.in", &[], sequence(["repeat 40000 e"])).unwrap();
    cluster.ok(&["wait", "wide"]);
    assert_eq!(client.items_now("PCLUSTER_wide_OUT"), 3 * 48 + 1 + 40_000);
}

#[test]
fn a_million_outputs_of_one_item_come_out_while_it_runs_and_fill_no_memory() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("million", &["repeat"], "config = { times = 1_000_000 }"));
    let node = cluster.node("a");
    cluster.ok(&["feed", "million", "7"]);
    let (mut seen, mut most) = (BTreeSet::new(), 0);
    eventually("it is done", || {
        most = most.max(memory(&node));
        let messages = client.count("PCLUSTER_million_OUT");
        if cluster.status("million")["revisions"][0]["stages"][0]["running"] == 1 {
            seen.insert(messages);
        }
        (client.count("PCLUSTER_million") == 0).then_some(())
    });
    assert!(seen.iter().any(|messages| *messages > 0), "nothing came out while it ran: {seen:?}");
    assert_eq!(client.items_now("PCLUSTER_million_OUT"), 1_000_000);
    assert!((5..MEMORY_MAX).contains(&most), "{most} MiB");
}

#[test]
fn a_million_outputs_are_a_million_though_the_node_dies_in_the_middle() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&recovering(&probe_chain("million", &["repeat"], "config = { times = 1_000_000 }")));
    cluster.ok(&["feed", "million", "7"]);
    for times in [2, 9] {
        let mut node = cluster.spawn(&["node", "--name", "doomed", "--die-at", &format!("streamed:{times}")]);
        assert_eq!(node.ended(), None, "{}", node.stderr());
    }
    let _node = cluster.node("heir");
    cluster.ok(&["wait", "million"]);
    assert_eq!(client.items_now("PCLUSTER_million_OUT"), 1_000_000);
}

#[test]
fn outputs_of_a_generator_wait_for_a_slow_stage_and_the_node_holds_few_of_them() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let probe = plugin("probe");
    let manifest = format!(
        "name = \"patient\"\nversion = \"1.0\"\n[queue]\nlimit = 8\nack_wait = \"1s\"\n\
         [[stage]]\nname = \"obey\"\nplugin = \"{probe}\"\ntimeout = \"1s\"\n\
         [[stage]]\nname = \"slow\"\nplugin = \"{probe}\"\ntask = \"sleep\"\nconfig = {{ millis = 2 }}\n"
    );
    cluster.deploy(&manifest);
    let node = cluster.node("a");
    // 20 MiB that wait for a queue that holds four, for longer than the task may run by itself.
    client.publish("pcluster.patient.in", &[], sequence(["wide 320"])).unwrap();
    client.publish("pcluster.patient.in", &[], sequence(["repeat 20000"])).unwrap();
    let mut most = 0;
    eventually("it is done", || {
        let queued = client.by_subject("PCLUSTER_patient");
        let waiting = queued.get("pcluster.patient.work.1.slow").copied().unwrap_or(0);
        assert!(waiting <= 8, "{queued:?}");
        most = most.max(memory(&node));
        (client.count("PCLUSTER_patient") == 0).then_some(())
    });
    assert_eq!(client.items_now("PCLUSTER_patient_OUT"), 20_320);
    assert_eq!(client.count("PCLUSTER_patient_DEAD"), 0);
    assert!((5..MEMORY_MAX).contains(&most), "{most} MiB");
}

/// A chain of a generator and another stage, with a queue between them or none.
fn gushing(name: &str, rest: &str) -> String {
    let probe = plugin("probe");
    format!(
        "name = \"{name}\"\nversion = \"1.0\"\n[queue]\nlimit = 20\nack_wait = \"1s\"\n\
         [[stage]]\nname = \"repeat\"\nplugin = \"{probe}\"\nconfig = {{ times = 52_000 }}\n\
         [[stage]]\nname = \"echo\"\nplugin = \"{probe}\"\n{rest}\n"
    )
}

#[test]
fn items_that_wait_for_others_leave_them_a_place_to_run() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&gushing("queued", ""));
    cluster.deploy(&gushing("inline", "inline = true"));
    // No more places than there are generators that want to hold one.
    let mut node = cluster.node_with("a", &["--instances", "2"]);
    for name in ["queued", "inline"] {
        for number in 0..2 {
            client.publish(&format!("pcluster.{name}.in"), &[], sequence([number])).unwrap();
        }
        cluster.ok(&["wait", name]);
        assert_eq!(client.items_now(&format!("PCLUSTER_{name}_OUT")), 104_000, "{name}");
        assert_eq!(client.count(&format!("PCLUSTER_{name}_DEAD")), 0, "{name}");
    }
    assert_eq!(node.stop(), Some(0), "{}", node.stderr());
}

#[test]
fn an_item_that_can_never_run_for_want_of_instances_is_a_dead_letter_that_says_so() {
    let cluster = Cluster::start();
    cluster.deploy(&gushing("inline", "inline = true"));
    let _node = cluster.node_with("a", &["--instances", "1"]);
    cluster.ok(&["feed", "inline", "1"]);
    cluster.ok(&["wait", "inline"]);
    let letters = json_lines(&cluster.ok(&["dead", "ls", "inline", "--json"]));
    let reason = letters[0]["reason"].as_str().unwrap();
    assert!(reason.contains("takes 2 instances at once, and the node has 1; start it with a larger"), "{reason}");
    assert_eq!(letters[0]["attempts"], 1, "another attempt is in vain");
}
