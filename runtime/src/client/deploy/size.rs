//! Checks that a manifest can be stored.

use crate::chain::Chain;
use crate::chain::manifest::{self, Manifest};
use crate::client::ClientError;

/// Room for the additions to a stored manifest: digests in place of file names, the deployer, the time, and the message's
/// headers.
const DEPLOYED_ROOM: usize = 8 << 10;

/// Refuses a manifest that does not fit in one message. Names the stage with the largest config.
pub(super) fn check_size(chain: &Chain, manifest: &Manifest, max: usize) -> Result<(), ClientError> {
    let encode = |error: serde_json::Error| ClientError::Encode(error.to_string());
    let size = serde_json::to_vec_pretty(manifest).map_err(encode)?.len() + DEPLOYED_ROOM;
    if size <= max {
        return Ok(());
    }
    let config = |raw: &manifest::Stage| raw.config.as_ref().map_or(0, |config| config.to_string().len());
    let sizes = chain.stages.iter().zip(manifest.stages.iter().map(config));
    let (stage, config) = sizes
        .max_by_key(|(_, config)| *config)
        .map(|(stage, config)| (stage.name.clone(), config))
        .ok_or_else(|| ClientError::Encode(format!("a manifest of {size} bytes")))?;
    Err(ClientError::ManifestTooLarge { stage, config, size, max })
}
