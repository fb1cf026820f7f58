//! The report of a storm.

use std::fmt;
use std::time::{Duration, SystemTime};

/// What has happened.
#[derive(Debug, Default, Clone)]
pub struct Report {
    /// Items fed.
    pub items: u64,
    /// Messages that held them.
    pub messages: u64,
    /// Nodes killed.
    pub kills: u64,
    /// Nodes paused.
    pub pauses: u64,
    /// Nodes stopped in order.
    pub stops: u64,
    /// Times that a node lost its connection.
    pub cuts: u64,
    /// Times that the server was killed and started again.
    pub restarts: u64,
    /// When the server was killed.
    pub killed: Vec<SystemTime>,
    /// Messages fed to a chain of their own, every second of them with odd headers.
    pub odd: u64,
    /// Those of them that are neither one result nor one dead letter.
    pub odd_lost: u64,
    /// Messages fed to the chain of the storm that have odd headers and hold no items: each is a dead letter.
    pub spoilt: u64,
    /// Versions deployed.
    pub deploys: u64,
    /// Versions that several could deploy with contents that differ, or nobody.
    pub clashes: u64,
    /// Messages handed out more than once; those that wait for another attempt are among them.
    pub again: u64,
    /// Messages that the server had already, as far as the nodes know that are left.
    pub duplicates: u64,
    /// Results of the chain.
    pub results: u64,
    /// Results that are missing.
    pub lost: u64,
    /// Results that came more than once for no reason.
    pub doubled: u64,
    /// Results that came a second time after their first was stored at the moment of a server's kill. A server by itself forgets
    /// the keys of what has left its queues, and of what was acknowledged last it may forget that it was.
    pub forgotten: u64,
    /// Results that no item has, or that say that they are of another item.
    pub foreign: u64,
    /// Dead letters that nothing deserved, or that something deserved and are not there.
    pub letters: u64,
    /// Messages left in the queues.
    pub left: u64,
    /// How long all of it took.
    pub took: Duration,
    /// What happened when, and what came out more than once.
    pub story: Vec<String>,
}

impl Report {
    /// Notes what happens now.
    pub(super) fn tell(&mut self, what: impl fmt::Display) {
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        self.story.push(format!("{now} {what}"));
    }

    /// Returns `true` if every item has come out exactly once.
    pub fn is_exact(&self) -> bool {
        let Self { lost, doubled, foreign, letters, left, clashes, odd_lost, .. } = self;
        [lost, doubled, foreign, letters, left, clashes, odd_lost].iter().all(|count| **count == 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            items, messages, kills, pauses, stops, cuts, restarts, forgotten, again, duplicates, results, ..
        } = self;
        let Self { deploys, clashes, odd, odd_lost, spoilt, lost, doubled, foreign, letters, left, took, .. } = self;
        writeln!(formatter, "{items} items in {messages} messages, in {:.0} s", took.as_secs_f64())?;
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
        writeln!(formatter, "handed out again {again}; stored before {duplicates}, as far as the last nodes know")?;
        write!(
            formatter,
            "results {results}, lost {lost}, doubled {doubled}, foreign {foreign}, dead letters {letters}, left {left}"
        )
    }
}
