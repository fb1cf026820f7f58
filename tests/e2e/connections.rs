//! How commands reach their server: TLS, logins, contexts of the `nats` program, domains.

use std::io::Write;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use support::{Cluster, Process, Run, Server, assert_refused, eventually, probe_chain};

/// A user's nkey: the seed, and the public key that a server knows it by.
const NKEY: (&str, &str) = (
    "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY",
    "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4",
);

/// Writes an authority's certificate, and with it those of a server and of a client, into a folder.
fn write_certificates(folder: &std::path::Path) {
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(folder.join("ca.pem"), authority.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(authority, key);
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer);
        std::fs::write(folder.join(format!("{name}.pem")), certificate.unwrap().pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// The command with variables in its environment.
fn run(cluster: &Cluster, variables: &[(&str, &str)], arguments: &[&str]) -> Run {
    let mut command: Command = cluster.command(arguments);
    command.env("XDG_CONFIG_HOME", cluster.path("configuration")).envs(variables.iter().copied());
    Run::of(command, b"")
}

#[test]
fn a_server_with_its_own_authority_and_logins_of_each_kind_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    write_certificates(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (ca, certificate, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
    let users = format!("users: [ {{ user: ada, password: secret }}, {{ nkey: {} }} ]", NKEY.1);
    let tls = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{ca}\", verify: true }}",
        path("server.pem"),
        path("server.key")
    );
    let cluster = Cluster::with_server(Server::start(&format!("authorization {{ {users} }}\n{tls}")));
    let seed = cluster.file("seed", format!("{}\n", NKEY.0)).display().to_string();
    let trusted = ["--tlsca", &ca, "--tlscert", &certificate, "--tlskey", &key];
    let with = |more: &[&str]| run(&cluster, &[], &[&["nodes"], &trusted[..], more].concat());

    for login in [&["--user", "ada", "--password", "secret"][..], &["--nkey", &seed]] {
        with(login).failed(0, "no node answers");
    }
    let variables = [("PCLUSTER_USER", "ada"), ("PCLUSTER_PASSWORD", "secret")];
    run(&cluster, &variables, &[&["nodes"], &trusted[..]].concat()).failed(0, "no node answers");
    assert_refused(&with(&["--user", "ada", "--password", "guess"]), 5, &["refuses the login"]);
    assert_refused(&with(&["--nkey", "none"]), 5, &["cannot read the seed of the nkey, `none`"]);
    assert_refused(&run(&cluster, &variables, &["nodes"]), 5, &["--tlsca FILE"]);

    let url = cluster.server.url.replacen("nats://", "tls://", 1);
    let context = serde_json::json!({
        "description": "", "url": url, "nkey": seed, "ca": ca, "cert": certificate, "key": key, "token": "", "nsc": "",
    });
    std::fs::create_dir_all(cluster.path("configuration/nats/context")).unwrap();
    cluster.file("configuration/nats/context/secure.json", context.to_string());
    run(&cluster, &[], &["nodes", "--context", "secure"]).failed(0, "no node answers");
    let missing = run(&cluster, &[], &["nodes", "--context", "secur"]);
    assert_refused(&missing, 2, &["there is no context `secur`", "did you mean `secure`?"]);
    let shown = run(
        &cluster,
        &[("PCLUSTER_NATS", "nats://ada:s3cr3t@host")],
        &["config", "--password", "hidden", "--user", "a"],
    );
    let shown = shown.succeeded();
    assert!(!shown.contains("s3cr3t") && !shown.contains("hidden") && shown.contains("***"), "{shown}");
    assert_refused(&run(&cluster, &[], &["nodes", "--nats", "wss://host"]), 2, &["WebSocket is not supported"]);
}

#[test]
fn a_chain_runs_in_a_domain_that_is_named() {
    let configuration = "port: 4222\njetstream { store_dir: \"./.nats\", domain: hub }";
    let cluster = Cluster::with_server(Server::with_configuration(configuration));
    let hub = |arguments: &[&str]| run(&cluster, &[("PCLUSTER_DOMAIN", "hub")], arguments);
    let file = cluster.file("chain.toml", probe_chain("far", &["echo"], "")).display().to_string();
    hub(&["deploy", &file]).succeeded();
    hub(&["feed", "far", "1", "2"]).succeeded();
    hub(&["node", "--name", "a", "--until-empty"]).succeeded();
    assert_eq!(hub(&["pull", "far", "--all"]).succeeded().lines().count(), 2);
    assert_refused(&run(&cluster, &[("PCLUSTER_DOMAIN", "elsewhere")], &["status", "far"]), 5, &["domain `elsewhere`"]);
}

#[test]
fn a_chain_that_another_domain_has_over_a_leaf_node_is_refused() {
    let hub = "port: 4222\nserver_name: hub\njetstream { store_dir: \"./.nats\", domain: hub }\n\
               leafnodes { listen: \"127.0.0.1:-1\" }";
    let hub = Cluster::with_server(Server::with_configuration(hub));
    let address = hub.server.leafnodes();
    let configured = |denied: &str| {
        format!(
            "port: 4222\nserver_name: leaf\njetstream {{ store_dir: \"./.nats\", domain: leaf }}\n\
             leafnodes {{ remotes: [ {{ url: \"nats://{address}\" {denied} }} ] }}"
        )
    };
    let closed = configured(", deny_imports: \"pcluster.>\", deny_exports: \"pcluster.>\"");
    let await_hub = |leaf: &Cluster| {
        eventually("the hub is reached", || {
            (run(leaf, &[("PCLUSTER_DOMAIN", "hub")], &["status", "far"]).code == Some(0)).then_some(())
        });
    };
    let of = |domain: &str| {
        let said = [&format!("`PCLUSTER_far` of the domain `{domain}`"), &format!("with `--domain {domain}`")];
        let said = said.map(String::clone);
        [said.as_slice(), &["deny_imports", "deny_exports", "`pcluster.far.in`"].map(str::to_owned)].concat()
    };
    let assert_says = |run: &Run, domain: &str| {
        let says = of(domain);
        assert_refused(run, 1, &says.iter().map(String::as_str).collect::<Vec<_>>());
    };
    let unfinished = |cluster: &Cluster| {
        let stage = &cluster.status("far")["revisions"][0]["stages"][0];
        stage["queued_messages"].as_u64().unwrap()
    };
    hub.deploy(&probe_chain("far", &["echo"], ""));

    let mut leaf = Cluster::with_server(Server::with_configuration(&configured("")));
    await_hub(&leaf);
    let file = leaf.file("far.toml", probe_chain("far", &["echo"], "")).display().to_string();
    assert_says(&leaf.run(&["deploy", &file]), "hub");
    assert_refused(&leaf.run(&["status", "far"]), 4, &["far"]);
    leaf.deploy(&probe_chain("near", &["echo"], ""));
    assert_eq!(unfinished(&hub), 0, "looking must store nothing");

    leaf.server.restart_with(&closed);
    await_hub(&leaf);
    leaf.ok(&["deploy", &file]);
    leaf.ok(&["feed", "far", "1"]);
    assert_eq!((unfinished(&leaf), unfinished(&hub)), (1, 0));

    // One that feeds for long, and is cut off meanwhile.
    let (mut feeding, mut input) = Process::start_fed(leaf.command(&["feed", "far", "-f", "-", "--format", "ndjson"]));
    input.write_all(b"2\n").unwrap();
    eventually("an item is fed", || (unfinished(&leaf) == 2).then_some(()));
    leaf.server.restart_with(&configured(""));
    await_hub(&leaf);
    input.write_all(b"3\n").unwrap();
    drop(input);
    assert_eq!(feeding.ended(), Some(1), "{}", feeding.stderr());
    assert!(feeding.stderr().contains("of the domain `hub`"), "{}", feeding.stderr());
    for (cluster, other) in [(&leaf, "hub"), (&hub, "leaf")] {
        assert_says(&cluster.run(&["feed", "far", "4"]), other);
    }
    assert_eq!((unfinished(&leaf), unfinished(&hub)), (2, 0));
}
