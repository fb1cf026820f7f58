//! The work stream: its subjects, its settings, and when its limit is lowered.

use super::freeze::{Narrowed, await_thaw, narrow};
use super::{Arranged, Look, known_stream, make, marked, merged};
use crate::broker::streams::ChainStreams;
use crate::broker::{BrokerError, layout};
use crate::chain::settings::{Question, WorkSettings};
use crate::subject;

impl Look<'_> {
    /// Returns `true` if something was changed.
    pub(super) async fn arrange_work(&self, arranged: &mut Arranged) -> Result<bool, BrokerError> {
        let (broker, chain, state, revisions) = (self.broker, self.chain, self.state, self.revisions);
        let stream = subject::work_stream(chain);
        let first = &revisions.active.stages[0].name;
        let config = |settings: &WorkSettings| layout::work(chain, state, first, settings);
        let (needed, wanted) = (revisions.work, WorkSettings::of(&revisions.active));
        let Some(info) = known_stream(broker, chain, &stream).await? else {
            if !self.how.create {
                return Ok(false);
            }
            let mut config = marked(config(&needed.map_or(wanted, |needed| needed.widest(wanted))), state.wire);
            config.first_sequence = ChainStreams::of(broker, chain).first_sequence().await?;
            return make(broker, &config).await.map(|_| true);
        };
        if let Some(rest) = info.frozen_for() {
            await_thaw(broker, chain, &stream, rest).await?;
            return Ok(true);
        }
        let has = layout::work_settings(&info.config);
        // Items fed meanwhile may need the limit.
        let before = self.how.before.and_then(|before| before.work);
        let current = before.map_or(has, |before| WorkSettings { limit: has.limit, ..before });
        let (note, held) = (info.note(), info.held());
        let answer = WorkSettings::decide(&Question { needed, wanted, current, note, held });
        let merged = |settings| merged(&info, config(settings), state.wire, answer.note.clone());
        if self.update_if_other(&info, merged(&answer.settings)).await? {
            return Ok(true);
        }
        arranged.waits |= answer.note.is_some();
        let Some(limit) = WorkSettings::narrower_limit(needed, &answer.settings) else { return Ok(false) };
        let narrowed = narrow(self, merged(&answer.settings), limit).await?;
        arranged.waits |= narrowed != Narrowed::Done;
        Ok(narrowed != Narrowed::Full)
    }
}

/// Makes the work stream of a chain with this state.
#[cfg(test)]
pub(crate) async fn make_work(
    broker: &crate::broker::Broker,
    chain: &crate::chain::Chain,
    state: &crate::chain::record::State,
) -> Result<(), BrokerError> {
    let config = layout::work(&chain.name, state, &chain.stages[0].name, &WorkSettings::of(chain));
    make(broker, &config).await.map(drop)
}
