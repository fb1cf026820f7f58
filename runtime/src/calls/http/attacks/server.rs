//! Servers that answer what a test says.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::lock::lock;

/// What a server does with a request.
pub(super) enum Reply {
    /// It writes bytes, and takes another request.
    Keep(Vec<u8>),
    /// It writes bytes, and closes the connection.
    Close(Vec<u8>),
    /// It writes bytes, and is gone: over TLS without a word.
    Cut(Vec<u8>),
    /// It writes bytes, and then others again and again, until nobody reads them.
    Endless(Vec<u8>, Vec<u8>),
    /// It writes bytes, and nothing more until the client closes the connection.
    Hang(Vec<u8>),
}

/// A whole response.
pub(super) fn ok(body: &str) -> Reply {
    Reply::Keep(response("200 OK", "", body.as_bytes()))
}

/// Returns a response with more headers, each with its line break.
pub(super) fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A connection, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Answer = Arc<dyn Fn(&str) -> Reply + Send + Sync>;

/// A server of this machine. It ends with the test.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    accepting: JoinHandle<()>,
}

/// What a server has seen.
#[derive(Default)]
struct Seen {
    connections: usize,
    closed: usize,
    requests: Vec<String>,
}

impl Server {
    /// Starts a server at a loopback address.
    pub(super) async fn start(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0), None, answer).await
    }

    /// Starts a server with TLS.
    pub(super) async fn start_tls(tls: TlsAcceptor, answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0), Some(tls), answer).await
    }

    /// Starts servers at two addresses with the same port.
    pub(super) async fn start_pair(one: IpAddr, other: IpAddr) -> (Self, Self) {
        loop {
            let first = Self::start_at(SocketAddr::new(one, 0), None, |_| ok("one")).await;
            let address = SocketAddr::new(other, first.address.port());
            if let Ok(listener) = TcpListener::bind(address).await {
                return (first, Self::serve(listener, None, Arc::new(|_: &str| ok("other"))));
            }
        }
    }

    async fn start_at(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        Self::serve(listener, tls, Arc::new(answer))
    }

    fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, answer: Answer) -> Self {
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let counts = seen.clone();
        let accepting = tokio::spawn(async move {
            // Its connections end with it.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                lock(&counts).connections += 1;
                let (tls, answer, counts) = (tls.clone(), answer.clone(), counts.clone());
                connections.spawn(async move {
                    let stream: Box<dyn Stream> = match tls {
                        None => Box::new(tcp),
                        Some(tls) => match tls.accept(tcp).await {
                            Ok(stream) => Box::new(stream),
                            Err(_) => return,
                        },
                    };
                    talk(stream, &answer, &counts).await;
                    lock(&counts).closed += 1;
                });
            }
        });
        Self { address, seen, accepting }
    }

    /// Returns the port.
    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns how many connections were made.
    pub(super) fn connections(&self) -> usize {
        lock(&self.seen).connections
    }

    /// Returns how many connections have ended.
    pub(super) fn closed(&self) -> usize {
        lock(&self.seen).closed
    }

    /// Returns the requests, each with its body.
    pub(super) fn requests(&self) -> Vec<String> {
        lock(&self.seen).requests.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn talk(mut stream: Box<dyn Stream>, answer: &Answer, seen: &Mutex<Seen>) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await {
        lock(seen).requests.push(request.clone());
        match answer(&request) {
            Reply::Keep(bytes) => {
                if write(&mut stream, &bytes).await.is_none() {
                    return;
                }
            }
            Reply::Close(bytes) => {
                write(&mut stream, &bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Reply::Cut(bytes) => {
                write(&mut stream, &bytes).await;
                return;
            }
            Reply::Endless(first, again) => {
                let mut written = write(&mut stream, &first).await;
                while written.is_some() {
                    written = write(&mut stream, &again).await;
                }
                return;
            }
            Reply::Hang(bytes) => {
                write(&mut stream, &bytes).await;
                let _ = stream.read(&mut [0]).await;
                return;
            }
        }
    }
}

async fn write(stream: &mut Box<dyn Stream>, bytes: &[u8]) -> Option<()> {
    stream.write_all(bytes).await.ok()?;
    stream.flush().await.ok()
}

/// Reads a request and its body. `None` if the client has closed the connection.
async fn read_request(stream: &mut Box<dyn Stream>, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(head) = buffer.windows(4).position(|end| end == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&buffer[..head]).to_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().expect("a length"));
            let end = head + 4 + length;
            if buffer.len() >= end {
                let request = String::from_utf8_lossy(&buffer[..end]).into_owned();
                buffer.drain(..end);
                return Some(request);
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
