//! Key-value buckets, object stores and subjects that tasks are granted.
//!
//! | module | contents |
//! |---|---|
//! | [`kv`], [`objects`], [`publish`] | the calls |
//! | [`listing`] | names in pages |
//! | [`store`] | stores a message once, and reads one |
//! | [`check`], [`make`] | whether buckets and stores exist; those of `pcluster dev` |
//!
//! Calls have connections of their own, so that large values do not delay acknowledgements. Messages are read by the server's API,
//! from the stream's leader: a task sees what it has written, and no header that another client has written can break a connection
//! (see [`super::unread`]). The `kv` and `object_store` of async-nats 0.51 give neither.

pub(crate) mod check;
mod failure;
mod kv;
mod listing;
pub(crate) mod make;
mod objects;
mod publish;
mod store;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use super::Broker;
use super::line::Line;
use super::request::AGAIN_EARLY;
use crate::calls::failure::{CallFailure, FailureKind};
use crate::calls::memory::Memory;
use crate::calls::stores::{StoreRequest, Stores};

/// The longest call.
const LIMIT: Duration = Duration::from_secs(30);
/// How many values and parts of objects are read at the same time. Each takes twice its size until it is decoded.
const READS: usize = 32;

/// The stores of a server, for the tasks of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct GrantedStores {
    /// The connection for requests to the server.
    line: Line,
    /// The connection for messages and answers of other clients, which may break it.
    foreign: Line,
    reads: Arc<Semaphore>,
    /// The memory for objects that are read.
    memory: Memory,
}

impl GrantedStores {
    /// Returns the stores of a server. Their connections are opened by the first call.
    pub(crate) fn of(broker: &Broker, memory: Memory) -> Arc<Self> {
        Arc::new(Self {
            line: Line::new(broker, "pcluster-calls"),
            foreign: Line::new(broker, "pcluster-calls-reader"),
            reads: Arc::new(Semaphore::new(READS)),
            memory,
        })
    }

    /// Returns the connection for requests, once it stands.
    async fn connection(&self) -> Broker {
        standing(&self.line).await
    }

    async fn call(&self, request: StoreRequest, room: u64, key: Option<String>) -> Result<Bytes, CallFailure> {
        match request {
            StoreRequest::Entry(bucket, entry, call) => kv::run(self, &bucket, &entry, call, room).await,
            StoreRequest::Keys(bucket, prefix, page) => kv::keys(self, &bucket, &prefix, &page, room).await,
            StoreRequest::Object(store, name, call) => objects::run(self, &store, &name, call, room).await,
            StoreRequest::Objects(store, prefix, page) => objects::list(self, &store, &prefix, &page, room).await,
            StoreRequest::Publish(message) => publish::run(self, message, key).await,
        }
    }
}

/// Returns the connection of a line, once it stands.
async fn standing(line: &Line) -> Broker {
    loop {
        match line.open().await {
            Ok(open) => {
                tokio::select! {
                    () = open.stands() => return open,
                    // An ended connection never stands again, and is replaced.
                    () = tokio::time::sleep(AGAIN_EARLY) => {}
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the connection for calls cannot be opened");
                tokio::time::sleep(AGAIN_EARLY).await;
            }
        }
    }
}

impl Stores for GrantedStores {
    fn run(
        self: Arc<Self>,
        request: StoreRequest,
        room: u64,
        key: Option<String>,
    ) -> BoxFuture<'static, Result<Bytes, CallFailure>> {
        Box::pin(async move {
            let target = request.target();
            match tokio::time::timeout(LIMIT, self.call(request, room, key)).await {
                Ok(ended) => ended,
                Err(_) if !self.line.first().is_connected() => Err(CallFailure::unavailable(format!(
                    "the connection to NATS was lost, and has not come back within {} s",
                    LIMIT.as_secs()
                ))),
                Err(_) => Err(CallFailure::new(
                    FailureKind::Timeout,
                    format!("NATS has not answered for `{target}` within {} s", LIMIT.as_secs()),
                )),
            }
        })
    }
}

#[cfg(test)]
mod tests;
