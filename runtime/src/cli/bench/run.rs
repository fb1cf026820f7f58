//! Measuring a chain: feeding it items and seeing what comes of them.
//!
//! `load` is what is fed and when, `report` what was measured; `tally` sees what comes out. Results are followed and not
//! taken, and the ids of a run's items tell them from everything else that goes through the chain meanwhile.

use std::future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;

use super::load::Load;
use super::report::{Ending, Progress, Report};
use super::tally::{Source, Tally};
use crate::broker::follow::{Follower, StartAt};
use crate::broker::stream::Stream;
use crate::broker::streams::ChainStreams;
use crate::client::{Client, ClientError, Feeder, Notice, Waits};
use crate::name::ChainName;

/// How long messages on their way may take when a run is cut short.
const ABANDON: Duration = Duration::from_secs(1);
/// How long to wait before looking again whether all that is stored was seen.
const LOOK: Duration = Duration::from_millis(5);
/// So many items that fail before there is any result say that the chain takes no such items.
const FAILING: u64 = 100;
/// How often to look whether all items fail.
const LOOK_FAILING: Duration = Duration::from_millis(100);
/// Requests to remove results that are on their way at once.
const SIDE_BY_SIDE: usize = 64;

/// One run that measures a chain.
pub struct Bench {
    client: Client,
    chain: ChainName,
    feeder: Feeder,
    backlog: u64,
    tally: Arc<Tally>,
    following: JoinSet<ClientError>,
}

/// Tells how far a run is, also while it runs.
#[derive(Debug, Clone)]
pub struct Meter(Arc<Tally>);

impl Meter {
    /// How far it is at the moment.
    pub fn now(&self) -> Progress {
        self.0.progress()
    }
}

impl Bench {
    /// Gets ready to measure a chain: from here on its results and dead letters are followed.
    pub async fn open(client: &Client, chain: &ChainName) -> Result<Self, ClientError> {
        let feeder = client.feeder(chain).await?;
        let backlog = ChainStreams::of(client.broker(), chain).unfinished().await?;
        let mut followers = Vec::with_capacity(Source::ALL.len());
        let mut places = [0; Source::ALL.len()];
        for source in Source::ALL {
            let stream = source.stream(chain);
            let place = Stream::of(client.broker(), &stream).last_place().await?;
            let follower =
                Follower::open(client.broker(), &stream, vec![source.subjects(chain)], StartAt::Behind(place)).await?;
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

    /// Messages that the chain had not finished when the run was made ready. They are in its way.
    pub fn backlog(&self) -> u64 {
        self.backlog
    }

    /// Tells how far the run is.
    pub fn meter(&self) -> Meter {
        Meter(Arc::clone(&self.tally))
    }

    /// Tells what feeding waits for.
    pub fn waits(&self) -> Waits {
        self.feeder.waits()
    }

    /// Feeds the load as soon as a node serves the chain, and ends when the chain is empty and everything was seen that has
    /// come out. `stopped` ends only the feeding: what was fed until then is still waited for, and so it is once many items have
    /// failed and none has given a result. After `timeout` it ends in any case. `tell` is called with what happens meanwhile.
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
                    client.until_served(chain, &mut tell).await?;
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
                () = time_is_over(timeout) => Ok((Ending::TimedOut, Instant::now())),
            }
        };
        if matches!(ended, Err(_) | Ok((Ending::TimedOut, _))) {
            feeder.abandon(ABANDON).await;
        }
        let (ending, empty) = ended?;
        let fed = feeder.fed();
        Ok(tally.report(ending, fed.accepted + fed.duplicates, empty))
    }

    /// Removes the results of the run that were seen, from the stream and so from all pullers, and says how many messages they
    /// were in. `tell` is called with the number so far. What comes out of the chain later stays.
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

/// Waits until everything was seen that a source holds at this moment.
async fn seen_all(client: &Client, chain: &ChainName, source: Source, tally: &Tally) -> Result<(), ClientError> {
    let (stream, subjects) = (source.stream(chain), source.subjects(chain));
    let last = Stream::of(client.broker(), &stream).last_place().await?;
    // What was removed meanwhile, or belongs to others, is never seen.
    while let Some(next) = Stream::of(client.broker(), &stream).next_place(&subjects, tally.place(source)).await?
        && next <= last
    {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Waits until the chain is seen to take no items of this kind.
async fn failing(tally: &Tally) {
    loop {
        let seen = tally.progress();
        if seen.failures >= FAILING && seen.results == 0 {
            return;
        }
        tokio::time::sleep(LOOK_FAILING).await;
    }
}

async fn time_is_over(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => future::pending().await,
    }
}
