//! The part of the idempotency keys that belongs to one work stream and to no other.

use std::sync::{Arc, PoisonError, RwLock};

use crate::broker::{Broker, BrokerError};
use crate::name::ChainName;

/// The first wire whose keys have such a part.
const SINCE: u32 = 2;

/// The part of the idempotency keys that belongs to the work stream. It changes when the stream is removed and made anew.
#[derive(Debug)]
pub struct WorkKey {
    key: RwLock<Arc<str>>,
    /// The nodes of a revision of an older wire must all use the same keys, and some may know no others.
    wire: u32,
}

impl WorkKey {
    /// Reads it from the server.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such stream.
    pub async fn read(broker: &Broker, chain: &ChainName, wire: u32) -> Result<Self, BrokerError> {
        let key = Self { key: RwLock::new("".into()), wire };
        key.renew(broker, chain).await?;
        Ok(key)
    }

    /// Reads it again.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or has no such stream.
    pub async fn renew(&self, broker: &Broker, chain: &ChainName) -> Result<(), BrokerError> {
        if self.wire >= SINCE {
            let key = format!("{}.", broker.work_key(chain).await?);
            *self.key.write().unwrap_or_else(PoisonError::into_inner) = key.into();
        }
        Ok(())
    }

    /// The key with a dot behind it, or nothing.
    #[must_use]
    pub fn get(&self) -> Arc<str> {
        Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner))
    }
}
