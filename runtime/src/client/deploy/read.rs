//! Reads manifests and plugins from their files, and plugins from the server.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::Source;
use super::schemas::read_schemas;
use crate::broker::plugins::Plugins;
use crate::chain::Stage;
use crate::chain::manifest::Manifest;
use crate::client::{Client, ClientError};
use crate::file;
use crate::name::Digest;

/// The default file name of a manifest.
const MANIFEST: &str = "chain.toml";

/// Returns the file of a manifest that is named by itself or by its folder.
pub(super) fn file_of(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(MANIFEST) } else { path.to_owned() }
}

impl Source {
    /// Returns the manifest with its path. Without one, the path is the name of the chain.
    pub(super) fn read(self) -> Result<(PathBuf, Manifest), ClientError> {
        match self {
            Self::File(path) => {
                let (path, mut manifest) = read_manifest(&path)?;
                read_schemas(&mut manifest, path.parent().unwrap_or(Path::new("")))?;
                Ok((path, manifest))
            }
            Self::Manifest(mut manifest) => {
                read_schemas(&mut manifest, Path::new(""))?;
                Ok((PathBuf::from(&manifest.name), *manifest))
            }
        }
    }
}

/// Reads the manifest from a file, or from `chain.toml` in a folder.
fn read_manifest(path: &Path) -> Result<(PathBuf, Manifest), ClientError> {
    let path = file_of(path);
    match Manifest::from_toml(&read_text(&path, ClientError::NoManifest)?) {
        Ok(manifest) => Ok((path, manifest)),
        Err(error) => Err(ClientError::Manifest { path, error }),
    }
}

/// Reads a text. `missing` creates the error for a file that does not exist.
pub(super) fn read_text(path: &Path, missing: fn(PathBuf) -> ClientError) -> Result<String, ClientError> {
    let bytes = read(path, file::TEXT_MAX, missing)?;
    String::from_utf8(bytes).map_err(|error| {
        let reason = format!("not UTF-8 after byte {}", error.utf8_error().valid_up_to());
        ClientError::Read { path: path.to_owned(), error: io::Error::new(io::ErrorKind::InvalidData, reason) }
    })
}

/// Reads a plugin.
pub(super) fn read_plugin(path: &Path) -> Result<Vec<u8>, ClientError> {
    if path.is_dir() {
        return Err(ClientError::PluginFolder(path.to_owned()));
    }
    read(path, file::PLUGIN_MAX, ClientError::NoPluginFile)
}

/// Reads a file. `missing` creates the error for a file that does not exist.
fn read(path: &Path, max: u64, missing: fn(PathBuf) -> ClientError) -> Result<Vec<u8>, ClientError> {
    file::read(path, max).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => missing(path.to_owned()),
        _ => ClientError::Read { path: path.to_owned(), error },
    })
}

/// Returns the plugin of a stage that is named by its digest.
pub(super) async fn stored(client: Option<&Client>, stage: &Stage, digest: &Digest) -> Result<Bytes, ClientError> {
    let (stage, plugin) = (stage.name.clone(), digest.to_string());
    let Some(client) = client else {
        return Err(ClientError::OnServer { stage, what: format!("the plugin `{plugin}`") });
    };
    let plugins = Plugins::of(&client.broker);
    if !plugins.has(digest).await? {
        return Err(ClientError::NoPlugin { stage, plugin });
    }
    Ok(plugins.get(digest).await?.into())
}
