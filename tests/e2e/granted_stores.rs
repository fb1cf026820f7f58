//! Buckets and object stores that stages are granted.

use async_nats::jetstream::{kv, object_store};
use support::{Cluster, NatsClient, assert_refused, plugin};

fn manifest(allow: &str) -> String {
    let probe = plugin("probe");
    format!(
        "name = \"granted\"\nversion = \"1\"\n[[stage]]\nname = \"echo\"\nplugin = {probe:?}\ntask = \"echo\"\n\
         [stage.allow]\n{allow}\n"
    )
}

#[test]
fn a_store_that_is_not_there_is_told_before_anything_changes() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let both = "kv = { cache = \"read\" }\nobjects = { models = \"read-write\" }";
    cluster.file("chain.toml", manifest(both));
    let said = ["stage `echo`: there is no bucket `cache`; `nats kv add cache` makes it"];
    assert_refused(&cluster.run(&["deploy"]), 1, &said);
    let bucket = kv::Config { bucket: "cache".to_owned(), ..kv::Config::default() };
    client.with(async |jetstream| jetstream.create_key_value(bucket.clone()).await.unwrap());
    let said = ["stage `echo`: there is no object store `models`; `nats object add models` makes it"];
    assert_refused(&cluster.run(&["deploy"]), 1, &said);
    assert_eq!(cluster.ok(&["status", "--json"]).trim(), "[]");
    let store = object_store::Config { bucket: "models".to_owned(), ..object_store::Config::default() };
    client.with(async |jetstream| jetstream.create_object_store(store.clone()).await.unwrap());
    cluster.ok(&["deploy"]);
}

#[test]
fn a_name_that_nats_does_not_take_or_that_is_ours_is_refused() {
    let cluster = Cluster::start();
    for (allow, said) in [
        ("kv = { \"my cache\" = \"read\" }", "the bucket `my cache` has the character ' '"),
        ("kv = { pcluster_chains = \"read\" }", "the bucket `pcluster_chains` belongs to pcluster"),
        ("objects = { PCLUSTER_plugins = \"read\" }", "the object store `PCLUSTER_plugins` belongs to pcluster"),
        ("publish = [\"pcluster.>\"]", "belongs to pcluster"),
        ("publish = [\"$JS.API.>\"]", "belongs to NATS"),
        ("publish = [\">\"]", "the first part must be a word"),
        ("publish = [\"alerts..a\"]", "has a part without characters"),
    ] {
        cluster.file("chain.toml", manifest(allow));
        assert_refused(&cluster.run(&["deploy"]), 1, &[said]);
    }
    assert_eq!(cluster.ok(&["status", "--json"]).trim(), "[]");
}
