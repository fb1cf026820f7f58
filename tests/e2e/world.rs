//! What tasks reach outside of their sandbox: what a stage asks for, as far as the operator of its node allows it.

use serde_json::{Value, json};
use support::{Api, Cluster, NatsClient, Reply, World, eventually, probe_chain};

/// An item that makes these calls.
fn ask(calls: &[Value]) -> String {
    json!({ "do": calls }).to_string()
}

/// The kind of each failure among the answers of an item. Answers that are none are shown as they are.
fn kinds(answers: &Value) -> Vec<String> {
    let kind = |answer: &Value| answer["failed"]["kind"].as_str().map_or_else(|| answer.to_string(), str::to_owned);
    answers.as_array().unwrap().iter().map(kind).collect()
}

/// Waits until `status` says this of a chain, among its notes.
fn until_said(cluster: &Cluster, arguments: &[&str], said: &str) {
    eventually(said, || cluster.run(&[&["status"], arguments].concat()).stderr.contains(said).then_some(()));
}

#[test]
fn a_stage_is_served_where_its_operator_allows_what_it_asks() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |_| Reply::new(200, "hello"));
    cluster.deploy(&world.chain("world", "ask", ""));
    let _closed = cluster.spawn(&["node", "--name", "closed"]);
    let url = world.api.url();
    let refusal = format!(
        "stage `ask`: this node does not allow `{url}`, nor 4 other grants of the stage; its operator can, with \
         `--allow-http {url}` or `[allow]`"
    );
    until_said(&cluster, &["world"], &format!("node closed cannot serve it: {refusal}"));
    cluster.ok(&["feed", "world", &ask(&[world.get("/a?b")])]);
    let mut narrow = world.allowed();
    narrow.retain(|argument| argument != "--allow-objects" && argument != "models");
    let _narrow = cluster.spawn(&[&["node", "--name", "narrow"], &texts(&narrow)[..]].concat());
    until_said(
        &cluster,
        &["world", "--stage", "ask"],
        "node narrow cannot serve it: stage `ask`: this node does not allow writing to the object store `models`; its operator \
         can, with `--allow-objects models` or `[allow]`",
    );
    assert_eq!(world.api.requests(), []);

    let _open = world.node(&cluster, "open");
    let results = cluster.pull_all("world");
    assert_eq!((&results[0][0]["ok"]["status"], &results[0][0]["ok"]["body"]), (&json!(200), &json!("hello")));
    let asked = world.api.requests();
    assert_eq!((asked.len(), asked[0].method.as_str(), asked[0].target.as_str()), (1, "GET", "/a?b"));
    until_said(&cluster, &["world"], "node closed leaves it to other nodes: stage `ask`: this node does not allow");
    let shown = cluster.ok(&["status", "world", "--stage", "ask"]);
    for granted in [
        &format!("http {url}"),
        "kv cache read-write",
        "objects models read-write",
        "publish alerts.>",
        &format!("secret api_token for {url}"),
    ] {
        assert!(shown.contains(&format!("  reaches   {granted}\n")), "{granted}: {shown}");
    }
}

#[test]
fn what_is_not_granted_is_denied_and_nothing_is_sent() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |_| Reply::new(200, "hello"));
    let other = Api::start(|_| Reply::new(200, "of another stage"));
    cluster.deploy(&world.chain("world", "ask", ""));
    let port = cluster.server.url.rsplit(':').next().unwrap().to_owned();
    let call = |call: &str, request: Value| json!({ "call": call, "request": request });
    let http = |url: &str| call("http", json!({ "url": url }));
    let own = world.api.url();
    let mut calls = vec![
        http(&format!("http://127.0.0.1:{port}/")),
        http(&other.url()),
        http(&own.replace("http://", "https://")),
        http(&own.replace("127.0.0.1", "localhost")),
        http(&own.replace("127.0.0.1", "127.0.0.2")),
        http("http://169.254.169.254/latest/meta-data/"),
        call("kv.get", json!({ "bucket": "other", "key": "a" })),
        call("objects.get", json!({ "store": "other", "name": "a" })),
        call("publish", json!({ "subject": "other.a" })),
        call("secrets.get", json!({ "name": "api_token" })),
        call("secrets.get", json!({ "name": "other" })),
        call("files.get", json!({ "name": "other" })),
    ];
    let denied = calls.len() - 1;
    for bucket in ["pcluster_chains", "PCLUSTER_CHAINS", "KV_pcluster_chains"] {
        calls.push(call("kv.get", json!({ "bucket": bucket, "key": "world" })));
        calls.push(call("objects.get", json!({ "store": bucket, "name": "world" })));
    }
    for subject in
        ["$KV.cache.a", "$JS.API.STREAM.DELETE.ALERTS", "pcluster.world.in", "_INBOX.a", ">", "*.a", "alerts.>"]
    {
        calls.push(call("publish", json!({ "subject": subject, "payload": "x" })));
    }
    cluster.ok(&["feed", "world", &ask(&calls)]);
    let _node = world.node(&cluster, "a");
    let results = cluster.pull_all("world");
    let kinds = kinds(&results[0]);
    assert_eq!(kinds.len(), calls.len(), "{results:?}");
    for (kind, call) in kinds.iter().zip(&calls).take(denied) {
        assert_eq!(kind, "denied", "{call}");
    }
    for (kind, call) in kinds.iter().zip(&calls).skip(denied) {
        assert!(kind == "denied" || kind == "invalid", "{kind}: {call}");
    }
    assert_eq!((world.api.requests(), other.requests()), (vec![], vec![]));
    assert_eq!(NatsClient::connect(&cluster).count("ALERTS"), 0);
}

#[test]
fn a_stage_that_may_reach_the_whole_web_does_not_reach_this_machine() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |_| Reply::new(200, "hello"));
    let url = world.api.url();
    cluster.deploy(&world.chain("world", "ask", "").replace(&format!("http = [\"{url}\"]"), "http = [\"http://*\"]"));
    let port = url.rsplit(':').next().unwrap();
    let nats = cluster.server.url.rsplit(':').next().unwrap();
    let targets = [
        format!("http://localhost:{port}/"),
        format!("http://LOCALHOST:{nats}/"),
        format!("http://127.0.0.1:{nats}/"),
        format!("http://127.1:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0x7f.1:{port}/"),
        format!("http://0177.0.0.1:{port}/"),
        format!("http://0.0.0.0:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://[64:ff9b::7f00:1]:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://10.0.0.1/".to_owned(),
    ];
    let calls: Vec<Value> = targets.iter().map(|url| json!({ "call": "http", "request": { "url": url } })).collect();
    cluster.ok(&["feed", "world", &ask(&calls)]);
    let mut allowed = world.allowed();
    let networks = allowed.iter().position(|argument| argument == "--allow-networks").unwrap();
    allowed.drain(networks..networks + 2);
    allowed.extend(["--allow-http".to_owned(), "http://*".to_owned()]);
    let _node = cluster.node_with("a", &texts(&allowed));
    let results = cluster.pull_all("world");
    for (kind, target) in kinds(&results[0]).iter().zip(&targets) {
        assert_eq!(kind, "denied", "{target}");
    }
    assert_eq!(world.api.requests(), []);
}

#[test]
fn a_revision_keeps_its_grants_after_a_deploy_with_fewer() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |_| Reply::new(200, "hello"));
    let before = world.chain("world", "ask", "");
    cluster.deploy(&before);
    let item = ask(&[world.get("/v1/a"), world.get("/v2/a")]);
    cluster.ok(&["feed", "world", &item]);
    let url = world.api.url();
    let narrow = before
        .replace("version = \"1.0\"", "version = \"1.1\"")
        .replace(&format!("http = [\"{url}\"]"), &format!("http = [\"{url}/v2\"]"));
    cluster.deploy(&narrow);
    cluster.ok(&["feed", "world", &item]);
    let _node = world.node(&cluster, "a");
    let mut results: Vec<_> = cluster.pull_all("world").iter().map(kinds).collect();
    results.sort();
    assert_eq!(results.len(), 2);
    // An answer with a value begins with a brace.
    let reached: Vec<Vec<bool>> =
        results.iter().map(|kinds| kinds.iter().map(|kind| kind.starts_with('{')).collect()).collect();
    assert_eq!(reached, [[false, true], [true, true]], "{results:?}");
    assert_eq!(results[0][0], "denied");
    assert_eq!(world.api.requests().len(), 3);
}

#[test]
fn a_task_that_calls_what_it_does_not_list_is_denied_and_a_stage_without_grants_is_not_deployed() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |_| Reply::new(200, "hello"));
    cluster.deploy(&world.chain("world", "ask_unlisted", ""));
    cluster.ok(&["feed", "world", &ask(&[world.get("/")])]);
    let _node = world.node(&cluster, "a");
    assert_eq!(kinds(&cluster.pull_all("world")[0]), ["denied"]);
    assert_eq!(world.api.requests(), []);
    cluster.file("plain.toml", probe_chain("plain", &["ask"], ""));
    let refused = cluster.run(&["deploy", "plain.toml"]);
    let refused = refused.failed(1, "its task calls `http`, and the manifest grants none; add to its `[stage.allow]`");
    assert_eq!(refused.stdout, "");
}

/// Arguments as a command takes them.
fn texts(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}
