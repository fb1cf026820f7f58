//! The roll call: which nodes answer. Asked about an item that its node may have died of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::broker::{Broker, service};

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// A node that does not hear itself cannot tell which nodes are silent. After this long on a working connection, it may lack the
/// permission to ask.
const DEAF: Duration = Duration::from_mins(1);
/// The most silent incarnations that are remembered.
const SILENT_MAX: usize = 10_000;

/// Calls nodes, once for all frames that ask at the same time.
#[derive(Debug)]
pub(crate) struct RollCall {
    /// The incarnation of this node.
    own: String,
    heard: Mutex<Heard>,
}

/// The answers to the last call.
#[derive(Debug, Default)]
struct Heard {
    began: Option<Instant>,
    living: BTreeSet<String>,
    /// Since when the called incarnations are silent.
    silent: BTreeMap<String, Instant>,
    /// Since when this node does not hear itself.
    deaf: Option<Instant>,
}

/// The result of a call.
#[derive(Debug)]
pub(crate) struct Roll {
    /// The incarnations that answered.
    pub(crate) living: BTreeSet<String>,
    /// Since when the others are silent: the newest silence. `None` if all answered.
    pub(crate) silent_since: Option<Instant>,
}

impl RollCall {
    /// Creates the roll call of this incarnation.
    pub(crate) fn new(own: String) -> Self {
        Self { own, heard: Mutex::default() }
    }

    /// Calls these incarnations, unless they were called since `since`. `None` if this node hears no answers now.
    pub(crate) async fn call(&self, broker: &Broker, called: &BTreeSet<String>, since: Instant) -> Option<Roll> {
        let mut heard = self.heard.lock().await;
        let is_known = |name: &String| heard.living.contains(name) || heard.silent.contains_key(name);
        if heard.began.is_none_or(|began| began < since) || !called.iter().all(is_known) {
            let began = Instant::now();
            let wanted = |answers: &BTreeSet<String>| answers.contains(&self.own) && called.is_subset(answers);
            let answers = service::incarnations(broker, wanted, PATIENCE).await.unwrap_or_default();
            heard.note(&self.own, answers, called, began, broker.is_connected());
        }
        heard.roll(called)
    }
}

impl Heard {
    fn note(
        &mut self,
        own: &str,
        answers: BTreeSet<String>,
        called: &BTreeSet<String>,
        began: Instant,
        is_connected: bool,
    ) {
        if answers.contains(own) {
            self.deaf = None;
        } else {
            // The silent nodes may have been cut off together with this one.
            let deaf = *self.deaf.get_or_insert(began);
            if !is_connected {
                self.deaf = None;
            }
            if !is_connected || began.saturating_duration_since(deaf) < DEAF {
                *self = Self { deaf: self.deaf, ..Self::default() };
                return;
            }
        }
        self.silent.retain(|name, _| !answers.contains(name));
        if self.silent.len() >= SILENT_MAX {
            self.silent.clear();
        }
        for name in called.difference(&answers) {
            self.silent.entry(name.clone()).or_insert(began);
        }
        (self.living, self.began) = (answers, Some(began));
    }

    fn roll(&self, called: &BTreeSet<String>) -> Option<Roll> {
        self.began?;
        let silent_since = called.iter().filter_map(|name| self.silent.get(name)).max().copied();
        Some(Roll { living: self.living.clone(), silent_since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn silence_begins_with_the_first_call_that_is_not_answered_and_ends_with_an_answer() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heard = Heard::default();
        let since = |heard: &Heard| heard.roll(&names(&["A"])).expect("heard").silent_since;
        heard.note("me", names(&["me"]), &names(&["A"]), at(0), true);
        heard.note("me", names(&["me"]), &names(&["A"]), at(5), true);
        assert_eq!(since(&heard), Some(at(0)));
        heard.note("me", names(&["me", "A"]), &names(&["A"]), at(9), true);
        assert_eq!(since(&heard), None);
        heard.note("me", names(&["me"]), &names(&["A"]), at(12), true);
        assert_eq!(since(&heard), Some(at(12)));
    }

    #[test]
    fn a_node_that_does_not_hear_itself_takes_no_node_for_silent_unless_it_may_not_ask() {
        let start = Instant::now();
        let mut heard = Heard::default();
        heard.note("me", names(&["me"]), &names(&["A"]), start, true);
        heard.note("me", names(&[]), &names(&["A"]), start + Duration::from_secs(30), true);
        assert!(heard.roll(&names(&["A"])).is_none());
        heard.note("me", names(&[]), &names(&["A"]), start + Duration::from_secs(89), true);
        assert!(heard.roll(&names(&["A"])).is_none());
        heard.note("me", names(&[]), &names(&["A"]), start + Duration::from_secs(91), true);
        assert!(heard.roll(&names(&["A"])).is_some_and(|roll| roll.silent_since.is_some()));
        // With the connection lost, it begins anew.
        heard.note("me", names(&[]), &names(&["A"]), start + Duration::from_secs(92), false);
        heard.note("me", names(&[]), &names(&["A"]), start + Duration::from_secs(93), true);
        assert!(heard.roll(&names(&["A"])).is_none());
    }
}
