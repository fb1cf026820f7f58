//! Large items, in an object store of their chain (NATS ADR-20) that `nats object` reads too.
//!
//! An object stays as long as anything refers to it. Each reference has a record, which is written before the message with the
//! reference counts and removed after that message is gone. So a record may be left over, and the [`sweep`] removes it; none is
//! missing. The only messages without records are those of foreign clients, and those of a feeder that died a moment too early.
//!
//! | module | contents |
//! |---|---|
//! | `upload`, `pieces`, `chunks`, `room` | stores an object: reads and hashes its bytes, publishes them, waits for room |
//! | `fetch`, `sink` | reads an object and checks it |
//! | `records`, [`lease`] | who refers to an object |
//! | [`sweep`], `places`, [`taken`] | removes what nothing refers to, and results that all have taken |

/// Sends a request until it no longer fails because of a server that is away or has no room. `what` completes "cannot …".
macro_rules! insist {
    ($store:expr, $what:expr, $request:expr) => {{
        let mut tries = $crate::broker::large::Tries::of($store, $what);
        loop {
            match $request.await {
                Ok(done) => break Ok(done),
                Err(error) => match tries.again(error).await {
                    Ok(()) => {}
                    Err(error) => break Err(error),
                },
            }
        }
    }};
}

mod chunks;
mod error;
mod fetch;
mod head;
pub(crate) mod lease;
mod pieces;
mod places;
mod records;
mod room;
mod sink;
pub(crate) mod sweep;
pub(crate) mod taken;
#[cfg(test)]
mod tests;
mod upload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::error::code;
use super::line::Line;
use super::request::Outage;
use super::stream::Stream;
use super::streams::refusal;
use super::{Broker, BrokerError, layout, replicas};
use crate::backoff::Backoff;
use crate::chain::Chain;
use crate::name::ChainName;
use crate::subject::large as subject;

pub(crate) use crate::subject::large::Holder;
pub(crate) use error::LargeError;
pub(crate) use lease::Lease;
pub(crate) use pieces::Content;
pub(in crate::broker) use room::on_server;
pub(crate) use room::{Patience, Share};
pub(crate) use upload::Maker;

/// The waits between tries while the server is away or full.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(2);

/// The setting that asks the server for less.
const LIMIT: &str = "`large_bytes` below `[queue]`";

/// How the object store of a chain is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LargeSettings {
    /// The number of servers that keep a copy.
    pub(crate) replicas: u32,
    /// The most bytes of all objects. `None` sets no limit.
    pub(crate) max_bytes: Option<u64>,
}

impl LargeSettings {
    /// Returns the settings of a chain.
    pub(crate) fn of(chain: &Chain) -> Self {
        Self { replicas: chain.replicas, max_bytes: chain.queue.large_bytes }
    }
}

/// The settings of a store that another client has made, or of one that is only read.
impl Default for LargeSettings {
    fn default() -> Self {
        Self { replicas: 1, max_bytes: None }
    }
}

/// What an object store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// The number of objects.
    pub(crate) objects: u64,
    /// The bytes that they take on the server, with those of uploads under way.
    pub(crate) bytes: u64,
}

/// The object store of a chain's large items, whether it exists or not. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct LargeStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    broker: Broker,
    chain: ChainName,
    stream: String,
    settings: LargeSettings,
    /// Carries the chunks. Those of foreign clients may be unreadable.
    line: Line,
    /// `true` once the object store was seen or made.
    is_made: AtomicBool,
    /// The bytes of the uploads of this process that have room.
    reserved: AtomicU64,
    /// The number of failed or dropped uploads of this process whose chunks are being removed.
    removing: watch::Sender<usize>,
}

impl LargeStore {
    /// Returns the object store of a chain. Whatever first needs it makes it.
    pub(crate) fn of(broker: &Broker, chain: &ChainName, settings: LargeSettings) -> Self {
        Self(Arc::new(Inner {
            broker: broker.clone(),
            chain: chain.clone(),
            stream: subject::stream(chain),
            settings,
            line: Line::new(broker, "pcluster-large"),
            is_made: AtomicBool::new(false),
            reserved: AtomicU64::new(0),
            removing: watch::Sender::new(0),
        }))
    }

    fn stream(&self) -> Stream<'_> {
        Stream::of(&self.0.broker, &self.0.stream)
    }

    /// Returns the most bytes of an item that fits a message, and need not be stored here.
    pub(crate) fn max_item(&self) -> usize {
        self.0.broker.limits().max_item()
    }

    /// Returns what the store holds. It does not wait for a server that is away.
    pub(crate) async fn usage(&self) -> Result<Usage, BrokerError> {
        // Beyond all subjects, so that the server counts them and names none.
        let counted = self.stream().state(Some((&subject::heads(&self.0.chain), BEYOND))).await;
        match counted {
            Ok(counted) => Ok(Usage { objects: counted.total as u64, bytes: counted.state.bytes }),
            Err(error) if error.is_not_found() => Ok(Usage::default()),
            Err(error) => Err(error),
        }
    }

    /// Gives the object store the settings of its chain, if it exists.
    ///
    /// The limit is lowered only once what is stored is far below: a server may make room by removing messages.
    pub(crate) async fn settle(&self) -> Result<(), BrokerError> {
        let state = match self.stream().state(None).await {
            Err(error) if error.is_not_found() => return Ok(()),
            state => state?.state,
        };
        let mut info = replicas::stream_info(&self.0.broker, &self.0.stream).await?;
        let wanted = layout::large(&self.0.chain, self.0.settings);
        let current = info.config["max_bytes"].as_i64().unwrap_or(-1);
        let has_room = wanted.max_bytes < 0 || state.bytes < wanted.max_bytes.unsigned_abs() / 2;
        let is_wider = wanted.max_bytes < 0 || (current >= 0 && wanted.max_bytes > current);
        let max_bytes = if is_wider || has_room { wanted.max_bytes } else { current };
        let (copies, bytes) = (json!(wanted.num_replicas), json!(max_bytes));
        if info.config["num_replicas"] == copies && current == max_bytes {
            return Ok(());
        }
        (info.config["num_replicas"], info.config["max_bytes"]) = (copies, bytes);
        let what = || format!("change the stream `{}`", self.0.stream);
        let _: Value = self.0.broker.api_once(format!("STREAM.UPDATE.{}", self.0.stream), &info.config, what).await?;
        Ok(())
    }

    /// Makes the object store, unless this process has seen it.
    async fn ensure(&self) -> Result<(), BrokerError> {
        if self.0.is_made.load(Ordering::Relaxed) {
            return Ok(());
        }
        let config = layout::large(&self.0.chain, self.0.settings);
        match Stream::create(&self.0.broker, &config).await {
            // With other settings, for example of another revision.
            Err(error) if error.code() == Some(code::STREAM_EXISTS) => {}
            // The server counts what it has set aside for an existing stream again, and may have no room for both.
            Err(error) if error.is_no_room() && self.stream().state(None).await.is_ok() => {}
            made => drop(made.map_err(|error| refusal(&self.0.chain, self.0.settings.replicas, LIMIT, error))?),
        }
        self.0.is_made.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// The tries of a request while the server is away or has no room.
struct Tries<'a> {
    store: &'a LargeStore,
    /// Completes "cannot …".
    what: &'static str,
    outage: Outage,
    backoff: Backoff,
}

impl<'a> Tries<'a> {
    fn of(store: &'a LargeStore, what: &'static str) -> Self {
        Self { store, what, outage: Outage::default(), backoff: Backoff::new(AGAIN, AGAIN_MAX) }
    }

    /// Waits before another try. Returns the error if another try would fail too.
    async fn again(&mut self, error: BrokerError) -> Result<(), BrokerError> {
        if !error.is_transient() && !is_full(&error) {
            return Err(error);
        }
        // The store may be gone; the next try makes it again.
        self.store.0.is_made.store(false, Ordering::Relaxed);
        self.outage.met(&self.store.0.broker, self.what, &error);
        self.backoff.wait().await;
        Ok(())
    }
}

impl Drop for Tries<'_> {
    fn drop(&mut self) {
        self.outage.over(self.what);
    }
}

/// More subjects than a stream has.
const BEYOND: usize = u32::MAX as usize;

/// Returns `true` if the server has no room for a message.
fn is_full(error: &BrokerError) -> bool {
    error.is_no_room() || error.code() == Some(code::STORE_FAILED)
}
