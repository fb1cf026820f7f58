//! The report of a storm.

use std::fmt;
use std::time::{Duration, SystemTime};

/// The counts of a storm.
#[derive(Debug, Default, Clone)]
pub struct Report {
    /// Items that were fed.
    pub items: u64,
    /// Messages of these items. 0 if that is not known.
    pub messages: u64,
    /// Kills of nodes.
    pub kills: u64,
    /// Pauses of nodes.
    pub pauses: u64,
    /// Orderly stops of nodes.
    pub stops: u64,
    /// Lost connections of nodes.
    pub cuts: u64,
    /// Kills of programs.
    pub programs: u64,
    /// Kills of shepherds of programs.
    pub shepherds: u64,
    /// Kills of guards.
    pub guards: u64,
    /// What was left of programs at the end: processes, folders, cgroups and taken slots.
    pub remains: Vec<String>,
    /// Kills and restarts of the server.
    pub restarts: u64,
    /// When the server was killed.
    pub killed: Vec<SystemTime>,
    /// Messages fed to a chain of their own. Every second one has odd headers.
    pub odd: u64,
    /// Messages among these that are not one result or one dead letter.
    pub odd_lost: u64,
    /// Messages with odd headers that are fed to the storm's chain. They hold no items, so each is a dead letter.
    pub spoilt: u64,
    /// Versions that were deployed.
    pub deploys: u64,
    /// Versions that were not deployed by exactly one client.
    pub clashes: u64,
    /// Repeated deliveries. Deliveries for another attempt are included.
    pub again: u64,
    /// Messages that the server already had. Only the nodes that are left report them.
    pub duplicates: u64,
    /// Results of the chain.
    pub results: u64,
    /// Missing results.
    pub lost: u64,
    /// Results that came more than once without an excuse.
    pub doubled: u64,
    /// Results that a killed server made the chain repeat. The first of each was stored at the moment of the kill. A server may
    /// forget the keys of messages that have left its queues, and the last acknowledgements.
    pub forgotten: u64,
    /// Results that no item has, or that name another item.
    pub foreign: u64,
    /// Dead letters without a reason, and missing dead letters.
    pub letters: u64,
    /// Messages left in the queues.
    pub left: u64,
    /// Large items left in the object store once all results are taken.
    pub objects: u64,
    /// Records left of who refers to them.
    pub records: u64,
    /// Messages of results whose steps do not name each stage once.
    pub misstepped: u64,
    /// Messages of results without steps, or with fewer than there were.
    pub stepless: u64,
    /// The duration of the storm.
    pub took: Duration,
    /// The events with their times, and the doubled results.
    pub story: Vec<String>,
}

impl Report {
    /// Records an event.
    pub(super) fn tell(&mut self, what: impl fmt::Display) {
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        self.story.push(format!("{now} {what}"));
    }

    /// Returns `true` if every item has come out exactly once.
    pub fn is_exact(&self) -> bool {
        let Self { lost, doubled, foreign, letters, left, clashes, odd_lost, objects, records, .. } = self;
        let Self { misstepped, .. } = self;
        self.remains.is_empty()
            && [lost, doubled, foreign, letters, left, clashes, odd_lost, objects, records, misstepped]
                .iter()
                .all(|count| **count == 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            items, messages, kills, pauses, stops, cuts, restarts, forgotten, again, duplicates, results, ..
        } = self;
        let Self { programs, shepherds, guards, remains, .. } = self;
        let Self { deploys, clashes, odd, odd_lost, spoilt, lost, doubled, foreign, letters, left, took, .. } = self;
        let Self { objects, records, misstepped, stepless, .. } = self;
        let packed = if *messages > 0 { format!(" in {messages} messages") } else { String::new() };
        writeln!(formatter, "{items} items{packed}, in {:.0} s", took.as_secs_f64())?;
        writeln!(
            formatter,
            "nodes killed {kills}, paused {pauses}, stopped {stops}, cut off {cuts}; server killed {restarts}, after which {forgotten} \
             results came again that it had stored a moment before"
        )?;
        writeln!(
            formatter,
            "versions deployed {deploys}, by several or nobody {clashes}; odd messages {odd}, lost {odd_lost}; \
             undecodable {spoilt}"
        )?;
        writeln!(
            formatter,
            "programs killed {programs}, their shepherds {shepherds}, guards {guards}; left of programs {}",
            remains.len()
        )?;
        for remains in remains {
            writeln!(formatter, "  {remains}")?;
        }
        writeln!(formatter, "handed out again {again}; stored before {duplicates}, as far as the last nodes know")?;
        writeln!(
            formatter,
            "large items left {objects}, records of them {records}; wrong steps {misstepped}, none or too few {stepless}"
        )?;
        write!(
            formatter,
            "results {results}, lost {lost}, doubled {doubled}, foreign {foreign}, dead letters {letters}, left {left}"
        )
    }
}
