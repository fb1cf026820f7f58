//! `pcluster dead`

pub mod drop;
pub mod ls;
pub mod retry;
pub mod show;

use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Subcommand, ValueEnum};

use super::exit::Usage;
use super::{Context, duration, whole};
use crate::client::{DeadFilter, Selection};
use crate::dead::FailureKind;
use crate::name::{ChainName, StageName};

/// Work with dead letters: items that failed for good
///
/// Each dead letter has a number, and the reason why its item failed. Look at the letters, fix the cause, and retry the
/// items.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(ls::Args),
    Show(show::Args),
    Retry(retry::Args),
    Drop(drop::Args),
}

/// Filters on dead letters.
#[derive(Debug, clap::Args)]
pub struct Filters {
    /// Only letters of this stage
    #[arg(long)]
    stage: Option<StageName>,
    /// Only letters with this kind of failure
    #[arg(long, value_name = "KIND")]
    failure: Option<FailureKind>,
    /// Only letters of the item that was fed under this id
    #[arg(long, value_name = "FED_ID")]
    id: Option<String>,
    /// Only letters no older than this; as in 30s, 10m or 2h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// Only the newest N letters
    #[arg(short = 'n', long, value_name = "N", value_parser = whole::<usize>)]
    newest: Option<usize>,
}

/// The letters that a command works on.
#[derive(Debug, clap::Args)]
pub struct Selected {
    /// Numbers of letters, as `pcluster dead ls` shows them
    #[arg(value_name = "NUMBER", value_parser = whole::<u64>)]
    numbers: Vec<u64>,
    #[command(flatten)]
    filters: Filters,
    /// All letters of the chain
    #[arg(long)]
    all: bool,
}

impl Filters {
    fn filter(&self) -> DeadFilter {
        let Self { stage, failure, id, since, newest: _ } = self;
        DeadFilter { stage: stage.clone(), failure: *failure, id: id.clone(), since: *since }
    }

    fn are_given(&self) -> bool {
        self.filter() != DeadFilter::default() || self.newest.is_some()
    }
}

impl Selected {
    /// Returns the selected letters. A command without a selection fails rather than take all letters.
    fn selection(self) -> Result<Selection, Usage> {
        let given = [!self.numbers.is_empty(), self.filters.are_given(), self.all];
        match given.iter().filter(|given| **given).count() {
            0 => Err(Usage("say which dead letters: numbers, filters such as --stage, or --all".to_owned())),
            1 if self.numbers.is_empty() => {
                Ok(Selection::Matching { filter: self.filters.filter(), newest: self.filters.newest })
            }
            1 => Ok(Selection::Numbers(self.numbers)),
            _ => Err(Usage("give only one of these: numbers, filters, --all".to_owned())),
        }
    }
}

/// Returns the message for filters that match no letter. A filter may be mistyped.
fn none_matches(chain: &ChainName) -> String {
    format!("{chain} has no dead letters that match")
}

impl ValueEnum for FailureKind {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

impl Args {
    /// Returns `true` if the command changes nothing.
    pub(super) fn only_shows(&self) -> bool {
        matches!(self.command, Command::Ls(_) | Command::Show(_))
    }
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    match args.command {
        Command::Ls(args) => ls::run(args, context).await,
        Command::Show(args) => show::run(args, context).await,
        Command::Retry(args) => Box::pin(retry::run(args, context)).await,
        Command::Drop(args) => drop::run(args, context).await,
    }
}
