//! Large items over an object store in memory: in whichever order nodes, a sweep and the next hop take their steps, and wherever
//! they stop, each message finds its objects, and no object stays that none refers to.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use super::memory::{Memory, MemoryOutbox, Record, interrupt};
use super::*;
use crate::frame::large::{Form, Positions, Reference, names_in};
use crate::frame::outgoing::HEADER_ROOM;
use crate::node::large::made::{Made, MadeFor};

const LIMITS: MessageLimits = MessageLimits { max_payload: 1 << 20 };
/// One reference fills a message.
const NARROW: MessageLimits = MessageLimits { max_payload: HEADER_ROOM + 300 };
/// The place of the frame in the work stream.
const FRAME: u64 = 1;

/// What acts on the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Actor {
    /// A node handles the frame: its first item is the large item `y`, its second a small one.
    Node(Act),
    /// A node sweeps the object store.
    Sweep,
    /// A node of the next hop takes a message with a reference, and hands it on. Behind the last hop, a puller takes a result.
    Next,
}

/// What a run makes of the frame. Large items that it makes have names of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Both items become large items.
    Make,
    /// The large item goes on as it is, and the other becomes a large one.
    PassOn,
    /// The large item fails and gets another attempt. The other becomes a large one.
    Fail,
    /// The large item fails for good.
    FailForGood,
    /// The small item becomes a large one, which has no room beside others. Both go back.
    Discard,
    /// The large item streams a large output, and then all goes back.
    Stream,
    /// The same, by a node that is interrupted after so many effects of that, and requeues the frame.
    Interrupt(usize),
    /// Nothing runs, and the frame is requeued.
    Requeue,
    /// Nothing runs, and the frame is given up.
    GiveUp,
    /// Its dead letters are written.
    Bury,
}

/// A trial: actors that act at once, and a node that handles the frame after they have all stopped.
struct Trial<'a> {
    route: &'a Route,
    limits: MessageLimits,
    actors: &'a [Actor],
    last: Act,
    /// How often another actor may go on.
    switches: usize,
    halves: bool,
    tried: usize,
}

fn reference(name: &str) -> Reference {
    let digest = "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=".to_owned();
    Reference { name: name.to_owned(), size: 1, digest, form: Form::Bytes }
}

fn start(halves: bool) -> Memory {
    let streams = Memory::default();
    let mut headers = Headers::new();
    headers.extend([0].into_iter().collect::<Positions>().to_header().map(|text| (header::LARGE, text)));
    let payload = [reference("y").to_cbor(), to_cbor(&1).to_vec()].concat().into();
    let queued = Outgoing { subject: "pcluster.crash.work".to_owned(), message_id: "fed".to_owned(), headers, payload };
    assert_eq!(streams.put(&queued), StreamKind::Work.at(FRAME));
    streams.objects.borrow_mut().insert("y".to_owned());
    streams.record("y", Record::Message(StreamKind::Work.at(FRAME)));
    streams.halves.set(halves);
    streams
}

fn large_frame(delivered: u64) -> InboundFrame {
    let mut inbound = frame(FRAME, delivered, 2);
    inbound.frame.items[0] = reference("y").to_cbor().into();
    inbound.frame.large = [0].into_iter().collect();
    inbound
}

/// Takes a record back, and removes the object with its last record.
async fn release(streams: &Memory, name: &str, record: Record) {
    streams.step().await;
    streams.take_back(name, record);
    streams.step().await;
    if streams.is_free(name) {
        streams.remove(name);
    }
}

/// Handles the frame as a node does: makes objects, stores messages and their records, acknowledges, takes records back.
async fn handle(streams: &Memory, route: &Route, limits: MessageLimits, number: usize, act: Act) {
    let inbound = large_frame(number as u64);
    let outbox = MemoryOutbox { streams };
    let context = FrameContext { inbound: &inbound, route, limits };
    let commit = Commit::new(&outbox, context);
    let is_settled = act != Act::Bury && inbound.is_suspect() && commit.is_settled().await.expect("an answer");
    let made = Made::default();
    if !is_settled {
        run_large(streams, &commit, context, &made, (number, act)).await;
    }
    streams.step().await;
    streams.work.borrow_mut().messages.remove(&FRAME);
    let MadeFor { names, is_doubtful } = made.take(FRAME);
    for name in names.iter().filter(|_| !is_doubtful) {
        release(streams, name, Record::Making(FRAME)).await;
    }
    // Of a frame that was delivered before, the sweep takes them back: it looks for what another run has left.
    if !inbound.is_suspect() && !is_doubtful {
        release(streams, "y", Record::Message(StreamKind::Work.at(FRAME))).await;
    }
}

async fn run_large(
    streams: &Memory,
    commit: &Commit<'_, MemoryOutbox<'_>>,
    context: FrameContext<'_>,
    all: &Made,
    (number, act): (usize, Act),
) {
    let made = match act {
        Act::Make => [0, 1].map(|item| format!("x{number}.{item}")).to_vec(),
        Act::PassOn | Act::Fail | Act::FailForGood | Act::Discard | Act::Stream | Act::Interrupt(_) => {
            vec![format!("x{number}.1")]
        }
        Act::Requeue | Act::GiveUp | Act::Bury => Vec::new(),
    };
    for name in &made {
        streams.step().await;
        streams.record(name, Record::Making(FRAME));
        streams.step().await;
        streams.objects.borrow_mut().insert(name.clone());
        all.add(FRAME, name.clone());
    }
    let failure = |fatal| Failure { fatal, ..Failure::fatal(FailureKind::Error, "it failed") };
    let (mut ended, mut failures, mut deferred) = (FrameOutputs::default(), Vec::new(), Vec::new());
    let mut give = |position, name: &str| {
        ended.push_large(&reference(name));
        ended.end(position);
    };
    match act {
        Act::Make => (0..2).zip(&made).for_each(|(position, name)| give(position, name)),
        Act::PassOn => [(0, "y"), (1, made[0].as_str())].into_iter().for_each(|(position, name)| give(position, name)),
        Act::Fail | Act::FailForGood => {
            give(1, &made[0]);
            failures.push((0, failure(act == Act::FailForGood)));
        }
        Act::Discard => deferred.push(1),
        Act::Stream | Act::Interrupt(_) => {
            let mut outputs = Outputs::default();
            outputs.push_large(&reference(&made[0]));
            let messages = outputs::streamed(context, outputs, 0, 2, None);
            let storing = async {
                let recording = all.storing(FRAME);
                store_each(commit.outbox, context, &messages).await.expect("stored");
                recording.done();
            };
            let effects = if let Act::Interrupt(effects) = act { effects } else { usize::MAX };
            interrupt(storing, effects).await;
            commit.requeue(2, Lane::Retry, 0, None).await.expect("stored");
            return;
        }
        Act::Requeue => commit.requeue(2, Lane::Retry, 0, None).await.expect("stored"),
        Act::GiveUp => commit.give_up(&failure(true)).await.expect("stored"),
        Act::Bury => commit.write_dead_letters(&failure(true)).await.expect("stored"),
    }
    if !made.is_empty() {
        let failed: Vec<usize> = failures.iter().map(|(position, _)| *position).collect();
        let plan = outputs::leavings(context, vec![ended], &failed, deferred, 0, 2, None);
        let recording = all.storing(FRAME);
        commit.run(plan, failures).await.expect("stored");
        recording.done();
    }
}

/// Sweeps as a node does: drops records of messages that are gone, looks for messages without a record, and removes what is free.
async fn sweep(streams: &Memory) {
    streams.step().await;
    let names: BTreeSet<String> =
        streams.objects.borrow().iter().chain(streams.records.borrow().keys()).cloned().collect();
    let free: Vec<String> = names.into_iter().filter(|name| streams.drop_stale(name)).collect();
    if free.is_empty() {
        return;
    }
    streams.step().await;
    for (place, names) in streams.references() {
        for name in names.iter().filter(|name| free.contains(name)) {
            streams.record(name, Record::Message(place));
        }
    }
    streams.step().await;
    for name in free.iter().filter(|name| streams.is_free(name)) {
        streams.remove(name);
    }
}

/// Takes a message with a reference that the frame has left, reads its objects, hands them on, and acknowledges.
async fn next(streams: &Memory, is_last: bool) {
    let kind = if is_last { StreamKind::Results } else { StreamKind::Work };
    for _ in 0..2 {
        streams.step().await;
        let taken = streams
            .references()
            .into_iter()
            .find(|(place, _)| *place != StreamKind::Work.at(FRAME) && place.kind == kind);
        let Some((place, names)) = taken else { continue };
        for name in &names {
            assert!(streams.objects.borrow().contains(name), "a message at {place:?} finds its object {name}");
        }
        if !is_last {
            let message = streams.stored(place).expect("it was taken");
            let handed_on = Outgoing {
                subject: "pcluster.crash.out".to_owned(),
                message_id: format!("next {}", place.sequence),
                ..message
            };
            streams.step().await;
            let result = streams.put(&handed_on);
            for name in &names {
                streams.step().await;
                streams.record(name, Record::Message(result));
            }
        }
        streams.step().await;
        streams.forget(place);
        for name in &names {
            release(streams, name, Record::Message(place)).await;
        }
        return;
    }
}

impl Trial<'_> {
    fn act<'a>(&'a self, streams: &'a Memory, number: usize) -> LocalBoxFuture<'a, ()> {
        match self.actors[number] {
            Actor::Node(act) => handle(streams, self.route, self.limits, number + 1, act).boxed_local(),
            Actor::Sweep => sweep(streams).boxed_local(),
            Actor::Next => next(streams, self.route.is_last).boxed_local(),
        }
    }

    /// Lets the actors take steps in this order and stops them after it. Returns which of them have ended.
    fn take_steps(&self, streams: &Memory, order: &[usize]) -> Vec<bool> {
        let mut actors: Vec<Pin<Box<_>>> = (0..self.actors.len()).map(|number| self.act(streams, number)).collect();
        let mut context = Context::from_waker(Waker::noop());
        let mut ended: Vec<bool> =
            actors.iter_mut().map(|actor| actor.as_mut().poll(&mut context) == Poll::Ready(())).collect();
        for &actor in order {
            streams.steps.set(1);
            ended[actor] = actors[actor].as_mut().poll(&mut context) == Poll::Ready(());
        }
        streams.steps.set(0);
        ended
    }

    fn check(&self, streams: &Memory, order: &[usize], when: &str) {
        for (place, names) in streams.references() {
            for name in names {
                let case = || format!("{:?}, then {:?}, in the order {order:?}, {when}", self.actors, self.last);
                assert!(
                    streams.objects.borrow().contains(&name),
                    "{place:?} refers to {name}, which is gone: {}",
                    case()
                );
            }
        }
    }

    /// Tries all orders that begin with this one, with so many switches left.
    fn explore(&mut self, order: &mut Vec<usize>, switches: usize) {
        let streams = start(self.halves);
        let ended = self.take_steps(&streams, order);
        self.check(&streams, order, "as they stopped");
        streams.steps.set(u32::MAX);
        let finish = async {
            sweep(&streams).await;
            self.check(&streams, order, "after a sweep");
            if streams.stored(StreamKind::Work.at(FRAME)).is_some() {
                handle(&streams, self.route, self.limits, ended.len() + 1, self.last).await;
                self.check(&streams, order, "after the last node");
            }
            sweep(&streams).await;
        };
        finish.now_or_never().expect("it has all steps");
        self.check(&streams, order, "in the end");
        let wanted: BTreeSet<String> = streams.references().into_iter().flat_map(|(_, names)| names).collect();
        let recorded: BTreeSet<String> = streams.records.borrow().keys().cloned().collect();
        let case = format!("{:?}, then {:?}, in the order {order:?}", self.actors, self.last);
        assert_eq!((&*streams.objects.borrow(), &recorded), (&wanted, &wanted), "{case}");
        self.tried += 1;
        for actor in (0..ended.len()).filter(|actor| !ended[*actor]) {
            let left = if order.last().is_none_or(|last| *last == actor || ended[*last]) {
                Some(switches)
            } else {
                switches.checked_sub(1)
            };
            let Some(left) = left else { continue };
            order.push(actor);
            self.explore(order, left);
            order.pop();
        }
    }
}

fn explore(route: &Route, limits: MessageLimits, actors: &[Actor], last: Act, switches: usize, halves: bool) -> usize {
    let mut trial = Trial { route, limits, actors, last, switches, halves, tried: 0 };
    trial.explore(&mut Vec::new(), trial.switches);
    trial.tried
}

const ACTS: [Act; 9] = [
    Act::Make,
    Act::PassOn,
    Act::Fail,
    Act::FailForGood,
    Act::Discard,
    Act::Stream,
    Act::Interrupt(1),
    Act::Requeue,
    Act::GiveUp,
];

#[test]
fn wherever_two_nodes_stop_each_message_finds_its_objects_and_none_is_left() {
    let mut tried = 0;
    for route in [route("crash", false), route("crash", true)] {
        for first in ACTS {
            for second in [Act::Make, Act::Stream, Act::Requeue] {
                let (actors, switches) = ([Actor::Node(first), Actor::Node(second)], usize::from(first == second));
                tried += explore(&route, LIMITS, &actors, Act::PassOn, switches, false);
            }
            let actors = [Actor::Node(first), Actor::Node(Act::Make)];
            tried += explore(&route, NARROW, &actors, Act::GiveUp, 0, false);
        }
    }
    assert!(tried > 500, "{tried} orders are too few");
}

#[test]
fn whatever_a_sweep_and_the_next_hop_do_meanwhile_each_message_finds_its_objects() {
    let mut tried = 0;
    for (act, number) in ACTS.into_iter().zip(0..) {
        for is_last in [false, true] {
            let (route, switches) = (route("crash", is_last), usize::from(is_last == (number % 2 == 0)));
            let actors = [Actor::Node(act), Actor::Sweep, Actor::Next];
            tried += explore(&route, LIMITS, &actors, Act::Make, switches, false);
            let actors = [Actor::Node(act), Actor::Node(Act::Requeue), Actor::Next];
            tried += explore(&route, LIMITS, &actors, Act::Make, 0, false);
        }
    }
    assert!(tried > 500, "{tried} orders are too few");
}

#[test]
fn wherever_batches_are_torn_each_message_finds_its_objects() {
    let mut tried = 0;
    for route in [route("crash", false), route("crash", true)] {
        for second in [Actor::Node(Act::Make), Actor::Next] {
            for first in [Act::Make, Act::PassOn] {
                tried += explore(&route, NARROW, &[Actor::Node(first), second], Act::PassOn, 1, true);
            }
        }
    }
    assert!(tried > 300, "{tried} orders are too few");
}

#[test]
fn dead_letters_keep_their_objects() {
    let actors = [Actor::Node(Act::Bury), Actor::Node(Act::Bury), Actor::Sweep];
    let tried: usize = [false, true]
        .map(|is_last| explore(&route("crash", is_last), LIMITS, &actors, Act::Bury, 1, false))
        .iter()
        .sum();
    assert!(tried > 100, "{tried} orders are too few");
}

#[test]
fn what_a_message_names_is_in_its_headers() {
    let streams = start(false);
    let stored = streams.stored(StreamKind::Work.at(FRAME)).expect("the frame");
    assert_eq!(names_in(&stored.headers, &stored.payload), ["y"]);
}
