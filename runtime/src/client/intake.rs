//! Opens and closes the intake of a chain. Checks that only the chain listens to it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::settle::settle;
use super::{Client, ClientError};
use crate::broker::BrokerError;
use crate::broker::arrange;
use crate::broker::listening::{Listener, listening, other_domain};
use crate::broker::stream::Stream;
use crate::name::ChainName;
use crate::subject;

/// How long a deploy waits for further answers of listeners to the intake.
const DEPLOYING: Duration = Duration::from_millis(300);
/// How long a feeder waits for such answers. Shorter, because the deploy has checked before.
const FEEDING: Duration = Duration::from_millis(100);

/// The effect of opening or closing an intake.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Switched {
    /// `true` if the intake was in the other state before.
    pub changed: bool,
    /// Streams of the chain that were gone and are created anew, empty.
    pub made: BTreeSet<String>,
}

/// Opens or closes the intake of a chain.
pub(super) async fn set_open(client: &Client, chain: &ChainName, open: bool) -> Result<Switched, ClientError> {
    loop {
        let (registry, marked) = client.chain(chain).await?;
        let changed = marked.state.open != open;
        let mut state = marked.state.clone();
        state.open = open;
        if changed && !registry.swap_state(chain, Some(&marked), &state).await? {
            continue;
        }
        let made = arrange::chain_settings(&client.broker, chain).await?.missing(chain);
        settle(&registry, chain, state).await?;
        return Ok(Switched { changed, made });
    }
}

/// Refuses to deploy a chain if a stream out of reach listens to its intake. This `JetStream` account and domain does not
/// list such a stream.
pub(super) async fn check_intake_to_deploy(client: &Client, chain: &ChainName) -> Result<(), ClientError> {
    let stranger = async || -> Result<Option<Listener>, BrokerError> {
        let intake = subject::intake(chain);
        let listening = listening(&client.broker, &intake, DEPLOYING).await?;
        if listening.is_empty() {
            return Ok(None);
        }
        Ok(beyond(listening, &Stream::listening_on(&client.broker, &intake).await?))
    };
    // Another client may deploy or remove the chain meanwhile. A listener counts only if it is found twice.
    if stranger().await?.is_none() {
        return Ok(());
    }
    refuse(client, chain, stranger().await?).await
}

/// Refuses to feed a chain if another stream listens to its intake.
pub(super) async fn check_intake_to_feed(client: &Client, chain: &ChainName) -> Result<(), ClientError> {
    let listening = listening(&client.broker, &subject::intake(chain), FEEDING).await?;
    refuse(client, chain, beyond(listening, &[subject::work_stream(chain)])).await
}

async fn refuse(client: &Client, chain: &ChainName, stranger: Option<Listener>) -> Result<(), ClientError> {
    let Some(Listener { stream, domain }) = stranger else { return Ok(()) };
    let domain = match domain {
        Some(domain) => Some(domain),
        None => other_domain(&client.broker, &subject::intake(chain), &stream).await?,
    };
    Err(ClientError::IntakeShared { chain: chain.clone(), stream, domain })
}

/// Returns a listener that is not among the chain's own streams.
fn beyond(mut listening: Vec<Listener>, own: &[String]) -> Option<Listener> {
    for stream in own {
        if let Some(position) = listening.iter().position(|listener| listener.stream == *stream) {
            listening.remove(position);
        }
    }
    listening.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_a_stranger_unless_it_is_ones_own_and_answers_once() {
        let cases: [(&[&str], &[&str], Option<&str>); 6] = [
            (&[], &[], None),
            (&[], &["A"], None),
            (&["A"], &["A"], None),
            (&["A"], &[], Some("A")),
            (&["A", "A"], &["A"], Some("A")),
            (&["A", "B"], &["A"], Some("B")),
        ];
        for (listening, own, expected) in cases {
            let listener = |stream: &&str| Listener { stream: (*stream).to_owned(), domain: None };
            let own: Vec<String> = own.iter().map(|&stream| stream.to_owned()).collect();
            let found = beyond(listening.iter().map(listener).collect(), &own).map(|listener| listener.stream);
            assert_eq!(found.as_deref(), expected, "{listening:?} {own:?}");
        }
    }
}
