use super::server::{Reply, Server, ok, response};
use super::stage::Stage;
use crate::calls::failure::FailureKind;

#[tokio::test]
async fn what_is_not_http_is_a_failure() {
    let server = Server::start(|request| {
        Reply::Close(match request.split(['/', ' ']).nth(2).expect("a path") {
            "nothing" => Vec::new(),
            "garbage" => b"\x00\x01\x02\xff".repeat(100),
            "ssh" => b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
            "old" => b"<html>HTTP 0.9</html>".to_vec(),
            "version" => b"HTTP/3.0 200 OK\r\n\r\n".to_vec(),
            "status" => b"HTTP/1.1 OK\r\n\r\n".to_vec(),
            "number" => b"HTTP/1.1 99999 OK\r\n\r\n".to_vec(),
            "head" => b"HTTP/1.1 200 OK\r\nA: b\r\n".to_vec(),
            "colon" => b"HTTP/1.1 200 OK\r\nA b\r\n\r\n".to_vec(),
            "space" => b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n".to_vec(),
            "fold" => b"HTTP/1.1 200 OK\r\nA: b\r\n  c\r\n\r\n".to_vec(),
            "nul" => b"HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n".to_vec(),
            "lengths" => b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_vec(),
            "length" => b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_vec(),
            "large" => b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n".to_vec(),
            "protocol" => b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n".to_vec(),
            "extension" => {
                [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", &b"a".repeat(1 << 20)[..]].concat()
            }
            "trailers" => {
                [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", &b"a: b\r\n".repeat(1 << 18)[..]]
                    .concat()
            }
            path => panic!("{path}"),
        })
    })
    .await;
    let stage = Stage::new(&["http://*"]);
    for path in [
        "nothing",
        "garbage",
        "ssh",
        "old",
        "version",
        "status",
        "number",
        "head",
        "colon",
        "space",
        "fold",
        "nul",
        "lengths",
        "length",
        "large",
        "protocol",
        "extension",
        "trailers",
    ] {
        let failure = stage.get(&format!("http://a.test:{}/{path}", server.port())).await.expect_err(path);
        assert_eq!(failure.kind, FailureKind::Unavailable, "{path}: {failure}");
        assert!(failure.message.len() < 200, "{path}: {failure}");
    }
}

#[tokio::test]
async fn a_flood_before_the_body_is_bounded() {
    let many = (0..101).map(|number| format!("x-{number}: a\r\n")).collect::<String>();
    let server = Server::start(move |request| match request.split(['/', ' ']).nth(2).expect("a path") {
        "headers" => Reply::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x-header: value\r\n".to_vec()),
        "header" => Reply::Endless(b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'a'; 4_096]),
        "line" => Reply::Endless(b"HTTP/1.1 200 ".to_vec(), vec![b'a'; 4_096]),
        "many" => Reply::Keep(response("200 OK", &many, b"")),
        "extension" => {
            Reply::Endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;".to_vec(), vec![b'a'; 4_096])
        }
        "trailers" => {
            Reply::Endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n".to_vec(), b"a: b\r\n".to_vec())
        }
        _ => Reply::Endless(Vec::new(), b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".to_vec()),
    })
    .await;
    let stage = Stage::new(&["http://*"]);
    let at = |path: &str| format!("http://a.test:{}/{path}", server.port());
    for path in ["headers", "header", "line", "many", "extension", "trailers"] {
        let failure = stage.get(&at(path)).await.expect_err(path);
        assert_eq!(failure.kind, FailureKind::Unavailable, "{path}: {failure}");
    }
    // Announcements without end take no memory, and end with the time of the request.
    let hints = stage.send(&at("hints"), |request| request.number("timeout_ms", 200)).await.expect_err("no end");
    assert_eq!(hints.kind, FailureKind::Timeout);
}

#[tokio::test]
async fn a_response_cannot_stand_for_that_of_another_request() {
    let poison = response("200 OK", "X-Poison: 1\r\n", b"poison");
    let twice = [response("200 OK", "", b"own"), poison.clone()].concat();
    // The length and the encoding disagree: the encoding counts (RFC 9112, 6.3), and what follows belongs to nobody.
    let both = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nown\r\n0\r\n\r\n",
        &poison[..],
    ]
    .concat();
    // A response without a body has one.
    let none = [b"HTTP/1.1 204 No Content\r\nContent-Length: 300\r\n\r\n", &poison[..]].concat();
    let server = Server::start(move |request| {
        Reply::Keep(match request.split(['/', ' ']).nth(2).expect("a path") {
            "twice" => twice.clone(),
            "both" => both.clone(),
            "none" => none.clone(),
            _ => response("200 OK", "", b"own"),
        })
    })
    .await;
    let stage = Stage::new(&["http://*"]);
    for path in ["twice", "both", "none"] {
        for path in [path, "next", "next"] {
            // A connection with bytes of nobody is closed; a request that meets it may fail.
            if let Ok(response) = stage.get(&format!("http://a.test:{}/{path}", server.port())).await {
                assert!(!response.headers.contains_key("x-poison") && &response.body[..] != b"poison", "{path}");
            }
        }
    }
    let head =
        stage.send(&format!("http://a.test:{}/head", server.port()), |request| request.text("method", "HEAD")).await;
    assert!(head.is_ok_and(|response| response.body.is_empty()));
    assert_eq!(&stage.get(&format!("http://a.test:{}/next", server.port())).await.expect("its own").body[..], b"own");
}

#[tokio::test]
async fn nothing_of_a_task_begins_another_request() {
    let server = Server::start(|_| ok("")).await;
    let stage = Stage::new(&["http://*"]);
    let at = |path: &str| format!("http://a.test:{}/{path}", server.port());
    for path in ["\r\n\r\nGET /x", "a b", "a HTTP/1.1\r\nX: y\r\n", "a\tb", "a\0b", "?a b", "?\r\nX: y"] {
        stage.expect_failure(&at(path), FailureKind::Invalid, "white space or a control character").await;
    }
    for name in
        ["a\r\nX", "a b", "a:", "", "Content-Length", "content_length", "Transfer-Encoding", "Host", "Connection"]
    {
        let sent = stage.send(&at(""), |request| request.pairs("headers", [(name, b"1".as_slice())].into_iter())).await;
        let kind = sent.expect_err(name).kind;
        assert!(matches!(kind, FailureKind::Invalid | FailureKind::Denied), "{name}");
    }
    for value in ["a\r\nX-Evil: y", "a\n", "a\0", "a\r\n b"] {
        let sent = stage.send(&at(""), |request| request.pairs("headers", [("x", value.as_bytes())].into_iter())).await;
        assert_eq!(sent.expect_err(value).kind, FailureKind::Invalid);
    }
    assert_eq!(server.connections(), 0);
    // What is allowed arrives as one request, whatever it says.
    let body = "GET /evil HTTP/1.1\r\nHost: evil\r\n\r\n";
    stage
        .send(&at("a%0d%0aX-Evil:%20y?b=%0d%0a#%0d"), |request| {
            request.text("method", "GET");
            request.bytes("body", body.as_bytes());
        })
        .await
        .expect("sent");
    stage.post(&at(""), "").await.expect("sent");
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[0].starts_with("GET /a%0d%0aX-Evil:%20y?b=%0d%0a HTTP/1.1\r\n"), "{}", requests[0]);
    assert!(requests[0].ends_with(body) && requests[0].contains(&format!("content-length: {}\r\n", body.len())));
    assert!(requests[1].contains("content-length: 0\r\n") && !requests[1].contains("transfer-encoding"));
}
