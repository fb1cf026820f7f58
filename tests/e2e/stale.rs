//! Clients that are held up while they make streams agree with a chain's state. Their late writes remove nothing that others have
//! added since. A slow chain delays no other.

use std::time::SystemTime;

use async_nats::jetstream::stream::Config;
use support::{Cluster, NatsClient, Process, Proxy, Server, eventually, lines};

use crate::deploys::{chain, config, entries};

/// A process whose way to the server can be blocked.
fn start_by(cluster: &Cluster, way: &Proxy, arguments: &[&str]) -> Process {
    let mut command = cluster.command(arguments);
    command.env("PCLUSTER_NATS", &way.url);
    Process::start(command)
}

fn update(client: &NatsClient, config: &Config) {
    client.with(async |jetstream| jetstream.update_stream(config).await.map(drop).unwrap());
}

fn limit(number: u64) -> String {
    format!("[queue]\nlimit = {number}\n")
}

#[test]
fn an_update_made_of_an_older_state_narrows_nothing_that_was_widened_since() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&chain("stale", "1.0", &limit(3), ""));
    cluster.ok(&["stop", "stale"]);
    let way = Proxy::to(&cluster.server.url);
    way.stall_after("STREAM.INFO.PCLUSTER_stale_DEAD ");
    let mut slow = start_by(&cluster, &way, &["start", "stale"]);
    way.await_stall();
    // It has written the state, and is given what the streams are like; but not yet.
    way.stall_after("STREAM.INFO.PCLUSTER_stale ");
    way.await_stall();
    cluster.deploy(&chain("stale", "1.1", &limit(1_000), ""));
    cluster.run_with_input(&["feed", "stale", "--pack-items", "1"], lines(0..20)).succeeded();
    way.release();
    assert_eq!(slow.ended(), Some(0), "{}", slow.stderr());
    assert_eq!(client.count("PCLUSTER_stale"), 20);
    assert_eq!(config(&client, "PCLUSTER_stale").max_messages_per_subject, 1_000);
}

#[test]
fn a_limit_is_not_lowered_once_another_has_let_messages_in_again() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    // One item at a time is in hand, so that the others are in the queue.
    let one = "max_in_flight = 1\n";
    cluster.deploy(&chain("thawed", "1.0", &limit(1_000), one));
    cluster.deploy(&chain("thawed", "1.1", &limit(3), one));
    let way = Proxy::to(&cluster.server.url);
    way.stall_after("\"max_msgs\":1,");
    let _node = start_by(&cluster, &way, &["node", "--name", "a"]);
    way.await_stall();
    // The node has frozen the stream once the older version has retired, and does not know yet that it has. Now comes what
    // another was about to write before.
    let mut stale = eventually("it is frozen", || {
        Some(config(&client, "PCLUSTER_thawed")).filter(|config| config.max_messages == 1)
    });
    (stale.max_messages, stale.allow_atomic_publish) = (-1, true);
    stale.metadata.retain(|key, _| !key.starts_with("pcluster.frozen"));
    update(&client, &stale);
    // The node looks what the queues hold: nothing, yet.
    way.stall_after("STREAM.INFO.PCLUSTER_thawed ");
    way.await_stall();
    cluster.run_with_input(&["feed", "thawed", "--pack-items", "1"], lines(0..20)).succeeded();
    way.release();
    assert_eq!(cluster.pull_all("thawed").len(), 20);
    eventually("the limit is lowered later", || {
        (config(&client, "PCLUSTER_thawed").max_messages_per_subject == 3).then_some(())
    });
}

#[test]
fn a_chain_whose_streams_wait_holds_up_no_other() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&chain("first", "1.0", "", ""));
    cluster.deploy(&chain("other", "1.0", "", ""));
    let doomed = cluster.file("doomed.toml", chain("other", "1.1", "", "concurrency = 2"));
    assert_eq!(cluster.run(&["deploy", doomed.to_str().unwrap(), "--die-at", "swapped"]).code, None);
    // Somebody is about to lower a limit, again and again.
    let frozen = config(&client, "PCLUSTER_first");
    let freeze = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let mut frozen = frozen.clone();
        frozen.max_messages = 1;
        frozen.metadata.insert("pcluster.frozen".to_owned(), now.to_string());
        update(&client, &frozen);
    };
    freeze();
    let _node = cluster.node("a");
    eventually("the intake of the other is moved", || {
        freeze();
        let transform = config(&client, "PCLUSTER_other").subject_transform.unwrap();
        transform.destination.contains(".2.").then_some(())
    });
}

#[test]
fn first_deploys_that_fail_together_leave_nothing() {
    let account = "jetstream { store_dir: data }\naccounts { A { jetstream: { max_file: 1GB, max_mem: 1GB, max_consumers: 2 }, \
                   users: [{ user: a }] } }\nno_auth_user: a";
    let cluster = Cluster::with_server(Server::with_configuration(account));
    let client = NatsClient::connect(&cluster);
    let deploys = ["1.0", "1.1"].map(|version| {
        let file = cluster.file(&format!("{version}.toml"), chain("doomed", version, "", ""));
        let way = Proxy::to(&cluster.server.url);
        way.stall_after("CONSUMER.DURABLE.CREATE");
        let process = start_by(&cluster, &way, &["deploy", file.to_str().unwrap()]);
        (way, process)
    });
    let all = |act: &dyn Fn(&Proxy)| deploys.iter().for_each(|(way, _)| act(way));
    all(&Proxy::await_stall);
    assert_eq!(entries(&client, "doomed")["doomed"]["pending"].as_object().unwrap().len(), 2);
    // Both say that they end before either has ended.
    all(&|way| way.stall_after("\"ending\": true"));
    all(&Proxy::await_stall);
    all(&Proxy::release);
    for (_, mut process) in deploys {
        assert_eq!(process.ended(), Some(1), "{}", process.stderr());
        assert!(process.stderr().contains("make the consumer"), "{}", process.stderr());
    }
    assert!(entries(&client, "doomed").is_empty());
    let streams = crate::deploys::streams(&client);
    assert!(!streams.iter().any(|stream| stream.contains("doomed")), "{streams:?}");
}
