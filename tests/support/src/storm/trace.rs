//! A trace of a storm: every message that passes through the server, in order, one a line.
//!
//! It shows the way of one result that was lost or came twice: what was fed, stored, handed out and acknowledged, and by whom.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::SystemTime;

use futures_util::StreamExt;
use tokio::sync::oneshot;

/// Messages that wait to be written.
const WAITING: usize = 1 << 20;

/// A running trace. Ends on drop, with all messages so far.
pub(super) struct Trace {
    stop: Option<oneshot::Sender<()>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl Trace {
    /// Starts to write the messages of a server to a file.
    pub(super) fn start(url: &str, file: &Path) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (url, file) = (url.to_owned(), File::create(file).unwrap());
        let (ready, begun) = std::sync::mpsc::channel();
        let writer = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let options =
                    async_nats::ConnectOptions::new().subscription_capacity(WAITING).retry_on_initial_connect();
                let client = options.connect(url).await.unwrap();
                let mut all = client.subscribe(">").await.unwrap();
                client.flush().await.unwrap();
                ready.send(()).unwrap();
                let mut out = BufWriter::new(file);
                let mut stopped = stopped;
                loop {
                    tokio::select! {
                        biased;
                        Some(message) = all.next() => out.write_all(line(&message).as_bytes()).unwrap(),
                        _ = &mut stopped => break,
                    }
                }
                out.flush().unwrap();
            });
        });
        begun.recv().unwrap();
        Self { stop: Some(stop), writer: Some(writer) }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Returns the time, the subject, the subject of the answer, the headers, and the payload in hexadecimal.
fn line(message: &async_nats::Message) -> String {
    let now = humantime::format_rfc3339_micros(SystemTime::now());
    let reply = message.reply.as_ref().map_or("-", |reply| reply.as_str());
    let mut line = format!("{now} {} {reply}", message.subject);
    for (name, values) in message.headers.iter().flat_map(async_nats::HeaderMap::iter) {
        for value in values {
            let _ = write!(line, " {name}={value}");
        }
    }
    line.push_str(" | ");
    if message.subject.starts_with("$JS") || message.payload.first() == Some(&b'{') {
        line.extend(String::from_utf8_lossy(&message.payload).chars().map(|c| if c == '\n' { ' ' } else { c }));
    } else {
        message.payload.iter().for_each(|byte| {
            let _ = write!(line, "{byte:02x}");
        });
    }
    line.push('\n');
    line
}
