//! All that the item of a dead letter ran with, to run it again elsewhere.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::DeadLetter;
use crate::broker::plugins::Plugins;
use crate::chain::record::Deployed;
use crate::chain::{Chain, Plugin, Work};
use crate::client::{Client, ClientError};
use crate::frame::cbor;
use crate::name::{ChainName, Digest, Revision, StageName};

/// A dead letter, and all that its item ran with.
pub(crate) struct RanWith {
    /// The letter.
    pub(crate) letter: DeadLetter,
    /// The revision of the letter.
    pub(crate) deployed: Deployed,
    /// The same, checked.
    pub(crate) chain: Chain,
    /// The positions of the stages that the item ran in: the one of the letter, and those inline behind it.
    pub(crate) stages: Range<usize>,
    /// The plugins of these stages.
    pub(crate) plugins: BTreeMap<Digest, Bytes>,
    /// What the initializers of these stages read, in CBOR. Stages whose initializer read nothing have none.
    pub(crate) pins: BTreeMap<StageName, Vec<u8>>,
}

impl Client {
    /// Reads a dead letter and all that its item ran with.
    pub(crate) async fn ran_with(&self, chain: &ChainName, number: u64) -> Result<RanWith, ClientError> {
        let (registry, _) = self.chain(chain).await?;
        let letter = self.dead_letter(chain, number).await?;
        let mut letter = letter.ok_or_else(|| ClientError::NoLetter { chain: chain.clone(), numbers: vec![number] })?;
        if let Some(reference) = letter.large.take() {
            letter.raw.payload = self.large_as_item(chain, &reference).await?;
            letter.item = cbor::value(&letter.raw.payload);
        }
        let revision = Revision::new(letter.revision);
        let (deployed, checked) = Self::revision(&registry, chain, revision).await?;
        let first = checked.stages.iter().position(|stage| stage.name.as_str() == letter.stage);
        let hop = first.and_then(|first| checked.hops().into_iter().find(|hop| hop.start == first));
        let stages = hop.ok_or_else(|| ClientError::Registry {
            what: format!("dead letter {number} of chain `{chain}`"),
            reason: format!("{revision} has no stage `{}` with a queue", letter.stage),
        })?;
        let (mut plugins, mut pins) = (BTreeMap::new(), BTreeMap::new());
        for stage in &checked.stages[stages.clone()] {
            let Work::Task { plugin: Plugin::Stored(digest), .. } = &stage.work else { continue };
            if !plugins.contains_key(digest) {
                let bytes = Plugins::of(&self.broker).get(digest).await?;
                plugins.insert(digest.clone(), Bytes::from(bytes));
            }
            if let Some(pinned) = registry.pinned(chain, revision, &stage.name).await? {
                pins.insert(stage.name.clone(), Plugins::pins(&self.broker).get(&pinned.answers).await?);
            }
        }
        Ok(RanWith { letter, deployed, chain: checked, stages, plugins, pins })
    }
}
