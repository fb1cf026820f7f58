//! Counts the results and dead letters of a run.
//!
//! The id of a message consists of the id of the run and the number of the message's first item. Results and dead letters carry
//! that id, so each leads to its item.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::report::{Ending, Latency, Progress, Report};
use crate::broker::follow::{Follower, Seen};
use crate::client::ClientError;
use crate::frame::format::Format;
use crate::frame::header;
use crate::frame::id::{FrameId, Index};
use crate::lock::lock;
use crate::name::ChainName;
use crate::subject;

/// A stream of results or dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Results,
    Failures,
}

impl Source {
    pub(super) const ALL: [Self; 2] = [Self::Results, Self::Failures];

    pub(super) fn stream(self, chain: &ChainName) -> String {
        match self {
            Self::Results => subject::results_stream(chain),
            Self::Failures => subject::dead_stream(chain),
        }
    }

    /// Returns the subjects to follow. Tasks may give results topics.
    pub(super) fn subjects(self, chain: &ChainName) -> Vec<String> {
        match self {
            Self::Results => subject::results_all(chain),
            Self::Failures => vec![subject::dead_all(chain)],
        }
    }
}

/// Counts the items of a run, and their results and dead letters.
#[derive(Debug)]
pub(super) struct Tally {
    /// The prefix of the ids of the run's messages. The number of the first item follows.
    prefix: String,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// The items of the run, by number.
    items: Vec<Handed>,
    messages: u64,
    bytes: u64,
    /// When the server had stored the last message.
    all_fed: Option<Instant>,
    results: u64,
    failures: u64,
    /// Items with at least one result or dead letter.
    answered: u64,
    /// The latencies of the results, in microseconds.
    latencies: Vec<u32>,
    /// When the last result or dead letter was seen.
    last: Option<Instant>,
    /// The last sequence that was seen of each source.
    places: [u64; Source::ALL.len()],
    /// The sequences of the run's results in their stream. `created` tells that stream from a later one of the same name.
    stored: Vec<u64>,
    created: String,
}

/// An item that was fed.
#[derive(Debug)]
struct Handed {
    at: Instant,
    is_answered: bool,
}

impl Tally {
    /// Creates a tally. `places` are the last sequences of the sources.
    pub(super) fn new(places: [u64; Source::ALL.len()]) -> Self {
        let prefix = format!("bench-{}-", ulid::Ulid::generate());
        Self { prefix, book: Mutex::new(Book { places, ..Book::default() }) }
    }

    /// Returns the id of the message whose first item has this number.
    pub(super) fn id(&self, first: u64) -> String {
        format!("{}{first}", self.prefix)
    }

    pub(super) fn hand_in(&self, at: Instant) {
        lock(&self.book).items.push(Handed { at, is_answered: false });
    }

    pub(super) fn send(&self, bytes: usize) {
        let mut book = lock(&self.book);
        book.messages += 1;
        book.bytes += bytes as u64;
    }

    pub(super) fn all_fed(&self) {
        lock(&self.book).all_fed = Some(Instant::now());
    }

    pub(super) fn place(&self, source: Source) -> u64 {
        lock(&self.book).places[source as usize]
    }

    /// Takes out the sequences of the run's results.
    pub(super) fn take_places(&self) -> Vec<u64> {
        std::mem::take(&mut lock(&self.book).stored)
    }

    pub(super) fn progress(&self) -> Progress {
        let book = lock(&self.book);
        Progress { items: book.items.len() as u64, results: book.results, failures: book.failures }
    }

    /// Counts results or dead letters until the follower fails.
    pub(super) async fn follow(self: Arc<Self>, source: Source, mut follower: Follower) -> ClientError {
        loop {
            match follower.next().await {
                Ok(seen) => self.count(source, &seen, follower.created()),
                Err(error) => return error.into(),
            }
        }
    }

    fn count(&self, source: Source, seen: &Seen, created: &str) {
        let now = Instant::now();
        let numbers = self.numbers(source, seen);
        let mut book = lock(&self.book);
        book.places[source as usize] = seen.sequence;
        let Some(numbers) = numbers else { return };
        if source == Source::Results {
            if book.created != created {
                created.clone_into(&mut book.created);
                book.stored.clear();
            }
            book.stored.push(seen.sequence);
            // A result that a puller has requeued was seen before.
            if seen.headers.get(header::AGAIN).is_some() {
                return;
            }
        }
        book.last = Some(now);
        for number in numbers {
            book.count(source, number, now);
        }
    }

    /// Returns the number of the original item for each item. `None` if the message is not the run's.
    fn numbers(&self, source: Source, seen: &Seen) -> Option<Vec<usize>> {
        let id = seen.headers.get(header::ID).filter(|id| id.starts_with(&self.prefix))?;
        let first: usize = FrameId::from_header(id).root().strip_prefix(&self.prefix)?.parse().ok()?;
        let len = match source {
            Source::Results => Format::Cbor.items(&seen.payload).map_or(1, |items| items.len()),
            Source::Failures => 1,
        };
        let index = seen.headers.get(header::INDEX).and_then(|text| Index::parse(text, len).ok());
        let index = index.unwrap_or_else(|| Index::in_order(len));
        Some((0..len).map(|position| first + index.get(position)).collect())
    }

    /// Returns the report. `items` is the number of items that the chain has stored. `end` is when the chain was found empty, or
    /// the run ended early.
    pub(super) fn report(&self, ending: Ending, items: u64, end: Instant) -> Report {
        let mut book = lock(&self.book);
        let start = book.items.first().map_or(end, |first| first.at);
        // If feeding ends early, the chain may have stored an item without an answer to the feeder.
        let items = items.max(book.answered);
        let unanswered = items.saturating_sub(book.answered);
        let last = match book.last {
            // Every item is answered, so the run ended with the last answer.
            Some(last) if unanswered == 0 && ending != Ending::TimedOut => last,
            _ => end,
        };
        Report {
            ending,
            items,
            messages: book.messages,
            bytes: book.bytes,
            results: book.results,
            failures: book.failures,
            unanswered,
            feeding: book.all_fed.unwrap_or(end).saturating_duration_since(start),
            elapsed: last.saturating_duration_since(start),
            latency: Latency::of(&mut book.latencies),
        }
    }
}

impl Book {
    fn count(&mut self, source: Source, number: usize, now: Instant) {
        let Some(item) = self.items.get_mut(number) else { return };
        self.answered += u64::from(!std::mem::replace(&mut item.is_answered, true));
        match source {
            Source::Results => {
                let latency = now.saturating_duration_since(item.at).as_micros();
                self.latencies.push(u32::try_from(latency).unwrap_or(u32::MAX));
                self.results += 1;
            }
            Source::Failures => self.failures += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Headers;
    use bytes::Bytes;

    const MADE: &str = "2026-01-01T00:00:00Z";

    fn seen(id: &str, index: &str, sequence: u64, payload: &'static [u8]) -> Seen {
        let mut headers = Headers::new();
        headers.push(header::ID, id);
        headers.push(header::INDEX, index);
        let payload = Bytes::from_static(payload);
        Seen { subject: String::new(), headers, payload, sequence, stored_millis: 0 }
    }

    fn tally(items: usize) -> (Tally, Instant) {
        let (tally, start) = (Tally::new([6, 0]), Instant::now());
        for _ in 0..items {
            tally.hand_in(start);
        }
        (tally, start)
    }

    #[test]
    fn what_comes_back_is_counted_by_the_items_that_it_descends_from() {
        let (tally, start) = tally(6);
        tally.send(4);
        // Item 3 of the run, and item 5 twice: the first item of the message has number 3.
        let results = seen(&format!("{}.0.1", tally.id(3)), "0,2x2", 7, b"\x01\x02\x03");
        tally.count(Source::Results, &results, MADE);
        tally.count(Source::Failures, &seen(&format!("{}#1.0", tally.id(3)), "1", 1, b"\x01\x02"), MADE);
        let report = tally.report(Ending::Done, 6, start);
        assert_eq!((report.items, report.messages, report.bytes), (6, 1, 4));
        assert_eq!((report.results, report.failures, report.unanswered), (3, 1, 3));
        assert_eq!((tally.place(Source::Results), tally.place(Source::Failures)), (7, 1));
        assert_eq!(tally.take_places(), [7]);
    }

    #[test]
    fn what_is_not_of_the_run_is_only_passed_over() {
        let (tally, start) = tally(1);
        tally.count(Source::Results, &seen("bench-1.0", "0", 8, b"\x01"), MADE);
        let mut again = seen(&tally.id(0), "0", 9, b"\x01");
        again.headers.push(header::AGAIN, "1");
        tally.count(Source::Results, &again, MADE);
        let report = tally.report(Ending::Done, 1, start);
        assert_eq!((report.results, report.unanswered, report.latency), (0, 1, None));
        // A requeued result is still a result of the run.
        assert_eq!((tally.place(Source::Results), tally.take_places()), (9, vec![9]));
    }

    #[test]
    fn places_in_a_stream_that_was_made_anew_are_not_taken_for_those_in_the_old_one() {
        let (tally, _) = tally(2);
        tally.count(Source::Results, &seen(&tally.id(0), "0", 9, b"\x01"), MADE);
        tally.count(Source::Results, &seen(&tally.id(1), "0", 1, b"\x01"), "2026-01-01T00:00:01Z");
        assert_eq!(tally.take_places(), [1]);
    }
}
