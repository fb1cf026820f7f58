//! What a stage runs: a task of a plugin, or a program of the node's machine.

use std::path::PathBuf;

use super::program::{self, Program};
use super::{ChainError, Reader, manifest};
use crate::name::{DIGEST_PREFIX, Digest, StageName};

/// What a stage runs on each item.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// A task of a plugin.
    Task {
        /// The plugin.
        plugin: Plugin,
        /// The name of the task in the plugin.
        task: String,
    },
    /// A program of the node's machine.
    Program(Box<Program>),
}

/// The source of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plugin {
    /// A file. Its path is relative to the manifest.
    File(PathBuf),
    /// A plugin on the server.
    Stored(Digest),
}

impl Work {
    pub(super) fn new(reader: &Reader, raw: &manifest::Stage, stage: &StageName) -> Result<Self, ChainError> {
        if let Some(exec) = &raw.exec {
            return Ok(Self::Program(Box::new(program::program(reader, raw, exec)?)));
        }
        program::none(reader, raw)?;
        let Some(plugin) = &raw.plugin else {
            let problem = "a stage needs a task or a program: name a `plugin`, or a program with `exec`";
            return Err(reader.error("plugin", problem));
        };
        let plugin = if plugin.starts_with(DIGEST_PREFIX) {
            Plugin::Stored(plugin.parse().map_err(|error| ChainError::Digest { stage: stage.clone(), error })?)
        } else {
            Plugin::File(PathBuf::from(plugin))
        };
        Ok(Self::Task { plugin, task: raw.task.clone().unwrap_or_else(|| raw.name.clone()) })
    }
}
