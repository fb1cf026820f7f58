//! `pcluster diff` and `deploy --dry-run`: what a deploy would change.

use serde_json::{Value, json};
use support::{Cluster, probe_chain};

/// A manifest of a chain with a stage that marks its items.
fn marking(version: &str, mark: &str, more: &str) -> String {
    probe_chain("a", &["mark"], &format!("config = {{ mark = \"{mark}\", deep = {{ n = 1 }} }}"))
        .replace("1.0", version)
        + more
}

#[test]
fn a_diff_tells_each_change_and_the_deploy_makes_exactly_these() {
    let cluster = Cluster::start();
    let more = format!("[[stage]]\nname = \"echo\"\nplugin = \"{}\"\n", support::plugin("probe"));
    cluster.file("chain.toml", marking("1.0", "x", ""));
    let new = cluster.ok(&["diff"]);
    assert_eq!(new, "a 1.0 would be new\n+ stage mark\n");
    assert_eq!(cluster.run(&["diff", "--exit-code"]).code, Some(6));
    assert_eq!(cluster.run(&["status", "a"]).code, Some(4), "nothing is deployed");

    cluster.ok(&["deploy", "chain.toml"]);
    cluster.ok(&["feed", "a", "1", "2", "--pack-items", "1"]);
    for arguments in [&["diff", "--exit-code"][..], &["deploy", "--dry-run", "--exit-code"]] {
        assert_eq!(cluster.run(arguments).succeeded(), "a 1.0 (r1) would stay as it is\n");
    }

    cluster.file("chain.toml", marking("1.1", "y", &more));
    let told = "a 1.1 would replace 1.0 (r1)\n\
        ~ version: \"1.0\" -> \"1.1\"\n\
        ~ stage mark: config.mark: \"x\" -> \"y\"\n\
        + stage echo\n\
        2 messages in the queues of 1.0 (r1): finished by that version\n";
    assert_eq!(cluster.ok(&["diff"]), told);
    let dry = cluster.run(&["deploy", "--dry-run", "--exit-code", "chain.toml"]);
    assert_eq!((dry.code, dry.stdout.as_str(), dry.stderr.as_str()), (Some(6), told, ""));
    let document: Value = serde_json::from_str(&cluster.ok(&["diff", "--json"])).unwrap();
    assert_eq!(document["active"], json!(["1.0", 1]));
    assert_eq!(document["changes"][1], json!({ "stage": "mark", "key": "config.mark", "before": "x", "after": "y" }));
    assert_eq!(document["queued"], json!([{ "version": "1.0", "revision": 1, "messages": 2 }]));

    let deployed = cluster.ok(&["deploy", "chain.toml"]);
    assert_eq!(deployed.lines().next(), Some("a 1.1 deployed as r2, after 1.0 (r1)"));
    assert_eq!(cluster.ok(&["diff"]), "a 1.1 (r2) would stay as it is\n");
}

#[test]
fn a_diff_says_what_the_deploy_would_be_refused_for() {
    let cluster = Cluster::start();
    cluster.deploy(&marking("1.0", "x", ""));
    cluster.file("chain.toml", marking("1.0", "y", ""));
    let told = cluster.run(&["diff"]);
    assert!(told.stderr.starts_with("the deploy would be refused: "), "{}", told.stderr);
    assert!(told.stderr.contains("1.0"), "{}", told.stderr);
    assert!(told.succeeded().contains("~ stage mark: config.mark: \"x\" -> \"y\""));
    cluster.file("chain.toml", marking("1.1", "y", "[[stage]]\nname = \"none\"\nplugin = \"none.wasm\"\n"));
    cluster.run(&["diff"]).failed(4, "none.wasm");
    cluster.run(&["diff", "--exit-code", "none.toml"]).failed(4, "none.toml");
    cluster.run(&["deploy", "--exit-code"]).failed(2, "--dry-run");
}
