//! One table of cases, over the streams in memory and over a real server.

use std::cell::{Cell, RefCell};

use support::Server;

use super::memory::{Memory, MemoryOutbox};
use super::*;
use crate::broker::Broker;
use crate::broker::arrange::{kept, work};
use crate::broker::publish::Publisher;
use crate::broker::stream::Stream;
use crate::chain::record::State;
use crate::node::commit::outbox::ServerStreams;

/// Runs of one frame, each stopped after so many effects, and what is left then.
struct Case {
    is_last: bool,
    runs: &'static [(Outcome, u32)],
    expected: &'static [&'static str],
}

const END: u32 = u32::MAX;

const TABLE: &[Case] = &[
    Case {
        is_last: false,
        runs: &[(ALL, END)],
        expected: &["0 queued 0 of run 1", "1 queued 0 of run 1", "1 queued 1 of run 1", "2 queued 0 of run 1"],
    },
    Case {
        is_last: false,
        runs: &[(MIXED, END), (ALL, END)],
        expected: &["0 retried later after 1", "1 queued 0 of run 1", "1 queued 1 of run 1", "2 retried"],
    },
    Case {
        is_last: false,
        runs: &[(ALL, 0), (FATAL, END)],
        expected: &[
            "0 queued 0 of run 2",
            "1 given up after 1",
            "2 queued 0 of run 2",
            "2 queued 1 of run 2",
            "2 queued 2 of run 2",
        ],
    },
    Case {
        is_last: false,
        runs: &[(Outcome::Requeued(2), END), (NONE_KEPT, END)],
        expected: &["0 retried", "1 retried", "2 retried"],
    },
    Case {
        is_last: false,
        runs: &[(Outcome::GivenUp, END), (ALL, END)],
        expected: &["0 given up", "1 given up", "2 given up"],
    },
    Case {
        is_last: true,
        runs: &[(ALL, END), (MIXED, END)],
        expected: &["0 result 0 of run 1", "1 result 0 of run 1", "1 result 1 of run 1", "2 result 0 of run 1"],
    },
    Case { is_last: true, runs: &[(MIXED, 1)], expected: &["1 result 0 of run 1", "1 result 1 of run 1", "covers 1"] },
    Case {
        is_last: true,
        runs: &[(MIXED, 1), (ALL, END)],
        expected: &["0 retried after 1", "1 result 0 of run 1", "1 result 1 of run 1", "2 retried after 1", "covers 1"],
    },
    Case {
        is_last: true,
        runs: &[(MIXED, END), (ALL, END)],
        expected: &["0 retried later after 1", "1 result 0 of run 1", "1 result 1 of run 1", "2 retried", "covers 1"],
    },
    Case {
        is_last: true,
        runs: &[(NONE_KEPT, 1), (ALL, END)],
        expected: &["0 retried after 1", "1 retried after 1", "2 retried after 1", "covers none"],
    },
    Case {
        is_last: true,
        runs: &[(NONE_KEPT, 1), (ALL, 2), (FATAL, END)],
        expected: &["0 retried after 1", "1 retried after 1", "2 retried after 1", "covers none"],
    },
    Case {
        is_last: true,
        runs: &[(Outcome::GivenUp, 1), (Outcome::Requeued(1), END)],
        expected: &["0 retried after 1", "1 retried after 1", "2 retried after 1", "covers none"],
    },
    Case {
        is_last: true,
        runs: &[(Outcome::DeadLetters, 2), (Outcome::DeadLetters, END)],
        expected: &["0 dead", "1 dead", "2 dead"],
    },
    Case { is_last: false, runs: &[(Outcome::DeadLetters, END)], expected: &["0 dead", "1 dead", "2 dead"] },
];

/// Stops a run after so many effects.
struct Stopped<O> {
    outbox: O,
    left: Cell<u32>,
}

impl<O> Stopped<O> {
    fn step(&self) -> Result<(), PublishError> {
        let left = self.left.get().checked_sub(1);
        left.map(|left| self.left.set(left)).ok_or_else(|| PublishError::Unanswered("the run is stopped".to_owned()))
    }
}

impl<O: Outbox> Outbox for Stopped<O> {
    async fn store(&self, source: Source<'_>, messages: &[Outgoing]) -> Result<Receipt, PublishError> {
        if messages.is_empty() {
            return Ok(Receipt::of_nothing());
        }
        self.step()?;
        self.outbox.store(source, messages).await
    }

    async fn find(&self, subject: &str, key: &str) -> Result<Option<u64>, PublishError> {
        self.outbox.find(subject, key).await
    }

    async fn message(&self, place: Place) -> Result<Option<(Headers, Bytes)>, PublishError> {
        self.outbox.message(place).await
    }

    async fn hold(&self, name: &str, place: Place) -> Result<(), PublishError> {
        self.outbox.hold(name, place).await
    }

    async fn result_headers(&self, sequence: u64) -> Result<Option<Headers>, PublishError> {
        self.outbox.result_headers(sequence).await
    }

    fn parks(&self) -> bool {
        false
    }

    fn requeued(&self, _: &[Outgoing]) {}

    fn buried(&self, _: u64) {}
}

/// A real server that is never away, so each request is sent once.
struct Real<'a> {
    streams: ServerStreams<'a>,
    /// `true` if it stores the first message of each batch and refuses the rest.
    halves: bool,
    /// What was recorded.
    held: RefCell<Vec<(String, Place)>>,
}

impl Outbox for Real<'_> {
    async fn store(&self, _: Source<'_>, messages: &[Outgoing]) -> Result<Receipt, PublishError> {
        if let (true, [first, .., last]) = (self.halves, messages) {
            let publisher = Publisher::of(self.streams.broker);
            if publisher.known(&last.subject, &last.message_id).await?.is_none() {
                publisher.publish_at(first).await?;
            }
        }
        self.streams.store(messages).await
    }

    async fn find(&self, subject: &str, key: &str) -> Result<Option<u64>, PublishError> {
        self.streams.find(subject, key).await
    }

    async fn message(&self, place: Place) -> Result<Option<(Headers, Bytes)>, PublishError> {
        self.streams.message(place).await
    }

    async fn hold(&self, name: &str, place: Place) -> Result<(), PublishError> {
        self.held.borrow_mut().push((name.to_owned(), place));
        Ok(())
    }

    async fn result_headers(&self, sequence: u64) -> Result<Option<Headers>, PublishError> {
        self.streams.result_headers(sequence).await
    }

    fn parks(&self) -> bool {
        false
    }

    fn requeued(&self, _: &[Outgoing]) {}

    fn buried(&self, _: u64) {}
}

async fn run_all<O: Outbox>(outbox: impl Fn() -> O, route: &Route, sequence: u64, limits: MessageLimits, case: &Case) {
    for ((outcome, effects), delivered) in case.runs.iter().zip(1..) {
        let stopped = Stopped { outbox: outbox(), left: Cell::new(*effects) };
        let ended = run(&stopped, route, &frame(sequence, delivered, ITEMS), limits, *outcome).await;
        assert!(ended.is_ok() || *effects < END, "{ended:?}");
    }
}

#[tokio::test]
async fn the_streams_in_memory_hold_what_each_case_leaves() {
    for (case, number) in TABLE.iter().zip(0..) {
        let (streams, route) = (Memory::default(), route("table", case.is_last));
        streams.steps.set(u32::MAX);
        let sequence = streams.queue();
        let limits = MessageLimits { max_payload: 1 << 20 };
        run_all(|| MemoryOutbox { streams: &streams }, &route, sequence, limits, case).await;
        assert_eq!(streams.places(), case.expected, "case {number}");
    }
}

#[tokio::test]
async fn a_real_server_holds_what_each_case_leaves() {
    check_each_case(false).await;
}

#[tokio::test]
async fn a_server_that_refuses_batches_halfway_holds_what_each_case_leaves() {
    check_each_case(true).await;
}

async fn check_each_case(halves: bool) {
    let server = tokio::task::spawn_blocking(|| Server::start("")).await.expect("a server");
    let broker = Broker::connect(&server.url.as_str().into(), "table").await.expect("a connection");
    let routes = [false, true].map(|is_last| route("table", is_last));
    let chain = &routes[0].chain;
    kept::make_kept(&broker, chain).await.expect("streams of results and dead letters");
    work::make_work(&broker, chain, &State::of(routes[0].revision)).await.expect("a work stream");
    for (case, number) in TABLE.iter().zip(0..) {
        let route = &routes[usize::from(case.is_last)];
        let queued = Outgoing {
            subject: subject::work(&chain.name, route.revision, &route.stage().name),
            message_id: format!("case {number}"),
            headers: Headers::new(),
            payload: to_cbor(&0),
        };
        let (_, sequence) = Publisher::of(&broker).publish_at(&queued).await.expect("a place in the queue");
        let outbox = || Real { streams: ServerStreams { broker: &broker, route }, halves, held: RefCell::default() };
        run_all(outbox, route, sequence, broker.limits(), case).await;
        let mut places = Vec::new();
        let streams = [
            (subject::work_stream(&chain.name), "queued"),
            (subject::results_stream(&chain.name), "result"),
            (subject::dead_stream(&chain.name), "dead"),
        ];
        for (stream, name) in streams {
            let mut scan = Stream::of(&broker, &stream).scan(">".to_owned(), None).await.expect("the stream");
            while let Some(message) = scan.next().await.expect("its messages") {
                Stream::of(&broker, &stream).remove_message(message.sequence).await.expect("removed");
                if (message.sequence, name) != (sequence, "queued") {
                    places.extend(place(&message.headers, &message.payload, name));
                }
            }
        }
        places.sort();
        assert_eq!(places, case.expected, "case {number}");
    }
    tokio::task::spawn_blocking(move || drop(server)).await.expect("the server is stopped");
}
