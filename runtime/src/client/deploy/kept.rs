//! What a deploy would remove of results and dead letters.

use crate::chain::Chain;
use crate::client::{Client, ClientError};

impl Client {
    /// Refuses to deploy a chain that was not deployed before over results or dead letters that are older or larger than its
    /// manifest keeps: no revision is there whose results these are, so they would be removed at once.
    pub(super) async fn check_kept(&self, chain: &Chain) -> Result<(), ClientError> {
        match self.broker.beyond_retention(chain).await?.as_slice() {
            [] => Ok(()),
            beyond => {
                let all: Vec<String> = beyond.iter().map(|(what, number)| format!("{number} {what}")).collect();
                Err(ClientError::WouldDrop { chain: chain.name.clone(), what: all.join(" and ") })
            }
        }
    }
}
