//! The identity of the registry that a revision was read from.
//!
//! A server may come back with other data: none, or an older copy. The same name and number may then belong to another revision,
//! with other plugins. So after each loss of the connection, no item runs and no output is stored before the registry is known to
//! be the same. If it is another, the supervisor ends all revisions of the old one, and this waits until then.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::Mutex;

use crate::broker::registry::Registry;
use crate::broker::{Broker, BrokerError};

/// How long to wait before asking again.
const AGAIN: Duration = Duration::from_millis(200);

/// The registry that a revision was read from.
#[derive(Debug)]
pub(crate) struct Identity {
    broker: Broker,
    /// When the registry was made, as the server writes it.
    created: String,
    /// How often the connection had been lost when the registry was last known to be this one.
    checked: AtomicU64,
    is_other: AtomicBool,
    asking: Mutex<()>,
}

impl Identity {
    /// Reads the identity of the registry. All that is read afterwards belongs to it.
    pub(crate) async fn now(broker: &Broker) -> Result<Self, BrokerError> {
        let losses = broker.losses();
        let created = Registry::created(broker).await?;
        let (checked, is_other) = (AtomicU64::new(losses), AtomicBool::new(false));
        Ok(Self { broker: broker.clone(), created, checked, is_other, asking: Mutex::new(()) })
    }

    /// Returns `true` if the registry is known to be the same, without asking.
    pub(crate) fn is_known(&self) -> bool {
        self.checked.load(SeqCst) == self.broker.losses() && !self.is_other.load(SeqCst)
    }

    /// Returns `true` if the registry is the same. Asks until the server answers.
    pub(crate) async fn holds(&self) -> bool {
        while !self.is_known() {
            let _asking = self.asking.lock().await;
            if self.is_other.load(SeqCst) {
                return false;
            }
            let losses = self.broker.losses();
            match Registry::created(&self.broker).await {
                Ok(created) if created == self.created => self.checked.store(losses, SeqCst),
                Ok(created) => {
                    tracing::warn!(before = self.created, now = created, "the registry is another one than before");
                    self.is_other.store(true, SeqCst);
                    return false;
                }
                Err(error) => {
                    tracing::debug!(%error, "not known yet whether the registry is the same");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        true
    }
}
