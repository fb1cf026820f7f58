//! Following the log lines of tasks.

use pcluster_abi::Level;

use super::{Client, ClientError};
use crate::broker::follow::{Follower, StartAt};
use crate::chain::default;
use crate::log::LogRecord;
use crate::name::{ChainName, StageName};
use crate::subject;

/// Which lines to see.
#[derive(Debug, Clone)]
pub struct LogFilter {
    /// Of one chain, or all.
    pub chain: Option<ChainName>,
    /// Of one stage, or all.
    pub stage: Option<StageName>,
    /// Of this level and the graver ones.
    pub level: Level,
    /// Where to start.
    pub from: StartAt,
}

/// Log lines as they come.
pub struct LogFollower {
    follower: Follower,
    /// How many messages that were there at the start have not been seen.
    left: u64,
}

impl Client {
    /// Follows log lines.
    ///
    /// # Errors
    ///
    /// If there is no such chain or stage, or the server does not answer.
    pub async fn logs(&self, filter: &LogFilter) -> Result<LogFollower, ClientError> {
        match (&filter.chain, &filter.stage) {
            (chain, Some(stage)) => self.check_stage(chain.as_ref(), stage).await?,
            (Some(chain), None) => drop(self.chain(chain).await?),
            (None, None) => {}
        }
        self.broker.create_shared_streams(default::REPLICAS).await?;
        let subjects = subject::logs(filter.chain.as_ref(), filter.stage.as_ref(), filter.level);
        let follower = Follower::open(&self.broker, subject::LOG_STREAM, subjects, filter.from).await?;
        Ok(LogFollower { left: follower.pending(), follower })
    }
}

impl LogFollower {
    /// The next of the lines that were there at the start. `None`: all of them have been seen.
    ///
    /// # Errors
    ///
    /// If the log cannot be read any more.
    pub async fn next_left(&mut self) -> Result<Option<LogRecord>, ClientError> {
        while self.left > 0 {
            if let Some(record) = self.step().await? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// The next line, however long it takes.
    ///
    /// # Errors
    ///
    /// If the log cannot be read any more.
    pub async fn next(&mut self) -> Result<LogRecord, ClientError> {
        loop {
            if let Some(record) = self.step().await? {
                return Ok(record);
            }
        }
    }

    /// What comes next; `None` if it is no line: anyone may publish there.
    async fn step(&mut self) -> Result<Option<LogRecord>, ClientError> {
        let message = self.follower.next().await?;
        self.left = self.left.saturating_sub(1);
        Ok(serde_json::from_slice(&message.payload).ok())
    }
}
