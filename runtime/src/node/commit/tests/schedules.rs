//! Every order in which two nodes can take the steps of one frame, and stop for good, and a third node after them.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;

use super::memory::{Memory, MemoryOutbox};
use super::*;

const LIMITS: MessageLimits = MessageLimits { max_payload: 1 << 20 };

/// Handles one delivery of the frame to its end.
async fn handle(streams: &Memory, route: &Route, delivered: u64, items: usize, outcome: Outcome) {
    let inbound = frame(1, delivered, items);
    run(&MemoryOutbox { streams, route }, route, &inbound, LIMITS, outcome).await.expect("streams in memory answer");
    // The acknowledgement.
    streams.step().await;
}

/// Lets the nodes take steps in this order and stops them after it. Returns which of them have ended.
fn take_steps<'a>(
    streams: &Memory,
    mut nodes: [Pin<&mut (dyn Future<Output = ()> + 'a)>; 2],
    order: &[usize],
) -> [bool; 2] {
    let (mut ended, mut context) = ([false; 2], Context::from_waker(Waker::noop()));
    // Up to the first effect of each.
    for (node, has_ended) in nodes.iter_mut().zip(&mut ended) {
        *has_ended = node.as_mut().poll(&mut context) == Poll::Ready(());
    }
    for &node in order {
        if !ended[node] {
            streams.steps.set(1);
            ended[node] = nodes[node].as_mut().poll(&mut context) == Poll::Ready(());
        }
    }
    streams.steps.set(0);
    ended
}

/// Tries all orders that begin with this one.
fn explore(route: &Route, items: usize, outcomes: [Outcome; 3], order: &mut Vec<usize>, tried: &mut usize) {
    let streams = Memory::default();
    streams.queue();
    let ended = {
        let first = pin!(handle(&streams, route, 1, items, outcomes[0]));
        let second = pin!(handle(&streams, route, 2, items, outcomes[1]));
        take_steps(&streams, [first, second], order)
    };
    // Both nodes stop here. If none has acknowledged the frame, the server hands it out once more.
    if ended == [false; 2] {
        streams.steps.set(u32::MAX);
        handle(&streams, route, 3, items, outcomes[2]).now_or_never().expect("it has all steps");
    }
    check(&streams, items, &format!("{outcomes:?} in the order {order:?}, last: {}", route.is_last));
    *tried += 1;
    for node in (0..2).filter(|node| !ended[*node]) {
        order.push(node);
        explore(route, items, outcomes, order, tried);
        order.pop();
    }
}

/// Every item is in exactly one place, and its outputs are all of one run.
fn check(streams: &Memory, items: usize, case: &str) {
    let places = streams.places();
    for item in 0..items {
        let of: Vec<&str> = places.iter().filter_map(|place| place.strip_prefix(&format!("{item} "))).collect();
        let outputs: Vec<&&str> = of.iter().filter(|place| place.contains("of run")).collect();
        let others = of.len() - outputs.len();
        assert!(others <= 1 && (others == 1) == outputs.is_empty(), "item {item} of {case}: {places:?}");
        let runs: Vec<&str> = outputs.iter().filter_map(|output| output.rsplit(' ').next()).collect();
        assert!(runs.windows(2).all(|pair| pair[0] == pair[1]), "item {item} of {case}: {places:?}");
    }
}

fn explore_all(outcomes: &[Outcome], thirds: &[Outcome]) -> usize {
    let mut tried = 0;
    for is_last in [false, true] {
        let route = route("crash", is_last);
        for first in outcomes {
            for second in outcomes {
                for third in thirds {
                    explore(&route, ITEMS, [*first, *second, *third], &mut Vec::new(), &mut tried);
                }
            }
        }
    }
    tried
}

#[test]
fn wherever_two_nodes_stop_and_in_whichever_order_each_item_is_in_one_place() {
    let outcomes = [ALL, MIXED, FATAL, NONE_KEPT, Outcome::Requeued(2), Outcome::GivenUp];
    let tried = explore_all(&outcomes, &[ALL, MIXED]);
    assert!(tried > 5_000, "{tried} orders are too few to be all");
}

#[test]
fn wherever_nodes_stop_each_item_that_is_given_up_has_one_dead_letter() {
    let outcomes = [Outcome::DeadLetters];
    let tried = explore_all(&outcomes, &outcomes);
    assert!(tried > 50, "{tried} orders are too few to be all");
}
