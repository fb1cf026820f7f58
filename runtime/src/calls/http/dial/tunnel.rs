//! Tunnels through the proxy of a node.

use std::io::{Error, Result};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::stream::{Stream, boxed};

/// Opens a tunnel to a host through a proxy.
pub(super) async fn open(proxy: TcpStream, host: &str, port: u16) -> Result<Box<dyn Stream>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(proxy)).await.map_err(Error::other)?;
    // It ends with the sender, or becomes the tunnel.
    tokio::spawn(connection.with_upgrades());
    let authority = format!("{host}:{port}");
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(&authority)
        .header(HOST, &authority)
        .body(Empty::<Bytes>::new())
        .map_err(Error::other)?;
    let response = sender.send_request(request).await.map_err(Error::other)?;
    if !response.status().is_success() {
        return Err(Error::other(format!("it answers {}", response.status())));
    }
    Ok(boxed(TokioIo::new(hyper::upgrade::on(response).await.map_err(Error::other)?)))
}
