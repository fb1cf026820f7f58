//! Measures a chain: feeds it items, and counts its results and dead letters.
//!
//! The run follows results without taking them. The ids of its items distinguish them from all others in the chain.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;

use super::load::Load;
use super::report::{Ending, Report};
use super::tally::{Source, Tally};
use crate::broker::follow::{Follower, StartAt};
use crate::broker::stream::Stream;
use crate::broker::streams::ChainStreams;
use crate::client::{Client, ClientError, Feeder, Notice, until_served};
use crate::name::ChainName;

/// The most time to wait for messages when a run ends early.
const ABANDON: Duration = Duration::from_secs(1);
/// The pause between two checks whether everything stored was seen.
const LOOK: Duration = Duration::from_millis(5);
/// The run stops feeding after this many dead letters without any result.
const FAILING: u64 = 100;
/// How often to check whether all items fail.
const LOOK_FAILING: Duration = Duration::from_millis(100);
/// Requests to remove results that are sent side by side.
const SIDE_BY_SIDE: usize = 64;

/// A run that measures a chain.
pub struct Bench {
    client: Client,
    chain: ChainName,
    /// Feeds the items of the run.
    pub(super) feeder: Feeder,
    /// The unfinished messages of the chain before the run. The items of the run wait behind them.
    pub(super) backlog: u64,
    /// The progress of the run.
    pub(super) tally: Arc<Tally>,
    following: JoinSet<ClientError>,
}

impl Bench {
    /// Prepares a run. From here on, it follows the results and dead letters of the chain.
    pub async fn open(client: &Client, chain: &ChainName) -> Result<Self, ClientError> {
        let feeder = client.feeder(chain).await?;
        let backlog = ChainStreams::of(client.broker(), chain).unfinished().await?;
        let mut followers = Vec::with_capacity(Source::ALL.len());
        let mut places = [0; Source::ALL.len()];
        for source in Source::ALL {
            let stream = source.stream(chain);
            let place = Stream::of(client.broker(), &stream).last_place().await?;
            let follower =
                Follower::open(client.broker(), &stream, source.subjects(chain), StartAt::Behind(place)).await?;
            followers.push((source, follower));
            places[source as usize] = place;
        }
        let tally = Arc::new(Tally::new(places));
        let mut following = JoinSet::new();
        for (source, follower) in followers {
            following.spawn(Arc::clone(&tally).follow(source, follower));
        }
        Ok(Self { client: client.clone(), chain: chain.clone(), feeder, backlog, tally, following })
    }

    /// Feeds the load, and waits for all of its results.
    ///
    /// Feeding begins once a node serves the chain. It ends early when `stopped` resolves, or when many items have failed and
    /// none has given a result. The run ends when the chain is empty and all its results were seen, or after `timeout`. `tell` is
    /// called with notices during the run.
    pub async fn run(
        &mut self,
        load: &Load,
        timeout: Option<Duration>,
        stopped: impl Future<Output = ()>,
        mut tell: impl FnMut(Notice) + Send,
    ) -> Result<Report, ClientError> {
        load.check(self.client.broker().limits().max_item())?;
        let Self { client, chain, feeder, tally, following, backlog: _ } = self;
        let ended = {
            let whole = async {
                let mut stopped = pin!(stopped);
                let fed = async {
                    until_served(client, chain, &mut tell).await?;
                    load.feed(feeder, tally, client.broker().limits().max_item()).await
                };
                let ending = tokio::select! {
                    fed = fed => fed.map(|()| Ending::Done)?,
                    () = &mut stopped => Ending::Interrupted,
                    () = failing(tally) => Ending::Failing,
                };
                if ending != Ending::Done {
                    feeder.abandon(ABANDON).await;
                }
                client.wait(chain).notices(&mut tell).await?;
                let empty = Instant::now();
                for source in Source::ALL {
                    seen_all(client, chain, source, tally).await?;
                }
                Ok((ending, empty))
            };
            tokio::select! {
                ended = whole => ended,
                Some(Ok(error)) = following.join_next() => Err(error),
                () = tokio::time::sleep(timeout.unwrap_or_default()), if timeout.is_some() => {
                    Ok((Ending::TimedOut, Instant::now()))
                }
            }
        };
        if matches!(ended, Err(_) | Ok((Ending::TimedOut, _))) {
            feeder.abandon(ABANDON).await;
        }
        let (ending, empty) = ended?;
        let fed = feeder.fed();
        Ok(tally.report(ending, fed.accepted + fed.duplicates, empty))
    }

    /// Removes the seen results of the run, so that no puller gets them.
    ///
    /// Returns the number of messages removed. `tell` is called with the number so far. Results that the chain gives later stay.
    pub async fn remove_results(&mut self, mut tell: impl FnMut(u64)) -> Result<u64, ClientError> {
        let stream = Source::Results.stream(&self.chain);
        let results = Stream::of(self.client.broker(), &stream);
        let removals = self.tally.take_places().into_iter().map(|place| results.remove_message(place));
        let mut removed = stream::iter(removals).buffer_unordered(SIDE_BY_SIDE);
        let mut count = 0;
        while let Some(removed) = removed.try_next().await? {
            count += u64::from(removed);
            tell(count);
        }
        Ok(count)
    }
}

/// Waits until all messages that a source holds now were seen.
async fn seen_all(client: &Client, chain: &ChainName, source: Source, tally: &Tally) -> Result<(), ClientError> {
    let name = source.stream(chain);
    let stream = Stream::of(client.broker(), &name);
    let last = stream.last_place().await?;
    for subjects in source.subjects(chain) {
        // Messages that were removed meanwhile, or are not the run's, are never seen.
        while let Some(next) = stream.next_place(&subjects, tally.place(source)).await?
            && next <= last
        {
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

/// Returns once many items have failed and none has given a result.
async fn failing(tally: &Tally) {
    loop {
        let seen = tally.progress();
        if seen.failures >= FAILING && seen.results == 0 {
            return;
        }
        tokio::time::sleep(LOOK_FAILING).await;
    }
}
