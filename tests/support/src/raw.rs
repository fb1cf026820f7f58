//! A NATS client that sends any bytes. The server lets every client do so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;

use crate::{Cluster, DEADLINE, Nats};

/// The reply subject for the server's answers to published messages.
const INBOX: &str = "raw.answers";

/// A connection to the server of a test. The test writes every byte of it.
pub struct RawClient {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    unanswered: usize,
}

/// An interceptor between clients and the server's API. Ends on drop.
pub struct Between {
    stream: TcpStream,
    left: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Between {
    /// Returns how many answers are not yet sent.
    pub fn left(&self) -> usize {
        self.left.load(SeqCst)
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl RawClient {
    /// Connects to the server of a test.
    pub fn connect<S: Nats>(cluster: &Cluster<S>) -> Self {
        let urls = cluster.server.url();
        let address = urls.split(',').next().unwrap().trim_start_matches("nats://").to_owned();
        let writer = TcpStream::connect(address).unwrap();
        writer.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut client = Self { reader: BufReader::new(writer.try_clone().unwrap()), writer, unanswered: 0 };
        client.line();
        client.send(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n");
        client.send(format!("SUB {INBOX} 1\r\n").as_bytes());
        client
    }

    /// Publishes a message with a header block. If the block is empty, the message has no headers. Does not wait for the answer
    /// of the stream.
    pub fn publish(&mut self, subject: impl AsRef<[u8]>, block: &[u8], payload: &[u8]) {
        self.publish_with_reply(subject.as_ref(), INBOX.as_bytes(), block, payload);
        self.unanswered += 1;
    }

    /// Publishes a message with a reply subject.
    pub fn publish_with_reply(&mut self, subject: &[u8], reply: &[u8], block: &[u8], payload: &[u8]) {
        let (operation, sizes): (&[u8], _) = if block.is_empty() {
            (b"PUB ", format!(" {}\r\n", payload.len()))
        } else {
            (b"HPUB ", format!(" {} {}\r\n", block.len(), block.len() + payload.len()))
        };
        let message = [operation, subject, b" ", reply, sizes.as_bytes(), block, payload, b"\r\n"];
        self.send(&message.concat());
    }

    /// Waits until the streams have answered for all published messages. Returns how many they have stored.
    pub fn stored(&mut self) -> usize {
        let mut stored = 0;
        while self.unanswered > 0 {
            let line = self.line();
            let Some(size) = line.strip_prefix("MSG ").or_else(|| line.strip_prefix("HMSG ")) else {
                assert!(!line.starts_with("-ERR"), "{line}");
                if line == "PING" {
                    self.send(b"PONG\r\n");
                }
                continue;
            };
            let size: usize = size.rsplit(' ').next().unwrap().parse().unwrap();
            let mut answer = vec![0; size + 2];
            self.reader.read_exact(&mut answer).unwrap();
            let answer = String::from_utf8_lossy(&answer);
            stored += usize::from(answer.contains("\"seq\"") && !answer.contains("\"error\""));
            self.unanswered -= 1;
        }
        stored
    }

    /// Answers each request on a subject with a header block. Runs until the server ends.
    pub fn answer(mut self, subject: &str, block: &'static [u8]) {
        self.send(format!("SUB {subject} 2\r\n").as_bytes());
        std::thread::spawn(move || {
            let mut line = String::new();
            while self.reader.read_line(&mut line).is_ok_and(|read| read > 0) {
                let words: Vec<&str> = line.split_whitespace().collect();
                let reply = match words.as_slice() {
                    ["PING"] => {
                        self.send(b"PONG\r\n");
                        None
                    }
                    ["MSG", _, _, reply, _] | ["HMSG", _, _, reply, _, _] => Some((*reply).to_owned()),
                    _ => None,
                };
                if let Some(reply) = reply {
                    let size: usize = words[words.len() - 1].parse().unwrap();
                    self.reader.read_exact(&mut vec![0; size + 2]).unwrap();
                    self.publish_with_reply(reply.as_bytes(), b"nobody", block, b"{}");
                }
                line.clear();
            }
        });
    }

    /// Intercepts requests of the clients that use this domain.
    ///
    /// Every other request first gets one of `answers`, a header block and a payload, until none is left. All requests go on to
    /// the server, so that its own answer follows.
    pub fn stand_between(mut self, domain: &str, answers: &[(&[u8], &[u8])]) -> Between {
        let prefix = format!("$JS.{domain}.API");
        self.send(format!("SUB {prefix}.> 2\r\nPING\r\n").as_bytes());
        while self.line() != "PONG" {}
        let stream = self.writer.try_clone().unwrap();
        let left = Arc::new(AtomicUsize::new(answers.len()));
        let mut answers: Vec<(Vec<u8>, Vec<u8>)> =
            answers.iter().rev().map(|(block, payload)| (block.to_vec(), payload.to_vec())).collect();
        let thread = std::thread::spawn({
            let left = Arc::clone(&left);
            move || {
                let mut is_next = false;
                while let Some((subject, reply, payload)) = self.request() {
                    is_next = !is_next;
                    if is_next && let Some((block, payload)) = answers.pop() {
                        self.say(&reply, &block, &payload);
                        left.fetch_sub(1, SeqCst);
                    }
                    let subject = subject.replacen(&prefix, "$JS.API", 1);
                    let line = format!("PUB {subject} {reply} {}\r\n", payload.len());
                    self.send(&[line.as_bytes(), &payload, b"\r\n"].concat());
                }
            }
        });
        Between { stream, left, thread: Some(thread) }
    }

    fn say(&mut self, reply: &str, block: &[u8], payload: &[u8]) {
        if block.is_empty() {
            let line = format!("PUB {reply} {}\r\n", payload.len());
            self.send(&[line.as_bytes(), payload, b"\r\n"].concat());
        } else {
            self.publish_with_reply(reply.as_bytes(), b"nobody", block, payload);
        }
    }

    /// Returns the next request: its subject, its reply subject, and its payload. `None` once the connection is closed.
    fn request(&mut self) -> Option<(String, String, Vec<u8>)> {
        loop {
            let mut line = Vec::new();
            if self.reader.read_until(b'\n', &mut line).ok()? == 0 {
                return None;
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let tokens: Vec<&str> = line.split(' ').collect();
            match tokens[..] {
                ["PING"] => self.writer.write_all(b"PONG\r\n").ok()?,
                ["MSG", subject, _, reply, size] => {
                    let mut payload = vec![0; size.parse::<usize>().unwrap() + 2];
                    self.reader.read_exact(&mut payload).ok()?;
                    payload.truncate(payload.len() - 2);
                    return Some((subject.to_owned(), reply.to_owned(), payload));
                }
                _ => panic!("{line}"),
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).unwrap();
        assert!(!line.is_empty(), "the server has closed the connection");
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }
}
