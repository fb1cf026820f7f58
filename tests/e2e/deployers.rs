//! Deployers that die, lose an answer or stall: the chain goes on, and the next deploy succeeds.

use serde_json::Value;
use support::{Cluster, Nats, NatsClient, Process, Proxy, eventually};

use crate::deploys::{chain, entries};

#[test]
fn wherever_a_deployer_dies_the_chain_goes_on_and_the_next_deploy_succeeds() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let _node = cluster.node("a");
    cluster.deploy(&chain("old", "1.0", "", ""));
    let steps = ["reserved", "entered", "widened", "consumers", "stored", "swapped", "moved"];
    for (round, step) in steps.into_iter().enumerate() {
        let is_done = ["swapped", "moved"].contains(&step);
        for name in ["old", &format!("new-{step}")] {
            let doomed = cluster.file("doomed.toml", chain(name, &format!("2.{round}"), "", "concurrency = 2"));
            let run = cluster.run(&["deploy", doomed.to_str().unwrap(), "--die-at", step]);
            assert_eq!(run.code, None, "{step}: {run:?}");
            let known: Vec<Value> = serde_json::from_str(&cluster.ok(&["status", "--json"])).unwrap();
            let is_known = known.iter().any(|chain| chain["chain"] == name);
            assert_eq!(is_known, is_done || name == "old", "{step} {name}");
        }
        // Those who find the intake not moved move it.
        if is_done {
            let name = format!("new-{step}");
            eventually("it is fed", || (cluster.run(&["feed", &name, "5"]).code == Some(0)).then_some(()));
            assert_eq!(cluster.pull_all(&name), [5]);
        }
        cluster.ok(&["feed", "old", &round.to_string()]);
        cluster.ok(&["wait", "old"]);
        for name in ["old", &format!("new-{step}")] {
            let said = cluster.deploy(&chain(name, &format!("3.{round}"), "", "concurrency = 3"));
            assert!(said.contains(" deployed as r"), "{step}: {said}");
            let state = entries(&client, name);
            assert_eq!(state[name].get("pending"), None, "{step} {name}: {state:?}");
            let revision = state[name]["active"].as_u64().unwrap();
            eventually("nothing of the dead one is left", || {
                let consumers = client.consumers(&format!("PCLUSTER_{name}"));
                (consumers.iter().all(|each| each.starts_with(&format!("r{revision}")))).then_some(())
            });
        }
    }
    assert_eq!(cluster.pull_all("old").len(), steps.len());
}

#[test]
fn a_version_is_deployed_even_if_the_answer_that_says_so_is_lost() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let _node = cluster.node("a");
    cluster.deploy(&chain("old", "1.0", "", ""));
    for (name, said) in [("old", "old 2.0 deployed as r2, after 1.0 (r1)"), ("new", "new 2.0 deployed as r1")] {
        let file = cluster.file("lost.toml", chain(name, "2.0", "", "concurrency = 2"));
        let run = cluster.run(&["deploy", file.to_str().unwrap(), "--die-at", "unanswered"]);
        assert_eq!((run.code, run.stdout.trim()), (Some(0), said), "{run:?}");
        let state = entries(&client, name);
        let active = format!("r{}", state[name]["active"]);
        assert!(state.contains_key(&format!("{name}.{active}")), "{state:?}");
        let consumers = client.consumers(&format!("PCLUSTER_{name}"));
        assert!(consumers.iter().any(|consumer| consumer.starts_with(&active)), "{consumers:?}");
        cluster.ok(&["feed", name, "5"]);
        assert_eq!(cluster.pull_all(name), [5]);
        let next = cluster.deploy(&chain(name, "3.0", "", "concurrency = 3"));
        assert!(next.contains(&format!("after 2.0 ({active})")), "{next}");
    }
}

#[test]
fn a_deployer_that_was_taken_for_dead_begins_again() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let proxy = Proxy::to(&cluster.server.url());
    cluster.deploy(&chain("slow", "1.0", "", ""));
    let file = cluster.file("slow.toml", chain("slow", "1.1", "", "concurrency = 2"));
    let mut command = cluster.command(&["deploy", file.to_str().unwrap()]);
    command.env("PCLUSTER_NATS", &proxy.url);
    let mut slow = Process::start(command);
    eventually("it is pending", || entries(&client, "slow")["slow"].get("pending").map(drop));
    proxy.stall();
    // It lives and says nothing: its place is kept, and the other does not wait for it.
    let said = cluster.deploy(&chain("slow", "1.2", "", "concurrency = 3"));
    assert!(said.contains("slow 1.2 deployed as r"), "{said}");
    proxy.release();
    let ended = slow.ended();
    if ended != Some(0) {
        // It was stalled while it changed the stream: the other has waited for it for longer than its own patience.
        assert_eq!(ended, Some(5), "{}", slow.stderr());
        assert!(slow.stderr().contains("the server gave no answer in time"), "{}", slow.stderr());
        cluster.ok(&["deploy", file.to_str().unwrap()]);
    }
    let state = entries(&client, "slow");
    assert_eq!(state["slow"].get("pending"), None);
    let versions: Vec<&String> = state["slow"]["versions"].as_object().unwrap().keys().collect();
    assert_eq!(versions, ["1.0", "1.1", "1.2"]);
    cluster.ok(&["feed", "slow", "1"]);
    let _node = cluster.node("a");
    assert_eq!(cluster.pull_all("slow"), [1]);
}
