//! Reads the plugin of a stage, and checks that the stage can run it.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;

use super::built::{self, Given};
use super::read::{read_plugin, stored};
use crate::chain::{Plugin, Stage};
use crate::client::{Client, ClientError};
use crate::engine::inspect::{TaskDescription, inspect};
use crate::engine::schemas;
use crate::name::{ChainName, Digest};

/// Where plugins come from.
#[derive(Clone, Copy)]
pub(super) struct From<'a> {
    /// The cluster. `None` if no server is used.
    pub client: Option<&'a Client>,
    /// The folder of the manifest.
    pub base: &'a Path,
    pub chain: &'a ChainName,
    /// Plugins that come with the manifest, as it names them.
    pub given: &'a BTreeMap<String, Given>,
    /// `true` if a plugin is asked for the schemas that its section lacks.
    pub asks: bool,
}

/// A plugin that a stage can run.
pub(super) struct Read {
    pub digest: Digest,
    pub bytes: Bytes,
    /// The task of the stage.
    pub task: TaskDescription,
}

impl From<'_> {
    /// Reads the plugin of a stage.
    pub async fn read(self, stage: &Stage, plugin: &Plugin, task: &str) -> Result<Read, ClientError> {
        let written = match plugin {
            Plugin::File(path) => path.to_string_lossy().into_owned(),
            Plugin::Stored(digest) => digest.to_string(),
        };
        let (digest, bytes) = match (plugin, self.given.get(&written)) {
            (Plugin::File(_), Some(given)) => match self.client {
                Some(client) => built::chosen(client, self.chain, given).await?,
                None => (Digest::of(&given.bytes), given.bytes.clone()),
            },
            (Plugin::File(name), None) => {
                let bytes = read_plugin(&self.base.join(name))?;
                (Digest::of(&bytes), bytes.into())
            }
            (Plugin::Stored(digest), _) => (digest.clone(), stored(self.client, stage, digest).await?),
        };
        let inspected = if self.asks { schemas::inspect(&bytes) } else { inspect(&bytes) };
        let checked = inspected.and_then(|inspection| {
            let described = inspection.task(task)?;
            inspection.check_memory(stage.memory)?;
            inspection.check_calls(task, &stage.grants.groups())?;
            Ok(described.clone())
        });
        match checked {
            Ok(task) => Ok(Read { digest, bytes, task }),
            Err(error) => Err(ClientError::Plugin { stage: stage.name.clone(), plugin: written, error }),
        }
    }
}
