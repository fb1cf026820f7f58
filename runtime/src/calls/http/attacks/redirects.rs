use super::server::{Reply, Server, ok, response};
use super::stage::{Names, Setup, Stage, addresses};
use crate::calls::failure::FailureKind;
use std::sync::Arc;

fn redirect(status: &str, location: &str) -> Reply {
    Reply::Keep(response(status, &format!("Location: {location}\r\n"), b"elsewhere"))
}

#[tokio::test]
async fn no_redirect_leads_to_what_is_not_granted_or_not_public() {
    let inner = Server::start(|_| ok("inner")).await;
    let port = inner.port();
    let server = Server::start(|request| {
        let path = request.split(' ').nth(1).expect("a path");
        redirect("302 Found", path.strip_prefix('/').unwrap_or(path))
    })
    .await;
    let resolver = Names(|host: &str| match host {
        "a.test" | "rebound.example" => addresses(&["127.0.0.1"]),
        _ => Vec::new(),
    });
    let setup = || Setup {
        resolver: Arc::new(resolver_of(&resolver)),
        networks: &[("a.test", "127.0.0.1")],
        ..Setup::default()
    };
    let all = setup().stage(&["http://*", "https://*"]);
    let at = |location: &str| format!("http://a.test:{}/{location}", server.port());
    for location in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0x7f.1:{port}/"),
        format!("//127.1:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("https://[64:ff9b::7f00:1]:{port}/"),
        format!("http://rebound.example:{port}/"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
    ] {
        all.expect_denied(&at(&location)).await;
    }
    let one = setup().stage(&[&format!("http://a.test:{}", server.port())]);
    for location in [format!("http://a.test:{port}/"), format!("http://b.test:{port}/"), "https://a.test/".to_owned()] {
        one.expect_denied(&at(&location)).await;
    }
    for location in ["ftp://a.test/", "file:///etc/passwd", "http://ada:pw@a.test/", "http://", "http://a.test:99999/"]
    {
        one.expect_failure(&at(location), FailureKind::Unavailable, "redirects to a malformed URL").await;
    }
    assert_eq!(inner.connections(), 0);
}

/// Returns the same names: the closure of a resolver that holds nothing.
fn resolver_of<F: Copy>(names: &Names<F>) -> Names<F> {
    Names(names.0)
}

#[tokio::test]
async fn a_granted_path_bounds_redirects_too() {
    let server = Server::start(|request| match request.split(' ').nth(1) {
        Some("/v1/out") => redirect("302 Found", "/admin"),
        Some("/v1/up") => redirect("302 Found", "../admin"),
        Some("/v1/dots") => redirect("302 Found", "/v1/%2e%2e/admin"),
        Some("/v1/slash") => redirect("302 Found", "/v1/..%2fadmin"),
        Some("/v1/in") => redirect("302 Found", "there"),
        _ => ok("there"),
    })
    .await;
    let at = |path: &str| format!("http://a.test:{}{path}", server.port());
    let stage = Stage::new(&[&at("/v1")]);
    for path in ["/v1/out", "/v1/up", "/v1/dots", "/v1/slash", "/v1/../admin", "/v10", "/"] {
        stage.expect_denied(&at(path)).await;
    }
    let response = stage.get(&at("/v1/in")).await.expect("within");
    assert_eq!((response.url, &response.body[..]), (at("/v1/there"), &b"there"[..]));
    assert!(!server.requests().iter().any(|request| request.contains("admin")));
}

#[tokio::test]
async fn redirects_are_counted() {
    let server = Server::start(|request| {
        let number: u32 = request.split(['/', ' ']).nth(2).and_then(|number| number.parse().ok()).unwrap_or_default();
        if number == 0 { ok("end") } else { redirect("307 Temporary Redirect", &format!("/{}", number - 1)) }
    })
    .await;
    let at = |number: u32| format!("http://a.test:{}/{number}", server.port());
    let stage = Stage::new(&["http://*"]);
    let response = stage.get(&at(5)).await.expect("five");
    assert_eq!((response.status, response.url), (200, at(0)));
    let failure = stage.get(&at(6)).await.expect_err("six");
    assert_eq!((failure.kind, failure.is_transient), (FailureKind::Unavailable, false));
    assert!(failure.message.contains("redirects again after 5 redirects"), "{failure}");
    let one = stage.send(&at(2), |request| request.number("redirects", 1)).await.expect_err("one");
    assert!(one.message.contains("redirects again after 1 redirects"), "{one}");
    let none = stage.send(&at(2), |request| request.number("redirects", 0)).await.expect("a response");
    assert_eq!((none.status, &none.body[..]), (307, &b"elsewhere"[..]));
    assert_eq!(server.connections(), 1, "the connections of redirects are used again");
}

#[tokio::test]
async fn bodies_of_redirects_are_not_read_without_end() {
    let target = Server::start(|_| ok("there")).await;
    let to = format!("HTTP/1.1 302 Found\r\nLocation: http://b.test:{}/\r\n", target.port());
    let server = Server::start(move |request| {
        let head = |rest: &str| [to.as_bytes(), rest.as_bytes()].concat();
        match request.split(' ').nth(1) {
            Some("/endless") => Reply::Endless(
                head("Transfer-Encoding: chunked\r\n\r\n"),
                b"1000\r\n".iter().copied().chain([b'a'; 4096]).chain(*b"\r\n").collect(),
            ),
            Some("/large") => Reply::Endless(head("Content-Length: 1000000000\r\n\r\n"), vec![b'a'; 4096]),
            Some("/slow") => Reply::Hang(head("Content-Length: 10\r\n\r\na")),
            _ => Reply::Hang(head("Transfer-Encoding: chunked\r\n\r\n")),
        }
    })
    .await;
    let stage = Stage::new(&["http://*"]);
    for path in ["endless", "large", "slow", "chunked"] {
        let response = stage.get(&format!("http://a.test:{}/{path}", server.port())).await.expect(path);
        assert_eq!(&response.body[..], b"there");
    }
}

#[tokio::test]
async fn credentials_and_bodies_go_only_where_they_may() {
    let other = Server::start(|_| ok("")).await;
    let port = other.port();
    let server = Server::start(move |request| {
        let status = request.split([' ', '/']).nth(2).expect("a status");
        redirect(&format!("{status} Elsewhere"), &format!("http://b.test:{port}/"))
    })
    .await;
    let stage = Stage::new(&["http://*"]);
    for status in [301, 302, 303, 307, 308] {
        let url = format!("http://a.test:{}/{status}", server.port());
        let response = stage.send(&url, |request| {
            request.text("method", "POST");
            request.bytes("body", b"of-task");
            let headers = [
                ("Authorization", b"Bearer of-task".as_slice()),
                ("Cookie", b"a=of-task"),
                ("X-Api-Key", b"of-task"),
                ("X-Plain", b"plain"),
            ];
            request.pairs("headers", headers.into_iter());
        });
        assert_eq!(response.await.expect("followed").status, 200);
        let first = server.requests().pop().expect("a request");
        assert_eq!(first.matches("of-task").count(), 4, "{first}");
        assert!(first.contains("idempotency-key: key-of-host\r\n"), "{first}");
        let second = other.requests().pop().expect("a request");
        assert!(second.contains("x-plain: plain") && second.contains(&format!("host: b.test:{port}\r\n")), "{second}");
        let keeps = status >= 307;
        assert_eq!(second.starts_with("POST"), keeps, "{second}");
        assert_eq!(second.matches("of-task").count(), usize::from(keeps), "only the body: {second}");
        assert_eq!(second.contains("idempotency-key"), keeps, "{second}");
    }
}
