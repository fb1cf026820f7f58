//! `pcluster dead show`

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use super::{Selected, none_matches};
use crate::cli::Context;
use crate::cli::logs;
use crate::cli::output::{Output, count, time};
use crate::cli::summary::shown;
use crate::client::{CallRecord, Called, DeadLetter, Safety, Step};
use crate::dead::calls::RECORD_MAX;
use crate::dead::{Attempt, FailureKind};
use crate::frame::cbor;
use crate::frame::json::AsJson;
use crate::log::LogRecord;
use crate::name::ChainName;
use crate::text::visible_line;

/// Show everything that is known about dead letters
///
/// Prints where and when each item failed, its attempts, the backtrace of the task, the log lines of the stage about
/// the item, the headers that the item was fed with, and the item itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pcluster dead show orders -n 1\n  pcluster dead show orders 17 --calls")]
pub struct Args {
    /// The chain
    chain: ChainName,
    #[command(flatten)]
    selected: Selected,
    /// Show what the last attempt called outside of its sandbox
    ///
    /// Bodies are shown if the stage records them: `record = "bodies"` in `[stage.allow]`.
    #[arg(long)]
    calls: bool,
}

/// A letter and its log lines, as JSON.
#[derive(Serialize)]
struct WithLogs<'a> {
    #[serde(flatten)]
    letter: &'a DeadLetter,
    logs: &'a [LogRecord],
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let (chain, output) = (&args.chain, &context.output);
    let selection = args.selected.selection()?;
    let client = context.client().await?;
    let mut letters = Vec::new();
    for number in client.dead_numbers(chain, &selection).await? {
        letters.extend(client.dead_letter(chain, number).await?);
    }
    let logs = client.dead_logs(chain, &letters).await?;
    for (position, letter) in letters.iter().enumerate() {
        let logs = logs.get(&letter.number).map(Vec::as_slice).unwrap_or_default();
        if output.is_json() {
            output.line(&WithLogs { letter, logs })?;
            continue;
        }
        if position > 0 {
            output.data("")?;
        }
        show(letter, logs, args.calls, output)?;
    }
    if letters.is_empty() {
        output.note(&none_matches(chain));
    }
    Ok(())
}

fn show(letter: &DeadLetter, logs: &[LogRecord], calls: bool, output: &Output) -> anyhow::Result<()> {
    let DeadLetter { number, chain, version, revision, stage, failure, .. } = letter;
    output.data(&format!("dead letter {number} of {chain} {version} (r{revision}), stage {stage}"))?;
    let attempts = count(letter.attempts, "attempt");
    let gave_up = if letter.node.is_empty() { String::new() } else { format!(" by node {}", letter.node) };
    // The node that gave the item up may not be the node that ran it: that node may have died.
    let ran = letter.history.last().map(ran_on).filter(|node| *node != format!("node {}", letter.node));
    let last_ran = ran.map(|node| format!("on {node}"));
    let facts = [
        ("fed as", Some(letter.id.as_str())),
        ("given up", Some(&format!("{}{gave_up}", time(&letter.time)))),
        ("last ran", last_ran.as_deref()),
        ("task", letter.task.as_deref()),
        ("plugin", letter.plugin.as_deref()),
        ("failure", Some(&format!("{failure}, after {attempts}"))),
        ("reason", Some(&letter.reason)),
    ];
    for (name, fact) in facts {
        let mut lines = fact.unwrap_or_default().lines();
        if let Some(first) = lines.next() {
            output.data(&format!("  {name:<8}  {first}"))?;
        }
        for line in lines {
            output.data(&format!("  {:<8}  {line}", ""))?;
        }
    }
    let history = letter.history.iter().flat_map(|attempt| {
        let node = ran_on(attempt);
        let (number, time) = (attempt.attempt, time(&attempt.time));
        let failure = match attempt.failure.as_str() {
            // The reason tells this already.
            word if word == FailureKind::Node.name() => String::new(),
            word => format!(", {word}"),
        };
        let mut lines = vec![format!("{number}  {time}  {node}{failure}")];
        lines.extend(attempt.reason.lines().map(|line| format!("   {line}")));
        lines
    });
    list("attempts", history, output)?;
    list("steps", letter.record.iter().flat_map(|record| &record.steps).flat_map(step_lines), output)?;
    if let Some(record) = &letter.calls {
        show_calls(record, calls, output)?;
    } else if calls {
        output.note(
            "it is not known to have called anything; what an attempt called that ended with its node is not known",
        );
    }
    list("backtrace", letter.backtrace.iter().cloned(), output)?;
    list("headers", letter.headers.iter().map(|(name, value)| format!("{name}: {value}")), output)?;
    list("log", logs.iter().map(logs::show_of_item), output)?;
    let item = match &letter.item {
        None if letter.large.is_some() => {
            let large = letter.large.iter();
            large.map(|large| format!("{large}; `pcluster get {chain} {}` fetches it", large.name)).collect()
        }
        None => "the letter has no room for the item, which is not stored".to_owned(),
        Some(ciborium::Value::Text(text)) if letter.is_undecodable() => text.clone(),
        Some(item) => serde_json::to_string_pretty(&AsJson(item))?,
    };
    let heading = match (letter.is_undecodable(), &letter.content_type) {
        (false, _) => "item".to_owned(),
        (true, None) => "payload as it was fed".to_owned(),
        (true, Some(content_type)) => format!("payload as it was fed, as {content_type}"),
    };
    list(&heading, item.lines().map(str::to_owned), output)
}

/// Returns the lines of a step of the item or an ancestor.
fn step_lines(step: &Step) -> Vec<String> {
    let Step { stage, version, revision, node, attempt, .. } = step;
    let (wait, ran) = (shown(step.wait), shown(step.ran));
    let mut line = format!("{stage} {version} (r{revision}), node {node}, attempt {attempt}: waited {wait}, ran {ran}");
    for (what, known) in [
        ("in", step.bytes_in.map(|bytes| count(bytes, "byte"))),
        ("out", step.bytes_out.map(|bytes| count(bytes, "byte"))),
        ("in calls", step.calls.map(shown)),
        ("exit status", step.exit.map(|status| status.to_string())),
        ("failed:", step.failure.clone()),
    ] {
        if let Some(known) = known {
            line = format!("{line}, {what} {known}");
        }
    }
    let said = step.lines.iter().map(|line| format!("   {}", visible_line(line)));
    std::iter::once(visible_line(&line).into_owned()).chain(said).collect()
}

/// Prints the calls of the last attempt: all of them, or those that are not safe to make twice.
fn show_calls(record: &CallRecord, all: bool, output: &Output) -> anyhow::Result<()> {
    let shown = record.calls.iter().filter(|called| all || called.safety != Safety::Safe);
    let heading =
        if all { "calls of the last attempt" } else { "calls of the last attempt that are not safe to make twice" };
    list(heading, shown.flat_map(|called| call_lines(called, all)), output)?;
    if record.left_off > 0 {
        let (left_off, changing) = (count(record.left_off, "further call"), record.left_off_unsafe);
        output.data(&format!(
            "    {left_off}, {changing} of them not safe to make twice: the record has no room for more"
        ))?;
    }
    Ok(())
}

fn call_lines(called: &Called, with_answer: bool) -> Vec<String> {
    let Called { call, target, outcome, ms, .. } = called;
    let safety = match (called.safety, &called.key) {
        (Safety::Unsafe, _) => ", not safe to make twice".to_owned(),
        (_, Some(key)) => format!(", key {key}"),
        _ => String::new(),
    };
    let name = if call == "http" { String::new() } else { format!("{call} ") };
    let mut lines = vec![visible_line(&format!("{name}{target}: {outcome}, {ms} ms{safety}")).into_owned()];
    let answer = called.answer.as_ref().filter(|_| with_answer).and_then(|answer| BASE64_STANDARD.decode(answer).ok());
    if let Some(answer) = answer.and_then(|answer| cbor::value(&answer)) {
        lines.push(format!("   {}", serde_json::to_string(&AsJson(&answer)).unwrap_or_default()));
    } else if with_answer && called.answer_cut {
        lines.push(format!("   its answer was cut: a letter has room for {} KiB of calls", RECORD_MAX >> 10));
    }
    lines
}

/// Returns where an attempt ran.
fn ran_on(attempt: &Attempt) -> String {
    attempt.node.as_ref().map_or_else(|| "a node that died".to_owned(), |node| format!("node {node}"))
}

/// Prints lines below a heading, if there are any.
fn list(heading: &str, lines: impl Iterator<Item = String>, output: &Output) -> anyhow::Result<()> {
    for (position, line) in lines.enumerate() {
        if position == 0 {
            output.data(&format!("  {heading}:"))?;
        }
        output.data(format!("    {line}").trim_end())?;
    }
    Ok(())
}
