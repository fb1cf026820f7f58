//! Finds and reads messages that the client library cannot take off a connection.
//!
//! The server's API answers in JSON, with headers and payload in base64. So each of its answers can be read.

use bytes::Bytes;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::BrokerError;
use super::get::Stored;
use super::info::Progress;
use super::stream::Stream;
use crate::frame::Headers;

/// A message that the client library cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Its sequence number in the stream.
    pub sequence: u64,
    /// When it was stored, in milliseconds since the Unix epoch.
    pub stored_millis: u64,
    /// Why it cannot be read.
    pub fault: String,
    /// Those of its headers that can be sent again.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
}

/// The next message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// There is none.
    Nothing,
    /// A readable message with this sequence number.
    Readable(u64),
    /// An unreadable message.
    Unread(Box<Unread>),
}

/// Looks at the first message after a sequence number, of those under the subjects of these patterns.
pub async fn look(stream: Stream<'_>, patterns: &[String], place: u64) -> Result<Look, BrokerError> {
    let what = || format!("read the stream `{}`", stream.name);
    let mut first: Option<Stored> = None;
    for pattern in patterns {
        let request = json!({ "seq": place + 1, "next_by_subj": pattern });
        let next = Stored::read(stream.broker, stream.name, &request, what).await?;
        first = first.into_iter().chain(next).min_by_key(|stored| stored.sequence);
    }
    let Some(stored) = first else { return Ok(Look::Nothing) };
    let Some(fault) = stored.fault() else { return Ok(Look::Readable(stored.sequence)) };
    let time = OffsetDateTime::parse(&stored.time, &Rfc3339).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    Ok(Look::Unread(Box::new(Unread {
        sequence: stored.sequence,
        stored_millis: u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0),
        fault,
        headers: stored.headers(),
        payload: stored.payload.into(),
    })))
}

/// Lets a consumer pass over the unreadable messages that it has delivered.
///
/// They stay in the stream and are not delivered again. Calls `passed` with each. `looked` is the sequence number up to which all
/// messages were looked at.
pub async fn pass_over(
    stream: Stream<'_>,
    consumer: &str,
    looked: &mut u64,
    passed: impl Fn(Unread),
) -> Result<(), BrokerError> {
    let progress: Progress = stream.consumer(consumer).await?;
    *looked = (*looked).max(progress.acknowledged);
    while *looked < progress.delivered {
        match look(stream, &[">".to_owned()], *looked).await? {
            Look::Nothing => break,
            Look::Readable(place) => *looked = place,
            Look::Unread(unread) if unread.sequence > progress.delivered => break,
            Look::Unread(unread) => {
                // For a consumer with explicit acknowledgement, the server reads only the stream sequence.
                let reply = format!("$JS.ACK.{}.{consumer}.1.{}.1.0.0", stream.name, unread.sequence);
                let sent = stream.broker.client().publish(reply, "+TERM".into()).await;
                sent.map_err(|error| BrokerError::other(format!("pass over a message of `{}`", stream.name), &error))?;
                *looked = unread.sequence;
                passed(*unread);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use async_nats::HeaderMap;
    use futures_util::StreamExt;

    use super::super::from_header_map;
    use crate::frame::block;
    use crate::fuzz::headers::blocks;

    const BLOCKS: usize = 300;

    /// Sends these bytes to the first subscriber, and then a last message to each.
    fn serve(listener: &TcpListener, mut first: Vec<u8>) {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            if greet(&stream).is_none() {
                continue;
            }
            let mut said = std::mem::take(&mut first);
            said.extend_from_slice(b"MSG s 1 4\r\ndone\r\n");
            let _ = (&stream).write_all(&said);
            std::mem::forget(stream);
        }
    }

    fn greet(mut stream: &TcpStream) -> Option<()> {
        let info = "INFO {\"server_id\":\"x\",\"version\":\"2.15.1\",\"headers\":true,\"max_payload\":1048576,\"proto\":1}\r\n";
        stream.write_all(info.as_bytes()).ok()?;
        for line in BufReader::new(stream).lines() {
            match line.ok()?.split(' ').next()? {
                "PING" => stream.write_all(b"PONG\r\n").ok()?,
                "SUB" => return Some(()),
                _ => {}
            }
        }
        None
    }

    /// Returns the headers that the client library reads from a block; `None` if it cannot read it.
    async fn read_by_library(block: &[u8]) -> Option<HeaderMap> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = listener.local_addr().expect("bound").to_string();
        let message = [format!("HMSG s 1 {0} {0}\r\n", block.len()).as_bytes(), block, b"\r\n"].concat();
        std::thread::spawn(move || serve(&listener, message));
        let client = async_nats::connect(url).await.expect("the server is there");
        let mut messages = client.subscribe("s").await.expect("connected");
        let first = tokio::time::timeout(Duration::from_secs(20), messages.next()).await.expect("an answer");
        // If the connection has ended, there is no message; if it was dropped, the first is the second server's.
        first?.headers
    }

    #[tokio::test]
    async fn what_the_client_library_reads_is_known_and_read_alike() {
        let mut unreadable = 0;
        for block in blocks(7).filter(|block| !block.is_empty()).take(BLOCKS) {
            let by_library = read_by_library(&block).await;
            let shown = block.escape_ascii();
            assert_eq!(block::fault(&block).is_none(), by_library.is_some(), "{shown}");
            if let Some(map) = by_library {
                let mut decoded: Vec<_> = block::decode(&block).iter().map(owned).collect();
                decoded.sort_by(|left, right| left.0.cmp(&right.0));
                assert_eq!(decoded, from_header_map(Some(&map)).iter().map(owned).collect::<Vec<_>>(), "{shown}");
            } else {
                unreadable += 1;
            }
        }
        assert!((BLOCKS / 5..BLOCKS * 4 / 5).contains(&unreadable), "{unreadable}");
    }

    fn owned((name, value): (&str, &str)) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }
}
