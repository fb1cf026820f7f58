//! Nodes that lose their connection, or fail in part: neither counts as a death, and both continue.

use std::time::Duration;

use ciborium::Value;
use support::{Cluster, NatsClient, Process, Proxy, json_lines, probe_chain, recovering, sequence};

/// Longer than the `ack_wait` of the chains here.
const CUT: Duration = Duration::from_millis(2_500);

/// A node that reaches the server by this way, and serves one chain.
fn node_by(cluster: &Cluster, way: &Proxy, name: &str, chain: &str) -> Process {
    let mut command = cluster.command(&["node", "--name", name, "--chain", chain]);
    command.env("PCLUSTER_NATS", &way.url);
    let node = Process::start(command);
    node.said("ready: serving");
    node
}

/// The texts of a stream's items, sorted.
fn texts(client: &NatsClient, stream: &str) -> Vec<String> {
    let text = |item: Value| item.into_text().unwrap();
    let mut texts: Vec<String> = client.all_items(stream).iter().map(|message| text(message.item())).collect();
    texts.sort();
    texts
}

#[test]
fn a_node_that_is_cut_off_goes_on_and_no_item_ends_or_uses_an_attempt_for_that() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    // Another node gets the items meanwhile, or nobody does.
    let chains = [("alone", 1, false), ("alone-3", 3, false), ("beside", 1, true), ("beside-2", 2, true)];
    let way = Proxy::to(&cluster.server.url);
    let mut nodes = Vec::new();
    for (chain, attempts, _) in chains {
        let rest = format!("concurrency = 3\nretry = {{ attempts = {attempts}, backoff = [\"10ms\"] }}");
        cluster.deploy(&recovering(&probe_chain(chain, &["obey", "echo"], &rest)));
        nodes.push(node_by(&cluster, &way, &format!("cut-{chain}"), chain));
    }
    let mut expected: Vec<String> = (0..4).map(|item| format!("sleep 4000 {item}")).collect();
    expected.push("fail 1 item".to_owned());
    for (chain, ..) in chains {
        for item in &expected {
            client.publish(&format!("pcluster.{chain}.in"), &[], sequence([item])).unwrap();
        }
        cluster.until_begun(chain, 0, 3);
    }
    way.cut();
    for (chain, _, is_beside) in chains {
        if is_beside {
            nodes.push(cluster.node_with("beside", &["--chain", chain]));
        }
    }
    std::thread::sleep(CUT);
    way.release();
    let failing = expected.pop().unwrap();
    for (chain, attempts, _) in chains {
        cluster.ok(&["wait", chain]);
        assert_eq!(texts(&client, &format!("PCLUSTER_{chain}_OUT")), expected, "{chain}");
        let letters = client.all_items(&format!("PCLUSTER_{chain}_DEAD"));
        assert_eq!(letters.len(), 1, "{chain}");
        assert_eq!(letters[0].item(), Value::from(failing.as_str()), "{chain}");
        assert_eq!(letters[0].header("Pcluster-Attempts"), attempts.to_string(), "{chain}");
        let told = json_lines(letters[0].header("Pcluster-History"))[0].as_array().unwrap().clone();
        assert_eq!(told.len(), attempts, "{chain}: {told:?}");
        assert!(told.iter().all(|attempt| attempt["failure"] == "error"), "{chain}: {told:?}");
    }
}

#[test]
fn an_item_on_which_the_nodes_own_code_panics_is_a_dead_letter_and_the_node_goes_on() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let rest = "retry = { attempts = 2, backoff = [\"10ms\"] }";
    cluster.deploy(&recovering(&probe_chain("panics", &["echo"], rest)));
    let mut node = cluster.node_with("a", &["--die-at", "panic-ran@bad"]);
    for id in ["good", "bad", "better"] {
        client.publish("pcluster.panics.in", &[("Nats-Msg-Id", id)], sequence([id])).unwrap();
    }
    cluster.ok(&["wait", "panics"]);
    assert_eq!(texts(&client, "PCLUSTER_panics_OUT"), ["better", "good"]);
    let letter = &client.all_items("PCLUSTER_panics_DEAD")[0];
    assert_eq!((letter.header("Pcluster-Failure"), letter.header("Pcluster-Attempts")), ("trap", "2"));
    assert_eq!(letter.header("Pcluster-Reason"), "the node itself panicked: told to panic");
    assert_eq!(node.stop(), Some(0), "{}", node.stderr());
}
