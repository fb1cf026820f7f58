//! Plans of frames of all shapes.

use std::collections::BTreeSet;

use super::*;
use crate::frame::outgoing::BATCH_MAX;
use crate::run::output::Outputs;

/// What became of each item of a frame of which some have run.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Gave(usize),
    Failed,
    Deferred,
    NotRun,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            batch: BATCH_MAX,
            outputs: BATCH_MAX,
            items: FRAME_ITEMS,
            bytes: usize::MAX,
            piece: Piece { items: 1, bytes: usize::MAX },
        }
    }
}

/// The topic of an output, of so many. `None` for that of the frame.
fn topic(position: usize, number: usize, topics: usize) -> Option<NewTopic> {
    match (position * 5 + number * 3) % topics {
        0 => None,
        1 => Some(None),
        other => Some(Some(format!("t{other}").parse().expect("a topic"))),
    }
}

fn plan(fates: &[Fate], sizes: &[usize], item: usize, bounds: &Bounds) -> Plan {
    plan_of_topics(fates, sizes, item, bounds, 1)
}

fn plan_of_topics(fates: &[Fate], sizes: &[usize], item: usize, bounds: &Bounds, topics: usize) -> Plan {
    let outputs: Vec<(usize, Outputs)> = fates
        .iter()
        .enumerate()
        .filter_map(|(position, fate)| match fate {
            Fate::Gave(number) => {
                let mut outputs = Outputs::default();
                for number in 0..*number {
                    match topic(position, number, topics) {
                        None => outputs.push(&vec![0; item]),
                        Some(topic) => outputs.push_to(topic, &vec![0; item]),
                    }
                }
                Some((position, outputs))
            }
            _ => None,
        })
        .collect();
    let done: Vec<_> = outputs.iter().map(|(position, outputs)| (*position, outputs.all())).collect();
    let of = |wanted| (0..fates.len()).filter(|position| fates[*position] == wanted).collect::<Vec<_>>();
    let (failed, deferred) = (of(Fate::Failed), of(Fate::Deferred));
    let plan = Plan::new(sizes, &done, &failed, deferred, bounds);

    let messages = plan.outputs.len() + failed.len() + plan.deferred.len() + plan.rest.len();
    assert!(messages <= bounds.batch, "{messages} messages of {}", bounds.batch);
    assert!(plan.outputs.len() <= bounds.outputs.max(1));
    let rest = plan.rest.iter().flatten();
    let mut all: Vec<usize> = plan.kept.iter().chain(&failed).chain(&plan.deferred).chain(rest).copied().collect();
    all.sort_unstable();
    assert_eq!(all, (0..sizes.len()).collect::<Vec<_>>(), "each item is in exactly one part");
    let mut given: Vec<(usize, usize)> = Vec::new();
    for message in plan.streamed.iter().chain(&plan.outputs) {
        let items: usize = message.iter().map(|(_, range)| range.len()).sum();
        assert!(items > 0 && items <= bounds.items && (items == 1 || items * item <= bounds.bytes));
        let of = |(position, range): &Share| {
            let position = *position;
            range.clone().map(move |number| topic(position, number, topics))
        };
        let of: BTreeSet<_> = message.iter().flat_map(of).collect();
        assert_eq!(of.len(), 1, "a message has one topic");
        given.extend(message.iter().flat_map(|(position, range)| range.clone().map(|number| (*position, number))));
    }
    let kept = |position: &usize| match fates[*position] {
        Fate::Gave(number) => (0..number).map(|number| (*position, number)).collect::<Vec<_>>(),
        _ => panic!("{position} gave nothing"),
    };
    let expected: Vec<(usize, usize)> = plan.kept.iter().flat_map(kept).collect();
    for wanted in given.iter().map(|(position, number)| topic(*position, *number, topics)).collect::<BTreeSet<_>>() {
        let of = |all: &[(usize, usize)]| {
            let is_of = |(position, number): &(usize, usize)| topic(*position, *number, topics) == wanted;
            all.iter().copied().filter(is_of).collect::<Vec<_>>()
        };
        assert_eq!(of(&given), of(&expected), "all outputs of kept items, in order within each topic");
    }
    assert_eq!(given.len(), expected.len());
    let unique: BTreeSet<_> = given.iter().collect();
    assert_eq!(unique.len(), given.len());
    for piece in &plan.rest {
        let bytes: usize = piece.iter().map(|position| sizes[*position]).sum();
        assert!(piece.len() <= bounds.piece.items && (piece.len() == 1 || bytes <= bounds.piece.bytes));
    }
    plan
}

#[test]
fn nine_hundred_items_that_give_three_thousand_each_fit_a_batch_with_their_requeues() {
    let bounds = Bounds { piece: Piece { items: 32, bytes: usize::MAX }, ..Bounds::default() };
    let plan = plan(&[Fate::Gave(3_000); 900], &[1; 900], 1, &bounds);
    assert_eq!((plan.outputs.len(), plan.kept.len(), plan.rest.len()), (970, 291, 20));
}

#[test]
fn a_plan_fits_a_batch_and_holds_each_item_once_whatever_the_sizes() {
    // A xorshift generator: the same cases at each run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound as u64).expect("small")
    };
    for _ in 0..3_000 {
        let items = 1 + below(18);
        let bounds = Bounds {
            batch: 20,
            outputs: 1 + below(25),
            items: 1 + below(9),
            bytes: 1 + below(40),
            piece: Piece { items: 1 + below(7), bytes: 1 + below(30) },
        };
        let (most, ill) = (1 + below(60), 1 + below(12));
        let fates: Vec<Fate> = (0..items)
            .map(|_| match below(ill + 3) {
                0 => Fate::Failed,
                1 => Fate::Deferred,
                2 => Fate::NotRun,
                _ => Fate::Gave(below(most)),
            })
            .collect();
        let sizes: Vec<usize> = (0..items).map(|_| 1 + below(20)).collect();
        let (item, topics) = (1 + below(6), [1, 1, 2, 5][below(4)]);
        let plan = plan_of_topics(&fates, &sizes, item, &bounds, topics);
        let had_none_to_give = !fates.iter().any(|fate| matches!(fate, Fate::Gave(_)));
        let goes_on = had_none_to_give
            || !plan.kept.is_empty()
            || plan.deferred.len() > fates.iter().filter(|fate| **fate == Fate::Deferred).count();
        assert!(goes_on, "a frame whose items have run does not come back whole: {plan:?}");
    }
}

#[test]
fn an_item_that_gives_more_than_all_others_leave_room_for_runs_by_itself() {
    let bounds = Bounds { outputs: 3, items: 10, ..Bounds::default() };
    let plan = plan(&[Fate::Gave(31), Fate::Gave(5), Fate::NotRun], &[1; 3], 1, &bounds);
    assert_eq!((plan.deferred, plan.kept, plan.rest), (vec![0], vec![1], vec![vec![2]]));
}

#[test]
fn a_single_item_streams_outputs_that_the_next_queue_cannot_take_at_once() {
    let bounds = Bounds { outputs: 3, items: 10, ..Bounds::default() };
    let plan = plan(&[Fate::Gave(45)], &[1], 1, &bounds);
    assert_eq!((plan.streamed.len(), plan.outputs.len(), plan.kept), (4, 1, vec![0]));
}
