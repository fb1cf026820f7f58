//! Removes large results that were taken, so that their bytes go.
//!
//! A message of results without references stays for the `max_age` of the results. One with references is removed once all who take
//! results have taken it: it lies below what the consumer of all pullers has acknowledged. What a puller leaves, because it died or
//! because another puller holds an earlier message, the sweep of the nodes removes.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;

use crate::broker::large::taken::TakenUpTo;
use crate::broker::large::{Holder, LargeError, LargeStore};
use crate::broker::queue::Delivery;
use crate::client::large::references;
use crate::frame::header;
use crate::lock::lock;

/// How many messages are removed side by side.
const SIDE_BY_SIDE: usize = 8;
/// How many messages are kept in mind. The sweep of the nodes removes the others.
const MOST: usize = 10_000;
/// How many subjects are looked at in one round although others have not taken their results yet.
const VAIN: usize = 64;
/// How long a puller that ends removes messages.
const LAST_ROUND: Duration = Duration::from_secs(10);

/// The names of the objects that a message refers to, by its place.
type Messages = BTreeMap<u64, Vec<String>>;

/// Messages with references that this puller has taken.
#[derive(Debug)]
pub(super) struct Removals {
    store: LargeStore,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By subject: all messages of one subject wait for the same pullers.
    subjects: BTreeMap<String, Messages>,
    /// The number of messages.
    count: usize,
    /// The subject that was looked at last.
    last: String,
}

impl Removals {
    pub(super) fn new(store: LargeStore) -> Self {
        Self { store, waiting: Mutex::default() }
    }

    /// Returns the store of large items.
    pub(super) fn store(&self) -> &LargeStore {
        &self.store
    }

    /// Notes a message whose results were taken, if it has references.
    pub(super) fn note(&self, delivery: &Delivery) {
        if delivery.header(header::LARGE).is_none() {
            return;
        }
        let references = references(&delivery.headers(), &delivery.payload);
        let names = references.into_iter().map(|(_, reference)| reference.name).collect();
        lock(&self.waiting).note(delivery.subject(), delivery.sequence, names);
    }

    /// Returns `true` if there is nothing to remove.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.waiting).count == 0
    }

    /// Removes messages for the last time, and leaves the others to the sweep.
    pub(super) async fn finish(&self) {
        if tokio::time::timeout(LAST_ROUND, self.remove()).await.is_err() {
            tracing::debug!("large results that were taken are left to the sweep");
        }
    }

    /// Removes messages that all have taken, and their objects.
    pub(super) async fn remove(&self) {
        if self.is_empty() {
            return;
        }
        let mut taken = match self.store.taken().await {
            Ok(taken) => taken,
            Err(error) => return tracing::debug!(%error, "large results that were taken stay for now"),
        };
        let mut vain = 0;
        let subjects = lock(&self.waiting).subjects_in_turn();
        for subject in subjects {
            if vain == VAIN {
                return;
            }
            vain += usize::from(!self.remove_of(&mut taken, &subject).await);
        }
    }

    /// Removes the messages of one subject. Returns `false` if none of them may go yet.
    ///
    /// Results are taken in their order: if the first may not go, neither may the others.
    async fn remove_of(&self, taken: &mut TakenUpTo, subject: &str) -> bool {
        let mut messages = lock(&self.waiting).take(subject);
        let Some((place, names)) = messages.pop_first() else { return true };
        let first = [(place, names)];
        if !self.remove_share(taken, subject, &first).await {
            lock(&self.waiting).requeue(subject, messages);
            return false;
        }
        let rest: Vec<_> = messages.into_iter().collect();
        let shares = rest.chunks(rest.len().div_ceil(SIDE_BY_SIDE).max(1));
        join_all(shares.map(|share| self.remove_beside(subject, share))).await;
        true
    }

    async fn remove_beside(&self, subject: &str, share: &[(u64, Vec<String>)]) {
        match self.store.taken().await {
            Ok(mut taken) => {
                self.remove_share(&mut taken, subject, share).await;
            }
            Err(error) => {
                tracing::debug!(%error, "large results that were taken stay for now");
                lock(&self.waiting).requeue(subject, share.iter().cloned());
            }
        }
    }

    /// Removes messages up to the first that must stay, and notes the others again. Returns `true` if all are gone.
    async fn remove_share(&self, taken: &mut TakenUpTo, subject: &str, share: &[(u64, Vec<String>)]) -> bool {
        for (at, (place, names)) in share.iter().enumerate() {
            let removed = self.remove_one(taken, *place, names).await;
            if matches!(removed, Ok(true)) {
                continue;
            }
            lock(&self.waiting).requeue(subject, share[at..].iter().cloned());
            if let Err(error) = removed {
                tracing::debug!(%error, place, "a large result that was taken stays for now");
            }
            return false;
        }
        true
    }

    /// Returns `true` if the message is gone.
    async fn remove_one(&self, taken: &mut TakenUpTo, place: u64, names: &[String]) -> Result<bool, LargeError> {
        if !taken.remove(place).await? {
            return Ok(false);
        }
        for name in names {
            self.store.release(name, Holder::Result(place)).await?;
        }
        Ok(true)
    }
}

impl Waiting {
    fn note(&mut self, subject: &str, place: u64, names: Vec<String>) {
        if self.count < MOST && self.subjects.entry(subject.to_owned()).or_default().insert(place, names).is_none() {
            self.count += 1;
        }
    }

    fn take(&mut self, subject: &str) -> Messages {
        subject.clone_into(&mut self.last);
        let messages = self.subjects.remove(subject).unwrap_or_default();
        self.count -= messages.len();
        messages
    }

    fn requeue(&mut self, subject: &str, messages: impl IntoIterator<Item = (u64, Vec<String>)>) {
        for (place, names) in messages {
            self.note(subject, place, names);
        }
    }

    /// Returns the subjects. The first is the one after that which was looked at last.
    fn subjects_in_turn(&self) -> Vec<String> {
        let (before, after): (Vec<_>, Vec<_>) =
            self.subjects.keys().cloned().partition(|subject| *subject <= self.last);
        after.into_iter().chain(before).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_wait_by_subject_and_all_subjects_have_their_turn() {
        let mut waiting = Waiting::default();
        for (subject, place) in [("b", 2), ("a", 1), ("c", 3), ("b", 4), ("b", 4)] {
            waiting.note(subject, place, Vec::new());
        }
        assert_eq!((waiting.count, waiting.subjects_in_turn()), (4, ["a", "b", "c"].map(str::to_owned).into()));
        let messages = waiting.take("b");
        assert_eq!((waiting.count, messages.keys().copied().collect::<Vec<_>>()), (2, vec![2, 4]));
        waiting.requeue("b", messages);
        assert_eq!((waiting.count, waiting.subjects_in_turn()), (4, ["c", "a", "b"].map(str::to_owned).into()));
    }

    #[test]
    fn no_more_messages_are_kept_in_mind_than_the_bound() {
        let mut waiting = Waiting::default();
        for place in 0..MOST as u64 + 5 {
            waiting.note("a", place, Vec::new());
        }
        assert_eq!(waiting.take("a").len(), MOST);
        assert_eq!(waiting.count, 0);
    }
}
