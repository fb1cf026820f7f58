use std::io::Write as _;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use support::eventually;

use super::server::{Reply, Server, response};
use super::stage::{ROOM, Stage};
use crate::calls::failure::FailureKind;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    response("200 OK", "Content-Encoding: gzip\r\n", &gzip(bytes))
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const CHUNKED_GZIP: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n";

fn room() -> usize {
    usize::try_from(ROOM).expect("small")
}

/// Starts a server that gives each path its reply.
async fn serve(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> (Server, Stage) {
    let server = Server::start(move |request| reply(request.split(['/', ' ']).nth(2).expect("a path"))).await;
    (server, Stage::new(&["http://*"]))
}

#[tokio::test]
async fn a_body_is_bounded_however_it_comes() {
    let (server, stage) = serve(|path| match path {
        "length" => Reply::Keep(response("200 OK", "", &vec![b'a'; room() + 1])),
        "announced" => Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000000\r\n\r\n".to_vec()),
        "chunks" => Reply::Endless(CHUNKED.to_vec(), chunk(&[b'a'; 5_000])),
        "closed" => Reply::Endless(b"HTTP/1.0 200 OK\r\n\r\n".to_vec(), vec![b'a'; 5_000]),
        "bomb" => Reply::Keep(gzipped(&vec![0; 64 << 20])),
        "bombs" => Reply::Endless(CHUNKED_GZIP.to_vec(), chunk(&gzip(&vec![0; 64 << 10]))),
        // A member of no bytes, and blocks of none: however many come, the body stays empty.
        "nothing" => {
            Reply::Endless([CHUNKED_GZIP, &chunk(&gzip(b"")[..10])].concat(), chunk(&b"\0\0\0\xff\xff".repeat(1_000)))
        }
        "tiny" => Reply::Endless(CHUNKED.to_vec(), chunk(&[b'a'; 50]).repeat(100)),
        _ => Reply::Keep(response("200 OK", "", &vec![b'a'; room()])),
    })
    .await;
    let at = |path: &str| format!("http://a.test:{}/{path}", server.port());
    for path in ["length", "announced", "chunks", "closed", "bomb", "bombs", "nothing", "tiny"] {
        stage.expect_failure(&at(path), FailureKind::TooLarge, "has a body of more than 1048576 bytes").await;
    }
    assert!(stage.received.swap(0, Relaxed) < 8 * (ROOM + (256 << 10)), "what came is counted, and bounded");
    assert_eq!(stage.get(&at("fits")).await.expect("all of it").body.len(), room());
    assert_eq!(stage.received.load(Relaxed), ROOM);
}

#[tokio::test]
async fn gzip_is_decompressed_and_nothing_else() {
    let plain = "a line of text\n".repeat(20_000);
    let members = [gzip(b"one, "), gzip(b"two")].concat();
    let body = gzipped(plain.as_bytes());
    let (server, stage) = serve(move |path| match path {
        "gzip" => Reply::Keep(body.clone()),
        "members" => Reply::Keep(response("200 OK", "Content-Encoding: X-GZIP\r\n", &members)),
        "empty" => Reply::Keep(response("200 OK", "Content-Encoding: gzip\r\n", b"")),
        "none" => Reply::Keep(b"HTTP/1.1 204 No Content\r\nContent-Encoding: gzip\r\n\r\n".to_vec()),
        encoding => Reply::Keep(response("200 OK", &format!("Content-Encoding: {encoding}\r\n"), b"(\xb5/\xfd bomb")),
    })
    .await;
    let at = |path: &str| format!("http://a.test:{}/{path}", server.port());
    let gzip = stage.get(&at("gzip")).await.expect("text");
    assert_eq!(gzip.body, plain.as_bytes());
    assert!(!gzip.headers.contains_key("content-encoding") && !gzip.headers.contains_key("content-length"));
    assert!(server.requests()[0].contains("accept-encoding: gzip\r\n"));
    assert_eq!(&stage.get(&at("members")).await.expect("text").body[..], b"one, two");
    for path in ["empty", "none"] {
        assert!(stage.get(&at(path)).await.expect("nothing").body.is_empty(), "{path}");
    }
    // A bomb of another kind reaches the task as the bytes that came: nobody has asked for it, and nobody lights it.
    for encoding in ["br", "zstd", "deflate", "gzip,gzip", "unknown"] {
        let raw = stage.get(&at(encoding)).await.expect("as it came");
        assert_eq!(
            (&raw.body[..], raw.headers["content-encoding"].as_bytes()),
            (&b"(\xb5/\xfd bomb"[..], encoding.as_bytes())
        );
    }
    let part = stage
        .send(&at("part"), |request| request.pairs("headers", [("Range", b"bytes=0-1".as_slice())].into_iter()))
        .await;
    assert!(part.is_ok());
    assert!(server.requests().pop().is_some_and(|request| request.contains("accept-encoding: identity\r\n")));
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_a_failure() {
    let cut = |bytes: &[u8], len: usize| bytes[..len].to_vec();
    let whole = gzip(&b"text ".repeat(1_000));
    let (server, stage) = serve(move |path| match path {
        "length" => Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".to_vec()),
        "chunks" => Reply::Close([CHUNKED, &chunk(b"abc")].concat()),
        "chunk" => Reply::Close([CHUNKED, b"a\r\nabc"].concat()),
        "size" => Reply::Close([CHUNKED, b"xyz\r\nabc\r\n0\r\n\r\n"].concat()),
        "huge" => Reply::Close([CHUNKED, b"ffffffffffffffffff\r\nabc\r\n0\r\n\r\n"].concat()),
        "head" => Reply::Keep(response("200 OK", "Content-Encoding: gzip\r\n", &cut(&whole, 8))),
        "middle" => Reply::Keep(response("200 OK", "Content-Encoding: gzip\r\n", &cut(&whole, whole.len() / 2))),
        "sum" => Reply::Keep(response("200 OK", "Content-Encoding: gzip\r\n", &cut(&whole, whole.len() - 1))),
        "wrong" => Reply::Keep(response(
            "200 OK",
            "Content-Encoding: gzip\r\n",
            &[&cut(&whole, whole.len() - 1)[..], b"\xff"].concat(),
        )),
        // Members of no bytes.
        "members" => Reply::Endless(CHUNKED_GZIP.to_vec(), chunk(&gzip(b"").repeat(100))),
        _ => Reply::Keep(response("200 OK", "Content-Encoding: gzip\r\n", b"this is not compressed")),
    })
    .await;
    for path in ["length", "chunks", "chunk", "size", "huge", "head", "middle", "sum", "wrong", "members", "plain"] {
        let url = format!("http://a.test:{}/{path}", server.port());
        stage.expect_failure(&url, FailureKind::Unavailable, "cannot be read").await;
    }
}

#[tokio::test]
async fn a_server_that_drips_or_is_silent_ends_with_the_time_of_the_request() {
    let (server, stage) = serve(|path| match path {
        "silent" => Reply::Hang(Vec::new()),
        "head" => Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-".to_vec()),
        _ => Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\na".to_vec()),
    })
    .await;
    let at = |path: &str| format!("http://a.test:{}/{path}", server.port());
    for path in ["silent", "head", "body"] {
        let failure = stage.send(&at(path), |request| request.number("timeout_ms", 50)).await.expect_err(path);
        assert_eq!((failure.kind, failure.is_transient), (FailureKind::Timeout, true));
        assert_eq!(failure.message, "no response within 50 ms (`timeout_ms` of the request)");
    }
    // The end of an item is that of its requests.
    let item = tokio::time::timeout(Duration::from_millis(50), stage.get(&at("body"))).await;
    assert!(item.is_err());
    tokio::task::spawn_blocking(move || {
        eventually("the connections are closed", || (server.closed() == server.connections()).then_some(()));
    })
    .await
    .expect("closed");
}
