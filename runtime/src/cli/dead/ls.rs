//! `pcluster dead ls`

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use futures_util::TryStreamExt;
use serde_json::json;

use super::Filters;
use crate::cli::output::{one_line, time};
use crate::cli::{Context, summary};
use crate::client::{DeadLetter, Summary};
use crate::name::ChainName;

const HEADINGS: [&str; 7] = [">NUMBER", "TIME", "STAGE", "FAILURE", ">ATTEMPTS", "ID", "REASON"];

/// Show dead letters, newest last, and count them by stage and kind of failure
///
/// The reason is cut to one line, at a terminal to its width; `pcluster dead show` prints all of it. With --json, each
/// letter is a line with everything that is known about it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The chain
    chain: ChainName,
    #[command(flatten)]
    filters: Filters,
    /// Show only the counts by stage and kind of failure
    #[arg(long, conflicts_with = "newest")]
    count: bool,
    /// Show only percentiles of how long the items waited and ran in each stage
    ///
    /// A chain records that with `records = "times"` or "all" in [results].
    #[arg(long, conflicts_with_all = ["newest", "count"])]
    summary: bool,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let (output, newest) = (&context.output, args.filters.newest.unwrap_or(usize::MAX));
    let client = context.client().await?;
    let mut letters = client.dead_letters(&args.chain, &args.filters.filter()).await?;
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut summary = Summary::default();
    // Only the printed part of a letter is kept, as its item may be large.
    let (mut rows, mut lines) = (VecDeque::new(), VecDeque::new());
    while let Some(letter) = letters.try_next().await? {
        *counts.entry((letter.stage.clone(), letter.failure.clone())).or_default() += 1;
        if let Some(record) = letter.record.as_ref().filter(|_| args.summary) {
            summary.add(record);
        }
        if args.count || args.summary {
            continue;
        }
        match (output.is_json(), args.filters.newest) {
            (true, None) => output.line(&letter)?,
            (true, Some(_)) => lines.push_back(serde_json::to_string(&letter)?),
            (false, _) => rows.push_back(row(&letter, output.width())),
        }
        if rows.len().max(lines.len()) > newest {
            rows.pop_front();
            lines.pop_front();
        }
    }
    for line in lines {
        output.data(&line)?;
    }
    if args.summary && !counts.is_empty() {
        return summary::print(&summary, output);
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| Reverse(*count));
    if output.is_json() {
        for ((stage, failure), count) in counts.iter().filter(|_| args.count) {
            output.line(&json!({ "stage": stage, "failure": failure, "letters": count }))?;
        }
        return Ok(());
    }
    if counts.is_empty() {
        let which = if args.filters.are_given() { " that match" } else { "" };
        output.note(&format!("{} has no dead letters{which}", args.chain));
        return Ok(());
    }
    if !args.count {
        output.table(&HEADINGS, &Vec::from(rows))?;
        output.data("")?;
    }
    let rows: Vec<Vec<String>> =
        counts.into_iter().map(|((stage, failure), count)| vec![stage, failure, count.to_string()]).collect();
    Ok(output.table(&["STAGE", "FAILURE", ">LETTERS"], &rows)?)
}

fn row(letter: &DeadLetter, width: Option<usize>) -> Vec<String> {
    vec![
        letter.number.to_string(),
        time(&letter.time),
        letter.stage.clone(),
        letter.failure.clone(),
        letter.attempts.to_string(),
        letter.id.clone(),
        one_line(&letter.reason, width.unwrap_or(usize::MAX)),
    ]
}
