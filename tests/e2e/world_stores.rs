//! Buckets, object stores and initializers: what tasks share, and what a revision has read once for all.

use async_nats::jetstream;
use serde_json::{Value, json};
use support::{Cluster, NatsClient, Reply, World, eventually};

fn call(name: &str, request: &Value) -> Value {
    json!({ "call": name, "request": request })
}

/// Feeds an item that makes these calls. Returns the answers.
fn answers(cluster: &Cluster, calls: &[Value]) -> Value {
    cluster.ok(&["feed", "world", &json!({ "do": calls }).to_string()]);
    cluster.pull_all("world").remove(0)
}

/// Writes an entry of the bucket `cache`.
fn put(client: &NatsClient, key: &str, value: &'static str) {
    let (key, value) = (key.to_owned(), value.to_owned());
    client.with(async |jetstream| {
        let bucket = jetstream.get_key_value("cache").await.unwrap();
        bucket.put(key, value.into()).await.unwrap();
    });
}

/// Writes an object of the store `models`.
fn put_object(client: &NatsClient, name: &'static str, data: &[u8]) {
    client.with(async |jetstream: &jetstream::Context| {
        let store = jetstream.get_object_store("models").await.unwrap();
        store.put(name, &mut &*data).await.unwrap();
    });
}

#[test]
fn two_nodes_share_a_bucket_and_an_object_store() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |_| Reply::new(200, ""));
    let client = NatsClient::connect(&cluster);
    let large: String = ('a'..='z').cycle().take(300_000).collect();
    put_object(&client, "large", large.as_bytes());
    put_object(&client, "empty", b"");
    cluster.deploy(&world.chain("world", "ask", ""));
    let first = world.node(&cluster, "a");
    let key = |key: &str| json!({ "bucket": "cache", "key": key });
    let entry = |key: &str, value: &str| json!({ "bucket": "cache", "key": key, "value": value });
    let written = answers(
        &cluster,
        &[
            call("kv.get", &key("rate")),
            call("kv.create", &entry("rate", "1")),
            call("kv.create", &entry("rate", "2")),
            call("kv.put", &entry("empty", "")),
            call("objects.put", &json!({ "store": "models", "name": "own", "data": "of a task" })),
        ],
    );
    let failed = |answers: &Value, position: usize| answers[position]["failed"]["kind"].clone();
    assert_eq!((failed(&written, 0), failed(&written, 2)), (json!("not_found"), json!("conflict")), "{written}");
    assert_eq!(written[1]["ok"]["revision"], 1, "{written}");
    drop(first);

    let _second = world.node(&cluster, "b");
    put(&client, "rate", "3");
    let read = answers(
        &cluster,
        &[
            call("kv.get", &key("rate")),
            call("kv.get", &key("empty")),
            call("objects.get", &json!({ "store": "models", "name": "own" })),
            call("objects.get", &json!({ "store": "models", "name": "large", "from": 130_000, "length": 26 })),
            call("objects.get", &json!({ "store": "models", "name": "empty" })),
            call("objects.get", &json!({ "store": "models", "name": "none" })),
            call("kv.update", &json!({ "bucket": "cache", "key": "rate", "value": "4", "revision": 1 })),
            call("kv.keys", &json!({ "bucket": "cache" })),
            call("objects.list", &json!({ "store": "models" })),
        ],
    );
    let ok = |position: usize, key: &str| read[position]["ok"][key].clone();
    assert_eq!((ok(0, "value"), ok(1, "value"), ok(2, "data")), (json!("3"), json!(""), json!("of a task")), "{read}");
    assert_eq!((ok(3, "data"), ok(3, "size")), (json!(large[130_000..130_026]), json!(300_000)), "{read}");
    assert_eq!((ok(4, "data"), ok(4, "size")), (json!(""), json!(0)), "{read}");
    assert_eq!((failed(&read, 5), failed(&read, 6)), (json!("not_found"), json!("conflict")), "{read}");
    assert_eq!(ok(7, "keys"), json!(["empty", "rate"]), "{read}");
    let names = ok(8, "objects").as_array().unwrap().iter().map(|object| object["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names, [json!("empty"), json!("large"), json!("own")], "{read}");
}

#[test]
fn an_initializer_reads_once_for_all_nodes_of_a_revision() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |_| Reply::new(200, ""));
    let client = NatsClient::connect(&cluster);
    let steps = "config = { must = true, do = [\n\
        { call = \"kv.get\", request = { bucket = \"cache\", key = \"rate\" } },\n\
        { call = \"objects.get\", request = { store = \"models\", name = \"model\" } } ] }";
    cluster.deploy(&world.chain("world", "cached", steps));
    let first = world.node_of(&cluster, "a");
    let waits = "stage `cached`: its state cannot be made ahead:";
    eventually(waits, || cluster.run(&["status", "world"]).stderr.contains(waits).then_some(()));
    put(&client, "rate", "one");
    put_object(&client, "model", b"small");
    let of_item = || {
        cluster.ok(&["feed", "world", "7"]);
        let result = cluster.pull_all("world").remove(0);
        assert_eq!(result["item"], 7);
        let answers = &result["answers"];
        [&answers[0]["ok"]["value"], &answers[1]["ok"]["data"]].map(|value| value.as_str().unwrap().to_owned())
    };
    assert_eq!(of_item(), ["one", "small"]);
    put(&client, "rate", "two");
    put_object(&client, "model", b"large");
    drop(first);
    let second = world.node(&cluster, "b");
    assert_eq!(of_item(), ["one", "small"]);

    let shown = cluster.ok(&["status", "world", "--stage", "cached"]);
    for line in [
        "  init read kv.get cache/rate: ok\n",
        "  init read objects.get models/model: ok\n",
        "on node a; all nodes go by",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    cluster.deploy(&world.chain("world", "cached", steps).replace("version = \"1.0\"", "version = \"1.1\""));
    assert_eq!(of_item(), ["two", "large"]);
    drop(second);
}

#[test]
fn an_initializer_that_sends_requests_makes_no_state_and_its_stage_is_not_served() {
    let cluster = Cluster::start();
    let world = World::start(&cluster, |_| Reply::new(200, ""));
    let calls = [
        format!("{{ call = \"http\", request = {{ url = \"{}\" }} }}", world.api.url()),
        "{ call = \"kv.put\", request = { bucket = \"cache\", key = \"a\", value = \"b\" } }".to_owned(),
        "{ call = \"publish\", request = { subject = \"alerts.a\" } }".to_owned(),
        "{ call = \"secrets.get\", request = { name = \"api_token\" } }".to_owned(),
    ];
    let chains = ["http", "put", "publish", "secret"];
    for (chain, call) in chains.iter().zip(&calls) {
        cluster.deploy(&world.chain(chain, "cached", &format!("config = {{ must = true, do = [{call}] }}")));
    }
    let _node = world.node_of(&cluster, "a");
    for chain in chains {
        eventually("the node says why", || {
            let said = cluster.run(&["status", chain]).stderr;
            let what = "node a cannot serve it: stage `cached`: its state cannot be made ahead:";
            (said.contains(what) && said.contains("an initializer may read kv and objects alone")).then_some(())
        });
    }
    assert_eq!(world.api.requests(), []);
}
