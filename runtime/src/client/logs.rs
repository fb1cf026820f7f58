//! Follows the log lines of tasks.

use pcluster_abi::Level;

use super::{Client, ClientError, Items, stages};
use crate::broker::follow::{Follower, StartAt};
use crate::broker::streams::create_shared;
use crate::chain::default;
use crate::log::LogRecord;
use crate::name::{ChainName, StageName};
use crate::subject;

/// A filter for log lines. The default is all lines from now on.
///
/// ```no_run
/// # async fn example(client: &pcluster::client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use futures_util::TryStreamExt;
/// use pcluster::client::{Level, LogFilter};
///
/// let mut filter = LogFilter::default();
/// filter.chain = Some("example".parse()?);
/// filter.level = Level::Warn;
/// let mut lines = client.logs(&filter).await?;
/// while let Some(line) = lines.try_next().await? {
///     eprintln!("{}: {}", line.stage, line.message);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LogFilter {
    /// Lines of this chain. `None` for all chains.
    pub chain: Option<ChainName>,
    /// Lines of this stage. `None` for all stages.
    pub stage: Option<StageName>,
    /// Lines of this level and more severe levels.
    pub level: Level,
    /// Where to start.
    pub from: StartAt,
    /// `true` to wait for new lines after the last existing one.
    pub follow: bool,
}

impl Default for LogFilter {
    fn default() -> Self {
        Self { chain: None, stage: None, level: Level::Trace, from: StartAt::Now, follow: true }
    }
}

pub(super) async fn logs(client: &Client, filter: &LogFilter) -> Result<Items<LogRecord>, ClientError> {
    match (&filter.chain, &filter.stage) {
        (chain, Some(stage)) => stages::check_stage(client, chain.as_ref(), stage).await?,
        (Some(chain), None) => drop(client.chain(chain).await?),
        (None, None) => {}
    }
    create_shared(&client.broker, default::REPLICAS).await?;
    let subjects = subject::logs(filter.chain.as_ref(), filter.stage.as_ref(), filter.level);
    let follower = Follower::open(&client.broker, subject::LOG_STREAM, subjects, filter.from).await?;
    let left = if filter.follow { u64::MAX } else { follower.pending() };
    Ok(Items::of((follower, left), |(mut follower, mut left): (Follower, u64)| async move {
        while left > 0 {
            let message = follower.next().await?;
            left -= 1;
            // Any client may publish there, also messages that are no log line.
            if let Ok(record) = serde_json::from_slice(&message.payload) {
                return Ok(Some((record, (follower, left))));
            }
        }
        Ok(None)
    }))
}
