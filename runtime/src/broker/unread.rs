//! Messages that the client library cannot take off a connection, found and read by the server's API.
//!
//! The API answers in JSON, with headers and payload in base64, so there is nothing in its answers that could not be read.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::get::Stored;
use super::{Broker, BrokerError};
use crate::frame::Headers;

/// A message that no line brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Its place in the stream.
    pub sequence: u64,
    /// When it was stored, in milliseconds since the Unix epoch.
    pub stored_millis: u64,
    /// Why it cannot be read.
    pub fault: String,
    /// As much of its headers as can be sent again.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
}

/// What stands behind a place of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Nothing.
    Nothing,
    /// A message that can be read, at this place.
    Readable(u64),
    /// One that cannot.
    Unread(Box<Unread>),
}

/// How far a consumer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// When it was made, as the server writes it. Of another one, no place means the same.
    pub created: String,
    /// All up to this place is acknowledged.
    pub acknowledged: u64,
    /// All up to this place was handed out at least once.
    pub handed_out: u64,
}

impl Broker {
    /// Looks at the first message behind a place of a stream, of those under the subjects of these patterns.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn look(&self, stream: &str, patterns: &[String], place: u64) -> Result<Look, BrokerError> {
        let what = || format!("read the stream `{stream}`");
        let mut first: Option<Stored> = None;
        for pattern in patterns {
            let request = json!({ "seq": place + 1, "next_by_subj": pattern });
            let next = self.get(stream, &request, what).await?;
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

    /// How far a consumer is.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such consumer.
    pub async fn reach(&self, stream: &str, consumer: &str) -> Result<Reach, BrokerError> {
        #[derive(Deserialize)]
        struct Info {
            #[serde(default)]
            created: String,
            delivered: Place,
            ack_floor: Place,
        }
        #[derive(Deserialize)]
        struct Place {
            stream_seq: u64,
        }
        let what = || format!("tell the state of the consumer `{consumer}`");
        let info: Info = self.api(format!("CONSUMER.INFO.{stream}.{consumer}"), &(), what).await?;
        let (acknowledged, handed_out) = (info.ack_floor.stream_seq, info.delivered.stream_seq);
        Ok(Reach { created: info.created, acknowledged, handed_out })
    }

    /// Looks at what a consumer has handed out of a stream, and lets it pass over what cannot be read: that stays in the stream and
    /// is not handed out again. Calls `passed` with each. `looked` is the place up to which everything was looked at.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such stream or consumer.
    pub async fn pass_over_unread(
        &self,
        stream: &str,
        consumer: &str,
        looked: &mut u64,
        passed: impl Fn(Unread),
    ) -> Result<(), BrokerError> {
        let reach = self.reach(stream, consumer).await?;
        *looked = (*looked).max(reach.acknowledged);
        while *looked < reach.handed_out {
            match self.look(stream, &[">".to_owned()], *looked).await? {
                Look::Nothing => break,
                Look::Readable(place) => *looked = place,
                Look::Unread(unread) if unread.sequence > reach.handed_out => break,
                Look::Unread(unread) => {
                    // Of a consumer that is acknowledged message by message, the server looks at the place in the stream only.
                    let reply = format!("$JS.ACK.{stream}.{consumer}.1.{}.1.0.0", unread.sequence);
                    let sent = self.client().publish(reply, "+TERM".into()).await;
                    sent.map_err(|error| BrokerError::other(format!("pass over a message of `{stream}`"), &error))?;
                    *looked = unread.sequence;
                    passed(*unread);
                }
            }
        }
        Ok(())
    }
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

    /// A server that says these bytes to the first who listens, and to all that it is done.
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

    /// The headers that the client library makes of a block; `None` if it cannot read it.
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
