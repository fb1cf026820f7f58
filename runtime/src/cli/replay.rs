//! `pcluster replay`

mod case;
mod desk;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use serde_json::{Value, json};

use super::output::{Output, count};
use super::{Context, whole};
use crate::calls::replay::{Departure, Event};
use crate::client::{DeadLetter, Safety};
use crate::dead::FailureKind;
use crate::frame::cbor;
use crate::frame::json::AsJson;
use crate::name::ChainName;
use crate::run::failure::Failure;
use crate::text::visible_line;
use desk::Desk;

/// Run the item of a dead letter once more, on this machine
///
/// The item runs in the very plugin, configuration and state of its version, as the last attempt did. What it calls is
/// answered from the record of that attempt, and nothing is sent anywhere. The command prints outputs as `pull` does, and
/// to standard error the log, the calls and the failure. It changes nothing on the server: the letter stays.
///
/// A record has answers if the stage says so before the item fails, with `record = "bodies"` in its `[stage.allow]`. At the
/// first call that differs, or whose answer is not recorded, the command stops and says why. With --live it goes on, and
/// makes all further calls for real, as the stage was granted: they change what they change. They carry the idempotency
/// keys of the letter, so a service that honors the keys does nothing twice. What grants name on this machine is reached,
/// and secrets are variables, as with `pcluster dev`, unless `[allow]` in pcluster.toml says otherwise.
///
/// Of an attempt that ended with its node nothing is known. A stage that runs a program runs only with --allow-exec: the
/// program is outside of any sandbox, and what it does is not recorded.
///
/// Exit status: 0 if the item succeeds, 1 if it fails or the replay stops.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pcluster replay orders 17\n  pcluster replay orders 17 --live\n  \
    pcluster replay orders 17 --cases tests/cases")]
pub struct Args {
    /// The chain
    chain: ChainName,
    /// Number of the letter, as `pcluster dead ls` shows it
    #[arg(value_parser = whole::<u64>)]
    letter: u64,
    /// Make calls for real that the record does not answer
    #[arg(long)]
    live: bool,
    /// Run the programs of stages too, outside of any sandbox, as you
    #[arg(long)]
    allow_exec: bool,
    /// Write what ran as a case for a test, into a folder of its own below this one
    ///
    /// The folder is named after the chain and the letter. It has the item, the calls with their answers, what came of it,
    /// and in case.toml the version, the stages and their configuration.
    #[arg(long, value_name = "DIR")]
    cases: Option<PathBuf>,
}

/// How a replay ended.
enum Ended {
    Succeeded(Vec<bytes::Bytes>),
    Failed(Failure),
    Stopped(Departure),
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let output = &context.output;
    let client = context.client().await?;
    let ran = client.ran_with(&args.chain, args.letter).await?;
    let item = ran.letter.cbor().ok_or_else(|| nothing_to_run(&ran.letter))?;
    describe(&ran.letter, output);
    let (shown, is_live) = (output.clone(), args.live);
    let tell = Box::new(move |event: Event<'_>| tell(&event, is_live, &shown));
    let desk = Desk::prepare(&ran, client.broker(), (args.live, args.allow_exec), tell, context).await?;
    let running = Arc::clone(&desk).run(ran.letter.item_id(), item.clone());
    let ended = tokio::select! {
        biased;
        departure = desk.replay.departure() => Ended::Stopped(departure),
        ended = running => match ended {
            Ok(()) => Ended::Succeeded(desk.outputs()),
            Err(failure) => Ended::Failed(failure),
        },
    };
    desk.end().await;
    show(&ran.letter, &desk, &ended, output)?;
    if let Some(folder) = &args.cases
        && !matches!(ended, Ended::Stopped(_))
    {
        let written = case::write(folder, &ran, &item, &desk.replay.made(), &ended)?;
        output.note(&format!("the case is in {}", written.display()));
    }
    match ended {
        Ended::Succeeded(_) => Ok(()),
        Ended::Failed(failure) => Err(anyhow!("the item fails: {}: {}", failure.kind.name(), failure.reason)),
        Ended::Stopped(departure) => Err(anyhow!("the replay stopped: {departure}; --live goes on with real calls")),
    }
}

fn nothing_to_run(letter: &DeadLetter) -> anyhow::Error {
    let DeadLetter { number, .. } = letter;
    if letter.is_undecodable() {
        return anyhow!(
            "dead letter {number} has no item: its payload could not be read; `pcluster dead show` shows it"
        );
    }
    anyhow!("dead letter {number} had no room for its item, so there is nothing to run")
}

/// Tells what is known of the letter.
fn describe(letter: &DeadLetter, output: &Output) {
    let DeadLetter { number, chain, version, revision, stage, failure, reason, .. } = letter;
    output
        .note(&format!("dead letter {number} of {chain} {version} (r{revision}), stage {stage}: {failure}: {reason}"));
    let lost = letter.history.iter().filter(|attempt| attempt.failure == FailureKind::Node.name()).count();
    if lost > 0 {
        let (lost, their) = (count(lost as u64, "attempt"), if lost == 1 { "its node" } else { "their nodes" });
        output.note(&format!("{lost} ended with {their}: nothing is known of what it called"));
    }
}

/// Tells what happens.
fn tell(event: &Event<'_>, is_live: bool, output: &Output) {
    let (called, from) = match event {
        Event::Recorded(called) => (called, "from the record"),
        Event::Live(called) => (called, "made now"),
        Event::Departed(departure) => {
            return output.note(&format!("{departure}; from here on calls are made for real"));
        }
    };
    let from = if is_live { format!(", {from}") } else { String::new() };
    let unsafe_now = match (event, called.safety) {
        (Event::Live(_), Safety::Unsafe) => ", not safe to make twice",
        _ => "",
    };
    let line = format!("call: {} {}: {}{from}{unsafe_now}", called.call, called.target, called.outcome);
    output.note(&visible_line(&line));
}

/// Prints what came of it.
fn show(letter: &DeadLetter, desk: &Desk, ended: &Ended, output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        output.line(&document(letter, desk, ended)?)?;
    } else if let Ended::Succeeded(outputs) = ended {
        for item in outputs {
            output.data(&json_of(item)?.to_string())?;
        }
    }
    let left = desk.replay.left();
    match ended {
        Ended::Succeeded(outputs) => {
            let outputs = count(outputs.len() as u64, "output");
            output.note(&format!("the item succeeds, with {outputs}; its last attempt had failed"));
        }
        Ended::Failed(failure) => {
            for line in failure.backtrace.iter().flat_map(|frames| frames.lines()) {
                output.note(&format!("  in {line}"));
            }
            let as_before = failure.kind.name() == letter.failure && failure.reason == letter.reason;
            output.note(if as_before {
                "the item fails as in the letter"
            } else {
                "the item fails otherwise than in the letter"
            });
        }
        Ended::Stopped(_) => return Ok(()),
    }
    if left > 0 {
        output.note(&format!("{} of the record did not come this time", count(left as u64, "call")));
    }
    Ok(())
}

fn document(letter: &DeadLetter, desk: &Desk, ended: &Ended) -> anyhow::Result<Value> {
    let outputs = match ended {
        Ended::Succeeded(outputs) => outputs.iter().map(json_of).collect::<Result<_, _>>()?,
        _ => Vec::new(),
    };
    let failure = match ended {
        Ended::Failed(Failure { kind, reason, backtrace, .. }) => {
            let backtrace: Vec<_> = backtrace.iter().flat_map(|frames| frames.lines()).collect();
            json!({ "failure": kind.name(), "reason": reason, "backtrace": backtrace })
        }
        _ => Value::Null,
    };
    let stopped = if let Ended::Stopped(departure) = ended { Some(departure.to_string()) } else { None };
    let DeadLetter { number, chain, version, revision, stage, .. } = letter;
    Ok(json!({
        "chain": chain, "letter": number, "version": version, "revision": revision, "stage": stage, "outputs": outputs,
        "failed": failure, "stopped": stopped, "calls": desk.replay.made(),
    }))
}

/// Returns an item as JSON. Numbers that JSON does not have become `null`.
fn json_of(item: &bytes::Bytes) -> anyhow::Result<Box<serde_json::value::RawValue>> {
    let value = cbor::value(item).ok_or_else(|| anyhow!("an output cannot be read"))?;
    Ok(serde_json::value::to_raw_value(&AsJson(&value))?)
}
