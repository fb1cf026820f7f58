use tempfile::TempDir;

use super::server::{Reply, Server, ok, response};
use super::stage::{Setup, Stage};
use crate::calls::failure::{CallFailure, FailureKind};
use crate::calls::http::response::HttpResponse;
use crate::calls::message::Response;

const VALUE: &str = "s3cret-of-the-operator";

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("token"), format!("{VALUE}\n")).expect("written");
    std::fs::write(folder.path().join("lines"), "a\r\nX-Evil: b\n").expect("written");
    folder
}

/// Sends a request whose header is a secret.
async fn send(stage: &Stage, url: &str, name: &str, key: &str, text: &str) -> Result<HttpResponse, CallFailure> {
    let mut secret = Response::new();
    secret.text("secret", name);
    if !key.is_empty() {
        secret.text(key, text);
    }
    // A list of one pair, whose value is the map.
    let pair = [&b"\x81\x82\x6dAuthorization"[..], &secret.finish()].concat();
    stage.send_raw(url, "headers", &pair).await
}

#[tokio::test]
async fn a_secret_is_filled_in_for_its_origin_alone() {
    let folder = folder();
    let server = Server::start(|_| ok("")).await;
    let other = Server::start(|_| ok("")).await;
    let own = format!("http://a.test:{}", server.port());
    let stage = || Setup { secrets: Some(folder.path()), ..Setup::default() }.stage(&["http://*"]);
    let stage = stage().with_secret("token", &own).with_secret("lines", &own).with_secret("none", &own);
    let url = format!("{own}/v1?a=b");
    send(&stage, &url, "token", "prefix", "Bearer ").await.expect("sent");
    assert!(server.requests()[0].contains(&format!("authorization: Bearer {VALUE}\r\n")));
    send(&stage, &url, "token", "basic", "ada").await.expect("sent");
    assert!(server.requests()[1].contains("authorization: Basic YWRhOnMzY3JldC1vZi10aGUtb3BlcmF0b3I=\r\n"));
    for url in [
        format!("http://a.test:{}/", other.port()),
        format!("http://b.test:{}/", server.port()),
        format!("http://x.a.test:{}/", server.port()),
    ] {
        let failure = send(&stage, &url, "token", "", "").await.expect_err("another origin");
        assert_eq!(failure.kind, FailureKind::Denied);
        assert!(failure.message.contains(&format!("the secret `token` is for `{own}` alone")), "{failure}");
    }
    let failure = send(&stage, &url, "other", "", "").await.expect_err("not granted");
    assert!(failure.message.contains("is not granted the secret `other`"), "{failure}");
    for (name, told) in [("lines", "has a line break"), ("none", "has no value on this node")] {
        let failure = send(&stage, &url, name, "", "").await.expect_err(name);
        assert!(failure.kind == FailureKind::Unavailable && failure.message.contains(told), "{failure}");
    }
    for name in ["../token", "", "TOKEN", "token\n"] {
        assert_eq!(send(&stage, &url, name, "", "").await.expect_err(name).kind, FailureKind::Invalid);
    }
    assert_eq!((server.requests().len(), other.connections()), (2, 0));
}

#[tokio::test]
async fn a_redirect_takes_no_secret_along() {
    let folder = folder();
    let other = Server::start(|_| ok("")).await;
    let to = format!("Location: http://b.test:{}/\r\n", other.port());
    let server = Server::start(move |request| match request.split(' ').nth(1) {
        Some("/own") => Reply::Keep(response("307 Elsewhere", "Location: /there\r\n", b"")),
        Some("/there") => ok(""),
        _ => Reply::Keep(response("307 Elsewhere", &to, b"")),
    })
    .await;
    let own = format!("http://a.test:{}", server.port());
    let setup = || Setup { secrets: Some(folder.path()), ..Setup::default() };
    for way in [&own, "reveal"] {
        let stage = setup().stage(&["http://*"]).with_secret("token", way);
        send(&stage, &format!("{own}/out"), "token", "", "").await.expect("followed");
        send(&stage, &format!("{own}/own"), "token", "", "").await.expect("followed");
        assert!(server.requests().pop().is_some_and(|request| request.contains(VALUE)), "of its own origin");
    }
    assert_eq!(other.requests().len(), 2);
    assert!(!other.requests().concat().contains(VALUE));
}

#[tokio::test]
async fn a_secret_that_a_server_echoes_is_hidden_from_records() {
    let folder = folder();
    let server = Server::start(|request| ok(&format!("you said: {request}"))).await;
    let own = format!("http://a.test:{}", server.port());
    let stage =
        Setup { secrets: Some(folder.path()), ..Setup::default() }.stage(&["http://*"]).with_secret("token", &own);
    let response = send(&stage, &own, "token", "prefix", "Bearer ").await.expect("an echo");
    let encoded = response.encode();
    assert!(String::from_utf8_lossy(&encoded).contains(VALUE), "the task sees what comes");
    let masked = String::from_utf8_lossy(&stage.mask.apply(&encoded)).into_owned();
    assert!(
        !masked.contains(VALUE) && masked.contains(&format!("authorization: Bearer {}\r\n", "*".repeat(VALUE.len()))),
        "{masked}"
    );
    assert!(crate::calls::message::Request::read(&stage.mask.apply(&encoded)).is_ok(), "a record stays CBOR");
    assert!(!format!("{:?}", stage.mask).contains(VALUE));
}
