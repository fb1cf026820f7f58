//! Checks what a deploy checks of the stages, without a server, and finds all that is wrong.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::contracts::Contracts;
use super::{Package, files, read, schemas, stage};
use crate::calls::grant::Grants;
use crate::chain::manifest::{Manifest, StageSchemas};
use crate::chain::{Chain, Stage, Work};
use crate::client::ClientError;
use crate::engine::inspect::TaskSchemas;

/// What was found of the stages of a chain.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// What is wrong, with the position of its stage. `None` for what is fed.
    pub(crate) wrong: Vec<(Option<usize>, ClientError)>,
    /// What only a server knows, or a build.
    pub(crate) unchecked: Vec<(usize, Unchecked)>,
    /// Stages of which it is not known whether they fit, and why.
    pub(crate) doubts: Vec<String>,
}

/// What could not be checked.
#[derive(Debug)]
pub(crate) enum Unchecked {
    /// A plugin that is named by its folder, which was not built.
    Folder(PathBuf),
    /// What a server knows, in words.
    Server(String),
}

/// Returns the text of a manifest and its file, which is named by itself or by its folder.
pub(crate) fn manifest_text(path: &Path) -> Result<(PathBuf, String), ClientError> {
    let path = read::file_of(path);
    read::read_text(&path, ClientError::NoManifest).map(|text| (path, text))
}

impl Package {
    /// Checks the stages of a chain, except some of them. Files are relative to `base`.
    pub(crate) async fn check(
        &self,
        base: &Path,
        (manifest, chain): &(Manifest, Chain),
        except: &BTreeSet<usize>,
        no_contracts: bool,
    ) -> Findings {
        let mut findings = Findings::default();
        let mut contracts = Contracts::default();
        let mut manifest = manifest.clone();
        if let Err(error) = schemas::read_schemas(&mut manifest, base) {
            findings.wrong.push((naming(&manifest, base, &error), error));
            manifest.input.schema = None;
            manifest.stages.iter_mut().for_each(|stage| stage.schema = None);
        }
        if let Some(schema) = &manifest.input.schema {
            contracts.feed(schema);
        }
        for (position, stage) in chain.stages.iter().enumerate() {
            if except.contains(&position) {
                contracts.pass();
                continue;
            }
            findings.unchecked.extend(of_server(stage).map(|what| (position, Unchecked::Server(what))));
            let written = manifest.stages[position].schema.as_ref();
            match self.check_stage(base, chain, stage, (&mut contracts, written)).await {
                Ok(()) => {}
                Err(ClientError::Contract(_)) if no_contracts => {}
                Err(ClientError::PluginFolder(path)) => {
                    contracts.pass();
                    findings.unchecked.push((position, Unchecked::Folder(path)));
                }
                Err(ClientError::OnServer { what, .. }) => {
                    contracts.pass();
                    findings.unchecked.push((position, Unchecked::Server(what)));
                }
                Err(error) => {
                    if !matches!(error, ClientError::Contract(_)) {
                        contracts.pass();
                    }
                    findings.wrong.push((Some(position), error));
                }
            }
        }
        findings.doubts = contracts.doubts;
        findings
    }

    async fn check_stage(
        &self,
        base: &Path,
        chain: &Chain,
        stage: &Stage,
        (contracts, written): (&mut Contracts, Option<&StageSchemas>),
    ) -> Result<(), ClientError> {
        match &stage.work {
            Work::Program(program) => {
                files::pack(None, base, &stage.name, program).await?;
                contracts.add(&stage.name, &TaskSchemas::default(), written)
            }
            Work::Task { plugin, task } => {
                let from = stage::From { client: None, base, chain: &chain.name, given: &self.plugins, asks: true };
                let read = from.read(stage, plugin, task).await?;
                contracts.add(&stage.name, &read.task.schema, written)
            }
        }
    }
}

/// Returns the position of the stage that names the schema of an error.
fn naming(manifest: &Manifest, base: &Path, error: &ClientError) -> Option<usize> {
    let (ClientError::NoSchemaFile(path) | ClientError::Read { path, .. }) = error else { return None };
    let is_it = |schema: &Value| schema.as_str().is_some_and(|named| base.join(named) == *path);
    manifest.stages.iter().position(|stage| {
        let schemas = stage.schema.iter().flat_map(|schema| [&schema.input, &schema.output]);
        schemas.flatten().any(is_it)
    })
}

/// Returns what only a server and its nodes know of a stage.
fn of_server(stage: &Stage) -> impl Iterator<Item = String> + '_ {
    let Grants { kv, objects, secrets, .. } = &*stage.grants;
    let buckets = kv.keys().map(|name| format!("the bucket `{name}`"));
    let stores = objects.keys().map(|name| format!("the object store `{name}`"));
    buckets.chain(stores).chain(secrets.keys().map(|name| format!("a value for the secret `{name}`")))
}
