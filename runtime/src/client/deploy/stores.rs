//! Checks the buckets and object stores that stages are granted.

use super::super::{Client, ClientError};
use crate::broker::stores::check;
use crate::chain::{Chain, Stage};

/// Refuses grants of buckets and object stores that do not exist.
pub(super) async fn check(client: &Client, chain: &Chain) -> Result<(), ClientError> {
    for Stage { name, grants, .. } in &chain.stages {
        if let Some(problem) = check::problem(&client.broker, grants.kv.keys(), grants.objects.keys()).await? {
            return Err(ClientError::NoStore { stage: name.clone(), problem });
        }
    }
    Ok(())
}
