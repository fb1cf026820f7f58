//! Checks that secrets which stages are granted have values.

use super::super::{Client, ClientError};
use crate::broker::BrokerError;
use crate::broker::service::Nodes;
use crate::calls::secrets::variable;
use crate::chain::Chain;

/// Refuses grants of secrets that no node has. Nothing is known while a node does not answer, or none has a place for secrets.
pub(super) async fn check(client: &Client, chain: &Chain) -> Result<(), ClientError> {
    if chain.stages.iter().all(|stage| stage.grants.secrets.is_empty()) {
        return Ok(());
    }
    let nodes = match Nodes::ask(&client.broker).await {
        Err(BrokerError::Timeout(_)) => return Ok(()),
        nodes => nodes?,
    };
    let known: Vec<&String> = nodes.answered.iter().filter_map(|node| node.secrets.as_ref()).flatten().collect();
    let has_place = nodes.answered.iter().any(|node| node.secrets.is_some());
    if !has_place || !nodes.silent.is_empty() {
        return Ok(());
    }
    for stage in &chain.stages {
        for name in stage.grants.secrets.keys() {
            let variable = variable(name);
            if !known.contains(&&variable) {
                return Err(ClientError::NoSecret { stage: stage.name.clone(), secret: name.to_string(), variable });
            }
        }
    }
    Ok(())
}
