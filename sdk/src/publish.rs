//! Messages to NATS subjects that the stage is granted.
//!
//! ```
//! use pcluster_sdk::{Error, publish, task};
//!
//! /// Tells of hot rooms.
//! #[task(calls(publish))]
//! fn watch(celsius: f64) -> Result<(), Error> {
//!     if celsius > 30.0 {
//!         publish::publish("alerts.heat", celsius.to_string())?;
//!     }
//!     Ok(())
//! }
//! # let world = pcluster_sdk::testing::World::new();
//! # world.run(|| watch(31.0)).unwrap();
//! # assert_eq!(world.published()[0].payload, b"31");
//! ```
//!
//! Each message carries `Nats-Msg-Id`: the same at each attempt on the item and on each node. A stream that takes the subject keeps
//! such a message once, within its window of duplicates.

use pcluster_abi::call;

use crate::CallError;
use crate::call::call;
use crate::cbor::fields::{Writer, head, string};

/// Publishes a message and waits for nothing. Nobody may be there to receive it.
///
/// # Errors
///
/// If the stage is not granted the subject, or the message is too large.
pub fn publish(subject: &str, payload: impl Into<Vec<u8>>) -> Result<(), CallError> {
    message(subject, payload).send()
}

/// Creates a message.
pub fn message(subject: &str, payload: impl Into<Vec<u8>>) -> Message {
    Message { subject: subject.to_owned(), payload: payload.into(), headers: Vec::new(), header_count: 0 }
}

/// A message that is not published yet.
#[derive(Debug, Clone)]
#[must_use = "a message goes out with `send` or `wait`"]
pub struct Message {
    subject: String,
    payload: Vec<u8>,
    /// Pairs of a name and a value in CBOR.
    headers: Vec<u8>,
    header_count: u64,
}

/// Where a stream has stored a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// The name of the stream.
    pub stream: String,
    /// The place of the message in the stream.
    pub sequence: u64,
    /// Whether the stream had the message already, as from an attempt before.
    pub duplicate: bool,
}

impl Message {
    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        head(&mut self.headers, 4, 2);
        string(&mut self.headers, 3, name.as_bytes());
        string(&mut self.headers, 3, value.as_bytes());
        self.header_count += 1;
        self
    }

    /// Publishes the message and waits for nothing.
    ///
    /// # Errors
    ///
    /// As for [`publish`].
    pub fn send(self) -> Result<(), CallError> {
        call(call::PUBLISH, self.encode()).map(|_| ())
    }

    /// Publishes the message and waits until a stream has stored it.
    ///
    /// # Errors
    ///
    /// As for [`publish`], and if no stream takes the subject, or it has no room.
    pub fn wait(self) -> Result<Stored, CallError> {
        let mut request = self.encode();
        request.flag("wait", true);
        let answer = call(call::PUBLISH, request)?;
        Ok(Stored {
            stream: answer.text("stream")?,
            sequence: answer.number("sequence")?,
            duplicate: answer.flag("duplicate"),
        })
    }

    fn encode(&self) -> Writer {
        let mut request = Writer::new();
        request.text("subject", &self.subject);
        request.bytes("payload", &self.payload);
        if self.header_count > 0 {
            request.list("headers", self.header_count, &self.headers);
        }
        request
    }
}
