//! Whether the registry is still the one that a revision was read from.
//!
//! A server may come back with other data than it went with: nothing, or an older copy. Under the same name and number there may
//! then be another revision, with other plugins. So after each loss of the connection nothing that comes is run, and nothing
//! that has run is stored, before it is known that the registry is the same. If it is not, whoever follows the registry learns
//! of that too and ends all that is served; until then it waits.

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
    /// How often the connection was lost when it was last known to be this one.
    checked: AtomicU64,
    is_other: AtomicBool,
    asking: Mutex<()>,
}

impl Identity {
    /// The registry as it is now. What is read from it afterwards is what it stands for.
    pub(crate) async fn now(broker: &Broker) -> Result<Self, BrokerError> {
        let losses = broker.losses();
        let created = Registry::created(broker).await?;
        let (checked, is_other) = (AtomicU64::new(losses), AtomicBool::new(false));
        Ok(Self { broker: broker.clone(), created, checked, is_other, asking: Mutex::new(()) })
    }

    /// Whether it is known to be the same, without asking.
    pub(crate) fn is_known(&self) -> bool {
        self.checked.load(SeqCst) == self.broker.losses() && !self.is_other.load(SeqCst)
    }

    /// Whether it is the same. Asks as long as nobody can say.
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
