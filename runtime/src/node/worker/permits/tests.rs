use super::*;

#[tokio::test]
async fn a_frame_without_its_permit_is_in_hand_until_it_is_stored() {
    let limit = ConcurrencyLimit::new(8, None);
    limit.ran(limit.opened, limit.opened + Duration::from_secs(1));
    assert_eq!(limit.room(), 8);
    let held = limit.hold(100);
    let permit = limit.take_frame(4, Lane::Work, None).await;
    assert_eq!(limit.room(), 2, "seven free permits are filled by two frames of four");
    drop(permit);
    assert_eq!(limit.room(), 1, "the outputs of the frame are not stored yet");
    drop(held);
    assert_eq!(limit.room(), 2);
}

#[tokio::test]
async fn the_next_frame_is_requested_once_the_last_item_in_hand_has_begun() {
    let limit = ConcurrencyLimit::new(1, None);
    limit.ran(limit.opened, limit.opened + Duration::from_millis(10));
    let _held = limit.hold(100);
    let mut permit = limit.take_frame(64, Lane::Work, None).await;
    assert_eq!(limit.room(), 0, "its items fill the permit for long");
    drop(permit.take_unbegun());
    assert_eq!(limit.room(), 1);
    let _next = limit.hold(100);
    assert_eq!(limit.room(), 0, "and no other");
}

#[test]
fn a_frame_that_may_never_run_is_in_hand_and_keeps_no_permit_from_others() {
    let limit = ConcurrencyLimit::new(2, None);
    limit.park(Lane::Work);
    let held = limit.hold(1);
    assert_eq!(limit.room(), 0, "one frame tells how long items take");
    let aside = limit.set_aside();
    assert!(!limit.parking[Lane::Work as usize].waits.load(SeqCst), "the lane that waits for room is notified");
    assert_eq!((limit.room(), limit.is_empty()), (1, false));
    drop(aside);
    assert_eq!(limit.room(), 0, "now it runs");
    drop(held);
    assert_eq!((limit.room(), limit.is_empty()), (1, true));
}

#[tokio::test]
async fn items_that_run_long_without_an_end_are_known_to_take_long() {
    let limit = ConcurrencyLimit::new(2, None);
    assert_eq!((limit.estimate(), limit.room()), (None, 1));
    limit.cut_unknown();
    assert_eq!(limit.room(), 0, "a piece will show it");
    let (_held, _permit) = (limit.hold(1), limit.take_frame(1, Lane::Work, None).await);
    std::thread::sleep(KNOWN_AFTER);
    assert!(limit.estimate() >= Some(KNOWN_AFTER));
    assert_eq!(limit.room(), 1, "the other permit can be filled");
}

#[tokio::test]
async fn items_that_have_not_ended_pay_for_no_cut_and_items_that_have_ended_do() {
    let limit = ConcurrencyLimit::new(1, None);
    assert_eq!(limit.share(900, true).piece, 15, "a guess");
    limit.cut_unknown();
    assert_eq!(limit.share(900, true).piece, 900, "and no other right after it");
    let (_held, _permit) = (limit.hold(1), limit.take_frame(1, Lane::Work, None).await);
    std::thread::sleep(KNOWN_AFTER);
    assert!(limit.estimate().is_some());
    assert_eq!(limit.share(900, false).piece, 900, "a starved node knows nothing of its items");
    limit.ran(limit.opened, limit.opened + 3 * SHARE_AFTER);
    assert_eq!(limit.share(900, false).piece, 225, "three messages more");
    limit.cut_known(4);
    assert_eq!(limit.share(900, false).piece, 900);
}

#[tokio::test]
async fn a_parked_lane_is_notified_when_there_may_be_room() {
    let limit = ConcurrencyLimit::new(1, None);
    limit.notify();
    limit.park(Lane::Retry);
    limit.notify();
    limit.notify();
    limit.notified(Lane::Retry).await;
    let again = tokio::time::timeout(Duration::from_millis(1), limit.notified(Lane::Retry)).await;
    assert!(again.is_err(), "one notification each time that it waits");
}

#[tokio::test]
async fn pieces_fill_the_permits_however_large_the_frames_are_that_they_come_from() {
    let limit = ConcurrencyLimit::new(64, None);
    let began = Instant::now();
    drop(limit.take_frame(256, Lane::Work, None).await);
    limit.ran(began, began + Duration::from_secs(1));
    assert_eq!(limit.room_for_shared(), 1);
    drop(limit.take_frame(4, Lane::Retry, None).await);
    assert_eq!((limit.room(), limit.room_for_shared()), (1, 16));
}
