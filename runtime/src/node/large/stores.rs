//! What the hops of a node share for large items: one store for each chain, and the files.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::LargeItems;
use super::files::Files;
use crate::broker::Broker;
use crate::broker::large::{LargeSettings, LargeStore};
use crate::chain::Chain;
use crate::lock::lock;
use crate::name::ChainName;

/// The large items of a node.
#[derive(Debug)]
pub(crate) struct LargeStores {
    broker: Broker,
    files: Arc<Files>,
    stores: Mutex<BTreeMap<ChainName, (LargeSettings, LargeStore)>>,
}

impl LargeStores {
    /// Creates the large items of a node. Its files are in the folder for temporary files.
    pub(crate) fn new(broker: &Broker) -> Self {
        let files = Arc::new(Files::new(std::env::temp_dir()));
        Self { broker: broker.clone(), files, stores: Mutex::default() }
    }

    /// Returns the store of a chain. It is the same for all revisions with the same settings.
    pub(crate) fn store(&self, chain: &Chain) -> LargeStore {
        let settings = LargeSettings::of(chain);
        let mut stores = lock(&self.stores);
        if let Some((same, store)) = stores.get(&chain.name)
            && *same == settings
        {
            return store.clone();
        }
        let store = LargeStore::of(&self.broker, &chain.name, settings);
        stores.insert(chain.name.clone(), (settings, store.clone()));
        store
    }

    /// Returns the large items of the hop of a revision of this wire that begins with the stage at this position.
    pub(crate) fn hop(&self, chain: &Chain, first: usize, wire: u32) -> LargeItems {
        let hops = chain.hops();
        let position = hops.iter().position(|stages| stages.start == first).unwrap_or(0);
        let place = (position, hops.len());
        LargeItems::new(self.store(chain), Arc::clone(&self.files), chain, place, wire)
    }
}
