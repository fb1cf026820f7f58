//! Invalid manifests: each is refused with the reason and a remedy, and nothing changes.

use support::{Cluster, assert_refused, plugin};

/// What is wrong with a stage, and what the error says.
const BAD_STAGES: [(&str, &str); 18] = [
    ("concurency = 3", "line 6: unknown key `concurency`; did you mean `concurrency`?"),
    ("zzz = 3", "line 6: unknown key `zzz`; known here are `name`, `plugin`"),
    ("retry = { attempt = 3 }", "line 6: unknown key `attempt`; did you mean `attempts`?"),
    ("concurrency = \"many\"", "line 6: `concurrency`: invalid type: string \"many\""),
    ("concurrency = -1", "line 6: "),
    ("concurrency = 0", "stage `echo`: `concurrency`: must be at least 1"),
    ("max_in_flight = 0", "stage `echo`: `max_in_flight`: must be at least 1"),
    ("retry = { attempts = 0 }", "stage `echo`: `attempts`: must be at least 1"),
    ("retry = { backoff = [\"1 s\", \"later\"] }", "stage `echo`: `backoff`: `later` is not a duration"),
    ("timeout = \"soon\"", "stage `echo`: `timeout`: `soon` is not a duration; write one like \"500ms\""),
    ("timeout = \"0s\"", "stage `echo`: `timeout`: must be at least \"1ms\": a node measures it"),
    ("memory = \"lots\"", "stage `echo`: `memory`: `lots` is not a size; write one like \"64MiB\""),
    ("memory = \"1KiB\"", "stage `echo`: `memory`: must be at least \"64KiB\": "),
    ("inline = true", "stage `echo`: `inline`: the first stage has none before it to run with"),
    ("isolation = \"none\"", "stage `echo`: `isolation`: `none` is not known; write \"item\", \"frame\" or \"worker\""),
    ("reuse = 10", "stage `echo`: `reuse`: every item has a fresh instance; leave it out"),
    ("env = { \"A=B\" = \"c\" }", "stage `echo`: `env`: `A=B` cannot be the name of a variable"),
    ("[[stage]]\nname = \"echo\"\nplugin = \"other.wasm\"", "two stages are named `echo`"),
];

/// Whole manifests, and what the error says.
const BAD_CHAINS: [(&str, &str); 14] = [
    ("name = \"a\"\nversion = \"1\"\n[[stage\n", "line 3: "),
    ("version = \"1\"", "line 1: the key `name` is missing"),
    ("name = \"a\"", "line 1: the key `version` is missing"),
    ("nme = \"a\"", "line 1: unknown key `nme`; did you mean `name`?"),
    ("name = \"a\"\nversion = \"1\"", "the chain has no stage; add at least one `[[stage]]`"),
    ("name = \"My.Chain\"\nversion = \"1\"", "the chain name `My.Chain` has the character 'M'; allowed are lower-case"),
    ("name = \"\"\nversion = \"1\"", "a chain name must not be empty"),
    ("name = \"a\"\nversion = \"1 beta\"", "the version `1 beta` has the character ' '"),
    ("name = \"a\"\nversion = 1.0", "line 2: `version`: invalid type: floating point `1.0`, expected a string"),
    ("name = \"a\"\nversion = \"1\"\n[input]\nformat = \"xml\"", "line 4: `xml` is not known; known here are `cbor`"),
    (
        "name = \"a\"\nversion = \"1\"\n[queue]\nlimit = 0\n[[stage]]\nname = \"b\"\nplugin = \"c.wasm\"",
        "[queue] `limit`: must be at least 1",
    ),
    (
        "name = \"a\"\nversion = \"1\"\nreplicas = 6\n[[stage]]\nname = \"b\"\nplugin = \"c.wasm\"",
        "`replicas`: must be at most 5: NATS keeps no more copies of a stream",
    ),
    (
        "name = \"a\"\nversion = \"1\"\n[results]\nmax_age = \"a week\"\n[[stage]]\nname = \"b\"\nplugin = \"c.wasm\"",
        "[results] `max_age`: `a week` is not a duration",
    ),
    (
        "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"b.c\"\nplugin = \"c.wasm\"",
        "the stage name `b.c` has the character '.'; allowed are letters",
    ),
];

#[test]
fn a_manifest_that_cannot_be_is_refused_with_the_reason_and_nothing_changes() {
    let cluster = Cluster::start();
    let deploy = |manifest: &str| {
        cluster.file("bad.toml", manifest);
        cluster.run(&["deploy", "bad.toml"])
    };
    for (manifest, said) in BAD_CHAINS {
        assert_refused(&deploy(manifest), 1, &["`bad.toml`", said]);
    }
    let head =
        format!("name = \"bad\"\nversion = \"1\"\n[[stage]]\nname = \"echo\"\nplugin = \"{}\"\n", plugin("probe"));
    for (rest, said) in BAD_STAGES {
        assert_refused(&deploy(&format!("{head}{rest}\n")), 1, &["`bad.toml`", said]);
    }
    let large = format!("{head}config = {{ words = \"{}\" }}\n", "x".repeat(1_100_000));
    let said = "stage `echo`: its config has 1100012 bytes, and with it the manifest 110";
    assert_refused(
        &deploy(&large),
        1,
        &[said, "fits in a message (1048576 bytes: the server's `max_payload`); keep large"],
    );
    assert_eq!(cluster.ok(&["status", "--json"]).trim(), "[]");
    assert_eq!(deploy(&head).succeeded(), "bad 1 deployed as r1\n");
}

#[test]
fn a_manifest_or_plugin_that_is_not_there_is_named() {
    let cluster = Cluster::start();
    assert_refused(&cluster.run(&["deploy"]), 4, &["there is no file `chain.toml`; name the chain's manifest"]);
    assert_refused(&cluster.run(&["deploy", "none/chain.toml"]), 4, &["there is no file `none/chain.toml`"]);
    assert_refused(&cluster.run(&["deploy", "."]), 4, &["there is no file `./chain.toml`; "]);
    cluster.file("latin.toml", b"name = \"\xe4\"");
    assert_refused(&cluster.run(&["deploy", "latin.toml"]), 1, &["`latin.toml`: not UTF-8 after byte 8"]);

    let with_plugin = |plugin: &str| {
        let stage = format!("[[stage]]\nname = \"a\"\nplugin = \"{plugin}\"");
        cluster.file("chain.toml", format!("name = \"a\"\nversion = \"1\"\n{stage}"));
        cluster.run(&["deploy"])
    };
    assert_refused(&with_plugin("none.wasm"), 4, &["there is no file `none.wasm`", "build it first"]);
    assert_refused(&cluster.run(&["deploy", "."]), 4, &["there is no file `./none.wasm`"]);
    assert_refused(&with_plugin("sha256:12"), 1, &["stage `a`: `sha256:12` is not a digest"]);
    let unknown = format!("sha256:{}", "0".repeat(64));
    assert_refused(&with_plugin(&unknown), 1, &["stage `a`", &unknown, "is not stored; give the path of its file"]);
    assert_eq!(cluster.ok(&["status", "--json"]).trim(), "[]");
}

#[test]
fn a_version_with_other_content_is_refused_and_the_chain_goes_on() {
    let cluster = Cluster::start();
    let manifest = |rest: &str| {
        let stage = format!("[[stage]]\nname = \"echo\"\nplugin = \"{}\"\n{rest}\n", plugin("probe"));
        format!("name = \"same\"\nversion = \"1.0\"\n{stage}")
    };
    cluster.deploy(&manifest(""));
    cluster.file("other.toml", manifest("concurrency = 7"));
    let run = cluster.run(&["deploy", "other.toml"]);
    assert_refused(&run, 1, &["chain `same` already has a version 1.0", "write a new version into the manifest"]);
    let status = cluster.status("same");
    assert_eq!((&status["revision"], &status["version"]), (&1.into(), &"1.0".into()));
    assert_eq!(cluster.deploy(&manifest("")), "same 1.0 is unchanged (r1)\n");
    let _node = cluster.node("a");
    cluster.ok(&["feed", "same", "1"]);
    assert_eq!(cluster.pull_all("same"), [1]);
}
