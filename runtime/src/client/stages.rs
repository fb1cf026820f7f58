//! The stages of chains. A mistyped stage is an error and not an empty answer.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Client, ClientError};
use crate::name::{ChainName, Revision, StageName};

/// Manifests that are read side by side.
const SIDE_BY_SIDE: usize = 16;

/// Checks that a chain has or had a stage. `None` stands for all chains: then a chain that cannot be read counts as having
/// the stage.
pub(super) async fn check_stage(
    client: &Client,
    chain: Option<&ChainName>,
    stage: &StageName,
) -> Result<(), ClientError> {
    let chains = match chain {
        Some(chain) => vec![chain.clone()],
        None => client.chains().await?,
    };
    let (mut known, mut is_unsure) = (BTreeSet::new(), false);
    for each in &chains {
        match stages(client, each, stage).await {
            Ok(stages) => known.extend(stages),
            Err(error) if chain.is_some() || error.is_transient() => return Err(error),
            // The chain is being deployed for the first time, or was removed.
            Err(ClientError::NoChain { .. }) => {}
            Err(error) => {
                tracing::debug!(chain = %each, %error, "its stages are not known");
                is_unsure = true;
            }
        }
        if known.contains(stage) {
            return Ok(());
        }
    }
    if is_unsure {
        return Ok(());
    }
    let known = known.into_iter().collect();
    Err(ClientError::NoStage { chain: chain.cloned(), stage: stage.clone(), known })
}

/// Returns the stages of a chain. Reads the manifests of retired versions only if no live version has the `wanted` stage.
async fn stages(client: &Client, chain: &ChainName, wanted: &StageName) -> Result<BTreeSet<StageName>, ClientError> {
    let (registry, marked) = client.chain(chain).await?;
    let read = async |revisions: Vec<Revision>| {
        let reads = revisions.into_iter().map(|revision| registry.deployed(chain, revision));
        let deployed: Vec<_> = stream::iter(reads).buffered(SIDE_BY_SIDE).try_collect().await?;
        let manifests = deployed.into_iter().flatten().map(|deployed| deployed.manifest);
        let names = manifests.flat_map(|manifest| manifest.stages.into_iter().map(|stage| stage.name));
        Ok::<_, ClientError>(names.filter_map(|name| name.parse().ok()).collect::<BTreeSet<StageName>>())
    };
    let mut known = read(marked.state.live.iter().copied().collect()).await?;
    if !known.contains(wanted) {
        let older = (1..marked.state.active.number()).map(Revision::new);
        known.extend(read(older.filter(|revision| !marked.state.live.contains(revision)).collect()).await?);
    }
    Ok(known)
}
