//! Leases: what a living client refers to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use ulid::Ulid;

use super::{Holder, LargeError, LargeStore};

/// How often a lease is renewed. The server removes its records a minute after the last renewal.
const RENEW: Duration = Duration::from_secs(20);

/// What a living client refers to.
///
/// It renews its records until it is dropped; then the server removes them within a minute, and the sweep the objects.
#[derive(Debug)]
pub(crate) struct Lease {
    store: LargeStore,
    id: Ulid,
    names: Arc<Mutex<BTreeSet<String>>>,
    renewing: JoinHandle<()>,
}

impl LargeStore {
    /// Returns a lease that holds nothing yet.
    pub(crate) fn lease(&self) -> Lease {
        let (store, id, names) = (self.clone(), Ulid::generate(), Arc::default());
        let renewing = tokio::spawn(renew(store.clone(), Holder::Lease(id), Arc::clone(&names)));
        Lease { store, id, names, renewing }
    }
}

impl Lease {
    /// Returns the holder of its records.
    pub(crate) fn holder(&self) -> Holder {
        Holder::Lease(self.id)
    }

    /// Holds an object.
    pub(crate) async fn hold(&self, name: &str) -> Result<(), LargeError> {
        let mut names = self.names.lock().await;
        self.store.hold(name, self.holder()).await?;
        names.insert(name.to_owned());
        Ok(())
    }

    /// Lets an object go. If nothing else holds it, it is removed.
    pub(crate) async fn release(&self, name: &str) -> Result<(), LargeError> {
        // No renewal may write the record again.
        let mut names = self.names.lock().await;
        names.remove(name);
        self.store.release(name, self.holder()).await
    }

    /// Lets all objects go.
    pub(crate) async fn end(self) -> Result<(), LargeError> {
        let names = std::mem::take(&mut *self.names.lock().await);
        for name in names {
            self.store.release(&name, self.holder()).await?;
        }
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// Renews the records of a lease for ever.
async fn renew(store: LargeStore, holder: Holder, names: Arc<Mutex<BTreeSet<String>>>) {
    loop {
        tokio::time::sleep(RENEW).await;
        let held: Vec<String> = names.lock().await.iter().cloned().collect();
        for name in held {
            let names = names.lock().await;
            if !names.contains(&name) {
                continue;
            }
            if let Err(error) = store.write_record(&name, holder).await {
                tracing::debug!(%error, name, "a lease was not renewed");
            }
        }
    }
}
