//! `pcluster wait`

use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::{HumanCount, ProgressBar};
use serde_json::json;

use super::output::progress::{Outlook, per_second, telling};
use super::output::{Output, count, seconds};
use super::{Context, timeout};
use crate::client::{ClientError, Notice, Pace};
use crate::name::{ChainName, Topic};

/// Wait until every item of a chain is handled
///
/// Ends when the chain's queues are empty and nothing runs: each item has become results or a dead letter, or a task
/// dropped it. If no node serves the chain, the command says so and keeps waiting.
///
/// At a terminal it shows how many messages are unfinished, how many items a second the busiest stage handles, how much
/// of the messages is done, and the time left at this pace. A message holds one item or many.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The chain
    chain: ChainName,
    /// Wait for the items of this topic alone, and all that comes of them. This reads the messages in the chain's queues, of
    /// all topics, so it takes longer and moves more data the longer the queues are
    #[arg(long, value_name = "TOPIC")]
    topic: Option<Topic>,
    /// Give up with status 3 after this long; in seconds as in 2 or 0.5, or as in 500ms, 30s or 5m; 0 checks once
    #[arg(short, long, value_name = "SECONDS", value_parser = timeout)]
    timeout: Option<Duration>,
    /// End with status 1 if the chain then has dead letters, even old ones; `pcluster dead drop CHAIN --all` removes
    /// them before a run
    #[arg(long)]
    fail_on_dead: bool,
}

/// What the server has reported so far.
#[derive(Default)]
struct Seen {
    /// Unfinished messages; `None` until the server has answered.
    unfinished: Option<u64>,
    pace: Option<Pace>,
    outlook: Outlook,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    let (started, output, chain) = (Instant::now(), &context.output, &args.chain);
    let (bar, mut seen) = (telling(), Seen::default());
    let waited = client.wait(chain).topic(args.topic.clone()).timeout(args.timeout).notices(|notice| {
        match notice {
            Notice::Unfinished(unfinished) => seen.unfinished = Some(unfinished),
            Notice::Pace(pace) => seen.pace = Some(pace),
            notice => return tell(&notice, chain, &bar, output),
        }
        bar.set_message(seen.told(started.elapsed()));
    });
    let waited = waited.await;
    bar.finish_and_clear();
    let (timed_out, unfinished) = match waited {
        Ok(()) => (None, Some(0)),
        Err(error @ ClientError::TimedOut(_)) => (Some(error), seen.unfinished),
        Err(error) => return Err(error.into()),
    };
    let took = started.elapsed();
    let counts = output.is_json() || args.fail_on_dead;
    // After a timeout the server may be away, and no more time must be spent.
    let dead = match timed_out {
        None if counts => Some(client.dead_by_stage(chain).await?),
        _ => None,
    };
    let letters = dead.as_ref().map(|dead| dead.values().sum::<u64>());
    let mut printed = Ok(());
    if output.is_json() {
        printed = output.line(&json!({
            "chain": chain,
            "empty": timed_out.is_none(),
            "unfinished_messages": unfinished,
            "dead_letters": letters,
            "seconds": took.as_secs_f64(),
        }));
    } else if timed_out.is_none() {
        let took = seconds(took);
        output.note(&match &args.topic {
            None => format!("{chain} is empty after {took}"),
            Some(topic) => format!("nothing of topic {topic} is left in {chain} after {took}"),
        });
    }
    // The state of the chain decides the exit status, even if its output cannot be printed.
    if let Some(error) = timed_out {
        return Err(error.into());
    }
    if let (true, Some(dead), Some(letters @ 1..)) = (args.fail_on_dead, dead, letters) {
        let stages: Vec<String> = dead.iter().map(|(stage, letters)| format!("{letters} of stage {stage}")).collect();
        let (letters, stages) = (count(letters, "dead letter"), stages.join(", "));
        bail!("chain `{chain}` has {letters}: {stages}; `pcluster dead ls {chain}` shows them");
    }
    Ok(printed?)
}

impl Seen {
    /// Returns the progress in one line.
    fn told(&mut self, elapsed: Duration) -> String {
        let Some(unfinished) = self.unfinished else { return String::new() };
        let noun = if unfinished == 1 { "message" } else { "messages" };
        let pace = match &self.pace {
            Some(Pace { stage, rate }) if *rate > 0.0 => format!(", {} in {stage}", per_second(*rate, "items")),
            _ => String::new(),
        };
        let outlook = self.outlook.with(elapsed, unfinished);
        format!("{} {noun} unfinished{pace}, {outlook}", HumanCount(unfinished))
    }
}

/// Prints a notice of a wait.
pub(super) fn tell(notice: &Notice, chain: &ChainName, bar: &ProgressBar, output: &Output) {
    let text = match notice {
        // The progress line shows these.
        Notice::Unfinished(_) | Notice::Pace(_) => return,
        Notice::NoNode(reasons) => {
            let hint =
                if reasons.is_empty() { "start one with `pcluster node`".to_owned() } else { reasons.join("; ") };
            format!("no node serves {chain}: {hint}; waiting")
        }
        Notice::Stuck(reasons) => format!("{chain} cannot continue: {}; waiting", reasons.join("; ")),
        Notice::Served => format!("a node serves {chain}"),
        Notice::Away(reason) => format!("{reason}; waiting"),
        Notice::Back => "the server answers again".to_owned(),
    };
    bar.suspend(|| output.note(&text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_shows_messages_items_a_share_and_the_time_left() {
        let mut seen = Seen { unfinished: Some(5_000), ..Seen::default() };
        assert_eq!(seen.told(Duration::ZERO), "5,000 messages unfinished, 0 %");
        seen.unfinished = Some(3_750);
        seen.pace = Some(Pace { stage: "split".to_owned(), rate: 44_000.0 });
        let told = "3,750 messages unfinished, 44,000 items/s in split, 25 %, 6s left";
        assert_eq!(seen.told(Duration::from_secs(2)), told);
    }
}
