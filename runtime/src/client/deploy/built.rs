//! Plugins that are built from sources, and keep their bytes for as long as their inputs stay the same.

use bytes::Bytes;

use crate::broker::plugins::Plugins;
use crate::broker::registry::Registry;
use crate::client::{Client, ClientError};
use crate::name::{ChainName, Digest};

/// A plugin that comes with a package.
#[derive(Debug, Clone)]
pub(super) struct Given {
    /// Its bytes.
    pub(super) bytes: Bytes,
    /// The digest of what it was built from. `None` if that is not known.
    pub(super) inputs: Option<Digest>,
}

/// Returns the plugin that a chain runs already if it was built from the same inputs, else the given one. No tool gives the same
/// bytes on each machine.
pub(super) async fn chosen(client: &Client, chain: &ChainName, given: &Given) -> Result<(Digest, Bytes), ClientError> {
    let own = (Digest::of(&given.bytes), given.bytes.clone());
    let Some(inputs) = &given.inputs else { return Ok(own) };
    match same(client, chain, inputs).await? {
        Some(digest) if digest != own.0 => {
            // One that is damaged is replaced by the own one.
            let stored = Plugins::of(&client.broker).get(&digest).await;
            Ok(stored.map_or(own, |bytes| (digest, bytes.into())))
        }
        _ => Ok(own),
    }
}

/// Returns a plugin of a live revision that was built from these inputs. `None` if there is none.
async fn same(client: &Client, chain: &ChainName, inputs: &Digest) -> Result<Option<Digest>, ClientError> {
    let Some(registry) = Registry::open(&client.broker).await? else { return Ok(None) };
    let Some(marked) = registry.state(chain).await? else { return Ok(None) };
    for &revision in marked.state.live.iter().rev() {
        // One that a later release deployed cannot be read, and is not the same.
        let Ok(Some(deployed)) = registry.deployed(chain, revision).await else { continue };
        for plugin in deployed.manifest.stages.iter().filter_map(|stage| stage.plugin.as_ref()?.parse().ok()) {
            if Plugins::of(&client.broker).inputs(&plugin).await?.as_ref() == Some(inputs) {
                return Ok(Some(plugin));
            }
        }
    }
    Ok(None)
}
