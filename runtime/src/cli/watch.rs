//! `pcluster watch`

use futures_util::TryStreamExt;

use super::pull::{Form, Shown};
use super::{Context, whole};
use crate::broker::follow::StartAt;
use crate::name::{ChainName, Topic};

/// Follow the results of a chain without taking them
///
/// Shows results as they come, until Ctrl-C. `pcluster pull` still gets every result.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The chain
    chain: ChainName,
    /// Follow the results of this topic alone
    #[arg(long, value_name = "TOPIC")]
    topic: Option<Topic>,
    /// Start with the oldest stored result
    #[arg(long)]
    all: bool,
    /// End after this many results
    #[arg(short = 'n', long, value_name = "N", value_parser = whole::<u64>)]
    number: Option<u64>,
    #[command(flatten)]
    form: Form,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    let from = if args.all { StartAt::First } else { StartAt::Now };
    let mut watcher = match &args.topic {
        None => client.watcher(&args.chain, from).await?,
        Some(topic) => client.topic_watcher(&args.chain, topic, from).await?,
    };
    let mut seen = 0;
    while args.number.is_none_or(|number| seen < number) {
        let Some(result) = watcher.try_next().await? else { break };
        context.output.bytes(&result.show(&args.chain, &args.form)?)?;
        seen += 1;
    }
    Ok(())
}
