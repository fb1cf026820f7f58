//! `pcluster watch`

use futures_util::TryStreamExt;
use tokio::sync::OnceCell;

use super::pull::{Form, Shown, refs};
use super::{Context, whole};
use crate::broker::follow::StartAt;
use crate::client::ClientError;
use crate::client::large::LargeItems;
use crate::name::{ChainName, Topic};

/// Follow the results of a chain without taking them
///
/// Shows results as they come, until Ctrl-C. `pcluster pull` still gets every result. A large result, whose bytes are
/// beside the queue, is shown like any other, up to 64 MiB and as long as it is not taken.
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
    /// Show only large results, each as its reference: a JSON object that `pcluster get` takes
    #[arg(long, conflicts_with = "raw")]
    refs: bool,
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
    let items = OnceCell::new();
    let mut seen = 0;
    while args.number.is_none_or(|number| seen < number) {
        let Some(mut result) = watcher.try_next().await? else { break };
        if args.refs {
            refs::show(&args.chain, &args.form, &result, &context.output)?;
            seen += u64::from(result.large.is_some());
            continue;
        }
        if let Some(reference) = result.large.take() {
            let items: &LargeItems = items.get_or_try_init(|| LargeItems::of(&client, &args.chain)).await?;
            match items.held(&reference, items.read(&reference)).await {
                Ok(item) => result.item = item,
                Err(error) if is_of_item(&error) => {
                    context.output.note(&format!("the result of item {} cannot be shown: {error}", result.id));
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
        }
        context.output.bytes(&result.show(&args.chain, &args.form)?)?;
        seen += 1;
    }
    Ok(())
}

/// Returns `true` if a large item cannot be read, although the server can be reached.
pub(super) fn is_of_item(error: &ClientError) -> bool {
    let is_too_large = matches!(error, ClientError::Oversized { .. });
    is_too_large || matches!(error, ClientError::LargeMissing { .. } | ClientError::LargeDamaged { .. })
}
