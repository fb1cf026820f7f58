//! Makes the streams of a chain agree with its state.

use super::ClientError;
use crate::broker::arrange::Arrange;
use crate::broker::registry::Registry;
use crate::chain::record::State;
use crate::name::ChainName;

/// Makes the streams agree with the state. Repeats that if other clients change the state meanwhile.
pub(super) async fn settle(registry: &Registry, chain: &ChainName, state: State) -> Result<(), ClientError> {
    let how = Arrange { create: true, ..Arrange::default() };
    Ok(registry.settle(chain, state, how).await.map(drop)?)
}
