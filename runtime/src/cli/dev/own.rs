//! The manifests that `dev` deploys.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;

use crate::calls::grant::Grants;
use crate::chain::{Stage, Work};
use crate::client::Package;
use crate::program::allow;

/// A manifest that is deployed here.
pub(super) struct Own {
    /// Its path.
    pub(super) path: PathBuf,
    /// The manifest and the plugins that were built for it.
    pub(super) package: Package,
    /// `true` if it asks for programs or grants.
    pub(super) asks: bool,
    /// What its stages are granted.
    pub(super) grants: Vec<Arc<Grants>>,
}

/// Checks a manifest, and that its programs are here: no other node would run them.
pub(super) fn check(path: PathBuf) -> anyhow::Result<Own> {
    let chain = Package::file(&path).chain()?;
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let (mut asks, mut all_grants) = (false, Vec::new());
    for Stage { name, work, grants, .. } in chain.stages {
        asks |= !grants.is_empty();
        all_grants.push(grants);
        let Work::Program(program) = work else { continue };
        asks = true;
        // Those that come with their stage are checked with its manifest.
        if !program.name.starts_with("./") {
            let found = allow::locate(&program.name, &on_path);
            found.map_err(|problem| anyhow!("chain `{}`: stage `{name}`: {problem}", chain.name))?;
        }
    }
    let package = Package::file(&path);
    Ok(Own { path, package, asks, grants: all_grants })
}
