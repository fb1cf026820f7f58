//! The worked example of calls, which asks an HTTP API, caches in a KV bucket, and gives nothing away; and each call of the SDK.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use async_nats::jetstream::{kv, object_store, stream};
use serde_json::{Value, json};
use support::{Api, Asked, Cluster, NatsClient, Reply, json_lines, lines, plugin, probe_chain, repository};
use wasmparser::{Parser, Payload};

/// The value of the secret `rates_token`.
const TOKEN: &str = "the-token-of-the-test";

/// An API of exchange rates, which asks for the token.
fn rates(asked: &Asked) -> Reply {
    if asked.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
        return Reply::new(401, "");
    }
    match asked.target.as_str() {
        "/v1/rates/USD" => Reply::new(200, r#"{"euros": 0.92}"#),
        "/v1/rates/CHF" => Reply::new(200, r#"{"euros": 1.05}"#),
        _ => Reply::new(404, "no such currency"),
    }
}

/// A cluster with the bucket and the secret, whose nodes allow what the example asks for, but at this server.
fn cluster_for(api: &Api) -> (Cluster, NatsClient) {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let bucket = kv::Config { bucket: "rates".to_owned(), ..kv::Config::default() };
    client.with(async |jetstream| jetstream.create_key_value(bucket.clone()).await.unwrap());
    fs::create_dir(cluster.path("secrets")).unwrap();
    cluster.file("secrets/rates_token", format!("{TOKEN}\n"));
    cluster.file(
        "pcluster.toml",
        format!(
            "[allow]\nhttp = [{:?}]\nkv = [\"rates\"]\nnetworks = {{ \"127.0.0.1\" = \"127.0.0.1/32\" }}\n\
             secrets = {{ from = \"{}\" }}\n",
            api.url(),
            cluster.path("secrets").display()
        ),
    );
    (cluster, client)
}

/// The manifest of the example, with this server as its API and more keys of the stage.
fn manifest(api: &Api, more: &str) -> String {
    let shown = fs::read_to_string(repository().join("plugins/enrich/chain.toml")).unwrap();
    let changed = shown
        .replace("https://rates.example.com", &api.url())
        .replace("../../target/wasm32-wasip1/release/enrich.wasm", &plugin("enrich"))
        .replace("[stage.allow]", &format!("{more}\n\n[stage.allow]"));
    assert!(!changed.contains("example.com") && !changed.contains("../target"), "{changed}");
    changed
}

fn price(article: &str, amount: u32, currency: &str) -> Value {
    json!({ "article": article, "amount": amount, "currency": currency })
}

/// Feeds prices. Returns the articles and their prices in euros, once the chain is empty.
fn converted(cluster: &Cluster, prices: &[Value]) -> Vec<(String, f64)> {
    cluster.run_with_input(&["feed", "enrich", "--format", "ndjson"], lines(prices)).succeeded();
    let results = cluster.pull_all("enrich");
    let pair = |result: &Value| (result["article"].as_str().unwrap().to_owned(), result["euros"].as_f64().unwrap());
    let mut results: Vec<(String, f64)> = results.iter().map(pair).collect();
    results.sort_by(|one, other| one.0.cmp(&other.0));
    results
}

/// The functions of the ABI that a plugin imports.
fn imports(name: &str) -> Vec<String> {
    let module = fs::read(plugin(name)).unwrap();
    let mut names = Vec::new();
    for payload in Parser::new(0).parse_all(&module) {
        if let Payload::ImportSection(section) = payload.unwrap() {
            let imports = section.into_imports().map(Result::unwrap);
            names.extend(imports.filter(|import| import.module == "pcluster_v1").map(|import| import.name.to_owned()));
        }
    }
    names
}

/// The blocks of code in this language on the page of authors, below "Reaching the world".
fn shown(language: &str) -> Vec<String> {
    let page = fs::read_to_string(repository().join("sdk/README.md")).unwrap();
    let (_, section) = page.split_once("\n## Reaching the world\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let blocks = section.split("\n```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix(&format!("{language}\n")).map(|code| code.to_owned() + "\n")).collect()
}

#[test]
fn a_plugin_imports_calls_only_if_it_calls() {
    for (name, calls) in [("text", false), ("waiting", false), ("probe", true), ("enrich", true)] {
        let imports = imports(name);
        assert!(imports.iter().any(|import| import == "emit"), "{name}: {imports:?}");
        for call in ["call", "call_read", "retry_after"] {
            assert_eq!(imports.iter().any(|import| import == call), calls, "{name}: {imports:?}");
        }
    }
}

#[test]
fn the_page_of_authors_shows_the_example() {
    let [code, manifest] = ["src/lib.rs", "chain.toml"]
        .map(|file| fs::read_to_string(repository().join("plugins/enrich").join(file)).unwrap());
    let rust = shown("rust");
    assert!(code.contains(&rust[0]), "plugins/enrich/src/lib.rs is not as the page has it:\n{}", rust[0]);
    assert!(code.contains(&shown("rust,ignore")[0]), "the test of plugins/enrich is not as the page has it");
    assert!(manifest.contains(&shown("toml")[0]), "plugins/enrich/chain.toml is not as the page has it");
}

#[test]
fn prices_are_converted_each_rate_is_kept_and_the_token_shows_nowhere() {
    let api = Api::start(rates);
    let (cluster, client) = cluster_for(&api);
    cluster.deploy(&manifest(&api, ""));
    let mut node = cluster.node("a");
    let prices = [price("bread", 10, "USD"), price("milk", 20, "CHF"), price("tea", 100, "USD"), price("x", 1, "XXX")];
    let euros = [("bread".to_owned(), 9.2), ("milk".to_owned(), 21.0), ("tea".to_owned(), 92.0)];
    assert_eq!(converted(&cluster, &prices), euros);
    // Items that run at once may each ask.
    let asked = api.requests();
    let dollars = asked.iter().filter(|asked| asked.target == "/v1/rates/USD").count();
    assert!((1..=2).contains(&dollars), "{asked:?}");
    assert!(asked.iter().all(|asked| asked.method == "GET" && asked.header("idempotency-key").is_none()), "{asked:?}");
    let entry =
        client.with(async |jetstream| jetstream.get_key_value("rates").await.unwrap().get("CHF").await.unwrap());
    assert_eq!(entry.as_deref(), Some(&b"1.05"[..]));

    // The API is not asked for what the bucket has.
    assert_eq!(converted(&cluster, &prices[..3]), euros);
    assert_eq!(api.requests().len(), asked.len());

    // An unknown currency fails for good, at the first attempt.
    let letters = json_lines(&cluster.ok(&["dead", "ls", "enrich", "--json"]));
    assert_eq!(letters.len(), 1, "{letters:?}");
    let shown = cluster.ok(&["dead", "show", "enrich", "1"]);
    assert!(shown.contains("/v1/rates/XXX answered 404"), "{shown}");
    assert_eq!(node.stop(), Some(0));
    let logs = cluster.ok(&["logs", "enrich", "--no-follow"]);
    assert!(logs.contains("asking for the rate of CHF"), "{logs}");
    for printed in [shown, logs, cluster.ok(&["status", "enrich", "--json"]), node.stderr()] {
        assert!(!printed.contains(TOKEN), "{printed}");
    }
}

#[test]
fn an_api_that_is_busy_is_asked_again_when_it_says_and_not_when_the_back_off_does() {
    let count = AtomicU32::new(0);
    let api = Api::start(move |asked| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(503, "busy").with("Retry-After", "1"),
        1 => Reply::new(429, "busy").with("Retry-After", "0"),
        _ => rates(asked),
    });
    let (cluster, _client) = cluster_for(&api);
    cluster.deploy(&manifest(&api, "retry = { attempts = 3, backoff = [\"1h\"] }"));
    let _node = cluster.node("a");
    assert_eq!(converted(&cluster, &[price("tea", 100, "USD")]), [("tea".to_owned(), 92.0)]);
    assert_eq!(api.requests().len(), 3);
}

/// What comes of each step of the probe's `tour`. Its unit test expects the same of the world of native tests.
fn toured() -> Value {
    json!({
        "answered": "201 7 made", "created twice": "conflict", "deleted stale": "conflict", "gone": "None",
        "got": "Ok(\"1\") true", "kept": "1 false", "keys": "a b.c", "keys below b": "b.c", "no object": "None",
        "object": "300000 true", "objects": "m/1", "raised": "true", "range": "[5, 6, 7] of 300000", "revealed": "sesame",
        "stale": "conflict",
    })
}

#[test]
fn each_call_of_the_sdk_meets_on_a_node_what_it_meets_in_a_native_test() {
    let api = Api::start(|_| Reply::new(201, "made").with("ETag", "7"));
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    client.with(async |jetstream| {
        let bucket = kv::Config { bucket: "tour".to_owned(), ..kv::Config::default() };
        jetstream.create_key_value(bucket).await.unwrap();
        let store = object_store::Config { bucket: "tour".to_owned(), ..object_store::Config::default() };
        jetstream.create_object_store(store).await.unwrap();
        let kept =
            stream::Config { name: "TOUR".into(), subjects: vec!["tour.kept".into()], ..stream::Config::default() };
        jetstream.create_stream(kept).await.unwrap();
    });
    fs::create_dir(cluster.path("secrets")).unwrap();
    cluster.file("secrets/open", "sesame\n");
    cluster.file("secrets/password", "swordfish");
    let url = api.url();
    let allow = format!(
        "[stage.allow]\nhttp = [{url:?}]\nkv = {{ tour = \"read-write\" }}\nobjects = {{ tour = \"read-write\" }}\n\
         publish = [\"tour.*\"]\nsecrets = {{ open = \"reveal\", password = {url:?} }}\n"
    );
    cluster.deploy(&(probe_chain("tour", &["tour"], &format!("config = {{ url = {url:?} }}")) + &allow));
    let network = "127.0.0.1=127.0.0.1/32";
    let flags = ["--allow-http", &url, "--allow-networks", network, "--allow-kv", "tour", "--allow-objects", "tour"];
    let flags = [&flags[..], &["--allow-publish", "tour.*", "--allow-secrets", "./secrets"]].concat();
    let _node = cluster.node_with("a", &flags);
    cluster.ok(&["feed", "tour", "\"hello\""]);
    assert_eq!(cluster.pull_all("tour"), [toured()]);

    let asked = &api.requests()[..];
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!((asked[0].method.as_str(), &*asked[0].body), ("POST", &b"hello"[..]));
    assert_eq!(asked[0].header("content-type"), Some("text/plain"));
    // `ada:swordfish`
    assert_eq!(asked[0].header("authorization"), Some("Basic YWRhOnN3b3JkZmlzaA=="));
    assert!(asked[0].header("idempotency-key").is_some_and(|key| (1..=64).contains(&key.len())), "{asked:?}");
    let kept = client.messages("TOUR", 1);
    assert_eq!((&*kept[0].payload, kept[0].header("X-Tour")), (&b"hello"[..], "1"));
    assert!(!kept[0].header("Nats-Msg-Id").is_empty());
}
