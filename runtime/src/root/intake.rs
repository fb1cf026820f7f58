//! Closing and opening the intake of a chain.

use super::{Root, RootError};
use crate::name::ChainName;

impl Root {
    /// Closes the intake: feeding fails from now on, what was fed is finished. Says whether it was open.
    ///
    /// # Errors
    ///
    /// If there is no such chain, or the server does not allow it.
    pub async fn stop(&self, chain: &ChainName) -> Result<bool, RootError> {
        self.set_open(chain, false).await
    }

    /// Opens the intake. Says whether it was closed.
    ///
    /// # Errors
    ///
    /// If there is no such chain, or the server does not allow it.
    pub async fn start(&self, chain: &ChainName) -> Result<bool, RootError> {
        self.set_open(chain, true).await
    }

    async fn set_open(&self, chain: &ChainName, open: bool) -> Result<bool, RootError> {
        loop {
            let (registry, marked) = self.chain(chain).await?;
            let changed = marked.state.open != open;
            let mut state = marked.state.clone();
            state.open = open;
            if changed && !registry.swap_state(chain, Some(&marked), &state).await? {
                continue;
            }
            self.settle(&registry, chain, state).await?;
            return Ok(changed);
        }
    }
}
