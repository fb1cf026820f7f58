//! `pcluster logs`

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use futures_util::TryStreamExt;
use pcluster_abi::Level;

use super::{Context, duration, output};
use crate::broker::follow::StartAt;
use crate::client::LogFilter;
use crate::log::LogRecord;
use crate::name::{ChainName, StageName};

/// Follow the log lines of tasks
///
/// Shows the lines as they come, until Ctrl-C. What a task prints is logged too: standard output at level info, standard error
/// at level warn. All that a program or a worker writes to its log is at level info, unless a worker says otherwise.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The chain; without it, all chains
    chain: Option<ChainName>,
    /// Only lines of this stage
    #[arg(long)]
    stage: Option<StageName>,
    /// Only lines of this level or a more severe one
    #[arg(long, default_value = "trace", value_parser = levels())]
    level: Level,
    /// Start this long ago; as in 30s, 10m or 2h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// Show the lines that exist, from the oldest or from --since on, and end
    #[arg(long)]
    no_follow: bool,
}

/// Returns the reader of the name of a level.
fn levels() -> impl TypedValueParser<Value = Level> {
    let named = |name: String| Level::ALL.into_iter().find(|level| level.name() == name).ok_or("not a level");
    PossibleValuesParser::new(Level::ALL.map(Level::name)).try_map(named)
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    let from = match args.since {
        Some(since) => StartAt::Ago(since),
        None if args.no_follow => StartAt::First,
        None => StartAt::Now,
    };
    let follow = !args.no_follow;
    let filter = LogFilter { chain: args.chain, stage: args.stage, level: args.level, from, follow };
    let mut lines = client.logs(&filter).await?;
    while let Some(record) = lines.try_next().await? {
        if context.output.is_json() {
            context.output.line(&record)?;
        } else {
            context.output.data(&show(&record, filter.chain.is_none()))?;
        }
    }
    Ok(())
}

/// Formats a line for people.
pub(super) fn show(record: &LogRecord, with_chain: bool) -> String {
    let mut place = if with_chain { format!("{}/{}", record.chain, record.stage) } else { record.stage.clone() };
    if !record.item.is_empty() {
        place = format!("{place} {}", record.item);
    }
    line(record, &place)
}

/// Formats a line that is shown below its item.
pub(super) fn show_of_item(record: &LogRecord) -> String {
    line(record, &record.stage)
}

fn line(record: &LogRecord, place: &str) -> String {
    // Text after a line break must not look like another log line.
    let message = record.message.replace('\n', "\n    ");
    format!("{} {:5} {place}: {message}", output::time(&record.time), record.level)
}
