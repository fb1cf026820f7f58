//! Items of dead letters that run again on this machine, and what letters tell of calls.

use std::fs;

use async_nats::jetstream::{kv, object_store};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use support::{Api, Asked, Cluster, NatsClient, Reply, assert_refused, json_lines, lines, plugin, recovering};

/// The value of the secret `token`.
const TOKEN: &str = "the-token-of-this-test";
/// The line that records answers.
const BODIES: &str = "record = \"bodies\"";

/// Answers with the credentials of the request, as an API does that must not be trusted with them.
fn echo(asked: &Asked) -> Reply {
    Reply::new(200, format!("{} {}", asked.method, asked.header("authorization").unwrap_or_default()))
}

/// A cluster with the bucket `cache`, whose nodes allow this server.
fn cluster_for(api: &Api) -> (Cluster, NatsClient) {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let bucket = kv::Config { bucket: "cache".to_owned(), ..kv::Config::default() };
    let store = object_store::Config { bucket: "models".to_owned(), ..object_store::Config::default() };
    client.with(async |jetstream| {
        jetstream.create_object_store(store.clone()).await.unwrap();
        let cache = jetstream.create_key_value(bucket.clone()).await.unwrap();
        cache.put("a", "first".into()).await.unwrap();
    });
    fs::create_dir(cluster.path("secrets")).unwrap();
    cluster.file("secrets/token", TOKEN);
    let secrets = cluster.path("secrets").display().to_string();
    let allow = format!(
        "[allow]\nhttp = [{:?}]\nkv = [\"cache\"]\nobjects = [\"models\"]\npublish = [\"alerts.>\"]\nnetworks = {{ \"127.0.0.1\" = \"127.0.0.1/32\" }}\n\
         secrets = {{ from = {secrets:?} }}\n",
        api.url()
    );
    cluster.file("pcluster.toml", allow);
    (cluster, client)
}

/// A chain whose first stage is this task, with grants for the server and the bucket. `more` is what is added to the grants.
fn chain(api: &Api, name: &str, task: &str, stage: &str, more: &str) -> String {
    let (url, plugin) = (api.url(), plugin("probe"));
    format!(
        "name = \"{name}\"\nversion = \"1.0\"\n[[stage]]\nname = \"{task}\"\nplugin = \"{plugin}\"\n\
         retry = {{ attempts = 1 }}\n{stage}\n[stage.allow]\nhttp = [{url:?}]\nkv = {{ cache = \"read-write\" }}\n\
         objects = {{ models = \"read\" }}\npublish = [\"alerts.>\"]\nsecrets = {{ token = {url:?} }}\n{more}\n"
    )
}

/// An inline stage that always fails.
fn failing_inline() -> String {
    format!("[[stage]]\nname = \"last\"\nplugin = \"{}\"\ntask = \"fatal\"\ninline = true\n", plugin("probe"))
}

fn get(key: &str) -> Value {
    json!({ "call": "kv.get", "request": { "bucket": "cache", "key": key } })
}

fn create(key: &str) -> Value {
    json!({ "call": "kv.create", "request": { "bucket": "cache", "key": key, "value": "made" } })
}

fn post(api: &Api) -> Value {
    let headers = json!([["authorization", { "secret": "token", "prefix": "Bearer " }]]);
    let request = json!({ "url": format!("{}/rows", api.url()), "method": "POST", "headers": headers, "body": "row" });
    json!({ "call": "http", "request": request })
}

/// Feeds an item that makes these calls and then fails, and waits for its letter.
fn letter(cluster: &Cluster, client: &NatsClient, chain: &str, calls: &Value) {
    let item = json!({ "do": calls, "then": "fatal" });
    cluster.run_with_input(&["feed", chain, "--format", "ndjson"], lines([item])).succeeded();
    client.messages(&format!("PCLUSTER_{chain}_DEAD"), 1);
}

#[test]
fn a_letter_tells_its_calls_with_secrets_masked_and_runs_again_from_them_alone() {
    let api = Api::start(echo);
    let (cluster, client) = cluster_for(&api);
    let manifest = chain(&api, "asking", "ask", "", BODIES);
    cluster.deploy(&manifest);
    let mut node = cluster.node("a");
    letter(&cluster, &client, "asking", &json!([post(&api), get("a"), create("b")]));
    assert_eq!(node.stop(), Some(0), "{}", node.stderr());

    let shown = cluster.ok(&["dead", "show", "asking", "1"]);
    assert!(
        shown.contains("  calls of the last attempt that are not safe to make twice:\n    POST http://"),
        "{shown}"
    );
    assert!(shown.contains("/rows: 200, ") && shown.contains(" ms, key "), "{shown}");
    assert!(shown.contains("    kv.create cache/b: ok, ") && shown.contains(" ms, not safe to make twice"), "{shown}");
    assert!(!shown.contains("kv.get cache"), "{shown}");
    let shown = cluster.ok(&["dead", "show", "asking", "1", "--calls"]);
    assert!(shown.contains("  calls of the last attempt:\n") && shown.contains("kv.get cache/a: ok"), "{shown}");

    let raw = &client.messages("PCLUSTER_asking_DEAD", 1)[0];
    let record: Value = serde_json::from_str(raw.header("Pcluster-Calls")).unwrap();
    let answers = record["calls"].as_array().unwrap().iter();
    let answers: Vec<Vec<u8>> =
        answers.map(|called| BASE64_STANDARD.decode(called["answer"].as_str().unwrap()).unwrap()).collect();
    assert!(answers[0].windows(6).any(|part| part == b"Bearer"), "the API has told it: {record}");
    let everything = answers.concat();
    assert!(!everything.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes()), "{record}");
    assert!(!format!("{raw:?}").contains(TOKEN), "{raw:?}");

    let asked = api.requests().len();
    drop(api);
    let run = cluster.run(&["replay", "asking", "1", "--cases", "cases"]);
    let run = run.failed(1, "error: the item fails: error: told to fail for good\n");
    assert!(run.stderr.contains("the item fails as in the letter\n"), "{}", run.stderr);
    assert!(run.stderr.contains("call: kv.get cache/a: ok\n") && !run.stderr.contains(TOKEN), "{}", run.stderr);
    assert_eq!((asked, client.count("PCLUSTER_asking_DEAD"), client.count("PCLUSTER_asking")), (1, 1, 0));
    let told: Value = serde_json::from_str(&cluster.run(&["replay", "asking", "1", "--json"]).stdout).unwrap();
    assert_eq!(told["failed"]["failure"], "error", "{told}");
    assert_eq!(
        (&told["stopped"], &told["outputs"], &told["stage"]),
        (&Value::Null, &json!([]), &json!("ask")),
        "{told}"
    );
    assert_eq!(told["calls"], record["calls"]);
    assert_refused(&cluster.run(&["replay", "asking", "7"]), 4, &["chain `asking` has no dead letter 7"]);

    let file = |name: &str| fs::read_to_string(cluster.path("cases/asking-1").join(name)).unwrap();
    let case: toml::Table = file("case.toml").parse().unwrap();
    assert_eq!((case["version"].as_str(), case["attempt"].as_integer()), (Some("1.0"), Some(1)), "{case:?}");
    let stage = case["stage"][0].as_table().unwrap();
    assert_eq!((stage["name"].as_str(), stage["task"].as_str()), (Some("ask"), Some("ask")), "{case:?}");
    assert!(stage["plugin"].as_str().unwrap().starts_with("sha256:"), "{case:?}");
    assert_eq!(case["expected"]["reason"].as_str(), Some("told to fail for good"), "{case:?}");
    let item: Value = serde_json::from_str(&file("item.json")).unwrap();
    assert_eq!((&item["then"], &item["do"][1]), (&json!("fatal"), &get("a")));
    let calls: Value = serde_json::from_str(&file("calls.json")).unwrap();
    assert_eq!((&calls[0]["call"], &calls[0]["answer_json"]["status"]), (&json!("http"), &json!(200)), "{calls}");
    assert_eq!(fs::read(cluster.path("cases/asking-1/item.cbor")).unwrap(), raw.payload);

    // It runs as it is beside the manifest, and nobody is there to be asked.
    cluster.file("chain.toml", manifest);
    assert!(cluster.ok(&["test"]).starts_with("1 passed, 0 failed in "));
}

#[test]
fn without_answers_a_replay_stops_with_the_line_to_set_or_makes_calls_under_the_same_keys() {
    let api = Api::start(echo);
    let (cluster, client) = cluster_for(&api);
    cluster.deploy(&chain(&api, "asking", "ask", "", ""));
    let _node = cluster.node("a");
    letter(&cluster, &client, "asking", &json!([post(&api), create("b"), post(&api)]));
    let run = cluster.run(&["replay", "asking", "1", "--cases", "cases"]);
    assert_refused(
        &run,
        1,
        &["the replay stopped: call 1, `http POST ", "set `record = \"bodies\"` in the `[stage.allow]` of stage `ask`"],
    );
    assert!(!cluster.path("cases").exists());
    assert_eq!(api.requests().len(), 2);

    let run = cluster.run(&["replay", "asking", "1", "--live", "--cases", "cases"]);
    let run = run.failed(1, "error: the item fails: error: told to fail for good\n");
    assert!(run.stderr.contains("from here on calls are made for real\n"), "{}", run.stderr);
    let made = "call: kv.create cache/b: conflict, made now, not safe to make twice\n";
    assert!(run.stderr.contains(made) && !run.stderr.contains(TOKEN), "{}", run.stderr);
    let keys: Vec<String> =
        api.requests().iter().map(|asked| asked.header("idempotency-key").unwrap().to_owned()).collect();
    assert_eq!((keys.len(), &keys[..2]), (4, &keys[2..]), "the same call has the same key");
    assert_ne!(keys[0], keys[1]);
    let calls = fs::read_to_string(cluster.path("cases/asking-1/calls.json")).unwrap();
    let calls: Value = serde_json::from_str(&calls).unwrap();
    assert_eq!((calls.as_array().unwrap().len(), &calls[1]["failed"]), (3, &json!(true)), "{calls}");
    let body = BASE64_STANDARD.decode(calls[0]["answer_json"]["body"].as_str().unwrap()).unwrap();
    let body = String::from_utf8(body).unwrap();
    assert!(body.starts_with("POST Bearer ") && !body.contains(TOKEN), "{body}");
}

#[test]
fn a_call_that_differs_stops_a_replay_and_what_follows_has_the_keys_that_it_had() {
    let api = Api::start(echo);
    let (cluster, client) = cluster_for(&api);
    cluster.deploy(&chain(&api, "asking", "ask", "", BODIES));
    let _node = cluster.node("a");
    letter(&cluster, &client, "asking", &json!([post(&api), get("a"), post(&api)]));
    // A letter of an attempt that called something else: as of a task that depends on time or chance.
    let raw = &client.messages("PCLUSTER_asking_DEAD", 1)[0];
    let mut record: Value = serde_json::from_str(raw.header("Pcluster-Calls")).unwrap();
    record["calls"][1]["request"] = json!("0000000000000000");
    let record = record.to_string();
    let headers: Vec<(&str, &str)> = raw.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let headers = headers.into_iter().filter(|(name, _)| !name.starts_with("Nats-") && *name != "Pcluster-Calls");
    let headers: Vec<(&str, &str)> = headers.chain([("Pcluster-Calls", record.as_str())]).collect();
    client.publish("pcluster.asking.dead.ask", &headers, raw.payload.clone()).unwrap();

    let says = "the replay stopped: call 2 differs: it is `kv.get` with another request, and the last attempt made `kv.get \
                cache/a`; --live goes on with real calls\n";
    let run = cluster.run(&["replay", "asking", "2"]).failed(1, says);
    assert_eq!((run.stdout.as_str(), api.requests().len()), ("", 2));
    cluster.run(&["replay", "asking", "2", "--live"]).failed(1, "told to fail for good");
    let asked = api.requests();
    assert_eq!(asked.len(), 3, "{asked:?}");
    // It is the second of two equal calls, as it was at first.
    assert_eq!(asked[2].header("idempotency-key"), asked[1].header("idempotency-key"), "{asked:?}");
}

#[test]
fn an_answer_without_room_in_the_letter_is_said_to_be_cut() {
    let api = Api::start(|_| Reply::new(200, "x".repeat(100 << 10)));
    let (cluster, client) = cluster_for(&api);
    cluster.deploy(&chain(&api, "asking", "ask", "", BODIES));
    let _node = cluster.node("a");
    letter(&cluster, &client, "asking", &json!([get("a"), post(&api)]));
    assert!(client.messages("PCLUSTER_asking_DEAD", 1)[0].header("Pcluster-Calls").len() < 66 << 10);
    let shown = cluster.ok(&["dead", "show", "asking", "1", "--calls"]);
    assert!(shown.contains("its answer was cut: a letter has room for 64 KiB of calls\n"), "{shown}");
    let run = cluster.run(&["replay", "asking", "1"]);
    run.failed(1, "its answer was cut from the record; a letter has room for 64 KiB of calls");
}

#[test]
fn of_an_attempt_that_ended_with_its_node_nothing_is_known() {
    let api = Api::start(echo);
    let (cluster, client) = cluster_for(&api);
    // The one calls before it has an item, and the other for its item.
    let config =
        format!("config = {{ do = [{}] }}", r#"{ call = "kv.get", request = { bucket = "cache", key = "a" } }"#);
    for (name, task, stage) in [("filled", "cached", config.as_str()), ("asking", "ask", "")] {
        cluster.deploy(&recovering(&chain(&api, name, task, stage, BODIES)));
        let item = json!({ "do": [get("a")] });
        cluster.run_with_input(&["feed", name, "--format", "ndjson"], lines([item])).succeeded();
        let mut doomed = cluster.spawn(&["node", "--name", "doomed", "--chain", name, "--die-at", "ran"]);
        assert_ne!(doomed.ended(), Some(0));
    }
    let _node = cluster.node("a");
    for name in ["filled", "asking"] {
        let letters = client.messages(&format!("PCLUSTER_{name}_DEAD"), 1);
        assert_eq!(letters[0].header("Pcluster-Failure"), "node");
    }
    client.with(async |jetstream| {
        jetstream.get_key_value("cache").await.unwrap().put("a", "second".into()).await.unwrap();
    });
    let unknown = "1 attempt ended with its node: nothing is known of what it called\n";
    let run = cluster.run(&["replay", "filled", "1"]).failed(0, unknown);
    let output = json_lines(&run.stdout)[0].clone();
    assert!(output["answers"].to_string().contains("first"), "the state is that of the revision: {output}");
    assert!(run.stderr.contains("the item succeeds, with 1 output"), "{}", run.stderr);

    let run = cluster.run(&["replay", "asking", "1"]).failed(1, unknown);
    let says = "call 1, `kv.get`: the last attempt ended with its node, and nothing is known of what it called";
    assert!(run.stderr.contains(says), "{}", run.stderr);
    let run = cluster.run(&["replay", "asking", "1", "--live", "--cases", "cases"]).failed(0, "made now");
    assert!(run.stdout.contains("second"), "{}", run.stdout);
    let case: toml::Table = fs::read_to_string(cluster.path("cases/asking-1/case.toml")).unwrap().parse().unwrap();
    assert_eq!(case["expected"]["outputs"].as_integer(), Some(1), "{case:?}");
    assert_eq!(fs::read_to_string(cluster.path("cases/asking-1/outputs.json")).unwrap(), run.stdout);
}

#[test]
fn a_letter_of_an_inline_stage_has_the_calls_of_all_stages_before_it() {
    let api = Api::start(echo);
    let (cluster, client) = cluster_for(&api);
    cluster.deploy(&(chain(&api, "asking", "ask", "", BODIES) + &failing_inline()));
    let _node = cluster.node("a");
    let item = json!({ "do": [create("b")] });
    cluster.run_with_input(&["feed", "asking", "--format", "ndjson"], lines([item])).succeeded();
    client.messages("PCLUSTER_asking_DEAD", 1);
    let shown = cluster.ok(&["dead", "show", "asking", "1"]);
    assert!(shown.contains("inline stage `last`: this task always fails for good"), "{shown}");
    assert!(shown.contains("kv.create cache/b: ok"), "{shown}");
    let run = cluster.run(&["replay", "asking", "1"]);
    let run = run.failed(1, "error: the item fails: error: inline stage `last`: this task always fails for good");
    assert!(run.stderr.contains("the item fails as in the letter\n"), "{}", run.stderr);
}

#[test]
fn a_letter_without_an_item_cannot_be_replayed_and_one_of_a_program_runs_it_if_allowed() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let fatal = format!(
        "name = \"odd\"\nversion = \"1.0\"\n[input]\nformat = \"json\"\n[[stage]]\nname = \"fatal\"\nplugin = \"{}\"\n",
        plugin("probe")
    );
    cluster.deploy(&fatal);
    cluster.deploy(
        "name = \"native\"\nversion = \"1.0\"\n[[stage]]\nname = \"false\"\nexec = [\"false\"]\nretry = { attempts = 1 }\n",
    );
    let _node = cluster.node_with("a", &["--allow-exec", "false"]);
    client.publish("pcluster.odd.in", &[("Nats-Msg-Id", "bad")], "{\"a\": ").unwrap();
    cluster.ok(&["feed", "native", "1"]);
    for chain in ["odd", "native"] {
        client.messages(&format!("PCLUSTER_{chain}_DEAD"), 1);
    }
    let bad = cluster.run(&["replay", "odd", "1"]);
    assert_refused(&bad, 1, &["dead letter 1 has no item: its payload could not be read"]);
    let run = cluster.run(&["replay", "native", "1"]);
    run.failed(
        1,
        "stage `false` runs the program `false`, which no sandbox contains; with --allow-exec it runs here, as you",
    );
    let run = cluster.run(&["replay", "native", "1", "--allow-exec"]).failed(1, "the item fails as in the letter");
    assert!(run.stderr.contains("error: the item fails: error: "), "{}", run.stderr);
    // Without calls there is nothing to record.
    cluster.ok(&["feed", "odd", "1"]);
    client.messages("PCLUSTER_odd_DEAD", 2);
    let run =
        cluster.run(&["replay", "odd", "2"]).failed(1, "error: the item fails: error: this task always fails for good");
    assert!(run.stderr.contains("the item fails as in the letter\n"), "{}", run.stderr);
}
