//! Secrets: filled in where they belong, and shown nowhere.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Api, Cluster, NatsClient, Process, Reply, Run, SECRET, World, eventually, probe_chain};

/// A GET of this URL with the secret as its authorization.
fn get(url: &str) -> Value {
    let headers = json!([["Authorization", { "secret": "api_token", "prefix": "Bearer " }]]);
    json!({ "call": "http", "request": { "url": url, "headers": headers } })
}

/// Starts a node whose compiled plugins have a folder of their own. The variable of the secret has a value of its own too.
fn node(cluster: &Cluster, allowed: &[String]) -> Process {
    let arguments: Vec<&str> = ["node", "--name", "a"].into_iter().chain(allowed.iter().map(String::as_str)).collect();
    let mut command = cluster.command(&arguments);
    command.env("PCLUSTER_CACHE", cluster.path("cache")).env("PCLUSTER_SECRET_API_TOKEN", format!("{SECRET}-variable"));
    let node = Process::start(command);
    node.said("ready: serving");
    node
}

/// The files below a folder.
fn files(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![fs::read(path).unwrap()] }).collect()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_secret_is_filled_in_for_its_origin_and_shown_nowhere() {
    let cluster = Cluster::start();
    let other = Api::start(|_| Reply::new(200, "other"));
    let elsewhere = other.url();
    let world = World::start(&cluster, move |asked| match asked.target.as_str() {
        "/away" => Reply::new(307, "").with("Location", &elsewhere),
        "/echo" => Reply::new(200, asked.header("authorization").unwrap_or_default()),
        _ => Reply::new(500, "wrong"),
    });
    let url = world.api.url();
    let granted = format!("http = [\"{url}\", \"{}\"]\nrecord = \"bodies\"", other.url());
    let stage = "retry = { attempts = 2, backoff = [\"10ms\"] }";
    cluster.deploy(&world.chain("world", "ask", stage).replace(&format!("http = [\"{url}\"]"), &granted));
    let allowed = [world.allowed(), vec!["--allow-http".to_owned(), other.url()]].concat();
    let mut node = node(&cluster, &allowed);
    // What the API echoes is the task's to see: the item is fed so that no output shows it.
    let calls = [get(&format!("{url}/a")), get(&other.url()), get(&format!("{url}/away")), get(&format!("{url}/echo"))];
    cluster.ok(&["feed", "world", &json!({ "do": calls, "then": "fail" }).to_string()]);
    let dead = NatsClient::connect(&cluster).messages("PCLUSTER_world_DEAD", 1);
    let bearer = Some(format!("Bearer {SECRET}"));
    let twice = |headers: [Option<String>; 3]| [&headers[..], &headers[..]].concat();
    assert_eq!(world.headers("authorization"), twice([bearer.clone(), bearer.clone(), bearer]));
    let reached: Vec<_> = other.requests().iter().map(|asked| asked.header("authorization").is_some()).collect();
    assert_eq!(reached, [false, false], "the redirect alone, without the secret");

    assert_eq!(node.stop(), Some(0));
    let letters = cluster.ok(&["dead", "show", "world", "1", "--calls", "--json"]);
    assert!(letters.contains("/echo"), "{letters}");
    let mut config = cluster.command(&["config", "--json"]);
    config.env("PCLUSTER_SECRET_API_TOKEN", SECRET).env("PCLUSTER_ALLOW_SECRETS", cluster.path("secrets"));
    let config = Run::of(config, b"").succeeded();
    for (what, printed) in [
        ("dead show", letters),
        ("dead show", cluster.ok(&["dead", "show", "world", "1", "--calls"])),
        ("logs", cluster.ok(&["logs", "world", "--no-follow"])),
        ("status", cluster.ok(&["status", "world", "--stage", "ask", "--json"])),
        ("nodes", cluster.ok(&["nodes", "--json"])),
        ("config", config),
        ("the node", node.stderr() + &node.stdout()),
        ("the server", cluster.server.log()),
    ] {
        assert!(!printed.contains(SECRET), "{what}: {printed}");
    }
    let compiled = files(&cluster.path("cache"));
    assert!(!compiled.is_empty());
    assert!(!compiled.iter().any(|file| contains(file, SECRET)), "a compiled plugin has the secret");
    assert!(!contains(&dead[0].payload, SECRET) && !dead[0].headers.values().any(|value| value.contains(SECRET)));
}

#[test]
fn a_secret_comes_from_the_environment_of_its_node_and_no_task_sees_it_there() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |_| Reply::new(200, ""));
    cluster.deploy(&world.chain("world", "ask", ""));
    cluster.deploy(&probe_chain("plain", &["env"], ""));
    let mut allowed = world.allowed();
    *allowed.last_mut().unwrap() = "environment".to_owned();
    let _node = node(&cluster, &allowed);
    cluster.ok(&["feed", "world", &json!({ "do": [get(&world.api.url())] }).to_string()]);
    cluster.pull_all("world");
    assert_eq!(world.headers("authorization"), [Some(format!("Bearer {SECRET}-variable"))]);
    cluster.ok(&["feed", "plain", "1"]);
    assert!(!cluster.pull_all("plain")[0].to_string().contains(SECRET));
}

#[test]
fn a_stage_whose_secret_has_no_value_is_served_once_it_has_one() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |_| Reply::new(200, ""));
    let missing = world.grants().replace("secrets = { ", &format!("secrets = {{ late = \"{}\", ", world.api.url()));
    cluster.deploy(&world.chain("world", "ask", "").replace(&world.grants(), &missing));
    let allowed = world.allowed();
    let _node = cluster
        .spawn(&[&["node", "--name", "a"], &allowed.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
    let said = "node a cannot serve it: stage `ask`: the secret `late` has no value on this node; its operator puts it into a file";
    eventually(said, || cluster.run(&["status", "world"]).stderr.contains(said).then_some(()));
    // A node that runs and has no value is known at deploy.
    let never = missing.replace("late", "never");
    let never = cluster.file("never.toml", world.chain("never", "ask", "").replace(&world.grants(), &never));
    let refused = "stage `ask`: no node has a value for the secret `never`; put it into a file";
    cluster.run(&["deploy", never.to_str().unwrap()]).failed(1, refused);
    cluster.file("secrets/late", "a-value-that-came-late");
    cluster.ok(&["feed", "world", &json!({ "do": [get(&world.api.url())] }).to_string()]);
    assert_eq!(cluster.pull_all("world")[0][0]["ok"]["status"], 200);
}

#[test]
fn a_rotated_secret_is_used_without_a_restart() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |_| Reply::new(200, ""));
    cluster.deploy(&world.chain("world", "ask", ""));
    let _node = node(&cluster, &world.allowed());
    let item = json!({ "do": [get(&world.api.url())] }).to_string();
    cluster.ok(&["feed", "world", &item]);
    cluster.pull_all("world");
    cluster.file("secrets/api_token", "another-value-of-the-secret");
    eventually("the value is read again", || {
        cluster.ok(&["feed", "world", &item]);
        cluster.pull_all("world");
        // A value is used for a while, and each look takes an item.
        std::thread::sleep(Duration::from_secs(1));
        let sent = world.headers("authorization");
        (sent.last() == Some(&Some("Bearer another-value-of-the-secret".to_owned()))).then_some(())
    });
}
