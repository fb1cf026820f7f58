//! A trace of a storm: every message that passes through the server, or the first of three, in order, one a line.
//!
//! It shows the way of one result that was lost or came twice: what was fed, stored, handed out and acknowledged, and by whom. It
//! reads the protocol itself: the storm has messages that the client library cannot read.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// The most bytes of a payload that are written. Chunks of large items are longer.
const PAYLOAD: usize = 4 << 10;
/// The wait before the next connection to a server that is away.
const AGAIN: Duration = Duration::from_millis(50);

/// A running trace. Ends on drop, with all messages so far.
pub(super) struct Trace {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    ends: AtomicBool,
    stream: Mutex<Option<TcpStream>>,
}

impl Trace {
    /// Starts to write the messages of a server to a file.
    pub(super) fn start(url: &str, file: &Path) -> Self {
        let address = url.trim_start_matches("nats://").to_owned();
        let mut out = BufWriter::new(File::create(file).unwrap());
        let shared = Arc::new(Shared::default());
        let writer = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                while !shared.ends.load(SeqCst) {
                    // A killed server comes back.
                    let ended = TcpStream::connect(&address).and_then(|stream| write(stream, &shared, &mut out));
                    if ended.is_err() {
                        std::thread::sleep(AGAIN);
                    }
                }
                out.flush().unwrap();
            }
        });
        Self { shared, writer: Some(writer) }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.shared.ends.store(true, SeqCst);
        if let Some(stream) = self.shared.stream.lock().unwrap().take() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Writes messages until the connection ends.
fn write(mut stream: TcpStream, shared: &Shared, out: &mut impl Write) -> io::Result<()> {
    *shared.stream.lock().unwrap() = Some(stream.try_clone()?);
    stream.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\nSUB > 1\r\n")?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = Vec::new();
    while !shared.ends.load(SeqCst) && reader.read_until(b'\n', &mut head)? > 0 {
        let text = String::from_utf8_lossy(&head).trim_end().to_owned();
        head.clear();
        let words: Vec<&str> = text.split(' ').collect();
        // The first number, if there are two, is the size of the headers.
        let (place, block, size) = match words[..] {
            ["PING"] => {
                stream.write_all(b"PONG\r\n")?;
                continue;
            }
            ["MSG", subject, _, size] => (format!("{subject} -"), "0", size),
            ["MSG", subject, _, reply, size] => (format!("{subject} {reply}"), "0", size),
            ["HMSG", subject, _, block, size] => (format!("{subject} -"), block, size),
            ["HMSG", subject, _, reply, block, size] => (format!("{subject} {reply}"), block, size),
            _ => continue,
        };
        let [block, size] = [block, size].map(|number| number.parse::<usize>().unwrap_or(0));
        let mut message = vec![0; size + 2];
        reader.read_exact(&mut message)?;
        let (block, payload) = message[..size].split_at(block.min(size));
        out.write_all(line(&place, block, payload).as_bytes())?;
    }
    Ok(())
}

/// Returns the time, the subject, the subject of the answer, the headers, and the payload, in hexadecimal unless it is JSON.
fn line(place: &str, block: &[u8], payload: &[u8]) -> String {
    let now = humantime::format_rfc3339_micros(SystemTime::now());
    let mut line = format!("{now} {place} {} | ", String::from_utf8_lossy(block).trim_end().escape_debug());
    if matches!(payload.first(), Some(b'{' | b'+' | b'-')) {
        line.push_str(&String::from_utf8_lossy(payload).escape_debug().to_string());
    } else {
        for byte in payload.iter().take(PAYLOAD) {
            let _ = write!(line, "{byte:02x}");
        }
    }
    line.push('\n');
    line
}
