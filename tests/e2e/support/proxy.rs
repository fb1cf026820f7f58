//! A way to the server that can be blocked.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// What becomes of what is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// Connections are made and kept, and nothing passes.
    Stalled,
    /// For good: the proxy is gone.
    Closed,
}

/// Passes on what clients and a server say to each other, unless it is told not to.
pub struct Proxy {
    pub url: String,
    address: std::net::SocketAddr,
    gate: Arc<Gate>,
}

struct Gate {
    way: Mutex<Way>,
    changed: Condvar,
    open: Mutex<Vec<TcpStream>>,
}

impl Gate {
    /// Waits while the way is stalled. Says whether it is open then.
    fn pass(&self) -> bool {
        let way = self.way.lock().unwrap();
        *self.changed.wait_while(way, |way| *way == Way::Stalled).unwrap() == Way::Open
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
    /// A way to this server.
    pub fn to(server: &str) -> Self {
        let server = server.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Gate { way: Mutex::new(Way::Open), changed: Condvar::new(), open: Mutex::default() };
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

    /// Lets nothing pass any more. Connections can still be made, and none is closed.
    pub fn stall(&self) {
        self.gate.set(Way::Stalled);
    }

    /// Ends all connections, and lets nothing pass over new ones until it is told to.
    pub fn cut(&self) {
        self.gate.set(Way::Stalled);
        self.gate.shut();
    }

    /// Lets everything pass, also what was held up.
    pub fn release(&self) {
        self.gate.set(Way::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.gate.set(Way::Closed);
        self.gate.shut();
        // Lets the thread that accepts connections see that it shall end.
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
    thread::spawn(move || pump(&back, from_server, client));
    pump(gate, from_client, server);
}

fn pump(gate: &Gate, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 || !gate.pass() || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
