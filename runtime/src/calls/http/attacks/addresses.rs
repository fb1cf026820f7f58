use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::server::{Server, ok};
use super::stage::{Names, Setup, Stage, addresses};
use crate::calls::failure::FailureKind;
use crate::calls::grant::{Network, Networks};
use crate::calls::http::node::HttpNode;

#[tokio::test]
async fn no_spelling_of_an_address_reaches_this_machine_or_its_network() {
    let server = Server::start(|_| ok("")).await;
    let stage = Stage::new(&["http://*"]);
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0X7F.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "１２７.０.０.１",
        "127。0。0。1",
        "%31%32%37.0.0.1",
        "127.255.255.254",
        "0",
        "0.0.0.0",
        "[::]",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[2002:7f00:1::]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b:1::127.0.0.1]",
        "[2001:0:808:808::80ff:fffe]",
        "[::ffff:0:127.0.0.1]",
        "[fe80::1]",
        "[fc00::1]",
        "[fec0::1]",
        "[ff02::1]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "0xa9fea9fe",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "[fd00:ec2::254]",
        "198.18.0.1",
        "192.0.2.1",
        "224.0.0.1",
        "255.255.255.255",
    ] {
        stage.expect_denied(&format!("http://{host}:{}/", server.port())).await;
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn no_name_leads_into_a_network_that_is_not_open_to_it() {
    let server = Server::start(|_| ok("")).await;
    let resolver = Names(|host: &str| match host {
        "api.internal" | "public.example" | "localhost" => addresses(&["127.0.0.1"]),
        "six.example" => addresses(&["::1", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"]),
        "metadata.example" => addresses(&["169.254.169.254"]),
        "many.example" => addresses(&["10.0.0.1"; 100]),
        _ => Vec::new(),
    });
    let setup =
        Setup { resolver: Arc::new(resolver), networks: &[("api.internal", "127.0.0.0/8")], ..Setup::default() };
    let stage = setup.stage(&["http://*"]);
    let url = |host: &str| format!("http://{host}:{}/", server.port());
    // The node's own ports and its NATS server are such targets too.
    for host in
        ["public.example", "localhost", "LOCALHOST.", "six.example", "metadata.example", "many.example", "127.0.0.1"]
    {
        let failure = stage.expect_denied(&url(host)).await;
        assert!(failure.message.contains("`networks` in [allow]"), "{failure}");
        assert!(!failure.message.contains("169.254"), "what a name leads to is not for tasks: {failure}");
    }
    assert_eq!(server.connections(), 0);
    assert_eq!(stage.get(&url("API.Internal.")).await.expect("open").status, 200);
    stage.expect_failure(&url("none.example"), FailureKind::Unavailable, "cannot be resolved").await;
}

#[tokio::test]
async fn the_address_that_was_checked_is_dialed_and_no_other() {
    let open: Ipv4Addr = "127.0.0.2".parse().expect("an address");
    let (server, inner) = Server::start_pair(open.into(), Ipv4Addr::LOCALHOST.into()).await;
    let looked_up = Arc::new(AtomicUsize::new(0));
    let count = looked_up.clone();
    // Each second answer is another address: whoever looks up twice dials what was not checked.
    let resolver = Names(move |_: &str| {
        let is_first = count.fetch_add(1, Relaxed).is_multiple_of(2);
        addresses(if is_first { &["127.0.0.2"] } else { &["127.0.0.1"] })
    });
    let setup = Setup { resolver: Arc::new(resolver), networks: &[("a.test", "127.0.0.2")], ..Setup::default() };
    let node = |setup: &Setup<'_>| HttpNode::new(None, None, setup.resolver.clone()).expect("a node");
    let url = format!("http://a.test:{}/", server.port());
    for _ in 0..5 {
        let networks = Network::parse("a.test", "127.0.0.2").expect("a network");
        let networks = Networks::new(vec![networks]);
        let stage = Stage::of(node(&setup), &networks, None, &["http://*"]);
        assert_eq!(&stage.get(&url).await.expect("the open address").body[..], b"one");
        let other = Stage::of(node(&setup), &networks, None, &["http://*"]);
        other.expect_denied(&url).await;
    }
    assert_eq!((server.connections(), inner.connections(), looked_up.load(Relaxed)), (5, 0, 10));
}

#[tokio::test]
async fn of_several_addresses_only_open_ones_are_tried() {
    let open: Ipv4Addr = "127.0.0.2".parse().expect("an address");
    let (server, inner) = Server::start_pair(open.into(), Ipv4Addr::LOCALHOST.into()).await;
    let resolver = Names(|_: &str| addresses(&["127.0.0.1", "10.0.0.1", "::1", "127.0.0.2"]));
    let setup = Setup { resolver: Arc::new(resolver), networks: &[("a.test", "127.0.0.2")], ..Setup::default() };
    let stage = setup.stage(&["http://a.test:1", &format!("http://a.test:{}", server.port())]);
    assert_eq!(stage.get(&format!("http://a.test:{}/", server.port())).await.expect("the open address").status, 200);
    let closed = stage.get("http://a.test:1/").await.expect_err("closed");
    assert!(closed.message.contains("cannot connect to `a.test:1`") && closed.is_transient, "{closed}");
    assert_eq!((server.connections(), inner.connections()), (1, 0));
}

#[tokio::test]
async fn what_another_stage_was_granted_is_not_granted() {
    let server = Server::start(|_| ok("")).await;
    let port = server.port();
    let node = HttpNode::new(None, None, Setup::default().resolver).expect("a node");
    let networks = |host| Networks::new(vec![Network::parse(host, "127.0.0.1").expect("a network")]);
    let one = Stage::of(node.clone(), &networks("a.test"), None, &[&format!("http://a.test:{port}")]);
    let other = Stage::of(node, &networks("b.test"), None, &[&format!("http://b.test:{port}"), "http://*.c.test"]);
    assert!(one.get(&format!("http://a.test:{port}/")).await.is_ok());
    assert!(other.get(&format!("http://b.test:{port}/")).await.is_ok());
    let failure = other.expect_denied(&format!("http://a.test:{port}/")).await;
    assert!(failure.message.contains(&format!("http://a.test:{port}")), "{failure}");
    for host in ["b.test.", "c.test", "xb.test", "b.test.evil.test"] {
        let denied = other.get(&format!("http://{host}:{}/", if host == "b.test." { port + 1 } else { port })).await;
        assert!(denied.is_err_and(|failure| failure.kind == FailureKind::Denied), "{host}");
    }
    for url in [format!("https://b.test:{port}/"), format!("http://ada@b.test:{port}/")] {
        assert!(other.get(&url).await.is_err(), "{url}");
    }
    assert_eq!((server.requests().len(), server.connections()), (2, 2), "stages share no connection");
}

/// The name of the variable that tells the test that it runs in an environment with proxies.
const PROXIED: &str = "PCLUSTER_TEST_IN_PROXIED_ENVIRONMENT";

#[tokio::test]
async fn proxies_of_the_environment_are_ignored() {
    if std::env::var_os(PROXIED).is_some() {
        let server = Server::start(|_| ok("")).await;
        let stage = Stage::new(&["http://*"]);
        assert!(stage.get(&format!("http://a.test:{}/", server.port())).await.is_ok());
        stage.expect_denied(&format!("http://127.0.0.1:{}/", server.port())).await;
        return;
    }
    let proxy = Server::start(|_| ok("of the proxy")).await;
    let mut command = Command::new(std::env::current_exe().expect("a test"));
    command
        .args(["--exact", "calls::http::attacks::addresses::proxies_of_the_environment_are_ignored"])
        .env(PROXIED, "1");
    for variable in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env(variable, format!("http://127.0.0.1:{}", proxy.port()));
    }
    let run = tokio::task::spawn_blocking(move || command.output().expect("a run")).await.expect("its end");
    let output = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && output.contains("1 passed"), "{output}");
    assert_eq!(proxy.connections(), 0);
}
