use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::future::join_all;
use support::eventually;

use super::server::{Reply, Server, ok, response};
use super::stage::Stage;
use crate::calls::failure::FailureKind;

#[tokio::test]
async fn a_connection_that_the_server_closed_while_it_waited_costs_nothing() {
    // Each response seems to keep its connection, which then closes.
    let server = Arc::new(Server::start(|_| Reply::Close(response("200 OK", "", b""))).await);
    let stage = Stage::new(&["http://*"]);
    for number in 0..20 {
        let response = stage.post(&format!("http://a.test:{}/", server.port()), &format!("body-{number}")).await;
        assert_eq!(response.expect("a fresh connection").status, 200);
        let closing = server.clone();
        tokio::task::spawn_blocking(move || {
            eventually("the connection is closed", || (closing.closed() == number + 1).then_some(()));
        })
        .await
        .expect("closed");
        // The runtime looks for what has come at least each 61 steps.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    let requests = server.requests();
    for number in 0..20 {
        let end = format!("body-{number}");
        assert_eq!(requests.iter().filter(|request| request.ends_with(&end)).count(), 1, "{end}");
    }
}

#[tokio::test]
async fn a_body_that_was_sent_is_not_sent_again() {
    let answers = AtomicUsize::new(0);
    // The second request of each connection is read and never answered.
    let server =
        Server::start(move |_| if answers.fetch_add(1, Relaxed) == 0 { ok("") } else { Reply::Close(Vec::new()) })
            .await;
    let url = format!("http://a.test:{}/", server.port());
    let stage = Stage::new(&["http://*"]);
    stage.get(&url).await.expect("a connection that waits");
    let failure = stage.post(&url, "once").await.expect_err("closed");
    assert_eq!((failure.kind, failure.is_transient), (FailureKind::Unavailable, true));
    assert!(failure.message.contains("closed the connection before it answered"), "{failure}");
    assert_eq!(server.requests().iter().filter(|request| request.ends_with("once")).count(), 1);
    // What changes nothing is tried once more.
    stage.expect_failure(&url, FailureKind::Unavailable, "closed the connection").await;
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn connections_wait_for_few_hosts_at_a_time() {
    let server = Arc::new(Server::start(|_| ok("")).await);
    let stage = Stage::new(&["http://*"]);
    for host in 0..100 {
        stage.get(&format!("http://{host}.test:{}/", server.port())).await.expect("a response");
    }
    assert_eq!(server.connections(), 100);
    let closing = server.clone();
    let few =
        move || eventually("connections are closed", || (closing.connections() - closing.closed() <= 16).then_some(()));
    tokio::task::spawn_blocking(few).await.expect("closed");
    for _ in 0..10 {
        stage.get(&format!("http://99.test:{}/", server.port())).await.expect("a response");
    }
    assert_eq!(server.connections(), 100, "the last is used again");
}

#[tokio::test]
async fn a_host_gets_no_more_requests_at_a_time_than_its_limit() {
    let now = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (counted, highest) = (now.clone(), most.clone());
    let server = Server::start(move |_| {
        highest.fetch_max(counted.fetch_add(1, Relaxed) + 1, Relaxed);
        ok("")
    })
    .await;
    let stage = Stage::new(&["http://*"]);
    let url = format!("http://a.test:{}/", server.port());
    let requests = (0..600).map(|_| async {
        let response = stage.get(&url).await.expect("a response");
        now.fetch_sub(1, Relaxed);
        response.status
    });
    assert!(join_all(requests).await.into_iter().all(|status| status == 200));
    assert!(most.load(Relaxed) <= 256, "{most:?}");
}
