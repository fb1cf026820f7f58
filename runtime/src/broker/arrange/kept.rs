//! Makes the streams of results and dead letters of a chain that has no state.

use std::collections::BTreeSet;

use super::{known_stream, make};
use crate::broker::stream::Stream;
use crate::broker::streams::{RESULTS_LIMIT, delete_unused, refusal};
use crate::broker::{Broker, BrokerError, layout};
use crate::chain::Chain;
use crate::chain::settings::KeptSettings;
use crate::subject;

/// Makes the streams of a chain's results and dead letters, before its first deploy.
///
/// Only these streams reserve their room, so a server without room refuses here. So does a server with fewer peers than the chain
/// asks for. Returns the names of the new streams.
pub async fn make_kept(broker: &Broker, chain: &Chain) -> Result<BTreeSet<String>, BrokerError> {
    let (settings, mut made) = (KeptSettings::of(chain), BTreeSet::new());
    for config in [layout::results(&chain.name, &settings), layout::dead(&chain.name, &settings)] {
        match make(broker, &config).await {
            Ok(true) => drop(made.insert(config.name)),
            Ok(false) => {}
            Err(error) => {
                delete_unused(broker, &made).await?;
                return Err(refusal(&chain.name, chain.replicas, RESULTS_LIMIT, error));
            }
        }
    }
    Ok(made)
}

/// Returns how many results and dead letters a manifest's retention would remove.
///
/// Where messages were removed before, the numbers are upper bounds.
pub async fn beyond_retention(broker: &Broker, chain: &Chain) -> Result<Vec<(&'static str, u64)>, BrokerError> {
    let name = &chain.name;
    let mut beyond = Vec::new();
    for (what, stream) in [("results", subject::results_stream(name)), ("dead letters", subject::dead_stream(name))] {
        let Some(info) = known_stream(broker, name, &stream).await? else { continue };
        let (held, settings) = (info.held(), KeptSettings::of(chain));
        if held.messages == 0 || !layout::kept_settings(&info.config).is_wider(&settings) {
            continue;
        }
        let mut number = 0;
        if let Some(max_bytes) = settings.max_bytes {
            let each = info.state.bytes.div_ceil(held.messages).max(1);
            number = info.state.bytes.saturating_sub(max_bytes).div_ceil(each);
        }
        if let Some(max_age) = settings.max_age {
            let mut reader = Stream::of(broker, &stream).scan(">".to_owned(), Some(max_age)).await?;
            let younger = reader.next().await?.map_or(held.last + 1, |kept| kept.sequence);
            number = number.max(younger.saturating_sub(held.first));
        }
        if number > 0 {
            beyond.push((what, number.min(held.messages)));
        }
    }
    Ok(beyond)
}
