//! A package that runs in this process, without a server.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{DeployOptions, Package, Prepared, now, prepare, this_process};
use crate::archive::pack::Packed;
use crate::chain::Chain;
use crate::chain::manifest::Manifest;
use crate::chain::record::Deployed;
use crate::client::ClientError;
use crate::name::{Digest, Revision};
use crate::wire::WIRE;

/// A package whose plugins and files were read and checked.
pub(crate) struct Here {
    /// The manifest, as a deploy would store it. Its revision is 1.
    pub(crate) deployed: Deployed,
    /// The chain.
    pub(crate) chain: Chain,
    /// The plugins.
    pub(crate) plugins: BTreeMap<Digest, Bytes>,
    /// The files of programs.
    pub(crate) archives: BTreeMap<Digest, Packed>,
}

impl Package {
    /// Reads and checks what a deploy does, except what only a server knows.
    ///
    /// # Errors
    ///
    /// As for a deploy, and if a stage names a plugin or files that are stored on a server. Contracts are not compared if
    /// `no_contracts`.
    pub(crate) async fn here(self, no_contracts: bool) -> Result<Here, ClientError> {
        let options = DeployOptions { no_contracts, ..DeployOptions::default() };
        let Prepared { manifest, chain, digest, plugins, archives, .. } = prepare(None, self, options).await?;
        let deployed = Deployed {
            chain: chain.name.clone(),
            version: chain.version.clone(),
            revision: Revision::new(1),
            digest,
            deployed: now(),
            by: Some(this_process()),
            manifest: Manifest { wire: Some(WIRE), ..manifest },
        };
        let plugins = plugins.into_iter().map(|(digest, given)| (digest, given.bytes)).collect();
        Ok(Here { deployed, chain, plugins, archives })
    }
}
