//! `pcluster pull --refs`: the references of large results, which are not taken.

use futures_util::TryStreamExt;
use serde_json::json;

use super::{Args, Form};
use crate::cli::output::Output;
use crate::client::{Client, Reference, ResultItem};
use crate::name::ChainName;

/// Prints the references of the large results that are there, oldest first.
pub(super) async fn run(args: &Args, client: &Client, output: &Output) -> anyhow::Result<()> {
    let mut results = client.large_results(&args.chain, args.topic.as_ref()).await?;
    let mut left = args.number.unwrap_or(u64::MAX);
    while left > 0
        && let Some(result) = results.try_next().await?
    {
        show(&args.chain, &args.form, &result, output)?;
        left -= 1;
    }
    Ok(())
}

/// Prints the reference of a large result.
pub(in crate::cli) fn show(chain: &ChainName, form: &Form, result: &ResultItem, output: &Output) -> anyhow::Result<()> {
    if form.meta {
        return Ok(output.line(&result.with_meta(chain.as_str()))?);
    }
    let Some(large) = &result.large else { return Ok(()) };
    let Reference { name, size, digest, form } = large;
    Ok(output.line(&json!({ "id": result.id, "name": name, "size": size, "digest": digest, "form": form }))?)
}
