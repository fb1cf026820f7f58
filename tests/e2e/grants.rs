//! What stages ask for and what operators allow: each mistake is told with the right spelling, and what is granted is shown.

use support::{Cluster, assert_refused, plugin};

/// Lines of `[stage.allow]`, and what the error says.
const BAD_GRANTS: [(&str, &str); 27] = [
    ("htpp = []", "line 7: unknown key `htpp`; did you mean `http`?"),
    ("http = \"https://a.example\"", "expected a sequence; write a list, as in [\"https://api.example.com\"]"),
    ("kv = [\"cache\"]", "expected a map; write a table, as in `kv = { cache = \"read\" }`"),
    ("http = [\"api.example.com\"]", "`allow.http`: `api.example.com` has no scheme; write `https://api.example.com`"),
    ("http = [\"https://\"]", "`https://` has no host; write one, as in `https://api.example.com`"),
    ("http = [\"*\"]", "`*` alone would be everything; write `https://*` for all hosts with TLS"),
    ("http = [\"https://api.*.example.org\"]", "at the beginning of a name; write `https://*.example.org`"),
    ("http = [\"https://a.example:70000\"]", "has the port `70000`; write a number from 1 to 65535"),
    ("http = [\"ftp://a.example\"]", "has the scheme `ftp`; only `http` and `https` are granted"),
    ("http = [\"https://me:pw@a.example\"]", "a grant names no user; leave out what stands before `@`"),
    (
        "http = [\"https://a.example/v1?x\"]",
        "a grant ends with its path, and covers each query; write `https://a.example/v1`",
    ),
    ("http = [\"https://a.example/v1/*\"]", "a path covers all below it, and `*` stands for hosts only; write"),
    ("http = [\"https://a.example/a%2Fb\"]", "it has an encoded `/`"),
    ("http = [\"https://a.example/%2e%2e/a\"]", "it has an encoded `.`"),
    ("http = [\"https://a.example/%252e\"]", "it is encoded twice"),
    ("kv = { cache = \"read-wirte\" }", "`allow.kv`: `cache`: `read-wirte` is not known; did you mean `read-write`?"),
    ("kv = { \"a b\" = \"read\" }", "`allow.kv`: the bucket `a b` has the character ' '"),
    ("kv = { pcluster_chains = \"read\" }", "the bucket `pcluster_chains` belongs to pcluster, and is never granted"),
    ("objects = { PCLUSTER_plugins = \"read\" }", "the object store `PCLUSTER_plugins` belongs to pcluster"),
    ("publish = [\"pcluster.a.in\"]", "belongs to pcluster, and is never granted"),
    ("publish = [\"$JS.API.>\"]", "belongs to NATS, and is never granted"),
    ("publish = [\"*.a\"]", "`allow.publish`: the pattern of subjects `*.a` has a wildcard in the wrong place"),
    ("secrets = { Key = \"reveal\" }", "`allow.secrets`: `Key` cannot be the name of a secret"),
    ("secrets = { key = \"https://a.example\" }", "which the stage may not request; add `\"https://a.example\"` to"),
    ("record = \"bodeis\"", "`allow.record`: `bodeis` is not known; did you mean `bodies`?"),
    ("limits = { calls = 0 }", "`allow.limits.calls`: must be at least 1"),
    ("limits = { body = \"2GiB\" }", "`allow.limits.body`: must be at most \"256MiB\""),
];

/// Settings below `[allow]`, and what the error says.
const BAD_CEILINGS: [(&str, &str); 6] = [
    ("http = [\"*\"]", "the setting `allow.http` from `"),
    ("htpp = []", "unknown setting `allow.htpp`; did you mean `http`?"),
    ("networks = { a = \"10.0.0.1/8\" }", "`10.0.0.1/8` has bits behind its prefix; write `10.0.0.0/8`"),
    ("http_proxy = \"http://me:hidden@proxy\"", "names a user, and a node logs in to no proxy; leave it out"),
    ("secrets = { from = \"/nowhere\" }", "there is no folder `/nowhere`"),
    ("http_ca = \"/nowhere.pem\"", "there is no file `/nowhere.pem`"),
];

fn manifest(grants: &str) -> String {
    let stage = format!("[[stage]]\nname = \"echo\"\nplugin = \"{}\"\n[stage.allow]\n{grants}\n", plugin("probe"));
    format!("name = \"a\"\nversion = \"1\"\n{stage}")
}

#[test]
fn a_grant_that_cannot_be_is_refused_with_the_right_spelling_and_nothing_changes() {
    let cluster = Cluster::start();
    for (grants, said) in BAD_GRANTS {
        cluster.file("bad.toml", manifest(grants));
        assert_refused(&cluster.run(&["deploy", "bad.toml"]), 1, &["`bad.toml`", said]);
    }
    let program =
        "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"b\"\nexec = [\"true\"]\n[stage.allow]\npublish = [\"a\"]\n";
    cluster.file("bad.toml", program);
    assert_refused(
        &cluster.run(&["deploy", "bad.toml"]),
        1,
        &["stage `b`: `allow`: a program runs outside of any sandbox"],
    );
    assert_eq!(cluster.ok(&["status", "--json"]).trim(), "[]");
}

#[test]
fn a_ceiling_that_cannot_be_ends_the_node_at_once() {
    let cluster = Cluster::start();
    for (line, said) in BAD_CEILINGS {
        cluster.file("pcluster.toml", format!("[allow]\n{line}\n"));
        let run = cluster.run(&["node"]);
        assert_refused(&run, 2, &["pcluster.toml`", said]);
        assert!(!run.stderr.contains("hidden"), "{}", run.stderr);
    }
    cluster.file("pcluster.toml", "");
    assert_refused(
        &cluster.run(&["node", "--allow-http", "a.example"]),
        2,
        &["flag --allow-http", "write `https://a.example`"],
    );
}

#[test]
fn a_deploy_shows_what_is_granted() {
    let cluster = Cluster::start();
    cluster.ok(&["config"]);
    let shown = cluster.deploy(&manifest("http = [\"HTTPS://API.example.com:443/\"]\nsecrets = { key = \"reveal\" }"));
    assert_eq!(
        shown,
        "a 1 deployed as r1\nstage echo: http https://api.example.com\nstage echo: secret key revealed to the task\n"
    );
    let shown = cluster.ok(&["deploy", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let granted =
        serde_json::json!({ "echo": { "http": ["https://api.example.com"], "secrets": { "key": "reveal" } } });
    assert_eq!((&shown["changed"], &shown["grants"]), (&false.into(), &granted));
}

#[test]
fn config_shows_what_is_allowed_and_by_which_source() {
    let cluster = Cluster::start();
    cluster.file(
        "pcluster.toml",
        "[allow]\nhttp = [\"https://*\"]\nkv = [\"cache\"]\nsecrets = { from = \"environment\" }\n",
    );
    let mut command = cluster.command(&["config", "--json"]);
    command.env("PCLUSTER_ALLOW_KV", "cache=read,rates").env("PCLUSTER_ALLOW_NETWORKS", "api.internal=10.0.3.0/24");
    let shown: serde_json::Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    let setting = |key: &str| {
        let setting = shown.as_array().unwrap().iter().find(|setting| setting["key"] == key).unwrap();
        [&setting["value"], &setting["source"]].map(|text| text.as_str().unwrap().to_owned())
    };
    assert_eq!(setting("allow.http")[0], "https://*");
    assert!(setting("allow.http")[1].ends_with("pcluster.toml`"), "{:?}", setting("allow.http"));
    assert_eq!(setting("allow.kv"), ["cache=read,rates", "environment PCLUSTER_ALLOW_KV"]);
    assert_eq!(setting("allow.networks"), ["api.internal=10.0.3.0/24", "environment PCLUSTER_ALLOW_NETWORKS"]);
    assert_eq!(setting("allow.secrets")[0], "from=environment");
    assert_eq!(setting("allow.publish"), ["", "default"]);
}
