//! Tests of the budget.

use std::task::Poll;

use futures_util::poll;

use super::*;

const MIB: u64 = 1 << 20;

fn wish(after: usize, frames: u64, each: u64) -> Wish {
    Wish { after, frames, each, is_empty: true, is_idle: false, waited: None }
}

#[tokio::test]
async fn past_the_budget_nothing_begins_but_the_first() {
    let budget = Budget::new(16 * MIB);
    let mut large = budget.reserve(0);
    let first = budget.begin(0, 20 * MIB, &mut large, None).await;
    assert_eq!(budget.used(), 20 * MIB, "one item begins, however large it is");
    let mut small = budget.reserve(0);
    let mut second = std::pin::pin!(budget.begin(0, MIB, &mut small, None));
    assert!(poll!(second.as_mut()).is_pending());
    large.shrink(15 * MIB);
    assert!(poll!(second.as_mut()).is_ready(), "there is room for one more");
    drop(first);
}

#[tokio::test]
async fn items_that_wait_for_later_stages_let_these_begin_and_none_of_their_own() {
    // More stages than there are levels.
    for after in [0, 1, 5, 20] {
        let budget = Budget::new(16 * MIB);
        let (mut large, mut same, mut next) = (budget.reserve(0), budget.reserve(0), budget.reserve(0));
        let first = budget.begin(after + 1, 20 * MIB, &mut large, None).await;
        let paused = budget.pause(after + 1, 0);
        let mut second = std::pin::pin!(budget.begin(after + 1, MIB, &mut same, None));
        assert!(poll!(second.as_mut()).is_pending(), "memory would have no bound");
        {
            let mut later = std::pin::pin!(budget.begin(after, MIB, &mut next, None));
            let Poll::Ready(later) = poll!(later.as_mut()) else { panic!("{after}: no item would go on") };
            drop(later);
        }
        assert!(poll!(second.as_mut()).is_pending());
        drop((paused, first));
        let Poll::Ready(second) = poll!(second.as_mut()) else { panic!("{after}: it was not told") };
        drop(second);
        assert!(budget.active.iter().all(|active| active.load(SeqCst) == 0));
    }
}

#[tokio::test]
async fn a_frame_that_is_not_stored_yet_keeps_other_frames_from_going_past_the_budget() {
    let budget = Budget::new(MIB);
    let _held = budget.reserve(2 * MIB);
    let (frame, other) = (budget.growing(0), budget.growing(0));
    let mut counted = budget.reserve(0);
    let one = budget.try_begin(1, 0, &mut counted, Some(&frame)).expect("nothing else goes past it");
    {
        let mut again = budget.reserve(0);
        let mut second = std::pin::pin!(budget.begin(1, 0, &mut again, Some(&frame)));
        assert!(poll!(second.as_mut()).is_pending(), "one of its items at a time");
        drop(one);
        assert!(budget.try_begin(1, 0, &mut counted, Some(&other)).is_none(), "its outputs are held");
        let Poll::Ready(second) = poll!(second.as_mut()) else { panic!("the frame's next item was not told") };
        drop(second);
    }
    let mut third = std::pin::pin!(budget.begin(1, 0, &mut counted, Some(&other)));
    assert!(poll!(third.as_mut()).is_pending());
    drop(frame);
    assert!(poll!(third.as_mut()).is_ready(), "the other frame was not told");
}

#[test]
fn frames_whose_items_pass_several_stages_do_not_wait_for_each_other() {
    let budget = Budget::new(MIB);
    let _held = budget.reserve(2 * MIB);
    let (frame, other) = (budget.growing(0).across(0..=1), budget.growing(0).across(0..=1));
    let begins =
        |after: usize, frame: &Growing| budget.try_begin(after, 0, &mut budget.reserve(0), Some(frame)).is_some();
    assert!(begins(0, &frame), "an item of it has passed the first stage within the budget");
    assert!(!begins(1, &other) && !begins(0, &other), "the other would need both");
    assert!(begins(1, &frame) && begins(0, &frame), "its next item passes both");
    drop(frame);
    assert!(begins(1, &other) && begins(0, &other));
}

#[tokio::test]
async fn later_stages_begin_where_earlier_ones_wait() {
    let budget = Budget::new(16 * MIB);
    let _held = budget.reserve(14 * MIB);
    let (mut one, mut other, mut last) = (budget.reserve(0), budget.reserve(0), budget.reserve(0));
    let running = budget.begin(2, MIB, &mut one, None).await;
    assert_eq!(budget.used(), 15 * MIB, "past the share of its level");
    let mut early = std::pin::pin!(budget.begin(2, MIB, &mut other, None));
    assert!(poll!(early.as_mut()).is_pending());
    let late = budget.begin(0, MIB, &mut last, None).await;
    drop((running, late));
    assert!(poll!(early.as_mut()).is_ready(), "nothing else goes past it");
}

#[tokio::test]
async fn requested_frames_count_until_they_come() {
    let budget = Budget::new(16 * MIB);
    let mut asked = budget.reserve(0);
    let leave = budget.ask(wish(0, 3, MIB), &mut asked).expect("nothing is in use");
    assert_eq!((leave.frames, leave.stands, asked.bytes()), (3, Stands::Long, 3 * MIB));
    let _held = budget.reserve(4 * MIB);
    let leave = budget.ask(wish(0, 9, MIB), &mut asked).expect("one has room");
    assert_eq!((leave.frames, leave.stands), (1, Stands::Briefly));
    asked.shrink(3 * MIB);
    let idle = Wish { is_idle: true, ..wish(0, 9, MIB) };
    assert_eq!(budget.ask(idle, &mut asked).expect("one has room").stands, Stands::Not);
    // Half of the budget is kept for running items.
    let leave = budget.ask(wish(0, 9, MIB), &mut asked).expect("nothing runs");
    assert_eq!((leave.frames, leave.stands), (1, Stands::Not));
    assert!(budget.ask(wish(0, 9, MIB), &mut asked).is_none(), "one at a time exceeds the budget");
    let later = budget.ask(wish(9, 1, MIB), &mut asked).expect("each stage has one");
    assert!(budget.ask(wish(9, 1, MIB), &mut asked).is_none());
    drop((leave, later));
    let busy = Wish { is_empty: false, ..wish(0, 1, MIB) };
    assert!(budget.ask(busy, &mut asked).is_none(), "its hop has something in hand");
    let mut running = budget.reserve(0);
    let active = budget.begin(1, 0, &mut running, None).await;
    assert!(budget.ask(wish(0, 1, MIB), &mut asked).is_some(), "only earlier stages make progress");
    assert!(budget.ask(wish(1, 1, MIB), &mut asked).is_none(), "what runs will give way");
    let patient = Wish { waited: Some(PATIENCE), ..wish(1, 1, MIB) };
    assert!(budget.ask(patient, &mut asked).is_some(), "what runs may do so for hours");
    let paused = budget.pause(1, 0);
    assert!(budget.ask(wish(1, 1, MIB), &mut asked).is_some());
    drop((paused, active));
    asked.shrink(0);
    assert_eq!(budget.used(), 4 * MIB);
}

#[tokio::test]
async fn memory_that_waits_for_later_stages_does_not_keep_these_from_asking() {
    let budget = Budget::new(16 * MIB);
    let _held = budget.reserve(14 * MIB);
    let mut asked = budget.reserve(0);
    let (mut one, mut running) = (budget.reserve(0), budget.reserve(0));
    let _active = (budget.begin(0, 0, &mut one, None).await, budget.begin(1, 0, &mut running, None).await);
    assert!(budget.ask(wish(0, 1, MIB), &mut asked).is_none(), "frames in hand come first");
    let held_up = budget.hold_up(1, 14 * MIB);
    assert!(budget.ask(wish(1, 1, MIB), &mut asked).is_none(), "only later ones can help it");
    let leave = budget.ask(wish(0, 9, MIB), &mut asked).expect("there is room for two");
    assert_eq!((leave.frames, leave.exceeding.is_none()), (1, true));
    assert!(budget.ask(wish(0, 9, 2 * MIB), &mut asked).is_none(), "it would go past the budget");
    drop(held_up);
    assert!(budget.ask(wish(0, 1, MIB), &mut asked).is_none());
}

#[tokio::test]
async fn a_lane_that_waits_is_told_of_room_and_not_passed() {
    let budget = Budget::new(16 * MIB);
    let held = budget.reserve(8 * MIB);
    let mut asked = budget.reserve(0);
    let mut running = budget.reserve(0);
    let _active = budget.begin(0, 0, &mut running, None).await;
    assert!(budget.ask(wish(3, 1, MIB), &mut asked).is_none());
    let mut turn = std::pin::pin!(budget.may_ask(3));
    assert!(poll!(turn.as_mut()).is_pending());
    drop(held);
    assert!(budget.ask(wish(0, 1, MIB), &mut asked).is_none(), "another waits");
    assert!(poll!(turn.as_mut()).is_ready());
    assert!(budget.ask(Wish { waited: Some(Duration::ZERO), ..wish(3, 1, MIB) }, &mut asked).is_some());
}

#[tokio::test]
async fn instances_that_wait_give_way_first() {
    let budget = Budget::new(16 * MIB);
    let idle = std::sync::Mutex::new(vec![budget.reserve(9 * MIB), budget.reserve(7 * MIB)]);
    budget.on_need(move || idle.lock().expect("no panic").pop().is_some());
    let mut asked = budget.reserve(0);
    assert_eq!(budget.ask(wish(0, 9, MIB), &mut asked).expect("they give way").frames, 8);
    assert_eq!(budget.used(), 8 * MIB);
}

#[test]
fn memory_that_the_process_takes_beside_is_not_given_out_twice() {
    let budget = Budget::new(16 * MIB);
    budget.set_beside(6 * MIB);
    assert_eq!(budget.capacity(), 10 * MIB);
    budget.set_beside(60 * MIB);
    assert_eq!(budget.capacity(), 4 * MIB, "something is always left for items");
}
