//! The connections of a stage, which wait for its next requests.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::dial::Dialer;
use super::target::Origin;
use crate::lock::lock;

/// How long a connection waits for another request.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// The most connections that wait for one host.
const IDLE_PER_HOST: usize = 32;
/// The most hosts whose connections wait.
const HOSTS_MAX: usize = 16;
/// The most bytes of the head of a response.
const HEAD_MAX: usize = 64 << 10;
/// The most headers of a response.
const HEADERS_MAX: usize = 100;

/// The client of a stage.
pub(super) type PooledClient = Client<Dialer, Full<Bytes>>;

/// The connections of a stage. No other stage uses them.
pub(super) struct Pool {
    dialer: Dialer,
    current: Mutex<Option<(PooledClient, HashSet<Origin>)>>,
}

impl Pool {
    /// Creates a pool without connections.
    pub(super) fn new(dialer: Dialer) -> Self {
        Self { dialer, current: Mutex::default() }
    }

    /// Returns the client to send a request with.
    ///
    /// A stage that goes from host to host gets another client now and then. The one before closes its connections once its requests
    /// have ended.
    pub(super) fn client(&self, origin: &Origin) -> PooledClient {
        let mut current = lock(&self.current);
        if let Some((client, origins)) = &mut *current
            && (origins.contains(origin) || origins.len() < HOSTS_MAX)
        {
            origins.insert(origin.clone());
            return client.clone();
        }
        let client = self.build();
        *current = Some((client.clone(), HashSet::from([origin.clone()])));
        client
    }

    fn build(&self) -> PooledClient {
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .http1_max_buf_size(HEAD_MAX)
            .http1_max_headers(HEADERS_MAX)
            .build(self.dialer.clone())
    }
}
