use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::server::{Reply, Server, ok, response};
use super::stage::{Names, Setup, addresses};
use super::tls::Authority;
use crate::calls::failure::FailureKind;

fn names() -> Arc<Names<impl Fn(&str) -> Vec<std::net::IpAddr> + Send + Sync>> {
    Arc::new(Names(|host: &str| match host {
        "proxy.corp" | "private.example" => addresses(&["127.0.0.1"]),
        "mixed.example" => addresses(&["8.8.8.8", "10.0.0.1"]),
        "public.example" => addresses(&["8.8.8.8"]),
        _ => Vec::new(),
    }))
}

#[tokio::test]
async fn a_proxy_of_the_operator_is_the_only_way() {
    let proxy = Server::start(|_| ok("by proxy")).await;
    let setup = Setup {
        resolver: names(),
        networks: &[],
        proxy: Some(format!("http://proxy.corp:{}", proxy.port())),
        ..Setup::default()
    };
    let stage = setup.stage(&["http://*"]);
    for host in ["public.example", "unknown.example"] {
        let response = stage.get(&format!("http://{host}/a?b=c")).await.expect(host);
        assert_eq!(&response.body[..], b"by proxy");
        let request = proxy.requests().pop().expect("a request");
        assert!(request.starts_with(&format!("GET http://{host}/a?b=c HTTP/1.1\r\n")), "{request}");
        assert!(request.contains(&format!("host: {host}\r\n")), "{request}");
    }
    for host in ["private.example", "mixed.example", "127.0.0.1", "2130706433", "10.0.0.1", "[::1]", "169.254.169.254"]
    {
        stage.expect_denied(&format!("http://{host}/")).await;
    }
    assert_eq!(proxy.requests().len(), 2);
}

#[tokio::test]
async fn tls_goes_through_a_tunnel_to_the_server_itself() {
    let authority = Authority::new();
    let server = Server::start_tls(authority.server("public.example"), |_| ok("by tunnel")).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let to = server.address;
    let proxy = tokio::spawn(async move {
        let mut heads = Vec::new();
        for _ in 0..2 {
            let (mut client, _) = listener.accept().await.expect("a connection");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.expect("a byte"));
            }
            heads.push(String::from_utf8(head).expect("a head"));
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.expect("written");
            let mut server = TcpStream::connect(to).await.expect("the server");
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
        heads
    });
    let setup = || Setup {
        resolver: names(),
        networks: &[],
        proxy: Some(format!("http://127.0.0.1:{port}")),
        ca: None,
        secrets: None,
    };
    let stage = Setup { ca: Some(&authority.file()), ..setup() }.stage(&["https://*"]);
    assert_eq!(&stage.get("https://public.example/").await.expect("a response").body[..], b"by tunnel");
    drop(stage);
    // Who is at the end of the tunnel must be the server: the proxy cannot stand for it.
    setup().stage(&["https://*"]).expect_failure("https://public.example/", FailureKind::Unavailable, "no TLS").await;
    let heads = proxy.await.expect("heads");
    assert!(heads.iter().all(|head| head.starts_with("CONNECT public.example:443 HTTP/1.1\r\n")), "{heads:?}");
}

#[tokio::test]
async fn a_proxy_that_refuses_or_answers_garbage_is_a_failure() {
    for (reply, told) in [
        (response("403 Forbidden", "", b""), "it answers 403 Forbidden"),
        (response("302 Found", "Location: https://evil.example/\r\n", b""), "it answers 302 Found"),
        (b"garbage\r\n\r\n".to_vec(), "the proxy of the node does not connect to `public.example`"),
        (Vec::new(), "the proxy of the node does not connect to `public.example`"),
    ] {
        let proxy = Server::start(move |_| Reply::Close(reply.clone())).await;
        let setup = Setup {
            resolver: names(),
            networks: &[],
            proxy: Some(format!("http://127.0.0.1:{}", proxy.port())),
            ..Setup::default()
        };
        setup.stage(&["https://*"]).expect_failure("https://public.example/", FailureKind::Unavailable, told).await;
    }
    let setup =
        Setup { resolver: names(), networks: &[], proxy: Some("http://none.corp:1".to_owned()), ..Setup::default() };
    setup.stage(&["https://*"]).expect_failure("https://public.example/", FailureKind::Unavailable, "the proxy").await;
}
