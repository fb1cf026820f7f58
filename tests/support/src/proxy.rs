//! A proxy in front of a server, which can block the connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::DEADLINE;

/// The state of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// Connections are made and kept, and no data passes.
    Stalled,
    /// The proxy has ended.
    Closed,
}

/// Passes data between clients and a server, unless it is stalled.
pub struct Proxy {
    /// The URL for clients.
    pub url: String,
    address: std::net::SocketAddr,
    gate: Arc<Gate>,
}

struct Gate {
    way: Mutex<Way>,
    changed: Condvar,
    /// The text of the last message before the proxy stalls.
    last: Mutex<Option<String>>,
    open: Mutex<Vec<TcpStream>>,
}

impl Gate {
    /// Waits while the proxy is stalled. Returns `true` if it is open then.
    fn pass(&self) -> bool {
        let way = self.way.lock().unwrap();
        *self.changed.wait_while(way, |way| *way == Way::Stalled).unwrap() == Way::Open
    }

    /// Stalls the proxy if this data has the text of the last message. So the answer is held up.
    fn stall_after(&self, passing: &[u8]) {
        let mut last = self.last.lock().unwrap();
        let is_last = |text: &String| passing.windows(text.len()).any(|part| part == text.as_bytes());
        if last.take_if(|text| is_last(text)).is_some() {
            self.set(Way::Stalled);
        }
    }

    fn set(&self, way: Way) {
        *self.way.lock().unwrap() = way;
        self.changed.notify_all();
    }

    fn shut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Proxy {
    /// Creates a proxy in front of a server.
    pub fn to(server: &str) -> Self {
        let server = server.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Gate {
            way: Mutex::new(Way::Open),
            changed: Condvar::new(),
            last: Mutex::default(),
            open: Mutex::default(),
        };
        let gate = Arc::new(gate);
        let accepting = Arc::clone(&gate);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if *accepting.way.lock().unwrap() == Way::Closed {
                    return;
                }
                let (gate, server) = (Arc::clone(&accepting), server.clone());
                thread::spawn(move || connect(&gate, client, &server));
            }
        });
        Self { url: format!("nats://{address}"), address, gate }
    }

    /// Stalls the proxy. Connections can still be made, and none is closed.
    pub fn stall(&self) {
        self.gate.set(Way::Stalled);
    }

    /// Stalls the proxy after the next message with this text. The message passes to the server, and its answer is held up.
    pub fn stall_after(&self, text: &str) {
        *self.gate.last.lock().unwrap() = Some(text.to_owned());
        self.release();
    }

    /// Waits until that message has passed.
    pub fn await_stall(&self) {
        let way = self.gate.way.lock().unwrap();
        let waited = self.gate.changed.wait_timeout_while(way, DEADLINE, |way| *way != Way::Stalled).unwrap();
        assert!(!waited.1.timed_out(), "never passed: {:?}", self.gate.last.lock().unwrap());
    }

    /// Ends all connections. New ones are stalled until the proxy is released.
    pub fn cut(&self) {
        self.gate.set(Way::Stalled);
        self.gate.shut();
    }

    /// Lets all data pass, including held up data.
    pub fn release(&self) {
        self.gate.set(Way::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.gate.set(Way::Closed);
        self.gate.shut();
        // Lets the thread that accepts connections notice that it must end.
        let _ = TcpStream::connect(self.address);
    }
}

fn connect(gate: &Arc<Gate>, client: TcpStream, server: &str) {
    if !gate.pass() {
        return;
    }
    let Ok(server) = TcpStream::connect(server) else { return };
    for stream in [&client, &server] {
        gate.open.lock().unwrap().push(stream.try_clone().unwrap());
    }
    let (from_client, from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let back = Arc::clone(gate);
    thread::spawn(move || pump(&back, from_server, client, |_| {}));
    pump(gate, from_client, server, |passing| gate.stall_after(passing));
}

fn pump(gate: &Gate, mut from: TcpStream, mut to: TcpStream, before: impl Fn(&[u8])) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 || !gate.pass() {
            break;
        }
        before(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
