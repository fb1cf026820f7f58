use futures_util::FutureExt as _;

use super::*;

/// Begins as many requests as may begin now, to as many hosts.
fn fill(limits: &Arc<Limits>, stage: u64) -> Vec<Place> {
    (0..NODE_MAX)
        .map_while(|at| limits.acquire(stage, &format!("{stage}-{}", at % 100)).now_or_never().flatten())
        .collect()
}

#[test]
fn a_stage_leaves_places_to_others() {
    let limits = Arc::new(Limits::default());
    let first = fill(&limits, 1);
    assert_eq!(first.len(), NODE_MAX / 2);
    let second = fill(&limits, 2);
    assert_eq!(second.len(), NODE_MAX / 4);
    let third = fill(&limits, 3);
    assert_eq!(third.len(), NODE_MAX / 8);
    drop((first, second, third));
    let state = lock(&limits.state);
    assert_eq!((state.used, state.stages.len(), state.hosts.len(), state.waiting.len()), (0, 0, 0, 0));
}

#[test]
fn a_host_has_its_own_limit() {
    let limits = Arc::new(Limits::default());
    let mut places: Vec<_> =
        (0..HOST_MAX).map(|_| limits.acquire(1, "a").now_or_never().flatten().expect("room")).collect();
    let mut first = Box::pin(limits.acquire(1, "a"));
    let mut second = Box::pin(limits.acquire(2, "a"));
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
    assert!(limits.acquire(1, "b").now_or_never().is_some());
    places.pop();
    assert!((&mut second).now_or_never().is_none(), "the first is before it");
    assert!(first.now_or_never().flatten().is_some());
    // What the first had is free again.
    assert!(second.now_or_never().flatten().is_some());
}

#[test]
fn who_waits_no_longer_takes_no_place() {
    let limits = Arc::new(Limits::default());
    let mut places: Vec<_> =
        (0..HOST_MAX).map(|_| limits.acquire(1, "a").now_or_never().flatten().expect("room")).collect();
    let mut gone = Box::pin(limits.acquire(1, "a"));
    let mut waits = Box::pin(limits.acquire(1, "a"));
    assert!((&mut gone).now_or_never().is_none() && (&mut waits).now_or_never().is_none());
    drop(gone);
    places.pop();
    let place = waits.now_or_never().flatten().expect("the next in line");
    // One that was handed a place and dropped it unread.
    let mut unread = Box::pin(limits.acquire(1, "a"));
    assert!((&mut unread).now_or_never().is_none());
    drop(place);
    drop(unread);
    assert_eq!(lock(&limits.state).used, HOST_MAX - 1);
}
