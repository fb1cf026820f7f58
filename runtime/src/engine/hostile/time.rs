//! Guests that never end by themselves. Their timeout holds, and no other item waits for them.

use std::time::{Duration, Instant};

use super::{GUEST, Guest, IMPORTS, assert_failed, assert_unharmed, neighbor};
use crate::engine::limits::Limits;
use crate::engine::testing::{BRIEF, LIMITS, run, task};
use crate::run::failure::FailureKind::Timeout;

const WITH_IMPORTS: Guest<'_> = Guest { imports: IMPORTS, ..GUEST };

/// A time in which any test that is not stuck ends.
const DEADLINE: Duration = Duration::from_secs(20);

/// Bodies that never end, for a function without parameters and results.
const ENDLESS: [(&str, &str); 6] = [
    ("spinning", "(loop $again (br $again))"),
    ("filling memory", "(loop $again (memory.fill (i32.const 0) (i32.const 7) (i32.const 65536)) (br $again))"),
    ("asking for random bytes", "(loop $again (drop (call $random (i32.const 0) (i32.const 65536))) (br $again))"),
    (
        "printing empty lines",
        "(memory.fill (i32.const 0) (i32.const 10) (i32.const 65536)) (i32.store (i32.const 0) (i32.const 8))
         (loop $again
           (i32.store (i32.const 4) (i32.const 65000))
           (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 4))) (br $again))",
    ),
    ("logging", "(loop $again (call $log (i32.const 1) (i32.const 0) (i32.const 65536)) (br $again))"),
    // At 64 is a subscription to clock 1 with the longest possible time.
    (
        "sleeping",
        "(i32.store (i32.const 80) (i32.const 1)) (i64.store (i32.const 88) (i64.const -1))
         (drop (call $poll (i32.const 64) (i32.const 256) (i32.const 1) (i32.const 0)))",
    ),
];

#[tokio::test]
async fn the_timeout_holds_whatever_a_guest_does_and_wherever() {
    let neighbor = neighbor();
    for (what, endless) in ENDLESS {
        let (alloc, body) = (format!("{endless} (i32.const 1024)"), format!("{endless} (i32.const 0)"));
        let start = format!("(func $start {endless}) (start $start)");
        for (place, guest) in [
            ("task", Guest { task: &body, ..WITH_IMPORTS }),
            ("alloc", Guest { alloc: &alloc, ..WITH_IMPORTS }),
            ("initialize", Guest { initialize: endless, ..WITH_IMPORTS }),
            ("start", Guest { more: &start, ..WITH_IMPORTS }),
        ] {
            let what = format!("{what} in {place}");
            let started = Instant::now();
            let ended = run(&task(&guest.wat(), BRIEF)).await;
            assert!(started.elapsed() < DEADLINE, "{what} took {:?}", started.elapsed());
            assert_failed(ended, Timeout, "the task took longer than its timeout of 50ms", &what);
            assert_unharmed(&neighbor, &what).await;
        }
    }
}

/// A single thread: a guest that blocked it would block all others.
#[tokio::test(flavor = "current_thread")]
async fn spinning_guests_keep_no_other_from_running_and_no_timeout_from_holding() {
    let neighbor = neighbor();
    let with = |body: &str, limits| task(&Guest { task: body, ..WITH_IMPORTS }.wat(), limits);
    let spinning = "(loop $again (br $again)) (i32.const 0)";
    let forever = with(spinning, Limits { timeout: Duration::from_hours(1), ..LIMITS });
    let mut spinners = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let forever = forever.clone();
        spinners.spawn(async move { run(&forever).await });
    }
    let brief = with(spinning, BRIEF);
    let asleep = with(&format!("{} (i32.const 0)", ENDLESS[5].1), BRIEF);
    let others = async {
        for round in 0..3 {
            let (one, two) = tokio::join!(run(&brief), run(&asleep));
            assert_failed(one, Timeout, "50ms", "spinning");
            assert_failed(two, Timeout, "50ms", "sleeping");
            assert_unharmed(&neighbor, &format!("round {round}")).await;
        }
    };
    tokio::time::timeout(DEADLINE, others).await.expect("the others run");
    assert_eq!(spinners.len(), 6, "the spinners still run");
    // Dropped guests release their slots at once.
    spinners.shutdown().await;
    assert_unharmed(&neighbor, "the spinners").await;
}

#[tokio::test]
async fn clocks_show_whole_milliseconds_and_a_wait_ends_when_it_must() {
    let imports = r#"
        (import "wasi_snapshot_preview1" "clock_res_get" (func $resolution (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get" (func $now (param i32 i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))"#;
    let check = "
        (func $check (param $fine i32) (if (i32.eqz (local.get $fine)) (then unreachable)))
        (func $time (param $clock i32) (result i64)
          (call $check (i32.eqz (call $now (local.get $clock) (i64.const 0) (i32.const 8)))) (i64.load (i32.const 8)))
        (func $whole (param $clock i32) (local $times i32)
          (call $check (i32.eqz (call $resolution (local.get $clock) (i32.const 8))))
          (call $check (i64.eq (i64.load (i32.const 8)) (i64.const 1000000)))
          (loop $again
            (call $check (i64.eqz (i64.rem_u (call $time (local.get $clock)) (i64.const 1000000))))
            (br_if $again (i32.lt_u (local.tee $times (i32.add (local.get $times) (i32.const 1))) (i32.const 1000)))))
        ;; Waits until a time that no clock shows: when it is over the next one is shown.
        (func $until (param $clock i32) (local $time i64)
          (local.set $time (i64.add (call $time (local.get $clock)) (i64.const 1500000)))
          (i32.store (i32.const 80) (local.get $clock)) (i64.store (i32.const 88) (local.get $time))
          (i32.store16 (i32.const 104) (i32.const 1)) (i64.store (i32.const 64) (i64.const 77))
          (call $check (i32.eqz (call $poll (i32.const 64) (i32.const 256) (i32.const 1) (i32.const 512))))
          (call $check (i32.eq (i32.load (i32.const 512)) (i32.const 1)))
          (call $check (i64.eq (i64.load (i32.const 256)) (i64.const 77)))
          (call $check (i64.ge_u (call $time (local.get $clock)) (local.get $time))))";
    let body = "(call $whole (i32.const 0)) (call $whole (i32.const 1)) (call $until (i32.const 1)) (i32.const 0)";
    let failed = run(&task(&Guest { imports, more: check, task: body, ..GUEST }.wat(), LIMITS)).await.err();
    assert_eq!(failed, None);
}
