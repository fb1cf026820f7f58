//! The results and dead letters that a deploy would remove.

use crate::broker::arrange::kept::beyond_retention;
use crate::chain::Chain;
use crate::client::{Client, ClientError};

/// Refuses a first deploy that would remove existing results or dead letters. They are older or larger than the manifest
/// keeps, and no revision is left that they belong to.
pub(super) async fn check_kept(client: &Client, chain: &Chain) -> Result<(), ClientError> {
    match beyond_retention(&client.broker, chain).await?.as_slice() {
        [] => Ok(()),
        beyond => {
            let all: Vec<String> = beyond.iter().map(|(what, number)| format!("{number} {what}")).collect();
            Err(ClientError::WouldDrop { chain: chain.name.clone(), what: all.join(" and ") })
        }
    }
}
